import assert from 'node:assert/strict';
import {test} from 'node:test';
import {isCrashLoop, isHung, nextPoll, pauseBeforeRestart, recentDeaths} from '../../../src/supervise/judge.ts';

const MINUTE = 60_000;

test('a death counts for a minute', () => {
  assert.deepEqual(recentDeaths([0, 1000, 59_999, MINUTE], MINUTE), [1000, 59_999, MINUTE]);
});

test('the first restart is at once, later ones wait twice as long each time, half a minute at most', () => {
  assert.deepEqual([1, 2, 3, 4, 5, 6, 7, 50].map(pauseBeforeRestart), [0, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
});

test('a release is blamed for four deaths while it is fresh, and never later', () => {
  assert.deepEqual([isCrashLoop(3, 0), isCrashLoop(4, 0), isCrashLoop(4, 10 * MINUTE - 1), isCrashLoop(40, 10 * MINUTE)], [false, true, true, false]);
});

test('three failed checks in a row are a hung worker', () => {
  assert.deepEqual([0, 2, 3, 4].map(isHung), [false, false, true, true]);
});

test('a repository that does not answer is asked less and less often, within ten minutes; one that does within a tenth of the time', () => {
  assert.deepEqual([0, 1, 2, 3, 4, 30].map(failed => nextPoll(MINUTE, failed, 0.5)), [1, 2, 4, 8, 10, 10].map(minutes => minutes * MINUTE));
  assert.deepEqual([0, 1].map(random => Math.round(nextPoll(MINUTE, 0, random))), [54_000, 66_000]);
  assert.equal(nextPoll(60 * MINUTE, 3, 0.5), 60 * MINUTE);
});
