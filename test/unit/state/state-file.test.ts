import assert from 'node:assert/strict';
import {existsSync, readFileSync, rmSync, statSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {crc32} from 'node:zlib';
import {after, beforeEach, test} from 'node:test';
import {DeployError} from '../../../src/errors.ts';
import {addToHistory} from '../../../src/state/history.ts';
import {EMPTY_STATE, makeStateDir, readState, writeState} from '../../../src/state/state-file.ts';
import {makeTempDir, removeTempDir} from '../../support/temp-dir.ts';
import {line, STATE} from './samples.ts';

const root = makeTempDir();
after(() => removeTempDir(root));
let dir = '';
let path = '';
let runs = 0;
beforeEach(() => {
  dir = join(root, String(++runs));
  path = join(dir, 'state.json');
  makeStateDir(dir);
});
const isUncertain = (error: unknown) => error instanceof DeployError && error.code === 'STATE_UNCERTAIN';
const OLDER = {...STATE, nextRelease: 12, serving: null};

test('what is written is read, and the state before it stands beside it', () => {
  assert.deepEqual(readState(dir), EMPTY_STATE);
  writeState(dir, OLDER);
  assert.equal(existsSync(`${path}.prev`), false);
  writeState(dir, STATE);
  assert.deepEqual(readState(dir), STATE);
  assert.match(readFileSync(`${path}.prev`, 'utf8'), /"nextRelease":12/);
  assert.deepEqual([statSync(path).mode & 0o777, statSync(dir).mode & 0o777, statSync(join(dir, 'drains')).mode & 0o777], [0o600, 0o711, 0o700]);
});

for (const before of [false, true]) {
  test(`cut at every byte it is never guessed${before ? ', though the state before it is whole' : ''}`, () => {
    if (before) writeState(dir, OLDER);
    writeState(dir, STATE);
    const bytes = readFileSync(path);
    for (let length = 0; length < bytes.length - 1; length++) {
      writeFileSync(path, bytes.subarray(0, length));
      assert.throws(() => readState(dir), isUncertain, `cut at ${length}`);
    }
    writeFileSync(path, bytes.subarray(0, -1));
    assert.deepEqual(readState(dir), STATE, 'only the line feed is missing');
  });
}

test('one byte changed is found out', () => {
  writeState(dir, STATE);
  const bytes = readFileSync(path);
  for (let at = 0; at < bytes.length - 1; at++) {
    const changed = Buffer.from(bytes);
    changed[at] = (changed[at] ?? 0) ^ 1;
    writeFileSync(path, changed);
    assert.throws(() => readState(dir), isUncertain, `byte ${at}`);
  }
});

test('changed by hand', () => {
  writeState(dir, OLDER);
  writeState(dir, STATE);
  writeFileSync(path, readFileSync(path, 'utf8').replace('"port":8811', '"port":8812'));
  assert.throws(() => readState(dir), error => isUncertain(error) && /changed by hand/.test(String(error)));
});

for (const [situation, text] of [
  ['of a future version', sealed({...STATE, version: 2})],
  ['of no version', sealed({serving: null})],
  ['a list', '[]\n'], ['null', 'null\n'], ['a number', '7\n'], ['not JSON', 'hello\n'], ['without a check sum', '{"state":{"version":1}}\n'],
  ['with a check sum of nothing', sealed(null)],
] as const) {
  test(`${situation}: refused, whatever the state before it says`, () => {
    writeState(dir, OLDER);
    writeState(dir, STATE);
    writeFileSync(path, text);
    assert.throws(() => readState(dir), isUncertain);
  });
}

test('deleted after something was deployed: refused', () => {
  writeState(dir, OLDER);
  writeState(dir, STATE);
  rmSync(path);
  assert.throws(() => readState(dir), isUncertain);
  rmSync(`${path}.prev`);
  addToHistory(dir, line('d1'));
  assert.throws(() => readState(dir), isUncertain);
});

test('deleted, but only failed deploys are known: empty', () => {
  addToHistory(dir, {...line('d1'), outcome: 'aborted'});
  assert.deepEqual(readState(dir), EMPTY_STATE);
});

test('a directory or a place that cannot be made is named', () => {
  writeFileSync(join(root, 'file'), '');
  assert.throws(() => makeStateDir(join(root, 'file', 'below')), error => error instanceof DeployError && error.code === 'CONFIG_INVALID' && /file\/below/.test(error.message));
});

function sealed(state: unknown): string {
  return `${JSON.stringify({crc: crc32(JSON.stringify(state)), state})}\n`;
}
