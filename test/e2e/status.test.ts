import assert from 'node:assert/strict';
import {existsSync, readFileSync, renameSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {test, type TestContext} from 'node:test';
import {makeGate} from '../support/gate.ts';
import {establishedTo} from '../support/leftovers.ts';
import {ask} from '../support/raw-http.ts';
import {makeSite, present, type HistoryLine, type Site, type Status} from '../support/site.ts';
import {startOnTerminal, type OnTerminal} from '../support/terminal.ts';
import {waitUntil} from '../support/wait-until.ts';

const LONG_MS = 120_000;
const SOON = {withinMs: 30_000, everyMs: 50};

function workerPid(status: Status, slot: number): number {
  return present(status.serving?.workers[slot], 'worker').pid;
}

/** Until it is killed or told to end. */
function begun(t: TestContext, site: Site, args: readonly string[]): ReturnType<Site['start']> {
  const running = site.start(args, {withinMs: LONG_MS});
  t.after(() => running.child.kill('SIGKILL'));
  return running;
}

function onTerminal(t: TestContext, site: Site, args: readonly string[], env = {}): OnTerminal {
  const terminal = startOnTerminal([...args, '--config', site.configFile], {cwd: site.dir, rows: 40, columns: 120, env});
  t.after(() => terminal.end());
  return terminal;
}

const whole = (text: string) => text.split('\n').slice(0, -1);

test('status tells of the deploy at hand, and of what drains and what it waits for', {timeout: LONG_MS}, async t => {
  const site = await makeSite(t);
  await site.deployed();
  const gate = makeGate(t, site);
  site.configure({release: {build: [gate.build]}});
  await site.release('2');
  const deploy = site.start(['now', '--json']);
  await gate.reached();
  const built = present((await site.status()).deploy ?? undefined, 'deploy');
  assert.equal(built.phase, 'build');
  assert.ok(built.since < built.phase_since);
  assert.match((await site.run(['status'])).stdout, /^deploy \S+ of \w+ is in build for \d+ s, began \d+ s ago$/m);

  const slow = ask({port: site.nginx.port, path: '/slow?ms=4000'});
  await waitUntil('the slow request to be under way', () => establishedTo(site.nginx.upstreamPorts()) > 0, {everyMs: 2});
  gate.open();
  const drain = await waitUntil('the drain', async () => (await site.status()).draining[0], SOON);
  assert.ok(drain.nginx_workers.length > 0 && drain.connections > 0, JSON.stringify(drain));
  assert.ok(drain.workers.every(({state, memory}) => state === 'draining' && memory !== null), JSON.stringify(drain));
  assert.match((await site.run(['status'])).stdout, new RegExp(`^release 000001 \\(\\w+\\) drains since \\S+, waits for ${drain.nginx_workers.length} old nginx workers? \\(${drain.nginx_workers.join(', ')}\\) and \\d+ connection`, 'm'));
  assert.equal((await slow).kind, 'answer');
  assert.equal((await deploy.ended).exit, 0);
  await site.settled({version: '2'});
});

test('status tells whether a watch runs', {timeout: LONG_MS}, async t => {
  const site = await makeSite(t);
  await site.deployed();
  const watch = begun(t, site, ['watch']);
  const seen = await waitUntil('the watch to be seen', async () => (await site.status()).watch, SOON);
  assert.equal(seen.pid, watch.pid);
  assert.ok(Math.abs(Date.now() - Date.parse(seen.since)) < 60_000);
  assert.match((await site.run(['status'])).stdout, new RegExp(`^a watch runs, pid ${watch.pid}, since ${seen.since} \\(\\d+ s\\)$`, 'm'));
  watch.child.kill('SIGKILL');
  await watch.ended;
  assert.equal((await site.status()).watch, null, 'its record is still there, its process is not');
  assert.match((await site.run(['status'])).stdout, /^no watch runs$/m);
});

test('status --watch in a pipe tells only what changed, and outlives what cannot be read', {timeout: LONG_MS}, async t => {
  const site = await makeSite(t);
  const checks = join(site.dir, 'checks');
  site.configure({check: {http: null, body: null, command: ['/bin/sh', '-c', `echo . >> ${checks}`]}});
  await site.deployed();
  writeFileSync(checks, '');
  const [json, text] = [begun(t, site, ['status', '--watch', '--json']), begun(t, site, ['status', '--watch'])];
  await waitUntil('the first look', () => json.stdout() !== '' && text.stdout() !== '', SOON);
  await waitUntil('four looks of each at two workers', () => whole(readFileSync(checks, 'utf8')).length >= 4 * 2 * 2, SOON);
  const state = join(site.stateDir, 'state.json');
  renameSync(state, `${state}.away`);
  await waitUntil('the complaint', () => json.stderr() !== '' && text.stderr() !== '', SOON);
  renameSync(`${state}.away`, state);
  process.kill(workerPid(await site.status(), 1), 'SIGKILL');
  await waitUntil('the death to be told', () => whole(json.stdout()).length > 1 && /dead/.test(text.stdout()), SOON);
  for (const running of [json, text]) {
    running.child.kill('SIGINT');
    assert.equal((await running.ended).exit, 0);
    assert.equal(running.stderr().split('the state cannot be read').length, 2, 'once');
  }
  assert.deepEqual(whole(json.stdout()).map(line => (JSON.parse(line) as Status).serving?.workers.map(worker => worker.state)), [['healthy', 'healthy'], ['healthy', 'dead']]);
  assert.equal(text.stdout().split('site: release 000001').length, 3, 'two blocks');
  assert.ok(!text.stdout().includes('\x1b'));

  const unread = begun(t, site, ['status', '--watch']);
  await waitUntil('the first look', () => unread.stdout() !== '', SOON);
  unread.child.stdout?.destroy();
  process.kill(workerPid(await site.status(), 0), 'SIGKILL');
  assert.equal((await unread.ended).exit, 0, 'nobody reads it any more');
});

test('status --watch on a terminal stays in its place, and gives the terminal back as it was', {timeout: LONG_MS}, async t => {
  const site = await makeSite(t);
  await site.deployed();
  const terminal = onTerminal(t, site, ['status', '--watch']);
  const shows = (pattern: RegExp, lines: number) => waitUntil(`${lines} lines with ${pattern}`, () => {
    const screen = terminal.screen();
    return screen.alternate && pattern.test(screen.lines.join('\n')) && screen.lines.filter(line => line !== '').length === lines;
  }, SOON);
  // The release, a table of two, the upstream, the watch, a table of one.
  await shows(/^site: release 000001[^]*healthy[^]*healthy/, 8);
  assert.deepEqual([terminal.screen().cursor, terminal.screen().wraps], [false, false]);
  process.kill(workerPid(await site.status(), 0), 'SIGKILL');
  await shows(/dead[^]*healthy/, 8);
  terminal.resize(4, 30);
  await shows(/^site[^]*dead/, 3);
  terminal.resize(30, 100);
  await shows(/dead[^]*last deploys/, 8);
  assert.equal(terminal.screen().scrolled, 0);
  assert.equal(terminal.output().split('\x1b[2J').length - 1, 3, 'emptied at the start and by a new size only: anything else flickers');
  assert.match(terminal.output(), /\x1b\[32mhealthy\x1b\[0m/);

  terminal.type('\x1a');
  await waitUntil('the terminal to be given back', () => !terminal.screen().alternate && terminal.screen().cursor, SOON);
  const [stopped] = site.processes().filter(({command}) => command.includes('status --watch') && !command.includes('python3'));
  process.kill(present(stopped, 'command').pid, 'SIGCONT');
  await shows(/dead[^]*last deploys/, 8);

  terminal.type('\x03');
  assert.equal(await terminal.ended, 0);
  const {alternate, cursor, wraps, lines} = terminal.screen();
  assert.deepEqual([alternate, cursor, wraps], [false, true, true]);
  assert.equal(lines.filter(line => line.startsWith('site: release 000001')).length, 1, 'what was seen last stays');
});

test('status --watch on a terminal obeys NO_COLOR, and a dumb one gets lines', {timeout: LONG_MS}, async t => {
  const site = await makeSite(t);
  await site.deployed();
  const [plain, dumb] = [onTerminal(t, site, ['status', '--watch'], {NO_COLOR: '1'}), onTerminal(t, site, ['status', '--watch'], {TERM: 'dumb'})];
  for (const terminal of [plain, dumb]) {
    await waitUntil('the first look', () => /deployed/.test(terminal.screen().lines.join('\n')), SOON);
    terminal.type('\x03');
    assert.equal(await terminal.ended, 0);
    assert.doesNotMatch(terminal.output(), /\x1b\[\d+m/);
  }
  assert.match(plain.output(), /\x1b\[H/);
  assert.doesNotMatch(dumb.output(), /\x1b/);
});

test('status --watch ends at once, whatever a check waits for', {timeout: LONG_MS}, async t => {
  const site = await makeSite(t);
  site.configure({check: {timeout: '60s'}});
  await site.deployed();
  const running = begun(t, site, ['status', '--watch', '--json']);
  await waitUntil('the first look', () => running.stdout() !== '', SOON);
  const stopped = workerPid(await site.status(), 0);
  process.kill(stopped, 'SIGSTOP');
  try {
    await waitUntil('a check that waits', () => establishedTo((site.nginx.upstreamPorts())) > 0, SOON);
    const began = performance.now();
    running.child.kill('SIGINT');
    assert.equal((await running.ended).exit, 0);
    assert.ok(performance.now() - began < 10_000);
  } finally {
    process.kill(stopped, 'SIGCONT');
  }
});

test('status --watch looks by the configuration as it is', {timeout: LONG_MS}, async t => {
  const site = await makeSite(t);
  await site.deployed();
  const running = begun(t, site, ['status', '--watch', '--json']);
  await waitUntil('the first look', () => running.stdout() !== '', SOON);
  site.configure({check: {body: 'never'}});
  const second = await waitUntil('the second line', () => whole(running.stdout())[1], SOON);
  for (const {state, saw} of (JSON.parse(second) as Status).serving?.workers ?? []) assert.deepEqual([state, saw?.includes('/never/')], ['unhealthy', true]);
  running.child.kill('SIGTERM');
  assert.equal((await running.ended).exit, 0);
});

test('history --follow tells each line as it comes, from before the first deploy, by whomever, over a rotation', {timeout: LONG_MS}, async t => {
  const site = await makeSite(t);
  assert.equal(existsSync(site.stateDir), false);
  const [lines, people] = [begun(t, site, ['history', '--follow', '--json']), begun(t, site, ['history', '--follow'])];
  await site.deployed();
  // One that polls would deploy it first.
  site.configure({watch: {poll: '0s'}});
  const watch = begun(t, site, ['watch']);
  await waitUntil('the watch to be seen', async () => (await site.status()).watch, SOON);
  await site.release('2');
  await site.deployed();
  renameSync(join(site.stateDir, 'history.ndjson'), join(site.stateDir, 'history.1'));
  await site.release('3');
  await site.deployed();
  await waitUntil('each line', () => whole(lines.stdout()).length === 3 && whole(people.stdout()).length === 3, SOON);
  assert.deepEqual(whole(lines.stdout()).map(text => (JSON.parse(text) as HistoryLine).release), ['000001', '000002', '000003']);
  assert.deepEqual(whole(people.stdout()).map(text => / {2}(\d{6}) .* deployed /.exec(text)?.[1]), ['000001', '000002', '000003']);
  for (const running of [lines, people, watch]) {
    running.child.kill('SIGINT');
    assert.equal((await running.ended).exit, 0);
  }
});

test('history --follow begins with the newest that --limit leaves, and ends when nobody reads it', {timeout: LONG_MS}, async t => {
  const site = await makeSite(t);
  await site.deployed();
  await site.deployed(['--force']);
  const follower = begun(t, site, ['history', '--follow', '--json', '--limit', '1']);
  const first = await waitUntil('the newest line', () => whole(follower.stdout())[0], SOON);
  assert.equal((JSON.parse(first) as HistoryLine).id, (await site.history())[0]?.id);
  follower.child.stdout?.destroy();
  await site.deployed(['--force']);
  assert.equal((await follower.ended).exit, 0);
  assert.equal(whole(follower.stdout()).length, 1);
});
