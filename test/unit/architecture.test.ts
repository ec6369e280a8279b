import assert from 'node:assert/strict';
import {readdirSync, readFileSync} from 'node:fs';
import {join} from 'node:path';
import {fileURLToPath} from 'node:url';
import {describe, test} from 'node:test';

const SRC = fileURLToPath(new URL('../../src/', import.meta.url));
const files = readdirSync(SRC, {recursive: true, encoding: 'utf8'}).filter(name => name.endsWith('.ts')).sort();
const textOf = (name: string) => readFileSync(join(SRC, name), 'utf8');
/** Without comments; a `//` in a string may go, too. */
const codeOf = (name: string) => textOf(name).replace(/\/\*[^]*?\*\//g, '').replace(/(^|\s)\/\/.*$/gm, '$1');

interface Import {
  readonly file: string;
  readonly of: string;
  readonly typesOnly: boolean;
}

const imports: Import[] = files.flatMap(file => [
  ...[...codeOf(file).matchAll(/^(?:import|export)\s+(type\s+)?([^'"]*?)\bfrom\s+['"]([^'"]+)['"]/gms)].map(([, type, names = '', of = '']) => ({file, of, typesOnly: type !== undefined || /^\{(?:\s*type\s[^,}]+,?)+\s*\}\s*$/.test(names)})),
  ...[...codeOf(file).matchAll(/^import\s+['"]([^'"]+)['"]/gm), ...codeOf(file).matchAll(/\bimport\(\s*['"]([^'"]+)['"]\s*\)/g)].map(([, of = '']) => ({file, of, typesOnly: false})),
]);
const importers = (of: (name: string) => boolean, {types = true} = {}) => [...new Set(imports.filter(one => of(one.of) && (types || !one.typesOnly)).map(({file}) => file))];
/** `upstream/x.ts` for what `file` imports of ours. */
const target = ({file, of}: Import) => join(file, '..', of);
const folder = (name: string) => name.includes('/') ? name.split('/')[0] ?? '' : '';

test('the import lines are found at all', () => {
  assert.ok(files.length > 50 && imports.length > 300);
  assert.ok(imports.some(({typesOnly}) => typesOnly) && imports.some(({file, of}) => file === 'main.ts' && of === './cli/program.ts'));
});

describe('a package is used in one place', () => {
  for (const [name, ...places] of [
    ['simple-git', 'working-copy/'],
    ['picomatch', 'working-copy/path-globs.ts'],
    ['execa', 'support/run-command.ts'],
    ['commander', 'cli/program.ts'],
    ['pino', 'log.ts'],
    ['yaml', 'config/'],
    ['valibot', 'config/'],
    ['@valibot/to-json-schema', 'config/'],
    ['chokidar', 'trigger/'],
  ] as const) {
    test(name, () => assert.deepEqual(importers(of => of === name || of.startsWith(`${name}/`)).filter(file => !places.some(place => file.startsWith(place))), []));
  }
  test('and there is no other', () => {
    const others = imports.map(({of}) => of).filter(of => !of.startsWith('.') && !of.startsWith('node:'));
    assert.deepEqual([...new Set(others)].filter(of => !['simple-git', 'picomatch', 'execa', 'commander', 'pino', 'yaml', 'valibot', '@valibot/to-json-schema', 'chokidar'].includes(of)), []);
  });
});

test('processes are started in a few places only', () => {
  assert.deepEqual(importers(of => of === 'node:child_process'), [
    'cli/turn.ts', // leaves a drain behind
    'releases/tree-manifest.ts', // find(1) beside us
    'state/deploy-lock.ts', // flock(1)
    'support/run-command.ts',
    'workers/launch-worker.ts',
  ]);
});

describe('the core does no I/O', () => {
  const core = imports.filter(({file}) => folder(file) === 'deploy' || folder(file) === 'supervise');
  test('of Node only what has no effect', () => {
    assert.deepEqual(core.filter(({of, typesOnly}) => of.startsWith('node:') && !typesOnly && of !== 'node:crypto' && of !== 'node:timers/promises'), []);
  });
  test('of the other folders only their types', () => {
    const allowed = (name: string) => ['deploy', 'supervise', 'support'].includes(folder(name)) || name === 'errors.ts';
    assert.deepEqual(core.filter(one => one.of.startsWith('.') && !one.typesOnly && !allowed(target(one))), []);
  });
  test('what it takes of support has no effect either', () => {
    assert.deepEqual([...new Set(core.filter(one => !one.typesOnly && folder(target(one)) === 'support').map(target))].filter(name => !['support/durations.ts', 'support/edited-revision.ts', 'support/plain-text.ts'].includes(name)), []);
  });
});

describe('folders do not reach backwards', () => {
  const OUT = ['working-copy', 'releases', 'workers', 'health', 'nginx', 'upstream', 'state', 'service', 'support'];
  test('what does the work knows nothing of the command line, the triggers or the wiring', () => {
    assert.deepEqual(imports.filter(one => OUT.includes(folder(one.file)) && one.of.startsWith('.') && (['cli', 'trigger'].includes(folder(target(one))) || ['wire.ts', 'main.ts', 'log.ts'].includes(target(one)))), []);
  });
  test('nor does it call the core', () => {
    assert.deepEqual(imports.filter(one => OUT.includes(folder(one.file)) && !one.typesOnly && one.of.startsWith('.') && folder(target(one)) === 'deploy'), []);
  });
  test('a trigger knows nothing of the command line', () => {
    assert.deepEqual(imports.filter(one => folder(one.file) === 'trigger' && one.of.startsWith('.') && (folder(target(one)) === 'cli' || ['main.ts', 'log.ts'].includes(target(one)))), []);
  });
  test('the parts of the watch know nothing of the command line', () => {
    assert.deepEqual(imports.filter(one => folder(one.file) === 'watch' && one.of.startsWith('.') && ['cli', 'main.ts', 'wire.ts'].includes(folder(target(one)) || target(one))), []);
  });
  test('the doctor knows nothing of the command line, and nobody but that of the doctor', () => {
    assert.deepEqual(imports.filter(one => folder(one.file) === 'doctor' && one.of.startsWith('.') && ['cli', 'watch', 'main.ts', 'wire.ts', 'log.ts'].includes(folder(target(one)) || target(one))), []);
    assert.deepEqual(imports.filter(one => one.of.startsWith('.') && folder(target(one)) === 'doctor' && !['doctor', 'cli'].includes(folder(one.file))), []);
  });
  test('what a hook says of itself is pure', () => {
    assert.deepEqual(imports.filter(({file}) => file === 'trigger/hook-script.ts').map(({of}) => of), ['node:crypto', '../errors.ts']);
  });
  test('support knows nobody', () => {
    assert.deepEqual(imports.filter(one => folder(one.file) === 'support' && one.of.startsWith('.') && folder(target(one)) !== 'support' && target(one) !== 'errors.ts'), []);
  });
  test('only the command line and main use the wiring', () => {
    assert.deepEqual([...new Set(imports.filter(one => one.of.startsWith('.') && target(one) === 'wire.ts').map(({file}) => folder(file)))].filter(name => name !== 'cli' && name !== 'trigger'), []);
  });
});

describe('nowhere', () => {
  for (const [what, pattern, except] of [
    ['process.exit', /\bprocess\.exit\(/, []],
    ['a shell', /\bshell:\s*(?:true|['"`])/, []],
    ['exec of a text', /(?<![.\w])(?:exec|execSync)\(/, []],
    ['console', /\bconsole\.\w/, []],
    ['any', /(?:\bas|:)\s+any\b/, []],
    ['a default export', /^export default\b/m, []],
    ['what a process of its own says of itself', /\bprocess\.(?:stdout|stderr)\b/, ['main.ts', 'cli/output.ts', 'cli/renderer.ts']],
  ] as const) {
    test(what, () => assert.deepEqual(files.filter(file => !(except as readonly string[]).includes(file) && pattern.test(codeOf(file))), []));
  }
  // With the comments: a catch that does nothing says why.
  test('a silent catch', () => assert.deepEqual(files.filter(file => /catch\s*(?:\([^)]*\))?\s*\{\s*\}/.test(textOf(file))), []));
  test('a barrel, or a drawer for everything', () => assert.deepEqual(files.filter(file => /(?:^|\/)(?:index|utils?|common|helpers?|manager|service|handler)\.ts$/.test(file)), []));
  test('an exit code set but in main', () => assert.deepEqual(files.filter(file => /\bprocess\.exitCode\b/.test(codeOf(file))), ['main.ts']));
});

test('a file is named for what it exports', () => {
  assert.deepEqual(files.filter(file => !/^[a-z0-9-/]+\.ts$/.test(file)), []);
});
