import assert from 'node:assert/strict';
import {writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {test} from 'node:test';
import fc from 'fast-check';
import {parseConfig} from '../../../src/config/load-config.ts';
import {configAsObject, renderConfig} from '../../../src/config/render-config.ts';
import {makeTempDir, removeTempDir} from '../../support/temp-dir.ts';
import {ENV, FILE, MINIMAL, withLine} from './config-text.ts';

test('what is rendered is the same configuration again', () => {
  const value = fc.oneof(fc.constantFrom('1.10', 'yes', '~', '', '0x1F', '- a', '{"a": 1}', ' a ', '# b', '*a', '!x', '12:30'), fc.string({unit: 'grapheme-composite'}))
    .filter(text => !/[\0\r\n\u0085\u2028\u2029]|\{\w+\}/.test(text));
  fc.assert(fc.property(
    fc.dictionary(fc.stringMatching(/^[A-Za-z_][A-Za-z0-9_]{0,8}$/).filter(name => name !== 'constructor' && name !== 'prototype'), value, {noNullPrototype: true}),
    fc.array(value, {minLength: 1}).filter(words => words[0] !== ''),
    fc.integer({min: 1, max: 24 * 86_400_000}),
    (env, words, ms) => {
      const config = parseConfig(MINIMAL, FILE, ENV);
      const changed = {
        ...config,
        workers: {...config.workers, env, command: words, stop: {signal: 'SIGQUIT' as const, timeoutMs: ms}},
        release: {...config.release, build: [words, ['make']]},
      };
      assert.deepEqual(parseConfig(renderConfig(changed), FILE, ENV), changed);
    },
  ), {numRuns: 500});
});

test('each kind of check is rendered in its own words', () => {
  for (const check of ['{tcp: true}', '{command: [true-ish]}', '{http: /x, status: [200, 204], body: ^ok$}']) {
    const config = parseConfig(`${MINIMAL}check: ${check}\n`, FILE, ENV);
    assert.deepEqual(parseConfig(renderConfig(config), FILE, ENV), config);
  }
});

test('a file of the user\'s is rendered as one, and says itself what a server line has', () => {
  const config = parseConfig(withLine(9, '  edit: /etc/nginx/nginx.conf'), FILE, ENV);
  assert.deepEqual(parseConfig(renderConfig(config), FILE, ENV), config);
  assert.deepEqual(configAsObject(config)['nginx'], {upstream: 'shop', edit: '/etc/nginx/nginx.conf', binary: '/usr/sbin/nginx'});
});

test('when a commit counts, and who is told of it, is rendered as it was written', () => {
  const text = `${withLine(3, '  working_copy: /srv/shop/copy\n  paths: ["src/**", "*.py", "-x", "#a", "a b/é", "{a,b}", "[!a]"]')}hook: {wait: true, wait_timeout: 90s, supersede: true}\n`;
  const config = parseConfig(text, FILE, ENV);
  assert.deepEqual(config.source.paths, ['src/**', '*.py', '-x', '#a', 'a b/é', '{a,b}', '[!a]']);
  assert.deepEqual(config.hook, {wait: true, waitTimeoutMs: 90_000, supersede: true});
  assert.deepEqual(parseConfig(renderConfig(config), FILE, ENV), config);
  const shown = configAsObject(config);
  assert.deepEqual(shown['hook'], {wait: true, wait_timeout: '90s', supersede: true});
  assert.deepEqual(Object.entries(shown['source'] ?? {}).find(([key]) => key === 'paths'), ['paths', config.source.paths]);
});

test('the webhook is rendered as it was written, and never its secret', t => {
  const dir = makeTempDir();
  t.after(() => removeTempDir(dir));
  const file = join(dir, 'webhook');
  writeFileSync(file, 'geheim'.repeat(4), {mode: 0o600});
  for (const [listen, rest, shown] of [
    ['unix:/run/shop/hook.sock', 'mode: 0600, rate: 9/h', {path: '/hook', mode: '0600', max_body: '1m', rate: '9/h'}],
    ['127.0.0.1:8899', 'path: /a/b, max_body: 1500, rate: 2/s', {path: '/a/b', max_body: '1500', rate: '2/s'}],
    ['[::1]:8899', 'max_body: 64K', {path: '/hook', max_body: '64k', rate: '60/m'}],
  ] as const) {
    const config = parseConfig(`${MINIMAL}watch: {webhook: {listen: "${listen}", secret_file: ${file}, ${rest}}}\n`, FILE, ENV);
    assert.deepEqual(parseConfig(renderConfig(config), FILE, ENV), config);
    assert.deepEqual(configAsObject(config)['watch'], {poll: '1m', settle: '500ms', edits: false, check: '30s', webhook: {listen, secret_file: file, ...shown}});
    assert.doesNotMatch(renderConfig(config), /geheim/);
  }
});

test('the object has the keys of the file, and leaves out what has no value', () => {
  const shown = configAsObject(parseConfig(MINIMAL, FILE, ENV));
  assert.deepEqual(Object.keys(shown), ['app', 'source', 'release', 'workers', 'check', 'bake', 'nginx', 'drain', 'hook', 'watch', 'state_dir', 'run_dir']);
  assert.deepEqual(shown['source'], {working_copy: '/srv/shop/copy', timeout: '2m', paths: []});
  assert.deepEqual(shown['drain'], {quiet: '1m', deadline: '5m'});
  assert.deepEqual(shown['hook'], {wait: false, wait_timeout: '5m', supersede: false});
  assert.deepEqual(shown['watch'], {poll: '1m', settle: '500ms', edits: false, check: '30s'});
  assert.deepEqual(JSON.parse(JSON.stringify(shown)), shown);
});
