import assert from 'node:assert/strict';
import {randomUUID} from 'node:crypto';
import {spawn, spawnSync, type ChildProcess} from 'node:child_process';
import {after, test} from 'node:test';
import {fileURLToPath} from 'node:url';
import {identify, isAlive, bootId} from '../../../src/workers/process-identity.ts';
import {stopWorker} from '../../../src/workers/stop-workers.ts';
import {descendants, markedProcesses, WORKER_MARK, workerTree} from '../../../src/workers/worker-tree.ts';
import type {ProcessIdentity} from '../../../src/deploy/deployment.ts';
import {killProcessesWith} from '../../../src/workers/process-identity.ts';
import {waitUntil} from '../../support/wait-until.ts';

const SOON = {signal: 'SIGTERM', timeoutMs: 5000} as const;
const AT_ONCE = {signal: 'SIGTERM', timeoutMs: 30} as const;
const marks: string[] = [];
after(() => marks.forEach(id => killProcessesWith(`${WORKER_MARK}=${id}`)));

/** A shell in a session of its own that has the mark of a worker; ready once it wrote a line. */
async function start(script: string, env: Record<string, string> = {}): Promise<{id: string; child: ChildProcess; self: ProcessIdentity; says: string}> {
  const id = `osyw/test/${randomUUID()}`;
  const child = spawn('sh', ['-c', script], {env: {PATH: '/usr/bin:/bin', [WORKER_MARK]: id, ...env}, detached: true, stdio: ['ignore', 'pipe', 'ignore']});
  marks.push(env[WORKER_MARK] ?? id);
  // One that becomes a daemon may have ended by now.
  const self = identify(child.pid ?? 0) ?? {pid: child.pid ?? 0, startTime: 0, bootId: ''};
  let says = '';
  child.stdout?.on('data', (chunk: Buffer) => {
    says += chunk.toString();
  });
  await waitUntil('the worker to be ready', () => says.includes('ready'));
  return {id, child, self, says};
}

test('a worker that obeys is stopped, and a second time there is nothing', async () => {
  const {id, self} = await start('trap "exit 0" TERM; echo ready; while :; do sleep 0.01; done');
  assert.deepEqual(await stopWorker({id, port: 8811, process: self}, SOON), {port: 8811, pid: self.pid, end: 'stopped', left: []});
  assert.deepEqual(await stopWorker({id, port: 8811, process: self}, SOON), {port: 8811, pid: self.pid, end: 'gone', left: []});
});

test('the configured signal is the one that is sent', async () => {
  const {id, self, child} = await start('trap "exit 7" INT; trap "" TERM; echo ready; while :; do sleep 0.01; done');
  const ended = new Promise(resolve => child.once('exit', resolve));
  assert.equal((await stopWorker({id, port: 8811, process: self}, {signal: 'SIGINT', timeoutMs: 5000})).end, 'stopped');
  assert.equal(await ended, 7);
});

test('one that ignores the signal is killed after the grace', async () => {
  const {id, self} = await start('trap "" TERM; echo ready; while :; do sleep 0.01; done');
  assert.equal((await stopWorker({id, port: 8811, process: self}, AT_ONCE)).end, 'killed');
  assert.equal(isAlive(self), false);
});

test('one that becomes a daemon at this very moment is stopped whole', async () => {
  for (let round = 0; round < 30; round++) {
    // Forked, in a session of its own, forked again: each parent ends at once.
    const {id} = await start(`exec /usr/bin/python3 -S -E -c 'import os, time; print("ready", flush=True); time.sleep(${round / 10_000}); os.fork() and os._exit(0); os.setsid(); time.sleep(${(round % 7) / 10_000}); os.fork() and os._exit(0); time.sleep(60)'`);
    const {left} = await stopWorker({id, port: 8811, process: undefined}, AT_ONCE);
    assert.deepEqual(left, []);
    // One that escaped has nowhere further to go.
    for (let look = 0; look < 3; look++) assert.deepEqual(markedProcesses(id), [], `round ${round}`);
  }
});

test('a grandchild in a session of its own is found by the mark, and killed', async () => {
  const {id, self, says} = await start('setsid sh -c \'trap "" TERM; echo $$ ready; while :; do sleep 0.01; done\' & trap "exit 0" TERM; wait');
  const grandchild = identify(Number.parseInt(says, 10));
  assert.ok(grandchild);
  assert.ok(workerTree({id, process: self}).some(({pid}) => pid === grandchild.pid));
  assert.equal((await stopWorker({id, port: 8811, process: self}, AT_ONCE)).end, 'killed');
  assert.equal(isAlive(grandchild), false);
});

test('a daemon whose launcher has ended is found by the mark alone', async () => {
  const {id, child, says} = await start('setsid sh -c \'echo $$ ready; exec sleep 60\' & exit 0');
  await waitUntil('the launcher to end', () => child.exitCode === 0);
  const daemon = identify(Number.parseInt(says, 10));
  assert.ok(daemon);
  assert.equal((await stopWorker({id, port: 8811, process: undefined}, SOON)).end, 'stopped');
  assert.equal(isAlive(daemon), false);
});

test('a child without the mark is found as long as its parent lives', async () => {
  const {id, self, says} = await start(`setsid env -u ${WORKER_MARK} sh -c 'trap "" TERM; echo $$ ready; while :; do sleep 0.01; done' & trap "" TERM; wait`);
  const child = identify(Number.parseInt(says, 10));
  assert.ok(child && descendants(self).some(({pid}) => pid === child.pid));
  assert.equal((await stopWorker({id, port: 8811, process: self}, AT_ONCE)).end, 'killed');
  assert.deepEqual([isAlive(child), isAlive(self)], [false, false]);
});

test('a pid that is somebody else\'s by now gets no signal', async () => {
  const {self} = await start('echo ready; exec sleep 60', {[WORKER_MARK]: `of/somebody/else/${randomUUID()}`});
  for (const process of [{...self, startTime: self.startTime - 1}, {...self, bootId: 'another boot'}]) {
    assert.deepEqual(await stopWorker({id: 'osyw/d/0/abc', port: 8811, process}, AT_ONCE), {port: 8811, pid: self.pid, end: 'gone', left: []});
  }
  assert.ok(isAlive(self));
  assert.equal((await stopWorker({id: 'of/somebody/else', port: 8811, process: undefined}, AT_ONCE)).end, 'gone', 'a mark that is the beginning of another');
  assert.ok(isAlive(self));
});

test('a pid that the kernel has given to somebody else, who started a moment later', {skip: process.getuid?.() === 0 ? false : 'needs root for a pid namespace'}, async t => {
  const script = fileURLToPath(new URL('recycle-pid.ts', import.meta.url));
  const {status, stdout, stderr} = spawnSync('unshare', ['--pid', '--fork', '--kill-child', '--mount-proc', process.execPath, '--import', 'tsx', script], {encoding: 'utf8'});
  if (/unshare: /.test(stderr)) return t.skip(stderr);
  assert.equal(status, 0, stderr);
  assert.deepEqual(JSON.parse(stdout), {samePid: true, end: 'gone', lives: true});
});

test('ourselves are never part of a tree', async () => {
  assert.equal((await stopWorker({id: 'osyw/nobody', port: 8811, process: {pid: 2 ** 22 + 1, startTime: 1, bootId: bootId()}}, AT_ONCE)).end, 'gone');
  assert.deepEqual(markedProcesses('osyw/nobody'), []);
});
