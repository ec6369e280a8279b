import assert from 'node:assert/strict';
import {spawn} from 'node:child_process';
import {once} from 'node:events';
import {test} from 'node:test';
import {allPids, bootId, childrenOf, commandLine, hasEnvironmentLine, identify, isAlive, isDead, processStat, readProcFile, readProcLink, signalProcess} from '../../../src/workers/process-identity.ts';
import {waitUntil} from '../../support/wait-until.ts';

test('ourselves', () => {
  const self = identify(process.pid);
  assert.ok(self && isAlive(self));
  assert.deepEqual([self.pid, self.bootId], [process.pid, bootId()]);
  assert.equal(processStat(process.pid)?.ppid, process.ppid);
  assert.ok(allPids().includes(process.pid) && allPids().includes(1));
  assert.ok(commandLine(process.pid).length > 0);
});

test('no such process', () => {
  const pid = 2 ** 22 + 1;
  assert.deepEqual([identify(pid), processStat(pid), commandLine(pid), childrenOf(pid), hasEnvironmentLine(pid, 'A=1'), readProcFile(`/proc/${pid}/stat`), readProcLink(`/proc/${pid}/exe`)], [undefined, undefined, [], [], false, undefined, undefined]);
});

test('another start time, another boot: another process, and it gets no signal', async () => {
  const child = spawn('sleep', ['60'], {stdio: 'ignore'});
  const ended = once(child, 'exit');
  const real = identify(child.pid ?? 0);
  assert.ok(real);
  for (const foreign of [{...real, startTime: real.startTime + 1}, {...real, startTime: real.startTime - 1}, {...real, bootId: 'another boot'}]) {
    assert.equal(isAlive(foreign), false);
    assert.equal(signalProcess(foreign, 'SIGKILL'), false);
  }
  assert.ok(isAlive(real), 'it lives on');
  assert.equal(signalProcess(real, 'SIGTERM'), true);
  assert.deepEqual(await ended, [null, 'SIGTERM']);
  assert.equal(signalProcess(real, 'SIGTERM'), false);
});

test('init, ourselves and our parent are never signalled', () => {
  for (const pid of [1, process.pid, process.ppid]) {
    const identity = identify(pid);
    assert.ok(identity);
    assert.equal(signalProcess(identity, 'SIGWINCH'), false);
  }
  for (const pid of [0, -1, -process.pid]) assert.equal(signalProcess({pid, startTime: 0, bootId: bootId()}, 'SIGWINCH'), false);
});

test('a zombie is dead', async () => {
  // The shell becomes a program that does not wait for the child that it had.
  const parent = spawn('sh', ['-c', 'true & exec sleep 60'], {stdio: 'ignore'});
  const zombie = await waitUntil('a zombie', () => childrenOf(parent.pid ?? 0).map(processStat).find(stat => stat !== undefined && isDead(stat)));
  assert.equal(zombie.state, 'Z');
  assert.equal(identify(zombie.pid), undefined);
  assert.equal(isAlive({pid: zombie.pid, startTime: zombie.startTime, bootId: bootId()}), false);
  assert.deepEqual(commandLine(zombie.pid), []);
  parent.kill('SIGKILL');
});

test('a name that looks like the fields behind it', async () => {
  const child = spawn('sh', ['-c', 'printf ") Z 1 (" > /proc/$$/comm; read line'], {stdio: ['pipe', 'ignore', 'ignore']});
  const stat = await waitUntil('the name to be set', () => readProcFile(`/proc/${child.pid}/comm`)?.toString().startsWith(') Z') === true && processStat(child.pid ?? 0));
  assert.deepEqual([stat.ppid, isDead(stat)], [process.pid, false]);
  assert.ok(stat.startTime > 0);
  child.stdin?.end();
});

test('a line of the environment: the whole of it, and as it was at the start', async () => {
  const child = spawn('sleep', ['60'], {env: {FIRST: '1', MARK: 'a/b/0/c', LAST: 'x=y'}, stdio: 'ignore'});
  const pid = child.pid ?? 0;
  await waitUntil('the program to run', () => commandLine(pid)[0] === 'sleep');
  for (const line of ['FIRST=1', 'MARK=a/b/0/c', 'LAST=x=y']) assert.equal(hasEnvironmentLine(pid, line), true, line);
  for (const line of ['MARK=a/b/0/', 'ARK=a/b/0/c', 'MARK=a/b/0/cc', 'x=y', 'FIRST=']) assert.equal(hasEnvironmentLine(pid, line), false, line);
  child.kill('SIGKILL');
});
