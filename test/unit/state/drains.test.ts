import assert from 'node:assert/strict';
import {readFileSync, readdirSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {after, beforeEach, test} from 'node:test';
import {DeployError} from '../../../src/errors.ts';
import {readDrains, takeDrain, writeDrain} from '../../../src/state/drains.ts';
import {makeStateDir} from '../../../src/state/state-file.ts';
import {makeTempDir, removeTempDir} from '../../support/temp-dir.ts';
import {waitUntil} from '../../support/wait-until.ts';
import {startHolder} from './lock-holder.ts';
import {drain} from './samples.ts';

const root = makeTempDir();
after(() => removeTempDir(root));
let dir = '';
let runs = 0;
beforeEach(() => {
  dir = join(root, String(++runs));
  makeStateDir(dir);
});

test('drains are read oldest first, and what is not one is left alone', () => {
  assert.deepEqual(readDrains(join(root, 'absent')), []);
  writeDrain(dir, drain('20261124-000000-aaaaaa'));
  writeDrain(dir, drain('20261123-000000-bbbbbb'));
  writeFileSync(join(dir, 'drains', '.20261123-000000-bbbbbb.json.new'), 'half');
  writeFileSync(join(dir, 'drains', 'README'), 'hello');
  assert.deepEqual(readDrains(dir), [drain('20261123-000000-bbbbbb'), drain('20261124-000000-aaaaaa')]);
});

test('cut at every byte, or of another version, it is refused and not guessed', () => {
  writeDrain(dir, drain('d1'));
  const path = join(dir, 'drains', 'd1.json');
  const bytes = readFileSync(path);
  const isUncertain = (error: unknown) => error instanceof DeployError && error.code === 'STATE_UNCERTAIN' && error.message.startsWith(path);
  for (const text of [...Array.from(bytes, (_, length) => bytes.subarray(0, length)), 'null', '[]', '{}', JSON.stringify({...drain('d1'), version: 2}), JSON.stringify({...drain('d1'), generation: {}})]) {
    writeFileSync(path, text);
    assert.throws(() => readDrains(dir), isUncertain, String(text));
    assert.throws(() => takeDrain(dir, 'd1'), isUncertain, String(text));
  }
});

test('a drain is taken by one only; when let go it can be taken up, when done it is gone', () => {
  writeDrain(dir, drain('d1'));
  const first = takeDrain(dir, 'd1');
  assert.deepEqual(first?.drain, drain('d1'));
  assert.equal(takeDrain(dir, 'd1'), undefined);
  assert.deepEqual(readDrains(dir), [drain('d1')], 'looking is free');
  first?.release();
  const second = takeDrain(dir, 'd1');
  second?.finish();
  assert.equal(takeDrain(dir, 'd1'), undefined);
  assert.deepEqual(readdirSync(join(dir, 'drains')), []);
});

test('written anew while it is held, it is taken as it stands now', () => {
  writeDrain(dir, drain('d1'));
  const held = takeDrain(dir, 'd1');
  writeDrain(dir, {...drain('d1'), history: null});
  held?.release();
  const again = takeDrain(dir, 'd1');
  assert.equal(again?.drain.history, null);
  again?.release();
});

test('written anew while it is held, it is not gone when the holder is done with the old one', () => {
  writeDrain(dir, drain('d1'));
  const held = takeDrain(dir, 'd1');
  writeDrain(dir, {...drain('d1'), since: 'later'});
  held?.finish();
  assert.equal(readDrains(dir)[0]?.since, 'later');
});

test('what another process holds is not taken; its death frees it, though a detached child of it lives on', async () => {
  writeDrain(dir, drain('d1'));
  const holder = await startHolder('drain', dir, 'd1');
  try {
    assert.equal(takeDrain(dir, 'd1'), undefined);
    await holder.kill();
    const held = await waitUntil('the drain to be free', () => takeDrain(dir, 'd1'));
    held.finish();
    assert.deepEqual(readDrains(dir), []);
  } finally {
    await holder.end();
  }
});
