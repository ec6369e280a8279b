import assert from 'node:assert/strict';
import {mock, test} from 'node:test';
import {startSettling} from '../../../src/watch/settling.ts';

/** Its clock and its timers, in steps; a change at each of `changes`, in ms. Returns when it settled. */
function settledAt(changes: readonly number[], settleMs: number, until: number): number[] {
  let now = 0;
  const clock = mock.method(performance, 'now', () => now);
  mock.timers.enable({apis: ['setTimeout']});
  try {
    const settled: number[] = [];
    const settling = startSettling(() => settleMs, () => settled.push(now));
    for (; now <= until; now++) {
      if (changes.includes(now)) settling.changed();
      mock.timers.tick(1);
    }
    settling.close();
    return settled;
  } finally {
    mock.timers.reset();
    clock.mock.restore();
  }
}

const every = (ms: number, until: number) => Array.from({length: Math.floor(until / ms)}, (_, i) => i * ms);

test('a burst is looked at once, when it is over', () => {
  const [at, ...others] = settledAt(every(10, 1000), 200, 3000);
  assert.deepEqual(others, []);
  assert.ok(at !== undefined && at >= 1180 && at <= 1200, String(at));
});

test('two changes far apart are looked at twice', () => assert.equal(settledAt([0, 1000], 200, 3000).length, 2));

test('what never rests is looked at all the same, from time to time', () => {
  const looks = settledAt(every(50, 20_000), 200, 20_000);
  assert.ok(looks.length >= 3 && looks.length <= 4, looks.join());
});

test('nothing is looked at after the end', () => {
  mock.timers.enable({apis: ['setTimeout']});
  try {
    const settling = startSettling(() => 10, () => assert.fail('looked'));
    settling.changed();
    settling.close();
    mock.timers.tick(1000);
  } finally {
    mock.timers.reset();
  }
});
