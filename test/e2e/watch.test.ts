import assert from 'node:assert/strict';
import {spawnSync} from 'node:child_process';
import {createHmac, randomUUID} from 'node:crypto';
import {chmodSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync} from 'node:fs';
import {request} from 'node:http';
import {connect, createServer} from 'node:net';
import {join} from 'node:path';
import {test, type TestContext} from 'node:test';
import {setTimeout as pause} from 'node:timers/promises';
import {choices} from '../faults/seeded.ts';
import {makeGate} from '../support/gate.ts';
import {isAlive, parentOf} from '../support/leftovers.ts';
import type {CommandEnd} from '../support/osyw.ts';
import {get} from '../support/raw-http.ts';
import {run} from '../support/run.ts';
import {makeSite, present, type Settings, type Site, type StatusWorker} from '../support/site.ts';
import {waitUntil} from '../support/wait-until.ts';
import {quiet, serves, SOON, startWatch, type Watching} from '../support/watching.ts';

const LONG_MS = 180_000;
/** nginx tries another worker only for requests that it may repeat: a worker that dies costs the others, whoever deploys. */
const REPEATABLE = {lanes: {freshPost: 0, keepAlivePost: 0, upload: 0, slow: 0}};

function watchOver(t: TestContext, site: Site, watch: Settings = {}): Promise<Watching> {
  return startWatch(t, site, {poll: '0s', settle: '100ms', check: '200ms', ...watch});
}

async function workers(site: Site): Promise<readonly StatusWorker[]> {
  return (await site.status()).serving?.workers ?? [];
}

