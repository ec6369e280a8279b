import assert from 'node:assert/strict';
import {execFileSync} from 'node:child_process';
import {appendFileSync, readFileSync, rmSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {test, type TestContext} from 'node:test';
import type {CommandEnd} from '../support/osyw.ts';
import {makeSite, present, type HistoryLine, type Settings, type Site} from '../support/site.ts';
import {waitUntil} from '../support/wait-until.ts';
import {quiet, serves, SOON, startWatch, type Watching} from '../support/watching.ts';

const LONG_MS = 240_000;
const NAME = /\+edits:[0-9a-f]{12}$/;

function watchOver(t: TestContext, site: Site, watch: Settings = {}): Promise<Watching> {
  return startWatch(t, site, {poll: '0s', settle: '200ms', check: '500ms', edits: true, ...watch});
}

const inCopy = (site: Site, path: string) => join(site.workingCopy, path);

/** Makes it another version, as somebody with an editor would. */
function edit(site: Site, version: string, more: Settings = {}): void {
  const path = inCopy(site, 'behaviour.json');
  writeFileSync(path, JSON.stringify({...JSON.parse(readFileSync(path, 'utf8')) as Settings, ...more, version}, null, 2));
}

async function servingRevision(site: Site): Promise<string> {
  return present((await site.status()).serving?.revision, 'revision that serves');
}

/** `now`, when the watch deploys nothing by itself. */
function now(site: Site, args: readonly string[] = []): Promise<CommandEnd> {
  return waitUntil('an answer', async () => {
    const end = await site.now(args);
    return end.exit === 4 ? undefined : end;
  }, SOON);
}

async function deployed(site: Site): Promise<HistoryLine[]> {
  return (await site.history()).filter(({outcome}) => outcome === 'deployed');
}

for (const vcs of ['git', 'svn'] as const) {
  test(`${vcs}: what is edited is deployed, and what is taken back is the revision again`, {timeout: LONG_MS}, async t => {
    const site = await makeSite(t, {vcs});
    await site.deployed();
    const revision = await servingRevision(site);
    const committed = readFileSync(inCopy(site, 'behaviour.json'));
    const watch = await watchOver(t, site);
    const traffic = site.traffic();
    edit(site, 'edited');
    await serves(site, 'edited');
    const edited = await servingRevision(site);
    assert.match(edited, NAME);
    assert.equal(edited.replace(NAME, ''), revision);
    await quiet(site);
    await watch.end();

    const second = await watchOver(t, site);
    const unchanged = await now(site);
    assert.deepEqual([unchanged.exit, unchanged.result?.outcome, unchanged.result?.revision], [0, 'unchanged', edited], 'the edits of before are the same edits');
    assert.equal((await deployed(site)).length, 2);
    writeFileSync(inCopy(site, 'behaviour.json'), committed);
    await serves(site, '1');
    await quiet(site);
    assert.equal(await servingRevision(site), revision);

    edit(site, 'edited');
    await serves(site, 'edited');
    await quiet(site);
    assert.equal(await servingRevision(site), edited);
    await site.commit({'other.txt': 'of a commit'});
    // Of it a person may take what he needs.
    if (vcs === 'svn') execFileSync('svn', ['update', '-q', '--non-interactive', inCopy(site, 'other.txt')]);
    const end = await now(site);
    assert.equal(end.exit, 0, end.stdout + end.stderr);
    assert.equal(await site.version(), 'edited');
    assert.match(await servingRevision(site), NAME);
    assert.notEqual(await servingRevision(site), edited);
    assert.equal(readFileSync(inCopy(site, 'other.txt'), 'utf8'), 'of a commit');
    await quiet(site);
    await second.end();
    await site.settled({version: 'edited', traffic});
  });
}

test('a thousand edits in a second are one deploy or two, and the last of them serves', {timeout: LONG_MS}, async t => {
  const site = await makeSite(t, {files: Object.fromEntries(Array.from({length: 50}, (_, i) => [`many/${i}.txt`, 'x']))});
  await site.deployed();
  const watch = await watchOver(t, site);
  for (let i = 0; i < 1000; i++) {
    if (i % 20 === 19) edit(site, String(i));
    else writeFileSync(inCopy(site, `many/${i % 50}.txt`), String(i));
    // The kernel tells of each; whoever is told gets his turn.
    if (i % 10 === 0) await new Promise(setImmediate);
  }
  await serves(site, '999');
  await quiet(site);
  const lines = await deployed(site);
  assert.ok(lines.length - 1 <= 2, `${lines.length - 1} deploys`);
  await watch.end();
  await site.settled({version: '999'});
});

test('an edit during a deploy is deployed after it', {timeout: LONG_MS}, async t => {
  const site = await makeSite(t);
  await site.deployed();
  const watch = await watchOver(t, site);
  edit(site, 'first', {boot_ms: 1500});
  await waitUntil('the deploy to start its workers', async () => ['start', 'check'].includes((await site.status()).deploy?.phase ?? ''), {...SOON, everyMs: 5});
  edit(site, 'second', {boot_ms: 0});
  await serves(site, 'second');
  await quiet(site);
  assert.deepEqual((await deployed(site)).map(({trigger}) => trigger), ['watch', 'watch', 'manual'], watch.stdout());
  await watch.end();
  await site.settled({version: 'second'});
});

test('a tree that workers write to is edited in place, and does not go round', {timeout: LONG_MS}, async t => {
  const site = await makeSite(t, {tree: 'in_place', vcs: 'svn'});
  await site.deployed();
  const watch = await watchOver(t, site);
  const [before] = (await site.status()).serving?.workers ?? [];
  edit(site, 'edited');
  await serves(site, 'edited');
  await quiet(site);
  const [after] = (await site.status()).serving?.workers ?? [];
  assert.notEqual(after?.pid, before?.pid);
  const lines = (await site.history()).length;
  for (let i = 0; i < 20; i++) appendFileSync(inCopy(site, 'worker.log'), 'a line\n');
  // What comes after it is the next deploy, so nothing came of the log.
  edit(site, 'again');
  await serves(site, 'again');
  await quiet(site);
  assert.equal((await site.history()).length, lines + 1);
  await watch.end();
  await site.settled({version: 'again'});
});

test('a release with edits is the way back from the next, and is left alone when it was rolled back from', {timeout: LONG_MS}, async t => {
  const site = await makeSite(t);
  await site.deployed();
  const watch = await watchOver(t, site);
  edit(site, 'good');
  await serves(site, 'good');
  const good = await servingRevision(site);
  edit(site, 'bad');
  await serves(site, 'bad');
  const bad = await servingRevision(site);
  await quiet(site);
  const back = await site.run(['rollback', '--json']);
  assert.equal(back.exit, 0, back.stdout + back.stderr);
  assert.deepEqual([await site.version(), await servingRevision(site)], ['good', good]);
  const usage = await now(site, ['--revision', bad]);
  assert.deepEqual([usage.exit, usage.result?.code], [2, 'USAGE']);
  // A file that nobody knows: it is looked at, and what is found is what was rolled back from.
  writeFileSync(inCopy(site, 'unversioned'), 'x');
  edit(site, 'better');
  await serves(site, 'better');
  await quiet(site);
  assert.deepEqual((await deployed(site)).map(({trigger}) => trigger), ['watch', 'rollback', 'watch', 'watch', 'manual']);
  rmSync(inCopy(site, 'unversioned'));
  await watch.end();
  await site.settled({version: 'better'});
});

test('without watch.edits an edit stops a deploy, as ever, and starts none', {timeout: LONG_MS}, async t => {
  const site = await makeSite(t);
  await site.deployed();
  const watch = await watchOver(t, site, {edits: false});
  edit(site, 'edited');
  const refused = await now(site, ['--force']);
  assert.deepEqual([refused.exit, refused.result?.code], [5, 'UPDATE_FAILED']);
  assert.match(String(refused.result?.error), /Local edits.*behaviour\.json/);
  assert.equal(await site.version(), '1');
  // The watch reads its configuration again, and then it counts.
  site.configure({watch: {edits: true}});
  process.kill(watch.pid, 'SIGHUP');
  await serves(site, 'edited');
  await quiet(site);
  await watch.end();
  await site.settled({version: 'edited'});
});

test('a poll finds edits where nothing can be watched, and says how to mend that', {timeout: LONG_MS, skip: process.getuid?.() !== 0 && 'needs root'}, async t => {
  const site = await makeSite(t, {files: Object.fromEntries(Array.from({length: 40}, (_, i) => [`d${i}/file`, 'x']))});
  await site.deployed();
  // The limit of a namespace of users counts beside the system's.
  site.wrap(['unshare', '--user', '--map-root-user', 'sh', '-c', 'echo 20 > /proc/sys/user/max_inotify_watches && exec "$@"', 'sh']);
  const watch = await watchOver(t, site, {poll: '500ms'});
  site.wrap([]);
  await waitUntil('the limit to be told', () => /sysctl fs\.inotify\.max_user_watches/.test(watch.stdout()), SOON);
  edit(site, 'edited');
  await serves(site, 'edited');
  await quiet(site);
  await watch.end();
  await site.settled({version: 'edited'});
});
