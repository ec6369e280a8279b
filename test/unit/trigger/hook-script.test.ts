import assert from 'node:assert/strict';
import {execFileSync} from 'node:child_process';
import {readFileSync} from 'node:fs';
import {describe, test} from 'node:test';
import {fileURLToPath} from 'node:url';
import fc from 'fast-check';
import {DeployError} from '../../../src/errors.ts';
import {differences, parseHook, renderHook, sameApplication, type HookedApplication} from '../../../src/trigger/hook-script.ts';

const TEMPLATE = readFileSync(fileURLToPath(new URL('../../../hooks/hook.sh', import.meta.url)), 'utf8');
const LINE: HookedApplication = {
  app: 'osyw', spool: '/var/lib/osyw-deploy/osyw/spool', umask: '022', waitSeconds: 0, uid: 0, gid: 0, stateDir: '/var/lib/osyw-deploy/osyw',
  node: '/usr/bin/node', script: '/usr/lib/node_modules/osyw-deploy/dist/osyw-deploy.cjs', config: '/etc/osyw-deploy/osyw.yaml',
};

test('a hook is the template with a line for each application', () => {
  const text = renderHook(TEMPLATE, [LINE, {...LINE, app: 'other', waitSeconds: 300, uid: 33, gid: 34}]);
  const lines = text.split('\n');
  const at = lines.indexOf('applications() {');
  assert.deepEqual(lines.slice(at + 1, at + 4), [
    `  "$1" 'osyw' '/var/lib/osyw-deploy/osyw/spool' 022 0 0 0 '/var/lib/osyw-deploy/osyw' '/usr/bin/node' '/usr/lib/node_modules/osyw-deploy/dist/osyw-deploy.cjs' '/etc/osyw-deploy/osyw.yaml'`,
    `  "$1" 'other' '/var/lib/osyw-deploy/osyw/spool' 022 300 33 34 '/var/lib/osyw-deploy/osyw' '/usr/bin/node' '/usr/lib/node_modules/osyw-deploy/dist/osyw-deploy.cjs' '/etc/osyw-deploy/osyw.yaml'`,
    '}',
  ]);
  assert.deepEqual(lines.toSpliced(at + 1, 2).slice(0, -2), TEMPLATE.split('\n').toSpliced(at + 1, 1).slice(0, -1), 'and nothing else but the checksum');
});

describe('what was rendered is read back', () => {
  const path = fc.string({unit: fc.oneof({weight: 3, arbitrary: fc.constantFrom('\'', '\\', '"', '$', '`', ' ', '$1', '$&', '*', '\'\\\'\'')}, {weight: 5, arbitrary: fc.string({unit: 'grapheme', minLength: 1, maxLength: 3})})})
    .filter(text => !/[\u0000-\u001f\u007f]/.test(text)).map(text => `/${text}`);
  const number = fc.nat(2 ** 31);
  const application: fc.Arbitrary<HookedApplication> = fc.record({
    app: fc.constantFrom('a', 'osyw'), spool: path, umask: fc.constantFrom('077', '027', '022'), waitSeconds: number, uid: number, gid: number, stateDir: path, node: path, script: path, config: path,
  }, {noNullPrototype: true});

  test('whatever the paths are', () => {
    fc.assert(fc.property(fc.array(application, {minLength: 1, maxLength: 4}), applications => {
      const text = renderHook(TEMPLATE, applications);
      assert.deepEqual(parseHook(text, TEMPLATE), {kind: 'ours', applications, current: true});
    }));
  });

  test('and by sh, word for word', () => {
    fc.assert(fc.property(application, one => {
      const lines = renderHook(TEMPLATE, [one]).split('\n');
      const line = lines[lines.indexOf('applications() {') + 1] ?? '';
      const words = execFileSync('/bin/sh', ['-c', `set -- printf '%s\\0'\n"$@" ${line.replace(/^ {2}"\$1" /, '')}`], {encoding: 'utf8', env: {LC_ALL: 'C.UTF-8'}}).split('\0').slice(0, -1);
      assert.deepEqual(words, [one.app, one.spool, one.umask, String(one.waitSeconds), String(one.uid), String(one.gid), one.stateDir, one.node, one.script, one.config]);
    }), {numRuns: 40});
  });
});

test('a control character in a path is refused', () => {
  for (const character of ['\n', '\t', '\u001b', '\u007f', '\0']) {
    assert.throws(() => renderHook(TEMPLATE, [{...LINE, config: `/etc/a${character}b`}]), (error: unknown) => error instanceof DeployError && error.code === 'USAGE' && error.message.includes('/etc/a'));
  }
});

describe('whose a file is', () => {
  const text = renderHook(TEMPLATE, [LINE]);
  for (const [what, other] of [
    ['a line added at the top', text.replace('\n', '\n# see\n')],
    ['a line added at the end', `${text}echo done\n`],
    ['a line added in the middle', text.replace('exec 3>&2', 'echo hello\nexec 3>&2')],
    ['a path changed', text.replace('/usr/bin/node', '/opt/node')],
    ['an application taken out', text.replace(/^ {2}"\$1".*\n/m, '')],
    ['a line commented out', text.replace(/^ {2}"\$1"/m, '  # "$1"')],
    ['the checksum gone', text.split('\n').slice(0, -2).join('\n') + '\n'],
    ['cut off', text.slice(0, 200)],
    ['the template itself', TEMPLATE],
    ['CRLF', text.replaceAll('\n', '\r\n').replace('\r\n', '\n')],
  ] as const) {
    test(`changed by hand: ${what}`, () => assert.deepEqual(parseHook(other, TEMPLATE), {kind: 'changed'}));
  }
  for (const [what, other] of [['an empty file', ''], ['a script', '#!/bin/sh\nexit 0\n'], ['one that mentions us', '#!/bin/sh\n# not # Written by `osyw-deploy hook install`\nexit 0\n'], ['no text', '\0\0\n\0']] as const) {
    test(`somebody else's: ${what}`, () => assert.deepEqual(parseHook(other, TEMPLATE), {kind: 'foreign'}));
  }
  test('ours, of another version: read, so that it can be written again', () => {
    const older = TEMPLATE.replace('sleep 1', 'sleep 2').replace('# The revision is a hint, for the record alone.\n', '');
    assert.notEqual(older, TEMPLATE);
    assert.deepEqual(parseHook(renderHook(older, [LINE]), TEMPLATE), {kind: 'ours', applications: [LINE], current: false});
    assert.equal(renderHook(TEMPLATE, [LINE]), text);
  });
});

test('one state directory or one configuration is one application', () => {
  assert.ok(sameApplication(LINE, {...LINE, app: 'renamed', config: '/elsewhere.yaml'}));
  assert.ok(sameApplication(LINE, {...LINE, stateDir: '/moved', spool: '/moved/spool'}));
  assert.ok(!sameApplication(LINE, {...LINE, stateDir: '/other', config: '/other.yaml'}));
  assert.deepEqual(differences(LINE, {...LINE, node: '/opt/node', uid: 5}), ['uid', 'node']);
});