/** The deploys that ended, newest first, without the lines of requests that changed nothing. */
async function deploys(site: Site): Promise<string[]> {
  return (await site.history()).map(({trigger, outcome}) => `${trigger} ${outcome}`);
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
    // What the first deploy did to the working copy may have made it look before the poll did.
    for (const line of await deploys(site)) assert.match(line, /^(?:poll|watch) deployed$/);
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

for (const vcs of ['git', 'svn'] as const) {
  test(`${vcs}: a hook's request is taken at once, and the working copy tells of a person's update`, {timeout: LONG_MS}, async t => {
    const site = await makeSite(t, {vcs});
    await site.deployed();
    const hook = await site.run(['hook', 'install', '--repository', (vcs === 'svn' ? site.svn : site.git).repository]);
    assert.equal(hook.exit, 0, hook.stdout + hook.stderr);
    const watch = await watchOver(t, site);
    await site.release('2');
    await serves(site, '2');
    await quiet(site);
    assert.equal((await deploys(site))[0], 'hook deployed');
    const uninstalled = await site.run(['hook', 'uninstall', '--repository', (vcs === 'svn' ? site.svn : site.git).repository]);
    assert.equal(uninstalled.exit, 0, uninstalled.stdout + uninstalled.stderr);
    await quiet(site);
    await site.release('3');
    await run(vcs === 'svn' ? 'svn' : 'git', vcs === 'svn' ? ['update', '-q', site.workingCopy] : ['-C', site.workingCopy, 'pull', '-q', site.git.url, 'main'], {cwd: site.dir});
    await serves(site, '3');
    await quiet(site);
    assert.deepEqual((await deploys(site)).slice(0, 2), ['watch deployed', 'hook deployed']);
    await watch.end();
    await site.settled({version: '3'});
  });
}

test('watch killed in a deploy: the site serves, and the next watch answers the request', {timeout: LONG_MS}, async t => {
  const site = await makeSite(t);
  await site.deployed();
  const gate = makeGate(t, site);
  site.configure({release: {build: [gate.build]}});
  const watch = await watchOver(t, site, {poll: '300ms'});
  const traffic = site.traffic();
  await site.release('2');
  await gate.reached();
  watch.child.kill('SIGKILL');
  await watch.ended;
  assert.equal(await site.version(), '1');
  const next = await watchOver(t, site, {poll: '300ms'});
  await gate.reached();
  gate.open();
  await serves(site, '2');
  await quiet(site);
  await next.end();
  await site.settled({version: '2', traffic});
});

test('SIGTERM before the switch gives the deploy up, and the next watch makes it', {timeout: LONG_MS}, async t => {
  const site = await makeSite(t);
  await site.deployed();
  const gate = makeGate(t, site);
  site.configure({release: {build: [gate.build]}});
  const watch = await watchOver(t, site, {poll: '300ms'});
  await site.release('2');
  await gate.reached();
  await watch.end();
  assert.deepEqual((await site.history())[0]?.code, 'INTERRUPTED');
  gate.open();
  const next = await watchOver(t, site, {poll: '300ms'});
  await serves(site, '2');
  await quiet(site);
  await next.end();
  await site.settled({version: '2'});
});

test('a deploy through watch: Ctrl-C lets it go on, another is BUSY, workers are revived beside its build', {timeout: LONG_MS}, async t => {
  const site = await makeSite(t, {count: 3});
  await site.deployed();
  const gate = makeGate(t, site);
  const watch = await watchOver(t, site);
  site.configure({release: {build: [gate.build]}});
  await site.release('2');
  const client = site.start(['now']);
  await gate.reached();
  const other = await site.now();
  assert.deepEqual([other.exit, other.result?.code], [4, 'BUSY']);
  const [victim] = await workers(site);
  process.kill(present(victim, 'worker').pid, 'SIGKILL');
  await waitUntil('the worker to be back beside the build', async () => (await workers(site))[0]?.state === 'healthy', SOON);
  client.child.kill('SIGINT');
  const end = await client.ended;
  assert.equal(end.exit, 13);
  assert.match(end.stderr, new RegExp(`The deploy goes on in \`osyw-deploy watch\` \\(pid ${watch.pid}\\)`));
  gate.open();
  await serves(site, '2');
  await quiet(site);
  await watch.end();
  await site.settled({version: '2'});
  assert.deepEqual(await deploys(site), ['manual deployed', 'manual deployed']);
});

test('a watch that starts beside the deploy of another answers at once, and looks when that has ended', {timeout: LONG_MS}, async t => {
  const site = await makeSite(t);
  await site.deployed();
  const gate = makeGate(t, site);
  site.configure({release: {build: [gate.build]}});
  await site.release('2');
  const other = site.start(['now']);
  await gate.reached();
  const watch = await watchOver(t, site);
  const client = await site.now();
  assert.deepEqual([client.exit, client.result?.code], [4, 'BUSY']);
  gate.open();
  assert.equal((await other.ended).exit, 0);
  await serves(site, '2');
  const [victim] = await workers(site);
  process.kill(present(victim, 'worker').pid, 'SIGKILL');
  await waitUntil('the worker to be back', async () => (await workers(site)).every(({state, pid}) => state === 'healthy' && pid !== victim?.pid), SOON);
  await watch.end();
  await site.settled({version: '2'});
});

test('after SIGHUP the log goes on in a file of its old name', {timeout: LONG_MS}, async t => {
  const site = await makeSite(t);
  await site.deployed();
  const watch = await watchOver(t, site);
  const log = join(site.stateDir, 'log', 'osyw-deploy.log');
  renameSync(log, `${log}.1`);
  watch.child.kill('SIGHUP');
  await waitUntil('the log to go on', () => existsSync(log) && readFileSync(log, 'utf8').includes(`read ${site.configFile} again`), SOON);
  await watch.end();
});

test('SIGHUP reads the configuration again; a bad one is refused loudly and the old one stays', {timeout: LONG_MS}, async t => {
  const site = await makeSite(t, {count: 2});
  await site.deployed();
  const watch = await watchOver(t, site, {poll: '300ms'});
  const good = readFileSync(site.configFile, 'utf8');
  writeFileSync(site.configFile, `${good}\nnonsense: true\n`);
  watch.child.kill('SIGHUP');
  await waitUntil('the refusal', () => watch.stderr().includes('The configuration of before stays in force'), SOON);
  assert.match(watch.stderr(), /CONFIG_INVALID.*nonsense/s);
  await site.release('2');
  await serves(site, '2');
  site.configure({workers: {count: 3}});
  watch.child.kill('SIGHUP');
  await waitUntil('the new configuration', () => watch.stdout().includes(`read ${site.configFile} again`), SOON);
  await site.release('3');
  await serves(site, '3');
  await quiet(site);
  await watch.end();
  await site.settled({version: '3', workers: 3});
});

test('the words of an init script go through watch, which does not revive what was stopped', {timeout: LONG_MS}, async t => {
  const site = await makeSite(t);
  await site.deployed();
  const watch = await watchOver(t, site);
  const stop = await site.run(['stop']);
  assert.equal(stop.exit, 0, stop.stdout + stop.stderr);
  await quiet(site);
  assert.equal((await get(site.nginx.port, '/')).status, 502);
  const start = await site.run(['start', '--json']);
  assert.deepEqual([start.exit, start.result?.outcome], [0, 'deployed'], start.stdout + start.stderr);
  const before = await workers(site);
  const traffic = site.traffic();
  const restart = await site.run(['restart', '--json']);
  assert.equal(restart.exit, 0, restart.stdout + restart.stderr);
  assert.ok((await workers(site)).every(({pid}) => !before.some(one => one.pid === pid)));
  await watch.end();
  await site.settled({version: '1', traffic});
});

test('the control socket: garbage, endless and idle clients, and another account', {timeout: LONG_MS}, async t => {
  const site = await makeSite(t);
  await site.deployed();
  const watch = await watchOver(t, site);
  const path = join(site.dir, 'run', 'site.sock');
  assert.equal(statSync(path).mode & 0o777, 0o600);
  const say = (text: string) => new Promise<string>(resolve => {
    let heard = '';
    const socket = connect(path).on('data', part => (heard += part.toString('latin1'))).on('error', () => resolve(heard)).on('close', () => resolve(heard));
    socket.write(text);
  });
  const post = (body: string, head = '') => say(`POST /run HTTP/1.1\r\nHost: x\r\nConnection: close\r\n${head}Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`);
  for (const [what, answer] of [
    ['nonsense', await say('nonsense\r\n\r\n')],
    ['no JSON', await post('{')],
    ['a list', await post('[]')],
    ['null', await post('null')],
    ['wrong types', await post(JSON.stringify({command: 1, options: {}, requestedBy: 'x', config: {file: 'x', changed: 'x'}}))],
  ] as const) assert.match(answer, /^HTTP\/1\.1 400 /, what);
  const request = (command: string, file = site.configFile) => JSON.stringify({command, options: {}, requestedBy: 'x', config: {file, changed: 'x'}});
  assert.match(await post(request('now', '/etc/passwd')), /^HTTP\/1\.1 409 /, 'another configuration');
  assert.match(await post(request('__proto__')), /^HTTP\/1\.1 409 /, 'no command');
  assert.match(await post(`"${'x'.repeat(70_000)}"`), /^HTTP\/1\.1 413 /);
  assert.match(await say('GET /run HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'), /^HTTP\/1\.1 405 /);
  assert.match(await say('POST /etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n'), /^HTTP\/1\.1 404 /);
  // Clients that say nothing are let go of, and keep nobody else out for longer than that.
  const idle = Array.from({length: 100}, () => connect(path).on('error', () => undefined).resume());
  await waitUntil('the idle ones to be let go of', () => idle.every(({closed}) => closed), SOON);
  if (process.getuid?.() === 0) {
    chmodSync(site.dir, 0o755);
    const stranger = spawnSync('setpriv', ['--reuid', '65534', '--clear-groups', process.execPath, '-e', `require('net').connect(${JSON.stringify(path)}).on('error', error => console.log(error.code))`], {encoding: 'utf8'});
    assert.equal(stranger.stdout.trim(), 'EACCES');
  }
  await site.release('2');
  const end = await site.deployed();
  assert.equal(end.result?.outcome, 'deployed');
  await watch.end();
  await site.settled({version: '2'});
});

test("a forge's signed delivery deploys, another one does not", {timeout: LONG_MS}, async t => {
  const site = await makeSite(t);
  await site.deployed();
  const secret = 'a secret of sixteen and more';
  const secretFile = join(site.dir, 'webhook.secret');
  writeFileSync(secretFile, `${secret}\n`, {mode: 0o600});
  const socket = join(site.dir, 'hook', 'webhook.sock');
  site.configure({watch: {webhook: {listen: `unix:${socket}`, secret_file: secretFile}}});
  const watch = await watchOver(t, site);
  await site.release('2');
  const deliver = (key: string) => new Promise<number>((resolve, reject) => {
    const body = '{"ref":"refs/heads/main"}';
    const outgoing = request({socketPath: socket, path: '/hook', method: 'POST', headers: {
      'Content-Type': 'application/json', 'Content-Length': body.length, 'X-GitHub-Event': 'push', 'X-GitHub-Delivery': randomUUID(),
      'X-Hub-Signature-256': `sha256=${createHmac('sha256', key).update(body).digest('hex')}`,
    }}, answer => resolve(answer.resume().statusCode ?? 0)).on('error', reject);
    outgoing.end(body);
  });
  assert.equal(await deliver('another secret altogether'), 401);
  assert.equal(await deliver(secret), 202);
  await serves(site, '2');
  await quiet(site);
  const [line] = await site.history();
  assert.deepEqual([line?.trigger, line?.requested_by, line?.outcome], ['webhook', 'github', 'deployed']);
  await watch.end();
  await site.settled({version: '2'});
});

test('watch killed again and again while commits come: no request fails, the newest serves in the end', {timeout: LONG_MS}, async t => {
  const site = await makeSite(t);
  await site.deployed();
  const traffic = site.traffic();
  const {fraction: random} = choices(20_261_123);
  for (let round = 2; round <= 7; round++) {
    const watch = await watchOver(t, site, {poll: '300ms'});
    await site.release(String(round));
    await pause(random() * 1500);
    watch.child.kill('SIGKILL');
    await watch.ended;
  }
  const last = await watchOver(t, site, {poll: '300ms'});
  await serves(site, '7');
  await quiet(site);
  await last.end();
  await site.settled({version: '7', traffic});
});

test('watch killed while it starts dead workers again: none is lost, none runs twice', {timeout: LONG_MS}, async t => {
  const site = await makeSite(t, {count: 3, behaviour: {boot_ms: 200}});
  await site.deployed();
  const ports = (await workers(site)).map(({port}) => port);
  const {fraction: random} = choices(11);
  for (let round = 0; round < 5; round++) {
    const watch = await watchOver(t, site);
    const [victim] = (await workers(site)).slice(round % 3);
    process.kill(present(victim, 'worker').pid, 'SIGKILL');
    await pause(random() * 600);
    watch.child.kill('SIGKILL');
    await watch.ended;
    const next = await watchOver(t, site);
    await waitUntil('all workers to be healthy', async () => (await workers(site)).every(({state}) => state === 'healthy'), SOON);
    await next.end();
  }
  assert.deepEqual((await workers(site)).map(({port}) => port), ports);
  await site.settled({version: '1'});
});

test('a revision that fails is tried once, and a newer one is deployed', {timeout: LONG_MS}, async t => {
  const site = await makeSite(t);
  await site.deployed();
  const watch = await watchOver(t, site, {poll: '200ms'});
  await site.release('2', {health_status: 500});
  await waitUntil('the failure', async () => (await deploys(site))[0] === 'poll aborted', SOON);
  const asked = () => [...watch.stdout().matchAll(/NEVER_HEALTHY|aborted/g)].length;
  const once = asked();
  // Long enough for many polls.
  await pause(2000);
  assert.equal(asked(), once);
  assert.equal((await deploys(site)).length, 2);
  await site.release('3');
  await serves(site, '3');
  await quiet(site);
  await watch.end();
  await site.settled({version: '3'});
  assert.deepEqual(await deploys(site), ['poll deployed', 'poll aborted', 'manual deployed']);
});

test('the repository goes away and comes back: watch says so once, serves on, and finds what came', {timeout: LONG_MS}, async t => {
  const site = await makeSite(t);
  await site.deployed();
  const watch = await watchOver(t, site, {poll: '100ms'});
  renameSync(site.git.repository, `${site.git.repository}.away`);
  await waitUntil('watch to say so', () => watch.stdout().includes('the repository was asked in vain'), SOON);
  await pause(1500);
  assert.equal([...watch.stdout().matchAll(/asked in vain/g)].length, 1);
  renameSync(`${site.git.repository}.away`, site.git.repository);
  await site.release('2');
  await serves(site, '2');
  await quiet(site);
  await watch.end();
  await site.settled({version: '2'});
});

test('a state that cannot be told: watch stops nothing, says what it found, and goes on when it is mended', {timeout: LONG_MS}, async t => {
  const site = await makeSite(t);
  await site.deployed();
  const before = await workers(site);
  const path = join(site.stateDir, 'state.json');
  const good = readFileSync(path);
  writeFileSync(path, '{');
  site.configure({watch: {poll: '0s'}, run_dir: join(site.dir, 'run')});
  const watch = site.start(['watch', '--verbose'], {withinMs: LONG_MS});
  t.after(() => watch.child.kill('SIGKILL'));
  await waitUntil('watch to say so', () => watch.stderr().includes('STATE_UNCERTAIN'), SOON);
  assert.ok(before.every(({pid}) => isAlive(pid)));
  assert.equal(watch.child.exitCode, null);
  writeFileSync(path, good);
  await site.release('2');
  const end = await site.deployed();
  assert.equal(end.result?.outcome, 'deployed');
  watch.child.kill('SIGTERM');
  assert.equal((await watch.ended).exit, 0);
  await site.settled({version: '2'});
});

test('a control socket of a watch that died, and one where nobody answers, are no obstacle', {timeout: LONG_MS}, async t => {
  const site = await makeSite(t);
  await site.deployed();
  const watch = await watchOver(t, site);
  watch.child.kill('SIGKILL');
  await watch.ended;
  const path = join(site.dir, 'run', 'site.sock');
  assert.ok(statSync(path).isSocket());
  await site.release('2');
  await site.deployed();
  await serves(site, '2');
  // Somebody listens there, and never says a word.
  rmSync(path);
  const deaf = createServer();
  t.after(() => deaf.close());
  await new Promise<void>(resolve => {
    deaf.listen(path, resolve);
  });
  await site.release('3');
  await site.deployed();
  await serves(site, '3');
  // The next watch takes its place, for no other one runs.
  const next = await watchOver(t, site);
  await site.release('4');
  assert.equal((await site.deployed()).result?.outcome, 'deployed');
  assert.equal(parentOf((await workers(site))[0]?.pid ?? 0), next.pid);
  await next.end();
  await site.settled({version: '4'});
});

test('serving workers that answer too late for want of CPU are not stopped for it', {timeout: LONG_MS}, async t => {
  const site = await makeSite(t, {count: 3});
  site.configure({check: {timeout: '200ms', deadline: '2s'}});
  await site.release('1', {health_delay_ms: 50});
  await site.deployed();
  const watch = await watchOver(t, site);
  const before = await workers(site);
  // All at once, as when others take the machine: what would replace them does no better, and they serve on.
  for (const {pid} of before) process.kill(pid, 'SIGSTOP');
  await waitUntil('watch to see it', () => watch.stdout().includes('fails its check'), SOON);
  await pause(700);
  for (const {pid} of before) process.kill(pid, 'SIGCONT');
  await waitUntil('them to be healthy', async () => (await workers(site)).every(({state}) => state === 'healthy'), SOON);
  assert.deepEqual((await workers(site)).map(({pid}) => pid), before.map(({pid}) => pid));
  await watch.end();
  await site.settled({version: '1'});
});

test('an outage of what all releases need leads back one release at most', {timeout: 2 * LONG_MS}, async t => {
  const site = await makeSite(t);
  const flag = join(site.dir, 'outage');
  for (const version of ['1', '2', '3']) {
    await site.release(version, {die_when_there: flag});
    await site.deployed();
  }
  const watch = await watchOver(t, site);
  writeFileSync(flag, '');
  await waitUntil('release 3 to be blamed', async () => (await deploys(site))[0] === 'rollback deployed', {...SOON, withinMs: 120_000});
  const died = () => [...watch.stdout().matchAll(/of release 000002 died/g)].length;
  await waitUntil('the workers of release 2 to die again and again', () => died() >= 8, {...SOON, withinMs: 120_000});
  rmSync(flag);
  await waitUntil('release 2 to be back', async () => await site.version() === '2' && (await workers(site)).every(({state}) => state === 'healthy'), SOON);
  assert.equal((await deploys(site)).filter(line => line === 'rollback deployed').length, 1);
  await watch.end();
  await site.settled({version: '2'});
});

test('a release whose workers hang again and again is not deployed over and over', {timeout: LONG_MS}, async t => {
  const site = await makeSite(t, {count: 1});
  site.configure({check: {timeout: '300ms'}, drain: {quiet: '500ms', deadline: '1s'}});
  await site.release('1', {unhealthy_after_ms: 1000});
  await site.deployed();
  const watch = await watchOver(t, site);
  await waitUntil('a replacement', async () => (await deploys(site))[0] === 'watch deployed', SOON);
  // Its successor fails as well; the next one may come after a minute.
  await pause(15_000);
  assert.deepEqual(await deploys(site), ['watch deployed', 'manual deployed']);
  await watch.end();
});

test('a command that the watch was too late for is not done twice', {timeout: LONG_MS}, async t => {
  const site = await makeSite(t);
  await site.deployed();
  for (const version of ['2', '3']) {
    await site.release(version);
    await site.deployed();
  }
  const watch = await watchOver(t, site);
  // Its start is settled.
  assert.equal((await site.now()).result?.outcome, 'unchanged');
  watch.child.kill('SIGSTOP');
  const back = await site.run(['rollback', '--json']);
  watch.child.kill('SIGCONT');
  assert.equal(back.exit, 0, back.stdout + back.stderr);
  assert.equal(await site.version(), '2');
  // By an answer to a later request it is known that the watch has seen the earlier one.
  const unchanged = await site.run(['rollback', '--to', '2', '--json']);
  assert.deepEqual([unchanged.exit, unchanged.result?.code], [2, 'USAGE']);
  assert.equal(await site.version(), '2');
  assert.equal((await deploys(site)).filter(line => line.startsWith('rollback')).length, 1);
  await watch.end();
  await site.settled({version: '2'});
});

test('a watch that cannot listen says why and ends; one with junk in the spool rests', {timeout: LONG_MS}, async t => {
  const site = await makeSite(t);
  await site.deployed();
  const secretFile = join(site.dir, 'secret');
  writeFileSync(secretFile, 'a secret of sixteen and more\n', {mode: 0o600});
  const taken = createServer();
  t.after(() => taken.close());
  await new Promise<void>(resolve => {
    taken.listen(0, '127.0.0.1', resolve);
  });
  const address = taken.address();
  site.configure({watch: {poll: '0s', webhook: {listen: `127.0.0.1:${typeof address === 'object' ? address?.port : 0}`, secret_file: secretFile}}, run_dir: join(site.dir, 'run')});
  const end = await site.run(['watch']);
  assert.equal(end.exit, 3, end.stdout + end.stderr);
  assert.match(end.stderr, /CONFIG_INVALID/);

  site.configure({watch: {webhook: null}});
  // A directory with something in it can neither be taken nor, where a file stands in its way, be set aside.
  mkdirSync(join(site.stateDir, 'spool', 'junk', 'inside'), {recursive: true});
  rmSync(join(site.stateDir, 'set-aside'), {recursive: true, force: true});
  writeFileSync(join(site.stateDir, 'set-aside'), '');
  const watch = await watchOver(t, site);
  await pause(2000);
  const before = cpuMs(watch.pid);
  await pause(4000);
  assert.ok(cpuMs(watch.pid) - before < 1500, `it took ${cpuMs(watch.pid) - before} ms in 4 s`);
  await watch.end();
  rmSync(join(site.stateDir, 'spool', 'junk'), {recursive: true});
});

/** utime + stime. Source: proc(5). */
function cpuMs(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) * 10;
}
