import assert from 'node:assert/strict';
import {test} from 'node:test';
import {openWake} from '../../../src/watch/wake.ts';

const never = new AbortController().signal;

test('a wake ends the wait', async () => {
  const {wake, until} = openWake();
  const waiting = until(undefined, never);
  wake();
  await waiting;
});

test('a wake that comes while nobody waits ends the next wait, and only that', async () => {
  const {wake, until} = openWake();
  wake();
  wake();
  await until(undefined, never);
  let over = false;
  const waiting = until(undefined, never).then(() => over = true);
  await new Promise(setImmediate);
  assert.equal(over, false);
  wake();
  await waiting;
});

test('a wait ends by itself after its time, and when aborted', async () => {
  const {until} = openWake();
  await until(1, never);
  const over = new AbortController();
  const waiting = until(undefined, over.signal);
  over.abort();
  await waiting;
  await until(undefined, over.signal);
});
