import assert from 'node:assert/strict';
import {chownSync, copyFileSync, readdirSync, readFileSync, writeFileSync} from 'node:fs';
import {connect, type Socket} from 'node:net';
import {join} from 'node:path';
import {test} from 'node:test';
import {establishedTo, isAlive} from '../support/leftovers.ts';
import {ask} from '../support/raw-http.ts';
import {makeSite, type Site} from '../support/site.ts';
import {waitUntil} from '../support/wait-until.ts';

function probed(site: Site): void {
  site.configure({nginx: {probe: `${site.nginx.url}/`}});
}

/** What osyw-deploy itself has put down. */
function log(site: Site): string {
  return readFileSync(join(site.stateDir, 'log', 'osyw-deploy.log'), 'utf8');
}

test('a probe through nginx that answers 500 switches back: 11', async (t) => {
  const site = await makeSite(t);
  probed(site);
  await site.deployed();
  await site.release('2', {root_status: 500});
  const end = await site.now();
  assert.equal(end.exit, 11, end.stdout + end.stderr);
  assert.equal(end.result?.code, 'ROLLED_BACK');
  assert.equal(end.result.outcome, 'rolled_back');
  assert.match(end.result.error ?? '', /500/);
  await site.settled({version: '1', outcome: 'rolled_back', code: 'ROLLED_BACK'});
  await site.release('3');
  await site.deployed();
  await site.settled({version: '3'});
});

for (const [what, behaviour] of [['dies', {die_after_ms: 900}], ['dies of a request', {die_after_requests: 3}], ['fails its check', {unhealthy_after_ms: 900}]] as const) {
  test(`a new worker that ${what} during the bake means a switch back, and no request fails`, async (t) => {
    const site = await makeSite(t, {config: {bake: {for: '6s'}}});
    // A bake has its full length, and this one only has to be there.
    site.configure({bake: {for: '50ms'}});
    await site.deployed();
    site.configure({bake: {for: '6s'}});
    // nginx tries another worker only for requests that it may repeat, so a worker that dies can cost a POST; that is no deploy's doing.
    const traffic = site.traffic(what !== 'fails its check' ? {lanes: {freshPost: 0, keepAlivePost: 0, upload: 0, slow: 0}} : {});
    await site.release('2', behaviour);
    const end = await site.now();
    assert.equal(end.exit, 11, end.stdout + end.stderr);
    assert.ok((end.result?.phases['bake'] ?? 0) < 5500, 'the bake ends with the failure');
    if (what !== 'fails its check') {
      await traffic.stop();
      await site.settled({version: '1', outcome: 'rolled_back'});
    } else {
      await site.settled({version: '1', outcome: 'rolled_back', traffic});
    }
  });
}

test('a drain that cannot be taken up: the new release serves, 10, and recover stops the old workers', {skip: process.getuid?.() !== 0 && 'needs root: a flock of its own in a mount namespace'}, async t => {
  const site = await makeSite(t);
  await site.deployed();
  const flock = join(site.dir, 'flock');
  const failing = join(site.dir, 'failing-flock');
  copyFileSync('/usr/bin/flock', flock);
  writeFileSync(failing, `#!/bin/sh\ncase $(readlink /proc/self/fd/3) in */drains/*) echo no >&2; exit 1;; esac\nexec ${flock} "$@"\n`, {mode: 0o755});
  site.wrap(['unshare', '--mount', '/bin/sh', '-c', `mount --bind ${failing} /usr/bin/flock && exec "$@"`, 'sh']);
  const traffic = site.traffic();
  await site.release('2');
  const end = await site.now();
  assert.deepEqual([end.exit, end.result?.code, end.result?.outcome], [10, 'CLEANUP_INCOMPLETE', 'deployed'], end.stdout + end.stderr);
  assert.equal(await site.version(), '2');
  site.wrap([]);
  const recovered = await site.run(['recover']);
  assert.equal(recovered.exit, 0, recovered.stdout + recovered.stderr);
  await site.settled({version: '2', traffic});
});

test('after a roll back with the old workers dead nothing is stopped: 12, and recover says so', {timeout: 180_000}, async (t) => {
  const site = await makeSite(t);
  await site.deployed();
  probed(site);
  const old = (await site.status()).serving?.workers ?? [];
  await site.release('2', {root_status: 500});
  for (const {pid} of old) process.kill(pid, 'SIGKILL');
  const end = await site.now();
  assert.equal(end.exit, 12, end.stdout + end.stderr);
  assert.equal(end.result?.code, 'STATE_UNCERTAIN');
  assert.equal(end.result.outcome, 'uncertain');
  const answer = await ask({port: site.nginx.port, path: '/'});
  assert.ok(answer.kind === 'answer' && answer.status === 500, 'the new workers were not stopped');
  site.configure({nginx: {probe: null}});
  const recovered = await site.run(['recover', '--json']);
  assert.equal(recovered.exit, 0, `with the cause gone, recover settles it: ${recovered.stdout}`);
  await site.release('3');
  await site.deployed();
  await site.settled({version: '3'});
});

