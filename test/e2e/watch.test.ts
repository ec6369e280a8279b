import assert from 'node:assert/strict';
import {readFileSync} from 'node:fs';
import {join} from 'node:path';
import {test, type TestContext} from 'node:test';
import {isAlive} from '../support/leftovers.ts';
import type {CommandEnd, RunningCommand} from '../support/osyw.ts';
import {makeSite, present, type Site, type StatusWorker} from '../support/site.ts';
import {waitUntil} from '../support/wait-until.ts';

const LONG_MS = 180_000;
const SOON = {withinMs: 60_000, everyMs: 50};
/** nginx tries another worker only for requests that it may repeat: a worker that dies costs the others, whoever deploys. */
const REPEATABLE = {lanes: {freshPost: 0, keepAlivePost: 0, upload: 0, slow: 0}};

interface Watching extends RunningCommand {
  /** SIGTERM; it must end with 0. */
  end(): Promise<CommandEnd>;
}

async function watchOver(t: TestContext, site: Site, {poll = '0s'}: {poll?: string} = {}): Promise<Watching> {
  site.configure({watch: {poll, settle: '100ms', check: '200ms'}, run_dir: join(site.dir, 'run')});
  const running = site.start(['watch', '--verbose'], {withinMs: LONG_MS});
  t.after(() => running.child.kill('SIGKILL'));
  await waitUntil('the watch to run', () => running.stdout().includes('watch of site runs'), SOON);
  return {...running, end: async () => {
    running.child.kill('SIGTERM');
    const end = await running.ended;
    assert.equal(end.exit, 0, end.stdout + end.stderr);
    return end;
  }};
}

function serves(site: Site, version: string): Promise<unknown> {
  return waitUntil(`version ${version} to serve`, async () => await site.version() === version, SOON);
}

async function workers(site: Site): Promise<readonly StatusWorker[]> {
  return (await site.status()).serving?.workers ?? [];
}

/** The deploys that ended, newest first, without the lines of requests that changed nothing. */
async function deploys(site: Site): Promise<string[]> {
  return (await site.history()).map(({trigger, outcome}) => `${trigger} ${outcome}`);
}

function quiet(site: Site): Promise<unknown> {
  return waitUntil('everything to settle', async () => {
    const {deploy, draining} = await site.status();
    return deploy === null && draining.length === 0;
  }, SOON);
}

for (const vcs of ['git', 'svn'] as const) {
  test(`${vcs}: watch deploys what is there, then what the repository has new, and its workers outlive it`, {timeout: LONG_MS}, async t => {
    const site = await makeSite(t, {vcs});
    const first = await watchOver(t, site, {poll: '300ms'});
    await serves(site, '1');
    const traffic = site.traffic();
    await site.release('2');
    await serves(site, '2');
    await quiet(site);
    const before = await workers(site);
    await first.end();
    assert.deepEqual((await workers(site)).map(({pid, state}) => [pid, state]), before.map(({pid}) => [pid, 'healthy']));

    const second = await watchOver(t, site);
    assert.deepEqual((await workers(site)).map(({pid}) => pid), before.map(({pid}) => pid), 'the next watch takes the workers over');
    const other = await site.run(['watch']);
    assert.equal(other.exit, 4, 'a second watch is one too many');
    await second.end();
    await site.settled({version: '2', traffic});
    assert.deepEqual(await deploys(site), ['poll deployed', 'poll deployed']);
  });
}

test('a worker that is killed is back on its own port, and no request that can be repeated fails', {timeout: LONG_MS}, async t => {
  const site = await makeSite(t, {count: 3});
  await site.deployed();
  const watch = await watchOver(t, site);
  const traffic = site.traffic(REPEATABLE);
  const before = await workers(site);
  const victim = present(before[1], 'worker');
  process.kill(victim.pid, 'SIGKILL');
  const after = await waitUntil('the worker to be back', async () => {
    const [, one] = await workers(site);
    return one?.state === 'healthy' && one.pid !== victim.pid ? one : undefined;
  }, SOON);
  assert.deepEqual([after.port, after.restarts], [victim.port, 1]);
  assert.deepEqual((await workers(site)).map(({port}) => port), before.map(({port}) => port));
  assert.match(watch.stdout(), new RegExp(`worker 2 on port ${victim.port} \\(pid ${victim.pid}\\) of release 000001 died; it is started again`));
  await watch.end();
  await site.settled({version: '1', traffic});
  // What is on record of it goes with it.
  await site.release('2');
  await site.deployed();
  await site.settled({version: '2'});
  assert.equal(isAlive(after.pid), false);
});

