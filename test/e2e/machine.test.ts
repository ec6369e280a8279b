import assert from 'node:assert/strict';
import {execFileSync} from 'node:child_process';
import {randomBytes} from 'node:crypto';
import {mkdirSync, rmSync, statfsSync, writeFileSync} from 'node:fs';
import {dirname, join} from 'node:path';
import {test, type TestContext} from 'node:test';
import {injecting} from '../faults/tracing.ts';
import {makeSite} from '../support/site.ts';

const root = process.getuid?.() === 0 ? false : 'needs root';
const NOBODY = {uid: 65_534, gid: 65_534};

test('an ordinary user deploys: own nginx, own state, no right of root\'s', {skip: root}, async (t) => {
  const site = await makeSite(t, {as: NOBODY, vcs: 'svn'});
  await site.deployed();
  const traffic = site.traffic();
  await site.release('2');
  await site.deployed();
  await site.settled({version: '2', traffic});
});

test('root in daily work: the working copy of another account is no obstacle', {skip: root}, async (t) => {
  for (const vcs of ['svn', 'git'] as const) {
    const site = await makeSite(t, {vcs});
    await site.deployed();
    execFileSync('chown', ['-R', '65534:65534', site.workingCopy]);
    await site.release('2');
    await site.deployed();
    await site.settled({version: '2'});
  }
});

test('a full disk stops a deploy before the switch, and the old release serves', {skip: root, timeout: 120_000}, async (t) => {
  let mounted: string | undefined;
  // Before the site's own end, which removes the directory.
  t.after(() => mounted !== undefined && execFileSync('umount', ['-l', mounted]));
  const site = await makeSite(t, {config: {release: {keep: 2}}});
  mkdirSync(site.stateDir);
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=48m,mode=755', 'osyw-test', site.stateDir], {stdio: 'pipe'});
  } catch (error) {
    t.skip(`no tmpfs can be mounted here: ${String(error)}`);
    return;
  }
  mounted = site.stateDir;
  await site.deployed();
  const traffic = site.traffic();

  // No byte left: whichever write comes first fails.
  const filler = join(site.stateDir, 'filler');
  fill(filler);
  await site.release('2');
  const full = await site.now();
  assert.ok(full.exit !== 0 && full.exit !== 1 && full.exit !== null, `an exit code that says what happened, not ${full.exit}: ${full.stdout}`);
  assert.match(full.result?.error ?? '', /ENOSPC|no (space|room)|unable to write/i);
  assert.equal(await site.version(), '1');
  writeFileSync(filler, '');

  // Room for some writes, not for a release.
  await site.release('3', {}, {'big.bin': 'x'.repeat(60_000_000)});
  const big = await site.now();
  assert.ok(big.exit === 5 || big.exit === 6, `${big.exit}: ${big.stdout}`);
  assert.match(big.result?.error ?? '', /ENOSPC|no (space|room)|unable to write/i);
  await site.settled({version: '1', outcome: 'aborted'});

  await site.release('4', {}, {'big.bin': 'small'});
  await site.deployed();
  await site.settled({version: '4', traffic});
});

/** Mounts that the test makes where the site's files are. They are gone before the site's own end, so this comes first. */
function mounts(t: TestContext): (where: string, options: string, source?: string) => void {
  const made: string[] = [];
  t.after(() => made.reverse().forEach(where => execFileSync('umount', ['-l', where])));
  return (where, options, source) => {
    mkdirSync(where, {recursive: true});
    execFileSync('mount', [...(source === undefined ? ['-t', 'tmpfs', 'osyw-test'] : ['--bind', source]), where, '-o', options], {stdio: 'pipe'});
    made.push(where);
  };
}

function remount(where: string, options: string): void {
  execFileSync('mount', ['-o', `remount,${options}`, where], {stdio: 'pipe'});
}

