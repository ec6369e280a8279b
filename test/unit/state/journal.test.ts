import assert from 'node:assert/strict';
import {readFileSync, statSync, writeFileSync} from 'node:fs';
import fs from 'node:fs';
import {syncBuiltinESMExports} from 'node:module';
import {join} from 'node:path';
import {after, beforeEach, mock, test} from 'node:test';
import {DeployError} from '../../../src/errors.ts';
import {beginJournal, continueJournal, decodeJournal, encodeLine, readJournal, type JournalEntry, type JournalLine} from '../../../src/state/journal.ts';
import {makeTempDir, removeTempDir} from '../../support/temp-dir.ts';
import {GENERATION} from './samples.ts';

const dir = makeTempDir();
const path = join(dir, 'journal.ndjson');
after(() => removeTempDir(dir));

const FIRST: JournalLine = {type: 'deploy', version: 1, id: 'd1', trigger: 'hook', requestedBy: 'Jürgen\n"x"', configHash: 'abc'};
const MORE: JournalLine[] = [
  {type: 'phase', phase: 'update', state: 'began'},
  {type: 'revision', revision: 'r41', newest: true},
  {type: 'release', release: GENERATION.release, existing: false},
  {type: 'started', worker: GENERATION.workers[0] ?? assert.fail()},
];
const types = (entries: readonly JournalEntry[]) => entries.map(({type}) => type);
const isUncertain = (error: unknown) => error instanceof DeployError && error.code === 'STATE_UNCERTAIN';

beforeEach(() => {
  const journal = beginJournal(dir, FIRST);
  journal.append(...MORE);
  journal.close();
  journal.close();
});

test('what is written is read, entry by entry', () => {
  assert.deepEqual(readJournal(dir).map(({at: _, ...entry}) => entry), [FIRST, ...MORE]);
  assert.equal(statSync(path).mode & 0o777, 0o600);
});

test('without a file there was no deploy', () => {
  assert.deepEqual(readJournal(join(dir, 'absent')), []);
});

test('the next deploy begins anew', () => {
  beginJournal(dir, {...FIRST, id: 'd2'}).close();
  assert.deepEqual(readJournal(dir).map(entry => entry.type === 'deploy' && entry.id), ['d2']);
});

test('torn at every byte: the whole lines before it stand, and are gone on with', () => {
  const bytes = readFileSync(path);
  for (let length = 0; length <= bytes.length; length++) {
    const torn = bytes.subarray(0, length);
    const whole = torn.toString('latin1').split('\n').length - 1;
    assert.equal(decodeJournal(torn, path).length, whole, `cut at ${length}`);
  }
  for (let length = 1; length <= bytes.length; length += 7) {
    writeFileSync(path, bytes.subarray(0, length));
    const before = readJournal(dir);
    const journal = continueJournal(dir);
    journal.append({type: 'closed', outcome: 'aborted'});
    journal.append({type: 'closed', outcome: 'again'});
    journal.close();
    assert.deepEqual(readJournal(dir), [...before, ...readJournal(dir).slice(-2)]);
    assert.equal(readJournal(dir).length, before.length + 2);
  }
});

test('one byte changed: the last line may be torn, any other is refused', () => {
  const bytes = readFileSync(path);
  const lastLine = bytes.lastIndexOf('\n', bytes.length - 2) + 1;
  for (let at = 0; at < bytes.length - 1; at++) {
    const changed = Buffer.from(bytes);
    changed[at] = (changed[at] ?? 0) ^ 1;
    // Without the line feed between them the last two lines are one, and torn.
    if (at === lastLine - 1) assert.equal(decodeJournal(changed, path).length, MORE.length - 1);
    else if (at < lastLine) assert.throws(() => decodeJournal(changed, path), isUncertain, `byte ${at} of ${lastLine}`);
    else assert.equal(decodeJournal(changed, path).length, MORE.length, `byte ${at}`);
  }
});

test('a line that is not ours is refused', () => {
  const bytes = readFileSync(path);
  assert.throws(() => decodeJournal(Buffer.concat([Buffer.from('hello\n'), bytes]), path), error => isUncertain(error) && /ndjson:1: .*"hello"/.test(String(error)));
  assert.throws(() => decodeJournal(Buffer.concat([bytes, Buffer.from('\n\n')]), path), isUncertain);
  assert.throws(() => decodeJournal(Buffer.concat([Buffer.alloc(10), Buffer.from('\n'), bytes]), path), isUncertain);
});

test('a valid line of a future kind is kept by whoever goes on', () => {
  const future = encodeLine({at: 'x', type: 'from the future'} as unknown as JournalEntry);
  writeFileSync(path, Buffer.concat([readFileSync(path), future]));
  continueJournal(dir).close();
  assert.deepEqual(types(readJournal(dir)).at(-1), 'from the future');
});

test('a disk that is full in the middle of a line spoils none of those after it', () => {
  const journal = continueJournal(dir);
  const write = fs.writeSync;
  const full = mock.method(fs, 'writeSync', (fd: number, bytes: Buffer, from: number) => {
    if (from > 0) throw Object.assign(new Error('ENOSPC: no space left on device, write'), {code: 'ENOSPC'});
    return write(fd, bytes.subarray(0, 20));
  });
  syncBuiltinESMExports();
  try {
    assert.throws(() => journal.append({type: 'reloading'}), /ENOSPC/);
  } finally {
    full.mock.restore();
    syncBuiltinESMExports();
  }
  journal.append({type: 'aborting', code: 'INTERNAL', error: 'disk full'});
  journal.append({type: 'closed', outcome: 'aborted'});
  journal.close();
  assert.deepEqual(types(readJournal(dir)), [...types([FIRST, ...MORE] as JournalEntry[]), 'aborting', 'closed']);
});

test('a link in place of the journal is not followed', () => {
  const other = join(dir, 'elsewhere');
  writeFileSync(other, readFileSync(path));
  fs.rmSync(path);
  fs.symlinkSync(other, path);
  assert.throws(() => readJournal(dir));
  assert.throws(() => continueJournal(dir));
  fs.rmSync(path);
});
