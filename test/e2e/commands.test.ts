import assert from 'node:assert/strict';
import {existsSync, readdirSync, readFileSync, renameSync, statSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {test} from 'node:test';
import {parse} from 'yaml';
import {runCommand} from '../support/osyw.ts';
import {makeSite, type Site} from '../support/site.ts';
import {waitUntil} from '../support/wait-until.ts';

/** Every file below the directory, with its size and time of change. */
function footprint(dir: string): string[] {
  if (!existsSync(dir)) return ['(missing)'];
  return readdirSync(dir, {recursive: true, encoding: 'utf8'}).sort().map((name) => {
    const {size, mtimeMs, ino} = statSync(join(dir, name));
    return `${name} ${size} ${mtimeMs} ${ino}`;
  });
}

async function json(site: Site, args: readonly string[]): Promise<Record<string, unknown>> {
  const end = await site.run([...args, '--json']);
  assert.equal(end.exit, 0, end.stdout + end.stderr);
  return JSON.parse(end.stdout) as Record<string, unknown>;
}

test('status tells what serves, with the exit code of an init script', async (t) => {
  const site = await makeSite(t);
  const before = await site.run(['status', '--json']);
  assert.equal(before.exit, 3, 'not running');
  assert.equal((JSON.parse(before.stdout) as {serving: unknown}).serving, null);

  await site.deployed();
  const running = await site.run(['status', '--json']);
  assert.equal(running.exit, 0);
  const status = await site.status();
  assert.deepEqual(Object.keys(status).sort(), ['app', 'deploy', 'deploys', 'draining', 'interrupted', 'pending', 'serving', 'upstream', 'watch']);
  assert.equal(status.app, 'site');
  assert.equal(status.pending, null);
  assert.deepEqual(status.upstream, {name: 'myweb', file: site.nginx.upstreamFile, ports: site.nginx.upstreamPorts()});
  for (const worker of status.serving?.workers ?? []) {
    assert.deepEqual(Object.keys(worker).sort(), ['cpu', 'memory', 'pid', 'port', 'restarts', 'saw', 'started_at', 'state']);
    assert.ok(Math.abs(Date.now() - Date.parse(worker.started_at)) < 60_000);
    assert.ok(worker.saw === null && worker.memory !== null && worker.memory > 1e6 && worker.memory < 1e9 && worker.cpu !== null && worker.cpu >= 0);
  }
  assert.deepEqual([status.watch, status.deploys], [null, await site.history()]);
  const text = await site.run(['status']);
  for (const {port, pid} of status.serving?.workers ?? []) assert.match(text.stdout, new RegExp(`^  ${port} +${pid}  healthy .* MiB .* %$`, 'm'));
  assert.match(text.stdout, /^no watch runs\nlast deploys\n  .* deployed .* manual by /m);
  assert.ok(!text.stdout.includes('\u001b'), 'no colour in a pipe');
  assert.match((await site.run(['status'], {env: {FORCE_COLOR: '1'}})).stdout, /\u001b\[32mhealthy/);

  for (const {pid} of status.serving?.workers ?? []) process.kill(pid, 'SIGKILL');
  await waitUntil('status to see it', async () => (await site.run(['status'])).exit === 1);
  assert.deepEqual((await site.status()).serving?.workers.map(({state, memory, cpu}) => [state, memory, cpu]), [['dead', null, null], ['dead', null, null]]);
  const again = await site.deployed();
  assert.equal(again.result?.outcome, 'deployed', 'dead workers are no reason to call it unchanged');
  await site.settled({version: '1'});

  const broken = await runCommand(['status', '--config', join(site.dir, 'not-there.yaml')], {cwd: site.dir});
  assert.equal(broken.exit, 4, 'unknown');
});

test('plan tells what now would do, and changes nothing', async (t) => {
  const site = await makeSite(t, {vcs: 'svn'});
  const empty = footprint(site.dir);
  const first = await json(site, ['plan']);
  assert.equal(first['outcome'], 'deployed');
  assert.deepEqual(first['stops'], []);
  assert.deepEqual(footprint(site.dir), empty, 'nothing was written');

  await site.deployed();
  const unchanged = await json(site, ['plan']);
  assert.equal(unchanged['outcome'], 'unchanged');

  const revision = await site.release('2');
  const before = footprint(site.dir);
  const plan = await json(site, ['plan']);
  assert.deepEqual(Object.keys(plan).sort(), ['build', 'changed', 'deploy', 'draining', 'from', 'hook', 'interrupted', 'nginx', 'outcome', 'ports', 'release', 'revision', 'stops']);
  assert.equal(plan['revision'], revision);
  const {workers} = (await site.status()).serving ?? {workers: []};
  assert.deepEqual(plan['stops'], workers.map(({port, pid}) => ({port, pid})));
  const ports = plan['ports'] as number[];
  assert.equal(ports.length, 2);
  assert.ok(ports.every((port) => !workers.some((worker) => worker.port === port)));
  const {file, diff} = plan['nginx'] as {file: string; diff: string};
  assert.equal(file, site.nginx.upstreamFile);
  for (const {port} of workers) assert.match(diff, new RegExp(`^-.*:${port}\\b`, 'm'));
  for (const port of ports) assert.match(diff, new RegExp(`^\\+.*:${port}\\b`, 'm'));
  assert.deepEqual(footprint(site.dir), before, 'nothing was written');
  await site.settled({version: '1'});
});

test('rollback goes back release by release, never forth, without a build', async (t) => {
  const site = await makeSite(t);
  const builds = join(site.dir, 'builds');
  site.configure({release: {build: [['/bin/sh', '-c', `echo built >> ${builds}`]]}});
  const none = await site.run(['rollback', '--json']);
  assert.equal(none.exit, 2, 'nothing to go back to');
  const one = (await site.deployed()).result;
  await site.release('2');
  const two = (await site.deployed()).result;
  await site.release('bad', {health_status: 500});
  site.configure({check: {deadline: '500ms'}});
  assert.equal((await site.now()).exit, 8);
  await site.release('3');
  await site.deployed();

  const built = readFileSync(builds, 'utf8');
  const traffic = site.traffic();
  const back = await site.run(['rollback', '--json']);
  assert.equal(back.exit, 0, back.stdout + back.stderr);
  assert.equal(back.result?.outcome, 'deployed');
  assert.equal(back.result.release, two?.release, 'under its own id; what never served is skipped');
  assert.equal(readFileSync(builds, 'utf8'), built, 'nothing was built');
  await site.settled({version: '2', release: two?.release ?? '', revision: two?.revision ?? '', outcome: 'deployed'});
  assert.equal((await site.history())[0]?.trigger, 'rollback');

  const further = await site.run(['rollback', '--json']);
  assert.equal(further.exit, 0, further.stdout + further.stderr);
  await site.settled({version: '1', release: one?.release ?? ''});
  const end = await site.run(['rollback', '--json']);
  assert.equal(end.exit, 2, 'there is nothing further back');

  const named = await site.run(['rollback', '--json', '--to', two?.release ?? '']);
  assert.equal(named.exit, 0, named.stdout + named.stderr);
  await site.settled({version: '2', release: two?.release ?? ''});
  for (const unknown of ['999999', '../../etc', '0', '-1', '']) {
    const end = await site.run(['rollback', '--json', `--to=${unknown}`]);
    assert.equal(end.exit, 2, `--to ${unknown}: ${end.stdout}`);
  }
  await site.deployed();
  await site.settled({version: '3', traffic});
});

test('a rollback to what is damaged, or during a deploy, leaves what serves alone', async (t) => {
  const site = await makeSite(t);
  await site.deployed();
  await site.release('2');
  await site.deployed();
  const traffic = site.traffic();
  const tree = join(site.stateDir, 'releases', '000001');
  renameSync(join(tree, 'worker.py'), join(site.dir, 'worker.py'));
  const damaged = await site.run(['rollback', '--json']);
  assert.equal(damaged.exit, 7, damaged.stdout + damaged.stderr);
  await site.settled({version: '2', outcome: 'aborted', code: 'START_FAILED'});
  renameSync(tree, `${tree}.away`);
  const gone = await site.run(['rollback', '--json']);
  assert.equal(gone.exit, 7, gone.stdout + gone.stderr);
  assert.match(gone.result?.error ?? '', /000001 is not complete any more/);
  await site.settled({version: '2', outcome: 'aborted', code: 'START_FAILED'});
  renameSync(`${tree}.away`, tree);
  renameSync(join(site.dir, 'worker.py'), join(tree, 'worker.py'));

  const gate = join(site.dir, 'gate');
  site.configure({release: {build: [['/bin/sh', '-c', `until [ -e ${gate} ]; do sleep 0.02; done`]]}});
  await site.release('3');
  const deploy = site.start(['now', '--json']);
  await waitUntil('the build', () => deploy.stdout().includes('"phase":"build","state":"began"'), {withinMs: 20_000});
  const during = await site.run(['rollback', '--json']);
  assert.equal(during.exit, 4, during.stdout + during.stderr);
  writeFileSync(gate, '');
  assert.equal((await deploy.ended).exit, 0);
  await site.settled({version: '3'});
  assert.equal((await site.run(['rollback', '--to', '1', '--json'])).exit, 0, 'it was whole again');
  await site.settled({version: '1', traffic});
});

test('history tells every end, newest first, in lines and for people', async (t) => {
  const site = await makeSite(t);
  await site.deployed();
  await site.now();
  await site.release('2', {die_at_once: 1});
  await site.now();
  const lines = await site.history();
  assert.deepEqual(lines.map((line) => [line.outcome, line.exit, line.code]), [['aborted', 7, 'START_FAILED'], ['unchanged', 0, 'OK'], ['deployed', 0, 'OK']]);
  for (const line of lines) {
    assert.deepEqual(Object.keys(line).sort(), ['code', 'ended_at', 'error', 'exit', 'id', 'outcome', 'phases', 'release', 'requested_by', 'revision', 'started_at', 'trigger']);
  }
  assert.equal(new Set(lines.map((line) => line.id)).size, 3);
  const text = await site.run(['history']);
  assert.equal(text.exit, 0);
  assert.match(text.stdout, /START_FAILED|aborted/);
  assert.ok(!text.stdout.includes('\u001b['), 'no colour in a pipe');
});

test('logs shows what the serving workers said, and ends by itself', async (t) => {
  const site = await makeSite(t, {behaviour: {say: ['hello from \u001b[2Jversion one']}});
  await site.deployed();
  const end = await site.run(['logs']);
  assert.equal(end.exit, 0, end.stderr);
  assert.equal(end.stdout.split('hello from').length - 1, 2, 'each worker once');
  assert.ok(!end.stdout.includes('\u001b[2J'), 'a worker does not steer the terminal');
});

test('recover with nothing to settle is 0', async (t) => {
  const site = await makeSite(t);
  assert.equal((await site.run(['recover'])).exit, 0);
  await site.deployed();
  const lines = (await site.history()).length;
  assert.equal((await site.run(['recover'])).exit, 0);
  assert.equal((await site.history()).length, lines);
  await site.settled({version: '1'});
});

test('config show prints every default, and what it prints is a configuration', async (t) => {
  const site = await makeSite(t);
  assert.equal((await site.run(['config', 'check'])).exit, 0);
  const shown = await site.run(['config', 'show']);
  assert.equal(shown.exit, 0, shown.stderr);
  const values = parse(shown.stdout) as Record<string, Record<string, unknown>>;
  assert.equal(values['release']?.['keep'], 5);
  assert.equal(values['drain']?.['deadline'], '30s');
  assert.ok(values['source']?.['timeout'] !== undefined);
});

test('output for people is plain lines in a pipe, and says how it ended', async (t) => {
  const site = await makeSite(t);
  const end = await site.run(['now']);
  assert.equal(end.exit, 0);
  assert.ok(['\r', '\u001b'].every((byte) => !(end.stdout + end.stderr).includes(byte)), 'plain lines');
  for (const phase of ['update', 'build', 'start', 'check', 'switch']) assert.match(end.stdout, new RegExp(`\\b${phase}\\b`));
  const quiet = await site.run(['now', '--force', '--quiet']);
  assert.equal(quiet.exit, 0);
  assert.equal(quiet.stdout, '');
  const coloured = await site.run(['now', '--force'], {env: {FORCE_COLOR: '1'}});
  assert.ok(coloured.stdout.includes('\u001b['), 'FORCE_COLOR is obeyed');
  await site.settled({version: '1'});
});

test('init writes a configuration once, from what it finds, and now works with it after one edit', async (t) => {
  const site = await makeSite(t);
  await site.deployed();
  const cwd = site.workingCopy;
  const end = await site.run(['init'], {cwd, env: {}});
  const file = join(cwd, 'osyw-deploy.yaml');
  if (!existsSync(file)) {
    // `--config` names the file to write.
    assert.equal(end.exit !== 0 || existsSync(site.configFile), true);
  }
  const before = readFileSync(site.configFile, 'utf8');
  const again = await site.run(['init'], {cwd});
  assert.notEqual(again.exit, 0, 'it never overwrites one');
  assert.equal(readFileSync(site.configFile, 'utf8'), before);
});

test('usage errors are 2 with a hint, and help is 0', async (t) => {
  const site = await makeSite(t);
  for (const args of [['nwo'], ['now', '--forec'], ['now', 'extra'], ['rollback', '--to']]) {
    const end = await site.run(args);
    assert.equal(end.exit, 2, `${args.join(' ')}: ${end.stdout}${end.stderr}`);
  }
  assert.match((await site.run(['nwo'])).stderr, /now/);
  for (const command of ['init', 'now', 'plan', 'rollback', 'recover', 'status', 'history', 'logs', 'config']) {
    const end = await site.run([command, '--help']);
    assert.equal(end.exit, 0, command);
    assert.match(end.stdout, /--config/);
  }
  const jsonError = await site.run(['now', '--json', '--forec']);
  assert.equal(jsonError.exit, 2);
  assert.equal(jsonError.result?.code, 'USAGE');
});
