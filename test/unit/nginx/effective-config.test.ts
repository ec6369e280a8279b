import assert from 'node:assert/strict';
import {describe, test} from 'node:test';
import {findUpstreams, includedFiles, splitDump, type ConfigFile} from '../../../src/nginx/effective-config.ts';
import {parseConfig} from '../../../src/nginx/parse-config.ts';
import {serverLines} from '../../../src/nginx/server-lines.ts';

const fileOf = (path: string, text: string): ConfigFile => ({path, bytes: Buffer.from(text), directives: parseConfig(Buffer.from(text)), fault: undefined});
const filesOf = (texts: Record<string, string>) => Object.entries(texts).map(([path, text]) => fileOf(path, text));

describe('what nginx -T prints', () => {
  const split = (files: Record<string, string>, dump = Object.entries(files).map(([path, text]) => `# configuration file ${path}:\n${text}\n`).join('')) => splitDump(dump, path => {
    const text = files[path];
    if (text === undefined) throw new Error('no such file');
    return Buffer.from(text);
  })?.map(({path, bytes}) => [path, bytes.toString()]);
  for (const [situation, files] of [
    ['two files', {'/a': 'x;\n', '/b/c.conf': 'y;'}],
    ['an empty one', {'/a': '', '/b': '\n'}],
    ['a file with such a line', {'/a': 'x;\n# configuration file /b:\ny;\n', '/b': 'z;\n'}],
    ['a file with the beginning of another', {'/a': 'x;\n\n# configuration file /b:\nz;\n', '/b': 'z;\n'}],
    ['a name with a colon', {'/a:\nb': 'x;', '/c:': 'y;'}],
  ] as const) test(situation, () => assert.deepEqual(split(files), Object.entries(files)));

  test('bytes that are no UTF-8 stay as they are', () => {
    const bytes = Buffer.from([0x23, 0xe4, 0xc3]);
    const dump = Buffer.concat([Buffer.from('# configuration file /a:\n'), bytes, Buffer.from('\n# configuration file /a:\n'), bytes, Buffer.from('\n')]).toString('utf8');
    assert.deepEqual(splitDump(dump, () => bytes)?.map(one => one.bytes), [bytes, bytes]);
  });

  for (const [situation, dump] of [
    ['a file that was changed', '# configuration file /a:\ny;\n\n'],
    ['a file that is gone', '# configuration file /gone:\nx;\n\n'],
    ['something else', 'hello\n'],
    ['something behind', '# configuration file /a:\nx;\n\nhello\n'],
  ] as const) test(`undefined: ${situation}`, () => assert.equal(split({'/a': 'x;\n'}, dump), undefined));
});

describe('upstreams', () => {
  const where = (texts: Record<string, string>) => findUpstreams(filesOf(texts), 'myweb').map(({file, directive}) => `${file.path}:${directive.line}`);
  for (const [situation, texts, found] of [
    ['in the main file', {'/etc/nginx/nginx.conf': 'http {\n  upstream other {}\n  upstream "myweb" {}\n}'}, ['/etc/nginx/nginx.conf:3']],
    ['through a pattern and a plain name', {'/etc/nginx/nginx.conf': 'http { include conf.d/*.conf; }', '/etc/nginx/conf.d/a.conf': 'include more;', '/etc/nginx/more': 'upstream myweb {}'}, ['/etc/nginx/more:1']],
    ['not in stream', {'/n/nginx.conf': 'stream { include s/*; upstream myweb {} } http { include h/*; }', '/n/s/a': 'upstream myweb {}', '/n/h/a': '\nupstream myweb {}'}, ['/n/h/a:2']],
    ['http in a file of its own', {'/n/nginx.conf': 'include http.conf;', '/n/http.conf': 'http { include up; }', '/n/up': 'upstream myweb {}'}, ['/n/up:1']],
    ['two', {'/n/nginx.conf': 'http { upstream myweb {} include x; }', '/n/x': 'upstream myweb {}'}, ['/n/nginx.conf:1', '/n/x:1']],
    ['a name with another case, or with more', {'/n/nginx.conf': 'http { upstream MyWeb {} upstream myweb2 {} server { proxy_pass http://myweb; } }'}, []],
    ['included twice is one', {'/n/nginx.conf': 'http { include x; include /n/x*; }', '/n/x': 'upstream myweb {}'}, ['/n/x:1']],
    ['files that include each other', {'/n/nginx.conf': 'http { include x; }', '/n/x': 'include x; upstream myweb {}'}, ['/n/x:1']],
  ] as const) test(situation, () => assert.deepEqual(where(texts), found));

  test('where the main file cannot be read, every other is taken for one of http', () => {
    const files = [{...fileOf('/n/nginx.conf', ''), fault: 'line 1: Lua'}, fileOf('/n/x', 'upstream myweb {}')];
    assert.deepEqual(findUpstreams(files, 'myweb').map(({file}) => file.path), ['/n/x']);
  });
});

test('an include goes by the directory of the main file, as glob does', () => {
  const files = filesOf({'/n/nginx.conf': '', '/n/c/a.conf': '', '/n/c/.b.conf': '', '/n/c/d/e.conf': '', '/n/c/b1.conf': '', '/n/c/b+.conf': ''});
  const matched = (pattern: string) => includedFiles(files, pattern).map(({path}) => path.slice(3));
  assert.deepEqual(matched('c/*.conf'), ['c/a.conf', 'c/b1.conf', 'c/b+.conf']);
  assert.deepEqual(matched('/n/c/*/*.conf'), ['c/d/e.conf']);
  assert.deepEqual(matched('c/?.conf'), ['c/a.conf']);
  assert.deepEqual(matched('c/b[0-9].conf'), ['c/b1.conf']);
  assert.deepEqual(matched('c/b[!0-9].conf'), ['c/b+.conf']);
  assert.deepEqual(matched('c/.*'), ['c/.b.conf']);
  assert.deepEqual(matched('c/[z-a]*'), []);
  assert.deepEqual(matched('./c//b+.conf'), ['c/b+.conf']);
});

test('server lines', () => {
  const [upstream] = parseConfig(Buffer.from('upstream x {\n  ip_hash;\n  server 127.0.0.1:8811 weight=4; server "[::1]:1" down;\n  server unix:/run/a.sock backup;\n  # server no:1;\n  server example.org;\n  server $x:1; server a:99999; server a:b;\n}'));
  assert.ok(upstream);
  const lines = serverLines(upstream);
  assert.deepEqual(lines.map(({target}) => target), [{host: '127.0.0.1', port: 8811}, {host: '::1', port: 1}, {unix: '/run/a.sock'}, {host: 'example.org', port: 80}, {host: '$x', port: 1}, undefined, undefined]);
  assert.deepEqual(lines.slice(0, 3).map(({down, backup, parameters}) => [down, backup, parameters.map(({text}) => text)]), [[false, false, ['weight=4']], [true, false, ['down']], [false, true, ['backup']]]);
});