test('all workers killed at once are back', {timeout: LONG_MS}, async t => {
  const site = await makeSite(t, {daemon: true});
  await site.deployed();
  const watch = await watchOver(t, site);
  const before = await workers(site);
  for (const {pid} of before) process.kill(pid, 'SIGKILL');
  await waitUntil('the workers to be back', async () => (await workers(site)).every(({state, pid}) => state === 'healthy' && !before.some(one => one.pid === pid)), SOON);
  await watch.end();
  await site.settled({version: '1'});
});

test('a worker that hangs is replaced on a spare port before it is stopped', {timeout: LONG_MS}, async t => {
  const site = await makeSite(t, {count: 3});
  site.configure({check: {timeout: '300ms'}, drain: {quiet: '1s', deadline: '2s'}});
  await site.deployed();
  const watch = await watchOver(t, site);
  const before = await workers(site);
  const victim = present(before[0], 'worker');
  process.kill(victim.pid, 'SIGSTOP');
  const after = await waitUntil('another worker in its place', async () => {
    const now = await workers(site);
    return now[0]?.port === victim.port ? undefined : now;
  }, SOON);
  assert.deepEqual(after.slice(1).map(({pid}) => pid), before.slice(1).map(({pid}) => pid), 'the others go on');
  await quiet(site);
  assert.equal(isAlive(victim.pid), false);
  await watch.end();
  await site.settled({version: '1', outcome: 'deployed'});
  assert.deepEqual(await deploys(site), ['watch deployed', 'manual deployed']);
});

test('a fresh release whose workers go on dying gives way to the last good one, and is left alone', {timeout: LONG_MS}, async t => {
  const site = await makeSite(t);
  await site.deployed();
  const watch = await watchOver(t, site, {poll: '300ms'});
  await site.release('2', {die_after_ms: 400});
  await waitUntil('the good release to be back', async () => (await deploys(site))[0] === 'rollback deployed', SOON);
  await quiet(site);
  assert.equal(await site.version(), '1');
  assert.deepEqual(await deploys(site), ['rollback deployed', 'poll deployed', 'manual deployed']);
  await site.release('3');
  await serves(site, '3');
  await quiet(site);
  await watch.end();
  await site.settled({version: '3'});
});

test('now goes through the running watch, and shows what it shows without one', {timeout: LONG_MS}, async t => {
  const site = await makeSite(t);
  const alone = await site.deployed();
  const watch = await watchOver(t, site);
  const pid = watch.pid;
  await site.release('2');
  const through = await site.deployed();
  const shape = ({events}: CommandEnd) => events.map(event => 'phase' in event && 'state' in event ? `${event.phase} ${event.state}` : event.event);
  assert.deepEqual(shape(through).filter(text => !/^(drain|record) /.test(text)), shape(alone).filter(text => !/^(drain|record) /.test(text)));
  assert.deepEqual(Object.keys(present(through.result, 'result')).sort(), Object.keys(present(alone.result, 'result')).sort());
  // The one that was deployed is the watch's own child.
  const [worker] = await workers(site);
  assert.equal(Number(/^PPid:\s*(\d+)/m.exec(readFileSync(`/proc/${worker?.pid}/status`, 'utf8'))?.[1]), pid);
  const unchanged = await site.now();
  assert.deepEqual([unchanged.exit, unchanged.result?.outcome], [0, 'unchanged']);
  const unknown = await site.now(['--revision', 'f'.repeat(40)]);
  assert.deepEqual([unknown.exit, unknown.result?.code], [5, 'UPDATE_FAILED']);
  const back = await site.run(['rollback', '--json']);
  assert.equal(back.exit, 0, back.stdout + back.stderr);
  await watch.end();
  await site.settled({version: '1'});
});
