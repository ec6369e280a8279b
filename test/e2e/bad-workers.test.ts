import assert from 'node:assert/strict';
import {createServer, type Server} from 'node:net';
import {existsSync, readFileSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {test, type TestContext} from 'node:test';
import {isAlive} from '../support/leftovers.ts';
import {type Behaviour, makeSite} from '../support/site.ts';

interface Bad {
  readonly name: string;
  readonly behaviour: Behaviour;
  readonly exit: 7 | 8;
  readonly says: RegExp;
}

const CASES: readonly Bad[] = [
  {name: 'exits at once', behaviour: {die_at_once: 5, say: ['cannot open the database']}, exit: 7, says: /cannot open the database/},
  {name: 'exits with 0 at once', behaviour: {die_at_once: 0}, exit: 7, says: /exit/i},
  {name: 'dies during its first check', behaviour: {die_after_checks: 1}, exit: 7, says: /enough checks/},
  {name: 'never listens', behaviour: {never_listen: true}, exit: 8, says: /listens nowhere/},
  {name: 'answers 500', behaviour: {health_status: 500, health_body: 'no database today'}, exit: 8, says: /500[\s\S]*no database today/},
  {name: 'answers another body', behaviour: {health_body: 'starting up'}, exit: 8, says: /starting up/},
  {name: 'listens on another address', behaviour: {listen_host: '127.0.0.2'}, exit: 8, says: /./},
  {name: 'answers too late', behaviour: {health_delay_ms: 5000}, exit: 8, says: /./},
  {name: 'answers well only every other time', behaviour: {bad_check_every: 2}, exit: 8, says: /./},
];

test('a release whose workers are bad is refused with the reason, and the old one goes on', {timeout: 120_000}, async (t) => {
  const site = await makeSite(t, {config: {check: {deadline: '1s', timeout: '400ms', consecutive: 2}}});
  await site.deployed();
  const traffic = site.traffic({lanes: {upload: 0, freshPost: 0, keepAlivePost: 0}, everyMs: 25});
  for (const {name, behaviour, exit, says} of CASES) {
    await t.test(`a worker that ${name}: ${exit}`, async () => {
      // A dead worker is a failure at once, whatever the deadline.
      site.configure({check: {deadline: exit === 7 ? '50s' : '1s'}});
      await site.release(name, behaviour);
      const end = await site.now();
      assert.equal(end.exit, exit, end.stdout + end.stderr);
      assert.equal(end.result?.exit, exit);
      assert.equal(end.result.code, exit === 7 ? 'START_FAILED' : 'NEVER_HEALTHY');
      assert.equal(end.result.outcome, 'aborted');
      assert.match(end.result.error ?? '', says);
      if (exit === 7) assert.ok(end.ms < 30_000, `not at the deadline: ${end.ms} ms`);
      else assert.match(end.result.error ?? '', /curl /, 'the line that repeats the check');
      assert.doesNotMatch(end.result.error ?? '', /\n\s+at /, 'a failure of the operator\'s is no stack trace');
      await site.settled({version: '1', outcome: 'aborted'});
    });
  }
  await site.release('good again');
  await site.deployed();
  const report = await site.settled({version: 'good again', traffic});
  assert.deepEqual(report?.versions, ['1', 'good again'], 'no bad release ever answered');
});

test('a worker that listens on another port: 8', async (t) => {
  const site = await makeSite(t, {count: 1, config: {check: {deadline: '1s'}}});
  await site.deployed();
  await site.release('2', {listen_port: site.ports.last});
  const end = await site.now();
  assert.equal(end.exit, 8, end.stdout);
  assert.match(end.result?.error ?? '', new RegExp(`${site.ports.last}`), 'where it listens instead, if only by its own words');
  await site.settled({version: '1', outcome: 'aborted', code: 'NEVER_HEALTHY'});
});

test('strangers on ports of the range are left alone, and the workers get others', async (t) => {
  const site = await makeSite(t, {count: 2});
  const strangers = await Promise.all([0, 1, 3].map((offset) => listen(t, site.ports.first + offset)));
  await site.deployed();
  const ports = site.nginx.upstreamPorts();
  for (const offset of [0, 1, 3]) assert.ok(!ports.includes(site.ports.first + offset));
  strangers.forEach((server) => server.close());
  await site.settled({version: '1'});
});

test('no spare port left: 7, and it says how many are taken', async (t) => {
  const site = await makeSite(t, {count: 2});
  await site.deployed();
  const served = site.nginx.upstreamPorts();
  const strangers: Server[] = [];
  for (let port = site.ports.first; port <= site.ports.last; port++) if (!served.includes(port)) strangers.push(await listen(t, port));
  await site.release('2');
  const end = await site.now();
  strangers.forEach((server) => server.close());
  assert.equal(end.exit, 7, end.stdout);
  assert.equal(end.result?.code, 'START_FAILED');
  assert.match(end.result.error ?? '', /port/);
  await site.settled({version: '1', outcome: 'aborted'});
});

test('a worker whose port is taken in between gets another one', async (t) => {
  const site = await makeSite(t, {count: 2});
  const mark = join(site.dir, 'stranger.pid');
  await site.release('2', {hold_port: mark});
  await site.deployed();
  const stranger = Number(readFileSync(mark, 'utf8'));
  assert.ok(isAlive(stranger), 'the stranger was never signalled');
  process.kill(stranger, 'SIGKILL');
  await site.settled({version: '2'});
});

test('a stranger that answers on the port of a worker that does not listen is found out', async (t) => {
  const site = await makeSite(t, {count: 1, config: {check: {deadline: '1500ms'}}});
  await site.deployed();
  const mark = join(site.dir, 'stranger.pid');
  await site.release('2', {hold_port: mark, never_listen: true});
  const end = await site.now();
  const stranger = Number(readFileSync(mark, 'utf8'));
  assert.ok(isAlive(stranger), 'the stranger was never signalled');
  process.kill(stranger, 'SIGKILL');
  assert.equal(end.exit, 8, end.stdout);
  await site.settled({version: '1', outcome: 'aborted'});
});

test('one bad worker of four: none of them goes live', async (t) => {
  const site = await makeSite(t, {count: 4, config: {check: {deadline: '1s'}}});
  await site.deployed();
  const traffic = site.traffic({lanes: {upload: 0, freshPost: 0, keepAlivePost: 0}, everyMs: 25});
  const mark = join(site.dir, 'the-bad-one');
  await site.release('2', {health_status: 500, only_one: mark});
  const end = await site.now();
  assert.equal(end.exit, 8, end.stdout + end.stderr);
  assert.match(end.result?.error ?? '', /status 500/);
  assert.ok(existsSync(mark), 'one was bad');
  assert.equal([...(end.result?.error ?? '').matchAll(/^worker \d/gm)].length, 1, 'and the others were not');
  const report = await site.settled({version: '1', outcome: 'aborted', code: 'NEVER_HEALTHY', traffic});
  assert.deepEqual(report?.versions, ['1']);
});

test('a command that cannot be started: 7, with its name', {timeout: 120_000}, async (t) => {
  const site = await makeSite(t);
  await site.deployed();
  const notExecutable = join(site.dir, 'not-executable');
  const noProgram = join(site.dir, 'no-program');
  writeFileSync(notExecutable, '#!/bin/sh\n', {mode: 0o644});
  // The beginning of a program for another machine.
  writeFileSync(noProgram, Buffer.from('7f454c4602010100000000000000000002005000', 'hex'), {mode: 0o755});
  for (const command of ['/not/there', notExecutable, noProgram, site.dir]) {
    site.configure({workers: {command: [command, '{port}']}});
    const end = await site.now();
    assert.equal(end.exit, 7, `${command}: ${end.stdout}${end.stderr}`);
    assert.ok(end.result?.error?.includes(command), end.result?.error ?? '');
    await site.settled({version: '1', outcome: 'aborted', code: 'START_FAILED'});
  }
});

for (const [kind, check] of [['tcp', {http: null, body: null, tcp: true}], ['command', {http: null, body: null, command: ['/bin/sh', '-c', 'exit 0']}]] as const) {
  test(`a ${kind} check passes a good release, and fails a worker that does not listen`, async (t) => {
    const site = await makeSite(t, {config: {check: {...check, deadline: '1s'}}});
    await site.deployed();
    await site.release('2', {never_listen: true});
    assert.equal((await site.now()).exit, 8);
    await site.settled({version: '1', outcome: 'aborted', code: 'NEVER_HEALTHY'});
  });
}

function listen(test: TestContext, port: number): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer((socket) => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'));
    test.after(() => server.close());
    server.once('error', reject);
    server.listen(port, '127.0.0.1', () => resolve(server));
  });
}
