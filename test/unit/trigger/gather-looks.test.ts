import assert from 'node:assert/strict';
import {describe, test} from 'node:test';
import {gatherLooks} from '../../../src/trigger/gather-looks.ts';
import {openBucket} from '../../../src/trigger/token-bucket.ts';
import {waitUntil} from '../../support/wait-until.ts';

const never = () => 60_000;

describe('a bucket', () => {
  test('has so many at once, and each comes again in its part of the time', async () => {
    const bucket = openBucket({count: 3, perMs: 900});
    assert.deepEqual([bucket.take(), bucket.take(), bucket.take()], [0, 0, 0]);
    const wait = bucket.take();
    assert.ok(wait > 0 && wait <= 300, `${wait} ms`);
    await waitUntil('the next one', () => bucket.take() === 0);
    const next = bucket.take();
    assert.ok(next > 0 && next <= 300, `${next} ms`);
  });

  test('is full again after a pause, and not fuller', async () => {
    const bucket = openBucket({count: 2, perMs: 20});
    for (let round = 0; round < 3; round++) {
      const began = performance.now();
      const taken = [bucket.take(), bucket.take(), bucket.take()].filter(wait => wait === 0).length;
      assert.ok(taken === 2 || performance.now() - began > 10, `${taken}`);
      const pause = performance.now() + 50;
      await waitUntil('a pause', () => performance.now() > pause);
    }
  });

  test('that is never asked in vain has its whole rate', () => {
    for (const count of [1, 3, 7, 60, 9999]) {
      const bucket = openBucket({count, perMs: 3_600_000});
      let taken = 0;
      while (taken <= count && bucket.take() === 0) taken++;
      assert.equal(taken, count);
    }
  });
});

describe('looks', () => {
  test('the first one at once, then one for all, and at the end the one that is owed', () => {
    const seen: string[] = [];
    const looks = gatherLooks(60_000, never, from => seen.push(from));
    looks.ask('a', 0);
    looks.ask('b', 0);
    looks.ask('c', 0);
    assert.deepEqual(seen, ['a']);
    looks.close();
    assert.deepEqual(seen, ['a', 'c']);
    looks.close();
    looks.ask('d', 0);
    assert.deepEqual(seen, ['a', 'c', 'd'], 'later there is no later');
  });

  test('who asked too often waits until he may', async () => {
    const seen: string[] = [];
    let refusals = 3;
    const looks = gatherLooks(0, () => (refusals-- > 0 ? 5 : 0), from => seen.push(from));
    looks.ask('often', 5);
    assert.deepEqual(seen, []);
    await waitUntil('the look', () => seen.length === 1);
    assert.equal(refusals, -1);
  });

  test('and goes with another one who may', async () => {
    const seen: string[] = [];
    const looks = gatherLooks(20, never, from => seen.push(from));
    looks.ask('a', 0);
    looks.ask('often', 60_000);
    looks.ask('b', 0);
    await waitUntil('the second look', () => seen.length === 2);
    assert.deepEqual(seen, ['a', 'b']);
    looks.close();
    assert.deepEqual(seen, ['a', 'b']);
  });
});
