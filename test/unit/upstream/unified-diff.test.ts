import assert from 'node:assert/strict';
import {spawnSync} from 'node:child_process';
import {readFileSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {after, test} from 'node:test';
import fc from 'fast-check';
import {unifiedDiff} from '../../../src/upstream/unified-diff.ts';
import {makeTempDir, removeTempDir} from '../../support/temp-dir.ts';

const dir = makeTempDir();
after(() => removeTempDir(dir));
const file = join(dir, 'file');

/** What patch(1) makes of it. */
function patched(before: string, diff: string): string {
  writeFileSync(file, before);
  if (diff === '') return before;
  const {status, stdout, stderr} = spawnSync('patch', ['--quiet', '--no-backup-if-mismatch', '--fuzz=0', file], {input: diff, encoding: 'utf8'});
  assert.equal(status, 0, `${stdout}${stderr}\n${diff}`);
  return readFileSync(file, 'utf8');
}

test('one changed line, as diff -u shows it', () => {
  const [before, after] = ['upstream myweb {\n    server 127.0.0.1:8811;\n}\n', 'upstream myweb {\n    server 127.0.0.1:8812;\n}\n'];
  assert.equal(unifiedDiff(before, after, '/etc/x.conf'), '--- /etc/x.conf\n+++ /etc/x.conf\n@@ -1,3 +1,3 @@\n upstream myweb {\n-    server 127.0.0.1:8811;\n+    server 127.0.0.1:8812;\n }\n');
  writeFileSync(join(dir, 'a'), before);
  writeFileSync(join(dir, 'b'), after);
  const {stdout} = spawnSync('diff', ['-u', '--label', '/etc/x.conf', '--label', '/etc/x.conf', join(dir, 'a'), join(dir, 'b')], {encoding: 'utf8'});
  assert.equal(unifiedDiff(before, after, '/etc/x.conf'), stdout);
});

test('the same text has no difference', () => {
  for (const text of ['', 'a', 'a\n', '\n']) assert.equal(unifiedDiff(text, text, 'x'), '');
});

for (const [situation, before, after] of [
  ['a file that is new', '', 'a\nb\n'],
  ['a file that is emptied', 'a\nb\n', ''],
  ['an empty line more', 'a\n', 'a\n\n'],
  ['a line feed alone', '', '\n'],
  ['lines that look like a diff', '--- a\n+++ b\n@@ -1 +1 @@\n', '--- a\n+++ c\n-x\n+y\n'],
  ['a line feed at the end that was missing', 'a\nb', 'a\nb\n'],
  ['a line feed at the end that goes', 'a\nb\n', 'a\nb'],
  ['neither ends with a line feed', 'a\nb', 'a\nc'],
] as const) {
  test(`patch makes the new text of the old one: ${situation}`, () => assert.equal(patched(before, unifiedDiff(before, after, 'file')), after));
}

test('a change far down a long file, as diff -u shows it', () => {
  const lines = Array.from({length: 100_000}, (_, i) => `line ${i}`);
  const [before, after] = [lines.join('\n'), lines.with(70_000, 'other').join('\n')];
  assert.equal(unifiedDiff(before, after, 'x'), '--- x\n+++ x\n@@ -69998,7 +69998,7 @@\n line 69997\n line 69998\n line 69999\n-line 70000\n+other\n line 70001\n line 70002\n line 70003\n');
});

test('any two texts: taking the lines of one side gives that side', () => {
  const lines = fc.array(fc.constantFrom('a', 'b', 'c', '', ' ', '-', '+x', '\\ y'), {maxLength: 12}).map(all => all.map(line => `${line}\n`).join(''));
  fc.assert(fc.property(lines, lines, (before, after) => {
    const diff = unifiedDiff(before, after, 'file');
    if (before === after) return assert.equal(diff, '');
    const body = diff.split('\n').slice(3, -1);
    const [, first = '', length = ''] = /^@@ -(\d+),(\d+) \+\d+,\d+ @@$/.exec(diff.split('\n')[2] ?? '') ?? [];
    const ahead = Number(length) === 0 ? Number(first) : Number(first) - 1;
    const all = before.split('\n').slice(0, -1);
    const side = (other: string) => [...all.slice(0, ahead), ...body.filter(line => !line.startsWith(other)).map(line => line.slice(1)), ...all.slice(ahead + Number(length))].map(line => `${line}\n`).join('');
    assert.equal(side('+'), before);
    assert.equal(side('-'), after);
  }), {numRuns: 300});
});

test('any two texts: patch makes one of the other', () => {
  const lines = fc.array(fc.constantFrom('a', 'b', ' ', '-x'), {maxLength: 8}).map(all => all.map(line => `${line}\n`).join(''));
  fc.assert(fc.property(lines, lines, (before, after) => assert.equal(patched(before, unifiedDiff(before, after, 'file')), after)), {numRuns: 15});
});
