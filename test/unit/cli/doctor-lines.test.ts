import assert from 'node:assert/strict';
import {readdirSync, readFileSync} from 'node:fs';
import {join} from 'node:path';
import {test} from 'node:test';
import {fileURLToPath} from 'node:url';
import {doctorLines} from '../../../src/cli/doctor-lines.ts';
import type {Finding} from '../../../src/doctor/finding.ts';

const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
const FINDINGS: Finding[] = [
  {check: 'node', level: 'ok', says: 'this is Node 20'},
  {check: 'log-rotation', level: 'warning', says: 'nobody rotates', mend: 'copytruncate'},
  {check: 'hook', level: 'note', says: 'no hook'},
  {check: 'nginx-config', level: 'problem', says: 'nginx says:\nin "\x1b[2Jx":1', means: 'no reload\x07', mend: 'one\n\ntwo', place: '/etc/a\nb'},
];
const usual = {verbosity: 'usual', colour: false} as const;

test('problems first, each with what it means and how to mend it', () => {
  const problem = ['problem nginx-config in /etc/a b', '  nginx says:', '  in "\\x1b[2Jx":1', '  no reload\\x07', '  → one', '  → two', ''];
  assert.deepEqual(doctorLines('osyw', FINDINGS, usual), [
    'osyw', ...problem,
    'warning log-rotation', '  nobody rotates', '  → copytruncate', '',
    'note hook', '  no hook', '',
    '✓ 1 check found nothing; --verbose shows them',
    '1 problem, 1 warning, 1 note',
  ]);
  assert.deepEqual(doctorLines('osyw', FINDINGS, {verbosity: 'problems', colour: false}), problem);
  assert.deepEqual(doctorLines(null, FINDINGS.slice(0, 1), {verbosity: 'all', colour: false}), ['✓ node: this is Node 20', '✓ 1 check found nothing', '0 problems, 0 warnings, 0 notes']);
});

test('colour changes no character', () => {
  const coloured = doctorLines('osyw', FINDINGS, {...usual, colour: true});
  assert.deepEqual(coloured.map(text => text.replace(/\x1b\[\d+m/g, '')), doctorLines('osyw', FINDINGS, usual));
  assert.match(coloured[1] ?? '', /^\x1b\[31mproblem nginx-config\x1b\[0m\x1b\[2m in/);
});

test("the README's table has every check by its name, and no other", () => {
  const folder = join(ROOT, 'src/doctor');
  const code = readdirSync(folder).map(name => readFileSync(join(folder, name), 'utf8')).join('\n');
  const names = new Set([...code.matchAll(/\bcheck(?:: | = |\()'([a-z-]+)'|judge\('([a-z-]+)'|inProcesses\('([a-z-]+)'|starting \? '(hook-[a-z]+)'/g)].map(([, ...found]) => found.find(one => one !== undefined) ?? ''));
  const section = /^## The doctor\n([^]*?)^## /m.exec(readFileSync(join(ROOT, 'README.md'), 'utf8'))?.[1] ?? '';
  const rows = [...section.matchAll(/^\| (.+?) \|/gm)].flatMap(([, cell = '']) => [...cell.matchAll(/`([a-z-]+)`/g)].map(([, name = '']) => name));
  assert.ok(names.size > 40, [...names].join(' '));
  assert.deepEqual([...rows].sort(), [...names].sort());
});
