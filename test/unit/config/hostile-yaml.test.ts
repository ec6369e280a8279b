import assert from 'node:assert/strict';
import {describe, test} from 'node:test';
import fc from 'fast-check';
import {parseConfig} from '../../../src/config/load-config.ts';
import {DeployError} from '../../../src/errors.ts';
import {ENV, FILE, MINIMAL, refusalOf, withLine} from './config-text.ts';

describe('hostile YAML is refused, quickly', () => {
  const cases: readonly (readonly [string, string, RegExp])[] = [
    ['nothing at all', '', /app is missing/],
    ['a comment alone', '# nothing\n', /app is missing/],
    ['a list', '- a\n', /the file is a list/],
    ['a word', 'shop\n', /the file is "shop"/],
    ['a tab as indent', 'app: shop\nsource:\n\tworking_copy: /a/b\n', /:3:1: is not valid YAML/],
    ['an open quote', 'app: "shop\n', /is not valid YAML/],
    ['a custom tag', withLine(1, 'app: !!js/function "x"'), /is not valid YAML: Unresolved tag/],
    ['a local tag', withLine(1, 'app: !shop x'), /Unresolved tag/],
    ['two documents', `${MINIMAL}---\n${MINIMAL}`, /:10:1: a second document begins here/],
    ['an alias without an anchor', withLine(1, 'app: *nobody'), /:1:6: the alias \*nobody has no anchor/],
    ['an anchor that holds itself', `${MINIMAL}check: &a [*a]\n`, /aliases/],
    ['a merge key', withLine(6, '  ports: 8811-8830\n  <<: {count: 3}'), /workers\.<< is not a key/],
    ['a key that is a map', `${MINIMAL}? {a: b}\n: c\n`, /a key that is not a word/],
    ['1e4 flow lists', `${MINIMAL}check: ${'['.repeat(10_000)}${']'.repeat(10_000)}\n`, /nested deeper/],
    ['1e4 open flow maps', `${MINIMAL}check: ${'{a: '.repeat(10_000)}`, /nested deeper|words and signs/],
    ['1e4 block lists', `${MINIMAL}check:\n  ${'- '.repeat(10_000)}a\n`, /nested deeper/],
    ['1 MB of open brackets', '['.repeat(1_000_000), /words and signs/],
    ['1 MB of commas', `[${','.repeat(1_000_000)}`, /words and signs/],
    ['1 MB of keys', Array.from({length: 120_000}, (_, index) => `k${index}:`).join('\n'), /words and signs/],
    ['a billion laughs', [
      'a: &a [x, x, x, x, x, x, x, x, x]',
      ...'bcdefghi'.split('').map((name, index) => `${name}: &${name} [${Array.from({length: 9}, () => `*${'abcdefgh'[index]}`).join(', ')}]`),
    ].join('\n'), /aliases/],
  ];
  for (const [situation, text, says] of cases) {
    test(situation, {timeout: 10_000}, () => {
      assert.match(refusalOf(text), says);
    });
  }
});

test('__proto__ pollutes nothing', () => {
  refusalOf(`${MINIMAL}__proto__: {polluted: yes}\ncheck: {headers: {__proto__: {polluted: yes}, constructor: {prototype: {polluted: yes}}}}\n`);
  assert.equal('polluted' in {}, false);
});

test('control characters of the file do not reach the terminal', () => {
  const message = refusalOf(withLine(1, 'app: "a\u001b[2Jb"\n"\u001b]0;x\u0007": 1'));
  // oxlint-disable-next-line no-control-regex
  assert.doesNotMatch(message, /[\u0000-\u0009\u000b-\u001f]/);
});

test('a long line is cut around the caret', () => {
  const message = refusalOf(withLine(5, `  command: [${'word, '.repeat(200)}7]`));
  const [, quoted = '', caret = ''] = message.split('\n');
  assert.ok(quoted.length < 130);
  assert.equal(quoted[caret.indexOf('^')], '7');
});

test('any text is accepted or refused with CONFIG_INVALID, never anything else', () => {
  const key = fc.constantFrom('app', 'source', 'workers', 'command', 'ports', 'nginx', 'upstream', 'file', 'check', 'env', 'release', 'shared', '__proto__', 'toString');
  const yamlish = fc.array(fc.oneof(key, fc.constantFrom(': ', '\n', '\n  ', '[', ']', '{', '}', ', ', '- ', '*a', '&a ', '"', '\'', '|', '>', '#', '!!x ', '? ', '1', '---\n', '%', '\r\n', '\t'), fc.string({maxLength: 4})), {maxLength: 60})
    .map(parts => parts.join(''));
  const mutated = fc.tuple(fc.nat(MINIMAL.length), fc.nat(8), fc.string({maxLength: 6}))
    .map(([at, cut, text]) => MINIMAL.slice(0, at) + text + MINIMAL.slice(at + cut));
  const bytes = fc.uint8Array({maxLength: 300}).map(array => Buffer.from(array).toString('utf8'));
  fc.assert(fc.property(fc.oneof(yamlish, mutated, bytes), text => {
    try {
      parseConfig(text, FILE, ENV);
    } catch (error) {
      assert.ok(error instanceof DeployError, String(error));
      assert.equal(error.code, 'CONFIG_INVALID');
      assert.notEqual(error.message, '');
    }
  }), {numRuns: 3000});
});
