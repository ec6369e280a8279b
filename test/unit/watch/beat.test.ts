import assert from 'node:assert/strict';
import {mock, test} from 'node:test';
import {A_SECOND, startBeat, type Beat} from '../../../src/watch/beat.ts';

const BEAT_MS = 250;

/** With timers in steps; what is promised has come true by the end of each. */
async function beating(work: (beat: Beat, pass: (ms: number) => Promise<void>) => Promise<void>): Promise<void> {
  mock.timers.enable({apis: ['setInterval']});
  const beat = startBeat();
  try {
    await work(beat, async ms => {
      mock.timers.tick(ms);
      await Promise.resolve();
    });
  } finally {
    beat.close();
    mock.timers.reset();
  }
}

test('looks share one beat, each as often as it asked for, until stopped', () => beating(async (beat, pass) => {
  let [often, seldom] = [0, 0];
  const stop = beat.every(1, () => often++);
  beat.every(A_SECOND, () => seldom++);
  await pass(2000);
  assert.deepEqual([often, seldom], [2000 / BEAT_MS, 2]);
  stop();
  await pass(1000);
  assert.deepEqual([often, seldom], [2000 / BEAT_MS, 3]);
  beat.close();
  await pass(1000);
  assert.equal(seldom, 3);
}));

test('until: returns at the first second at which it is due', () => beating(async (beat, pass) => {
  let due = false;
  let over = false;
  const ended = beat.until(() => due, new AbortController().signal).then(() => over = true);
  await pass(1000);
  assert.equal(over, false);
  due = true;
  await pass(750);
  assert.equal(over, false);
  await pass(250);
  await ended;
}));

test('until: returns when aborted, also before', () => beating(async beat => {
  const over = new AbortController();
  const ended = beat.until(() => false, over.signal);
  over.abort();
  await ended;
  await beat.until(() => false, over.signal);
}));