test('a worker that ignores SIGTERM is killed after its grace, with all its children, and that is on record', async (t) => {
  const site = await makeSite(t, {behaviour: {ignore_term: true, spawn_child: true}, config: {workers: {stop: {timeout: '500ms'}}}});
  await site.deployed();
  const before = site.processes();
  assert.equal(before.length, 4, 'two workers with a grandchild each');
  await site.release('2');
  await site.deployed();
  await waitUntil('all of them to be gone', () => before.every(({pid}) => !isAlive(pid)));
  assert.match(log(site), /killed/, 'it is on record');
  await site.settled({version: '2'});
});

test('a worker that has emptied its environment is stopped all the same', async (t) => {
  const site = await makeSite(t, {behaviour: {close_env: true}});
  await site.deployed();
  await site.release('2');
  await site.deployed();
  await site.settled({version: '2'});
});

test('a slow POST that began before the switch ends on its old worker', async (t) => {
  const site = await makeSite(t);
  await site.deployed();
  await site.release('2');
  const post = ask({port: site.nginx.port, method: 'POST', path: '/upload', body: 'x'.repeat(50_000), parts: {count: 8, pauseMs: 400}});
  const deploy = site.deployed();
  const answer = await post;
  assert.equal(answer.kind, 'answer', JSON.stringify(answer));
  assert.equal(answer.kind === 'answer' && answer.status, 200);
  assert.equal(answer.kind === 'answer' && answer.headers['x-osyw-version'], '1', 'the old worker answered');
  await deploy;
  await site.settled({version: '2'});
});

test('--no-wait returns when the new release serves, and the drain goes on by itself', async (t) => {
  const site = await makeSite(t);
  await site.deployed();
  await site.release('2');
  const slow = ask({port: site.nginx.port, path: '/slow?ms=3000'});
  await waitUntil('the slow request to be under way', () => establishedTo(site.nginx.upstreamPorts()) > 0, {everyMs: 2});
  const end = await site.deployed(['--no-wait']);
  assert.equal(await site.version(), '2');
  const status = await site.status();
  assert.equal(status.draining.length, 1, 'the old release drains');
  assert.equal(status.draining[0]?.workers.length, 2);
  assert.ok(end.ms < 3000);
  const answer = await slow;
  assert.ok(answer.kind === 'answer' && answer.headers['x-osyw-version'] === '1', JSON.stringify(answer));
  await waitUntil('the old workers to be gone', async () => (await site.status()).draining.length === 0, {withinMs: 10_000, everyMs: 200});
  await waitUntil('nobody to work for the site but its workers', () => site.processes().length === 2);
  await site.settled({version: '2'});
});

test('an endless stream is cut at the drain\'s deadline: 0, and on record', async (t) => {
  const site = await makeSite(t, {config: {drain: {quiet: '300ms', deadline: '1500ms'}, workers: {stop: {timeout: '300ms'}}}});
  await site.deployed();
  const stream = connect(site.nginx.port, '127.0.0.1');
  let bytes = 0;
  let closed = false;
  stream.on('data', (part) => (bytes += part.length)).on('close', () => (closed = true)).on('error', () => {});
  stream.write('GET /events HTTP/1.1\r\nHost: x\r\n\r\n');
  await waitUntil('events', () => bytes > 300);
  await site.release('2');
  const end = await site.deployed();
  assert.ok((end.result?.phases['drain'] ?? 0) >= 1400, `it waited for the deadline: ${end.result?.phases['drain']} ms`);
  await waitUntil('the stream to be cut', () => closed);
  assert.match(log(site), /cutting 1 connection/, 'it is on record');
  await site.settled({version: '2', outcome: 'deployed', code: 'OK'});
});

test('connections that idle in an old nginx worker do not hold the drain longer than `quiet`', async (t) => {
  const site = await makeSite(t, {config: {drain: {quiet: '600ms', deadline: '20s'}}});
  await site.deployed();
  // Connected, half a request: its nginx worker lingers for client_header_timeout, a minute.
  const half = connect(site.nginx.port, '127.0.0.1');
  half.on('error', () => {}).write('GET / HTTP/1.1\r\nHost: x\r\n');
  await waitUntil('the connection', () => half.readyState === 'open');
  await site.release('2');
  const end = await site.deployed();
  const drain = end.result?.phases['drain'] ?? 0;
  assert.ok(drain >= 500 && drain < 8000, `drained in ${drain} ms`);
  half.destroy();
  await site.settled({version: '2'});
});

