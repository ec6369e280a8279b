import assert from 'node:assert/strict';
import {appendFileSync, readFileSync, statSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {after, beforeEach, test} from 'node:test';
import {addToHistory, lastDeploys, readHistory} from '../../../src/state/history.ts';
import {makeTempDir, removeTempDir} from '../../support/temp-dir.ts';
import {line} from './samples.ts';

const dir = makeTempDir();
const path = join(dir, 'history.ndjson');
after(() => removeTempDir(dir));
beforeEach(() => writeFileSync(path, ''));
const ids = () => readHistory(dir).map(({id}) => id);

test('lines are read oldest first; none at all is an empty history', () => {
  assert.deepEqual(readHistory(join(dir, 'absent')), []);
  addToHistory(dir, line('d1'));
  addToHistory(dir, line('d2', 'a text with "id":"d3" and\na line feed'));
  assert.deepEqual(readHistory(dir), [line('d1'), line('d2', 'a text with "id":"d3" and\na line feed')]);
});

test('a deploy gets no second line', () => {
  for (const id of ['d1', 'd2', 'd1', 'd2']) addToHistory(dir, line(id));
  assert.deepEqual(ids(), ['d1', 'd2']);
});

test('an id that is part of another, or of a text, is another', () => {
  addToHistory(dir, line('d11', '{"id":"d2"} "id":"d3"'));
  for (const id of ['d1', 'd2', 'd3']) addToHistory(dir, line(id));
  assert.deepEqual(ids(), ['d11', 'd1', 'd2', 'd3']);
});

test('a last line torn at every byte is skipped, and the deploy still gets its line', () => {
  const first = `${JSON.stringify(line('d1'))}\n`;
  const second = Buffer.from(`${JSON.stringify(line('d2'))}\n`);
  for (let length = 0; length <= second.length; length += length < 20 || length > second.length - 3 ? 1 : 9) {
    writeFileSync(path, first);
    appendFileSync(path, second.subarray(0, length));
    assert.deepEqual(ids(), length >= second.length - 1 ? ['d1', 'd2'] : ['d1'], `cut at ${length}`);
    addToHistory(dir, line('d2'));
    addToHistory(dir, line('d3'));
    assert.deepEqual(ids(), ['d1', 'd2', 'd3'], `cut at ${length}`);
  }
});

test('it is made readable for its owner alone, and only appended to', () => {
  const other = join(dir, 'other');
  writeFileSync(other, '');
  addToHistory(dir, line('d1'));
  const before = readFileSync(path);
  addToHistory(dir, line('d2'));
  assert.deepEqual(readFileSync(path).subarray(0, before.length), before);
  const fresh = makeTempDir();
  addToHistory(fresh, line('d1'));
  assert.equal(statSync(join(fresh, 'history.ndjson')).mode & 0o777, 0o600);
});

test('the last deploys are newest first, without what came to no deploy and what is torn', () => {
  assert.deepEqual(lastDeploys(join(dir, 'absent'), 5), []);
  addToHistory(dir, line('d1'), {...line('d2', 'grüße'), outcome: 'aborted'}, {...line('d3'), outcome: 'unchanged'}, line('d4'), {...line('d5'), outcome: 'superseded'});
  appendFileSync(path, '{"id":"d6","outc');
  const last = (count: number) => lastDeploys(dir, count).map(({id}) => id);
  assert.deepEqual([last(1), last(2), last(5)], [['d4'], ['d4', 'd2'], ['d4', 'd2', 'd1']]);
  assert.deepEqual(lastDeploys(dir, 2)[1], {...line('d2', 'grüße'), outcome: 'aborted'});
});