for (const vcs of ['svn', 'git'] as const) {
  test(`${vcs}: a working copy without room fails the update, and is whole again when there is some`, {skip: root}, async (t) => {
    const mount = mounts(t);
    const site = await makeSite(t, {vcs});
    mount(site.workingCopy, 'size=3m,mode=755');
    await site.deployed();
    await site.release('2', {}, {'big.bin': randomBytes(4_000_000).toString('base64')});
    const end = await site.now();
    assert.equal(end.exit, 5, end.stdout + end.stderr);
    assert.match(end.result?.error ?? '', /no space|unable to write|disk/i);
    await site.settled({version: '1', outcome: 'aborted', code: 'UPDATE_FAILED'});
    remount(site.workingCopy, 'size=60m');
    await site.deployed();
    await site.settled({version: '2'});
  });
}

test('without inodes, on a read-only disk, over a quota: the old release serves, and the place is named', {skip: root, timeout: 120_000}, async (t) => {
  const mount = mounts(t);
  const site = await makeSite(t);
  mount(site.stateDir, 'size=100m,nr_inodes=600,mode=755');
  await site.deployed();
  const traffic = site.traffic();
  await site.release('2');
  const refused = async (what: string, says: RegExp, wrap: readonly string[] = []): Promise<void> => {
    const end = await site.now([], {wrap});
    assert.ok([3, 5, 6].includes(end.exit ?? 0), `${what}: ${end.exit} ${end.stdout}${end.stderr}`);
    assert.match(end.result?.error ?? '', says, what);
    assert.ok(end.result?.error?.includes(site.stateDir), `${what}: ${end.result?.error}`);
    assert.equal(await site.version(), '1', what);
  };

  mkdirSync(join(site.stateDir, 'small'));
  let files = 0;
  while (statfsSync(site.stateDir).ffree > 100) writeFileSync(join(site.stateDir, 'small', String(files++)), '');
  await refused('without inodes for a release', /inodes/i);
  await site.settled({version: '1', outcome: 'aborted'});
  assert.throws(() => {
    for (;;) writeFileSync(join(site.stateDir, 'small', String(files++)), '');
  }, {code: 'ENOSPC'});
  await refused('without one inode', /ENOSPC/);
  rmSync(join(site.stateDir, 'small'), {recursive: true});

  remount(site.stateDir, 'ro');
  await refused('read-only', /EROFS/);
  remount(site.stateDir, 'rw');

  const journal = {call: 'write', fault: 'EDQUOT', at: 1, lasting: true, paths: [join(site.stateDir, 'journal.ndjson')]};
  const quota = await site.now([], {wrap: injecting(join(site.dir, 'trace'), journal)});
  assert.equal(quota.exit, 5, quota.stdout + quota.stderr);
  assert.match(quota.result?.error ?? '', /quota/);

  await site.deployed();
  await site.settled({version: '2', traffic});
});

test('a read-only place of the upstream file refuses the switch', {skip: root}, async (t) => {
  const mount = mounts(t);
  const site = await makeSite(t);
  await site.deployed();
  const dir = dirname(site.nginx.upstreamFile);
  mount(dir, 'bind', dir);
  await site.release('2');
  remount(dir, 'bind,ro');
  const end = await site.now();
  assert.equal(end.exit, 9, end.stdout + end.stderr);
  assert.match(end.result?.error ?? '', /EROFS/);
  assert.ok(end.result?.error?.includes(dir), end.result?.error ?? '');
  await site.settled({version: '1', outcome: 'aborted', code: 'SWITCH_REFUSED'});
  remount(dir, 'bind,rw');
  await site.deployed();
  await site.settled({version: '2'});
});

test('logs that cannot take a byte more fail no deploy: not ours, not that of a build, not those of the workers', {skip: root}, async (t) => {
  const mount = mounts(t);
  const site = await makeSite(t, {config: {release: {build: [['/bin/echo', 'one line of a build']]}}});
  await site.deployed();
  for (const logs of [join(site.stateDir, 'log'), join(site.dir, 'logs')]) {
    mount(logs, 'size=64k,mode=755');
    fill(join(logs, 'filler'));
  }
  await site.release('2', {output_bytes: 10_000});
  await site.deployed(['--verbose']);
  await site.settled({version: '2', outcome: 'deployed'});
});

function fill(file: string): void {
  try {
    writeFileSync(file, Buffer.alloc(50_000_000));
  } catch (error) {
    assert.match(String(error), /ENOSPC/);
  }
}
