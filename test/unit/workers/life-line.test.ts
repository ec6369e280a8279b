import assert from 'node:assert/strict';
import {spawn} from 'node:child_process';
import {once} from 'node:events';
import {readdirSync} from 'node:fs';
import {test, type TestContext} from 'node:test';
import {openLifeLine} from '../../../src/workers/life-line.ts';
import {commandLine, identify, processStat} from '../../../src/workers/process-identity.ts';
import type {ProcessIdentity} from '../../../src/deploy/deployment.ts';
import {waitUntil} from '../../support/wait-until.ts';

const SOON = {withinMs: 10_000, everyMs: 5};

function sleeper(t: TestContext): {identity: ProcessIdentity; kill(): Promise<unknown>} {
  const child = spawn('sleep', ['60'], {stdio: 'ignore'});
  t.after(() => child.kill('SIGKILL'));
  const identity = identify(child.pid ?? 0);
  assert.ok(identity !== undefined);
  return {identity, kill: async () => {
    const exited = once(child, 'exit');
    child.kill('SIGKILL');
    await exited;
  }};
}

test('a life line tells the death of its process', async t => {
  const {identity, kill} = sleeper(t);
  const line = openLifeLine(identity);
  t.after(() => line?.close());
  assert.equal(line?.isAlive(), true);
  await kill();
  assert.equal(line.isAlive(), false);
  assert.equal(openLifeLine(identity), undefined, 'there is none of a dead process');
});

test('a process that ended and was not fetched by its parent is dead', async t => {
  // exec keeps the child of the shell, and fetches nobody.
  const parent = spawn('sh', ['-c', 'sleep 60 & echo $!; exec sleep 60'], {stdio: ['ignore', 'pipe', 'ignore']});
  t.after(() => parent.kill('SIGKILL'));
  const [pid] = (await once(parent.stdout, 'data') as [Buffer]).map(Number);
  await waitUntil('the parent to be the one that fetches nobody', () => commandLine(parent.pid ?? 0)[0] === 'sleep', SOON);
  const identity = identify(pid ?? 0);
  assert.ok(identity !== undefined);
  const line = openLifeLine(identity);
  t.after(() => line?.close());
  process.kill(identity.pid, 'SIGKILL');
  await waitUntil('a zombie', () => processStat(identity.pid)?.state === 'Z', SOON);
  assert.equal(line?.isAlive(), false);
});

test('a pid that another process has is not alive, and its file is closed again', t => {
  const {identity} = sleeper(t);
  const before = readdirSync('/proc/self/fd').length;
  assert.equal(openLifeLine({...identity, startTime: identity.startTime - 1}), undefined);
  assert.equal(readdirSync('/proc/self/fd').length, before);
});
