import assert from 'node:assert/strict';
import {describe, test} from 'node:test';
import fc from 'fast-check';
import {releasesToKeep, rollbackTarget} from '../../../src/deploy/retention.ts';
import type {Drain} from '../../../src/state/drains.ts';
import {EMPTY_STATE, type State} from '../../../src/state/state-file.ts';
import {drain, GENERATION} from '../state/samples.ts';

/** `4! 5 6*`: in the order in which they first served; `!` was rolled back from, `*` serves. */
function state(text: string): State {
  const words = text.split(' ').filter(word => word !== '');
  const release = (word: string) => ({id: word.replace(/[!*]/g, '').padStart(6, '0'), revision: `r${Number.parseInt(word, 10)}`, dir: '/'});
  const serves = words.find(word => word.includes('*'));
  return {
    ...EMPTY_STATE,
    served: words.map(word => ({...release(word), servedAt: '2026-11-23T02:11:00.000Z', good: !word.includes('!')})),
    serving: serves === undefined ? null : {...GENERATION, release: release(serves)},
  };
}
const drains = (...ids: number[]): Drain[] => ids.map(id => ({...drain(`d${id}`), generation: {...GENERATION, release: {id: String(id).padStart(6, '0'), revision: '', dir: ''}}}));
const kept = (text: string, keep: number, draining: Drain[] = []) => releasesToKeep(state(text), draining, keep).map(Number).sort((a, b) => a - b);

describe('a rollback goes to', () => {
  for (const [served, target] of [
    ['', undefined], ['1*', undefined], ['1 2*', 2 - 1], ['1 2! 3*', 1], ['1! 2! 3*', undefined],
    ['1 2* 3!', 1], ['1 2* 3', 1], ['1* 2! 3!', undefined],
    ['1 2', 2], ['1 2!', 1], ['1!', undefined],
  ] as const) test(`of "${served}": ${target ?? 'nowhere'}`, () => assert.equal(rollbackTarget(state(served))?.id, target === undefined ? undefined : String(target).padStart(6, '0')));

  test('one further back each time, never forth', () => {
    let now = state('1 2 3 4*');
    const visited: (string | undefined)[] = [];
    for (let target = rollbackTarget(now); target !== undefined; target = rollbackTarget(now)) {
      visited.push(target.id);
      const from = now.serving?.release.id;
      now = {...now, serving: {...GENERATION, release: target}, served: now.served.map(one => one.id === from ? {...one, good: false} : one)};
    }
    assert.deepEqual(visited, ['000003', '000002', '000001']);
  });
});

describe('kept are', () => {
  for (const [served, keep, draining, expected] of [
    ['', 5, [], []],
    ['1 2 3 4 5 6*', 3, [], [4, 5, 6]],
    ['1 2 3*', 5, [], [1, 2, 3]],
    ['1 2 3*', 1, [], [2, 3]],
    ['1 2! 3! 4*', 1, [], [1, 4]],
    ['1 2! 3! 4*', 3, [], [1, 3, 4]],
    ['1 2 3*', 1, [1], [1, 2, 3]],
    ['1* 2! 3!', 2, [], [1, 3]],
    ['1 2', 1, [], [2]],
    ['1 2 3 4*', 2, [7, 8], [3, 4, 7, 8]],
  ] as const) test(`of "${served}", ${keep}, while ${draining.length === 0 ? 'nothing' : draining.join()} drains: ${expected.join()}`, () => assert.deepEqual(kept(served, keep, drains(...draining)), expected));
});

test('whatever served: never fewer than what serves, the way back and what drains, no more than `keep` else, none twice', () => {
  const served = fc.tuple(fc.array(fc.boolean(), {maxLength: 12}), fc.nat(12)).map(([good, at]) => good.map((one, i) => `${i + 1}${one ? '' : '!'}${i === at ? '*' : ''}`).join(' '));
  fc.assert(fc.property(served, fc.integer({min: 1, max: 8}), fc.subarray([1, 2, 3]), (text, keep, draining) => {
    const now = state(text);
    const result = releasesToKeep(now, drains(...draining), keep);
    const needed = new Set([now.serving?.release.id, rollbackTarget(now)?.id, ...draining.map(id => String(id).padStart(6, '0'))].filter(id => id !== undefined));
    for (const id of needed) assert.ok(result.includes(id));
    assert.equal(new Set(result).size, result.length);
    assert.ok(result.length <= Math.max(keep, needed.size));
  }));
});