test('a request whose head began before the switch and ends after it is answered', async (t) => {
  const site = await makeSite(t);
  await site.deployed();
  const socket = connect(site.nginx.port, '127.0.0.1');
  let text = '';
  socket.on('data', (part) => (text += String(part))).on('error', () => {});
  socket.write('GET / HTTP/1.1\r\nHost: x\r\n');
  await waitUntil('the connection', () => socket.readyState === 'open');
  await site.release('2');
  const command = site.start(['now', '--json']);
  await waitUntil('the drain', () => command.stdout().includes('"phase":"drain","state":"began"'), {withinMs: 20_000});
  // It has an nginx worker of before, which knows the old workers only, and has asked none of them yet.
  assert.equal((await site.status()).draining[0]?.connections, 0);
  socket.write('Connection: close\r\n\r\n');
  assert.equal((await command.ended).exit, 0);
  assert.match(text, /^HTTP\/1\.1 200 [^]*\r\n\r\n1$/);
  await site.settled({version: '2'});
});

test('the new workers die while the old ones drain: a rollback brings the old release back, and the drain goes on', async (t) => {
  const site = await makeSite(t);
  await site.deployed();
  await site.release('2');
  const slow = ask({port: site.nginx.port, path: '/slow?ms=5000'});
  await waitUntil('the slow request to be under way', () => establishedTo(site.nginx.upstreamPorts()) > 0, {everyMs: 2});
  await site.deployed(['--no-wait']);
  const dead = (await site.status()).serving?.workers ?? [];
  for (const {pid} of dead) process.kill(pid, 'SIGKILL');
  const end = await site.run(['rollback', '--no-wait', '--json']);
  assert.equal(end.exit, 0, end.stdout + end.stderr);
  assert.equal(await site.version(), '1');
  const answer = await slow;
  assert.ok(answer.kind === 'answer' && answer.headers['x-osyw-version'] === '1', JSON.stringify(answer));
  await waitUntil('the drains to end', async () => (await site.status()).draining.length === 0, {withinMs: 10_000, everyMs: 200});
  await waitUntil('nobody to work for the site but its workers', () => site.processes().length === 2);
  await site.settled({version: '1', release: '000001'});
});

test('deploys that come faster than the drains end: three drain, the next waits, and what drains stays on disk', async (t) => {
  const site = await makeSite(t, {config: {release: {keep: 2}, drain: {quiet: '4s', deadline: '8s'}, workers: {stop: {timeout: '300ms'}}}});
  await site.deployed();
  const streams: Socket[] = [];
  t.after(() => streams.forEach((socket) => socket.destroy()));
  // Somebody listens to each release for ever.
  const follow = async (): Promise<void> => {
    const socket = connect(site.nginx.port, '127.0.0.1');
    let bytes = 0;
    socket.on('data', (part) => (bytes += part.length)).on('error', () => {});
    socket.write('GET /events HTTP/1.1\r\nHost: x\r\n\r\n');
    streams.push(socket);
    await waitUntil('events', () => bytes > 0);
  };
  let most = 0;
  for (let version = 2; version <= 6; version++) {
    await follow();
    await site.release(String(version));
    await site.deployed(['--no-wait']);
    // In this order: what drains a moment later has drained all the time.
    const there = readdirSync(join(site.stateDir, 'releases'));
    const {draining, serving} = await site.status();
    most = Math.max(most, draining.length);
    const needed = [...draining.map(({release}) => release), serving?.release ?? ''];
    assert.deepEqual(needed.filter((release) => !there.includes(release)), []);
  }
  assert.equal(most, 3, 'so many drained at a time');
  assert.match(log(site), /waiting for release 000001 to drain: 3 drain already/);
  await waitUntil('the drains to end', async () => (await site.status()).draining.length === 0, {withinMs: 30_000, everyMs: 200});
  await waitUntil('nobody to work for the site but its workers', () => site.processes().length === 2);
  await site.settled({version: '6'});
});

test('what cannot be stopped is 10, with the new release serving', {skip: process.getuid?.() === 0 ? false : 'needs root for two accounts'}, async (t) => {
  const nobody = {uid: 65_534, gid: 65_534};
  const site = await makeSite(t, {as: nobody, config: {workers: {stop: {timeout: '300ms'}}}});
  // Somebody ran it with sudo once: the workers are root's, and the next deploy's account may not stop them.
  chownSync(site.configFile, 0, 0);
  const first = await site.now([], {as: {uid: 0, gid: 0}});
  assert.equal(first.exit, 0, first.stdout + first.stderr);
  await site.release('2');
  const end = await site.now();
  assert.equal(end.exit, 10, end.stdout + end.stderr);
  assert.equal(end.result?.code, 'CLEANUP_INCOMPLETE');
  assert.equal(await site.version(), '2');
});
