import assert from 'node:assert/strict';
import {existsSync, readdirSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {test, type TestContext} from 'node:test';
import type {Worker} from '../../../src/deploy/deployment.ts';
import {asRestarted, forgetRestarts, generationAsRestarted, writeRestart} from '../../../src/state/restarts.ts';
import {makeStateDir} from '../../../src/state/state-file.ts';
import {makeTempDir, removeTempDir} from '../../support/temp-dir.ts';

const worker: Worker = {slot: 0, port: 8811, id: 'site/d1/0', process: {pid: 4711, startTime: 1, bootId: 'b'}, startedAt: '2026-01-01T00:00:00.000Z'};
const restart = {process: {pid: 4712, startTime: 2, bootId: 'b'}, startedAt: '2026-01-01T00:01:00.000Z', restarts: 1};

function stateDir(t: TestContext): string {
  const dir = makeTempDir();
  t.after(() => removeTempDir(dir));
  makeStateDir(dir);
  return dir;
}

test('a worker that was started again keeps its place, and has another process', t => {
  const dir = stateDir(t);
  assert.deepEqual(asRestarted(dir, worker), worker, 'nothing is on record');
  writeRestart(dir, worker.id, restart);
  assert.deepEqual(asRestarted(dir, worker), {...worker, ...restart});
  const other = {...worker, slot: 1, port: 8812, id: 'site/d1/1'};
  const generation = {deploy: 'd1', release: {id: '000001', revision: 'r1', dir: '/d'}, configHash: 'h', since: worker.startedAt, workers: [worker, other]};
  assert.deepEqual(generationAsRestarted(dir, generation).workers, [{...worker, ...restart}, other]);
});

for (const [what, text] of [['empty', ''], ['cut off', '{"version":1,"proc'], ['of a later version', JSON.stringify({version: 2, ...restart})]] as const) {
  test(`a record that is ${what} counts for nothing`, t => {
    const dir = stateDir(t);
    writeRestart(dir, worker.id, restart);
    const [name = ''] = readdirSync(join(dir, 'restarts'));
    writeFileSync(join(dir, 'restarts', name), text);
    assert.deepEqual(asRestarted(dir, worker), worker);
  });
}

test('what is on record of others is forgotten, twice as well as once', t => {
  const dir = stateDir(t);
  writeRestart(dir, worker.id, restart);
  writeRestart(dir, 'site/d0/0', restart);
  for (let round = 0; round < 2; round++) {
    forgetRestarts(dir, new Set([worker.id]));
    assert.equal(readdirSync(join(dir, 'restarts')).length, 1);
    assert.deepEqual(asRestarted(dir, worker), {...worker, ...restart});
  }
  assert.ok(!existsSync(join(dir, 'restarts', 'site.d0.0.json')));
});
