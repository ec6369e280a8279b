import assert from 'node:assert/strict';
import {mkdtempSync, rmSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {afterEach, beforeEach, describe, test} from 'node:test';
import {readEnvFile} from '../../../src/config/env-file.ts';
import {DeployError} from '../../../src/errors.ts';

let directory = '';
let file = '';
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'osyw-env-'));
  file = join(directory, 'app.env');
});
afterEach(() => {
  rmSync(directory, {recursive: true});
});

function read(content: string | Uint8Array): Record<string, string> {
  writeFileSync(file, content);
  return readEnvFile(file);
}

test('names, quotes, comments, and no substitution', () => {
  assert.deepEqual(read([
    '\ufeff# a comment', '', 'A=1', '  B = two words ', 'C="quoted # and $A"', 'D=\'single\'', 'E=', 'F=a=b # part of it', 'G=$A\r', 'H=it\'s',
  ].join('\n')), {
    A: '1', B: 'two words', C: 'quoted # and $A', D: 'single', E: '', F: 'a=b # part of it', G: '$A', H: 'it\'s',
  });
});

describe('a bad line is named by number, without its value', () => {
  for (const [situation, line, says] of [
    ['no equals sign', 'geheim', /app\.env:2: is not KEY=value/],
    ['export', 'export A=geheim', /app\.env:2: is not KEY=value/],
    ['a digit first', '1A=geheim', /app\.env:2: is not KEY=value/],
    ['__proto__', '__proto__=geheim', /app\.env:2: is not KEY=value/],
    ['an open quote', 'A="geheim', /app\.env:2: the quote of A is not closed/],
    ['a quote alone', 'A="', /app\.env:2: the quote of A is not closed/],
    ['a name twice', 'FIRST=geheim', /app\.env:2: FIRST is already set on line 1/],
  ] as const) {
    test(situation, () => {
      assert.throws(() => read(`FIRST=1\n${line}\n`), error => {
        assert.ok(error instanceof DeployError);
        assert.equal(error.code, 'CONFIG_INVALID');
        assert.match(error.message, says);
        assert.doesNotMatch(error.message, /geheim/);
        return true;
      });
    });
  }
});

test('missing, a directory, not text', () => {
  assert.throws(() => readEnvFile(join(directory, 'absent')), /absent: is not there/);
  assert.throws(() => readEnvFile(directory), /not a regular file/);
  assert.throws(() => read(Buffer.from([0x41, 0x3d, 0xff])), /UTF-8/);
});
