import assert from 'node:assert/strict';
import {readFileSync, renameSync, rmSync, truncateSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {test} from 'node:test';
import {makeSite, type Site} from '../support/site.ts';

/** Whatever the state says or does not say: nothing of what runs is touched, and the way is shown. */
async function nothingIsGuessed(site: Site, message: RegExp): Promise<void> {
  const workers = () => site.processes().map(({pid}) => pid).sort();
  const before = {workers: workers(), file: readFileSync(site.nginx.upstreamFile, 'utf8')};
  assert.equal(before.workers.length, site.count);
  for (const args of [['now'], ['restart'], ['start'], ['stop'], ['rollback'], ['recover']]) {
    const end = await site.run([...args, '--json']);
    assert.equal(end.exit, 12, `${args.join(' ')}: ${end.stdout}${end.stderr}`);
    assert.match(end.result?.error ?? '', message);
  }
  const shown = await site.run(['recover', '--dry-run']);
  assert.equal(shown.exit, 12, shown.stdout + shown.stderr);
  assert.match(shown.stdout, message);
  for (const pid of before.workers) assert.match(shown.stdout, new RegExp(`process ${pid} carries the mark`));
  assert.deepEqual({workers: workers(), file: readFileSync(site.nginx.upstreamFile, 'utf8')}, before);
  assert.equal(await site.version(), '1');
}

for (const inline of [false, true]) test(`the state directory is another one: nothing is guessed; put back, all goes on (${inline ? 'nginx.edit' : 'nginx.file'})`, async t => {
  const site = await makeSite(t, {nginx: {inline}});
  await site.deployed();
  renameSync(site.stateDir, `${site.stateDir}.away`);
  await nothingIsGuessed(site, /knows of no deploy/);
  rmSync(site.stateDir, {recursive: true});
  renameSync(`${site.stateDir}.away`, site.stateDir);
  await site.release('2');
  await site.deployed();
  await site.settled({version: '2'});
});

test('begun anew as the hint says: what ran counts as started by hand, and no request is lost', async t => {
  const site = await makeSite(t);
  await site.deployed();
  const old = site.processes().map(({pid}) => pid);
  renameSync(site.stateDir, `${site.stateDir}.away`);
  writeFileSync(site.nginx.upstreamFile, readFileSync(site.nginx.upstreamFile, 'utf8').replace(/^.*\n/, ''));
  const traffic = site.traffic();
  await site.release('2');
  await site.deployed();
  assert.deepEqual((await traffic.stop()).failures, []);
  assert.equal(await site.version(), '2');
  assert.deepEqual(old.filter(pid => !site.processes().some(one => one.pid === pid)), [], 'they are left to whoever began anew');
});

for (const [what, spoil] of [
  ['the state is cut', (site: Site) => truncateSync(join(site.stateDir, 'state.json'), 40)],
  ['the state is gone', (site: Site) => rmSync(join(site.stateDir, 'state.json'))],
  ['the state is of a later version', (site: Site) => writeFileSync(join(site.stateDir, 'state.json'), '{"crc":1,"state":{"version":2}}\n')],
] as const) {
  test(`${what}: nothing is guessed`, async t => {
    const site = await makeSite(t);
    await site.deployed();
    spoil(site);
    await nothingIsGuessed(site, /state cannot be read/);
  });
}
