import assert from 'node:assert/strict';
import {execFileSync} from 'node:child_process';
import {mkdirSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {test} from 'node:test';
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

function fill(file: string): void {
  try {
    writeFileSync(file, Buffer.alloc(50_000_000));
  } catch (error) {
    assert.match(String(error), /ENOSPC/);
  }
}
