import assert from 'node:assert/strict';
import {describe, test} from 'node:test';
import {unfinished} from '../../../src/deploy/recover.ts';
import {DeployError} from '../../../src/errors.ts';
import type {JournalEntry, JournalLine} from '../../../src/state/journal.ts';
import type {SwitchIntent} from '../../../src/upstream/switch-upstream.ts';
import {GENERATION} from '../state/samples.ts';

const AT = '2026-11-23T02:11:00.000Z';
const journal = (...lines: JournalLine[]): JournalEntry[] => lines.map(line => ({at: AT, ...line}));
const FIRST: JournalLine = {type: 'deploy', version: 1, id: 'd1', trigger: 'hook', requestedBy: 'ann', configHash: 'abc'};
const WORKER = GENERATION.workers[0] ?? assert.fail();
const identity = (pid: number) => ({pid, startTime: pid, bootId: 'boot'});
const intent = (accepting: number, hash: string): SwitchIntent => ({file: '/x', oldBytes: null, oldHash: 'old', newHash: hash, ports: [8811], master: identity(1), accepting: [identity(accepting)]});

test('no journal, or one that is closed: nothing is unfinished', () => {
  assert.equal(unfinished([]), undefined);
  assert.equal(unfinished(journal(FIRST, {type: 'closed', outcome: 'deployed'})), undefined);
});

test('a journal that begins with something else is not understood', () => {
  assert.throws(() => unfinished(journal({type: 'reloading'})), error => error instanceof DeployError && error.code === 'STATE_UNCERTAIN');
});

test('who asked, since when, in which phase', () => {
  const facts = unfinished(journal(FIRST, {type: 'phase', phase: 'update', state: 'began'}, {type: 'revision', revision: 'r41', newest: true}, {type: 'phase', phase: 'build', state: 'began'}));
  assert.deepEqual(
    [facts?.id, facts?.trigger, facts?.requestedBy, facts?.startedAt, facts?.configHash, facts?.phase, facts?.revision, facts?.release, facts?.existing, facts?.workers],
    ['d1', 'hook', 'ann', AT, 'abc', 'build', 'r41', undefined, false, []],
  );
  assert.equal(unfinished(journal(FIRST))?.phase, 'update');
});

test('each worker by its mark, from before it was started; its process as it was known last', () => {
  const daemon = {...WORKER, process: identity(99)};
  const facts = unfinished(journal(FIRST,
    {type: 'starting', slot: 0, port: 8811, worker: WORKER.id}, {type: 'starting', slot: 1, port: 8812, worker: 'other'},
    {type: 'started', worker: WORKER}, {type: 'started', worker: daemon}, {type: 'starting', slot: 1, port: 8813, worker: 'relaunched'}));
  assert.deepEqual(facts?.workers, [{id: WORKER.id, port: 8811, worker: daemon}, {id: 'other', port: 8812, worker: undefined}, {id: 'relaunched', port: 8813, worker: undefined}]);
});

test('an existing release is not ours to discard', () => {
  assert.deepEqual([true, false].map(existing => unfinished(journal(FIRST, {type: 'release', release: GENERATION.release, existing}))?.existing), [true, false]);
});

describe('how far the switch came', () => {
  const facts = (...lines: JournalLine[]) => unfinished(journal(FIRST, ...lines));
  test('not begun', () => assert.deepEqual([facts()?.intent, facts()?.switched, facts()?.rollingBack, facts()?.aborting], [undefined, undefined, undefined, undefined]));
  test('begun', () => assert.deepEqual(facts({type: 'switching', intent: intent(1, 'new')})?.intent, intent(1, 'new')));
  test('begun twice: the nginx workers of before the first one are those with the old configuration', () => {
    assert.deepEqual(facts({type: 'switching', intent: intent(1, 'new')}, {type: 'reloading'}, {type: 'switching', intent: intent(2, 'newer')})?.intent?.accepting, [identity(1)]);
  });
  test('over the point of no return', () => assert.deepEqual(facts({type: 'switched', workers: [WORKER], oldNginxWorkers: [identity(7)]})?.switched?.oldNginxWorkers, [identity(7)]));
  test('on its way back', () => assert.equal(facts({type: 'rolling_back', reason: 'the bake failed', intent: null})?.rollingBack, 'the bake failed'));
  test('given up, and why', () => assert.equal(facts({type: 'aborting', code: 'NEVER_HEALTHY', error: 'x'})?.aborting, 'NEVER_HEALTHY'));
});
