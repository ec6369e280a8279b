import assert from 'node:assert/strict';
import {execFileSync} from 'node:child_process';
import fs, {linkSync, mkdirSync, readFileSync, readdirSync, statSync, symlinkSync, writeFileSync} from 'node:fs';
import {syncBuiltinESMExports} from 'node:module';
import {join} from 'node:path';
import {after, beforeEach, mock, test} from 'node:test';
import {ignoreMissing, readRegularFile, replaceFile, writeDurably} from '../../../src/state/atomic-file.ts';
import {makeTempDir, removeTempDir} from '../../support/temp-dir.ts';

const root = makeTempDir();
after(() => removeTempDir(root));
let dir = '';
let path = '';
let runs = 0;
beforeEach(() => {
  dir = join(root, String(++runs));
  mkdirSync(dir);
  path = join(dir, 'file');
});

/** The calls that are made of `node:fs`, one of them failing. */
function calls(work: () => void, fails?: string): string[] {
  const made: string[] = [];
  const names = ['openSync', 'writeSync', 'fsyncSync', 'fdatasyncSync', 'renameSync', 'closeSync', 'unlinkSync', 'fchmodSync'] as const;
  const mocks = names.map(name => {
    const original = fs[name] as (...args: unknown[]) => unknown;
    return mock.method(fs, name, (...args: unknown[]) => {
      made.push(name.replace('Sync', ''));
      if (name === fails) throw Object.assign(new Error(`EIO: i/o error, ${name}`), {code: 'EIO'});
      return original(...args);
    });
  });
  syncBuiltinESMExports();
  try {
    work();
  } catch (error) {
    made.push(String(error));
  } finally {
    for (const one of mocks) one.mock.restore();
    syncBuiltinESMExports();
  }
  return made;
}

test('written, synced, renamed, the directory synced; in this order', () => {
  const made = calls(() => replaceFile(path, 'new', {mode: 0o640}));
  assert.deepEqual(made.filter(name => ['write', 'fsync', 'rename'].includes(name)), ['write', 'fsync', 'rename', 'fsync']);
  assert.equal(made.filter(name => name === 'open').length, made.filter(name => name === 'close').length);
  assert.equal(readFileSync(path, 'utf8'), 'new');
  assert.equal(statSync(path).mode & 0o777, 0o640);
});

for (const fails of ['openSync', 'writeSync', 'fchmodSync', 'fsyncSync', 'renameSync']) {
  test(`${fails} fails: the old bytes stand, and are never seen half`, () => {
    writeFileSync(path, 'old');
    const made = calls(() => replaceFile(path, 'new', {mode: 0o600}), fails);
    assert.match(made.at(-1) ?? '', /EIO/);
    assert.equal(readFileSync(path, 'utf8'), 'old');
    if (fails !== 'renameSync') assert.deepEqual(readdirSync(dir), ['file'], 'no dotfile is left');
    assert.equal(made.filter(name => name === 'fsync').length, fails === 'fsyncSync' || fails === 'renameSync' ? 1 : 0, 'a failed sync is not tried again');
    replaceFile(path, 'newer', {mode: 0o600});
    assert.equal(readFileSync(path, 'utf8'), 'newer');
    assert.deepEqual(readdirSync(dir), ['file']);
  });
}

test('a candidate that a crash or somebody else left is not written through', () => {
  const victim = join(dir, 'victim');
  writeFileSync(victim, 'untouched');
  symlinkSync(victim, join(dir, '.file.new'));
  replaceFile(path, 'new', {mode: 0o600});
  linkSync(victim, join(dir, '.file.new'));
  replaceFile(path, 'newer', {mode: 0o600});
  assert.deepEqual([readFileSync(victim, 'utf8'), readFileSync(path, 'utf8')], ['untouched', 'newer']);
});

test('a link as the target is replaced, not followed', () => {
  const victim = join(dir, 'victim');
  writeFileSync(victim, 'untouched');
  symlinkSync(victim, path);
  writeDurably(path, 'new', {mode: 0o600});
  assert.deepEqual([readFileSync(victim, 'utf8'), readFileSync(path, 'utf8')], ['untouched', 'new']);
});

test('only regular files are read, and nothing blocks', () => {
  assert.equal(readRegularFile(join(dir, 'absent')), undefined);
  writeFileSync(path, Buffer.alloc(100_000, 7));
  assert.deepEqual(readRegularFile(path), Buffer.alloc(100_000, 7));
  symlinkSync(path, join(dir, 'link'));
  execFileSync('mkfifo', [join(dir, 'fifo')]);
  for (const name of ['link', 'fifo', '.']) assert.throws(() => readRegularFile(join(dir, name)), name);
});

test('only what is missing is ignored', () => {
  ignoreMissing(() => {
    throw Object.assign(new Error('x'), {code: 'ENOENT'});
  });
  assert.throws(() => ignoreMissing(() => {
    throw Object.assign(new Error('x'), {code: 'EACCES'});
  }), {code: 'EACCES'});
});
