import assert from 'node:assert/strict';
import {test} from 'node:test';
import fc from 'fast-check';
import {formatDuration, parseDuration} from '../../../src/support/durations.ts';

test('a number with a unit', () => {
  for (const [text, ms] of [['0s', 0], ['200ms', 200], ['30s', 30_000], ['5m', 300_000], ['1.5h', 5_400_000], ['2d', 172_800_000], ['0.5ms', 1], ['1.0004s', 1000], ['007s', 7000]] as const) {
    assert.equal(parseDuration(text), ms, text);
  }
});

test('anything else is not one', () => {
  for (const text of ['', '10', 's', '-1s', '+1s', '1 s', ' 1s', '1s ', '1S', '1e3s', '.5s', '1.s', '1s30', '1m30s', 'Infinity', '0x10s', '１s', '1s\n', `${'9'.repeat(400)}d`]) {
    assert.equal(parseDuration(text), undefined, JSON.stringify(text));
  }
});

test('for people', () => {
  for (const [ms, text] of [[0, '0 ms'], [85.4, '85 ms'], [999.4, '999 ms'], [1200, '1.2 s'], [59_900, '59.9 s'], [60_000, '1 m 0 s'], [310_000, '5 m 10 s'], [3_600_000, '60 m 0 s']] as const) {
    assert.equal(formatDuration(ms), text);
  }
});

test('no seconds beyond a minute, no milliseconds beyond a second', () => {
  fc.assert(fc.property(fc.double({min: 0, max: 1e7, noNaN: true}), ms => {
    const text = formatDuration(ms);
    assert.doesNotMatch(text, /^1000 ms$|^60\.0 s$|m 60 s$/, `${ms}`);
  }), {numRuns: 500, examples: [[999.7], [59_980], [119_700]]});
});
