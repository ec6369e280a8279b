import assert from 'node:assert/strict';
import {describe, test} from 'node:test';
import fc from 'fast-check';
import type {NginxConfig} from '../../../src/config/config.ts';
import {HEADER, mayReplace, portsIn, renderUpstream} from '../../../src/upstream/render-upstream.ts';

const NGINX: NginxConfig = {upstream: 'myweb', file: '/etc/nginx/conf.d/osyw.conf', server: {}, directives: [], binary: '/usr/sbin/nginx', conf: undefined, prefix: undefined, probe: undefined, reload: undefined};

describe('the text, to the byte', () => {
  test('parameters and directives as they stand in the configuration', () => {
    const nginx = {...NGINX, server: {weight: '4', max_fails: '2', fail_timeout: '30s'}, directives: ['ip_hash', 'keepalive 16']};
    assert.equal(renderUpstream(nginx, 'osyw', '127.0.0.1', [8811, 8812]), `${HEADER}
# Application: osyw
upstream myweb {
    ip_hash;
    keepalive 16;
    server 127.0.0.1:8811 weight=4 max_fails=2 fail_timeout=30s;
    server 127.0.0.1:8812 weight=4 max_fails=2 fail_timeout=30s;
}
`);
  });

  test('IPv6', () => assert.match(renderUpstream(NGINX, 'osyw', '::1', [8811]), /^ {4}server \[::1\]:8811;$/m));
  test('a name', () => assert.match(renderUpstream(NGINX, 'osyw', 'localhost', [8811]), /^ {4}server localhost:8811;$/m));

  test('slots keep their order, whatever their ports are', () => {
    assert.deepEqual(portsIn(renderUpstream(NGINX, 'osyw', '127.0.0.1', [8830, 8811, 8820])), [8830, 8811, 8820]);
  });

  test('stopped: a valid block that answers 502, and no port', () => {
    const text = renderUpstream({...NGINX, directives: ['ip_hash'], server: {weight: '4'}}, 'osyw', '127.0.0.1', []);
    assert.equal(text, `${HEADER}\n# Application: osyw\nupstream myweb {\n    ip_hash;\n    server 127.0.0.1:1 down;\n}\n`);
    assert.deepEqual(portsIn(text), []);
  });

  test('what is rendered is read, and may be replaced', () => {
    fc.assert(fc.property(fc.array(fc.integer({min: 1025, max: 65_535})), fc.constantFrom('127.0.0.1', '::1', 'localhost', 'fe80::1'), (ports, host) => {
      const text = renderUpstream(NGINX, 'osyw', host, ports);
      assert.deepEqual(portsIn(text), ports);
      assert.ok(mayReplace(text, 'myweb', 'osyw'));
      assert.ok(mayReplace(text.split('\n').slice(2).join('\n'), 'myweb', 'osyw'), 'also as if it was written by hand');
    }));
  });
});

describe('ports in a block that somebody wrote', () => {
  for (const [situation, text, ports] of [
    ['nothing', '', []],
    ['in one line', 'upstream myweb { server 127.0.0.1:8811; server 127.0.0.1:8812; }', [8811, 8812]],
    ['two in a line', 'upstream myweb {\n  server 127.0.0.1:8811; server 127.0.0.1:8812;\n}', [8811, 8812]],
    ['over two lines', 'upstream myweb {\n  server 127.0.0.1:8811\n    weight=4\n    max_fails=2;\n  server\n    127.0.0.1:8812;\n}', [8811, 8812]],
    ['IPv6', 'upstream myweb {\n  server [::1]:8811 weight=4;\n}', [8811]],
    ['quoted', 'upstream myweb {\n  server "127.0.0.1:8811";\n  server \'127.0.0.1:8812\' weight=4;\n}', [8811, 8812]],
    ['in comments', 'upstream myweb {\n  # server 127.0.0.1:8810;\n  server 127.0.0.1:8811; # server 127.0.0.1:8812;\n  #server 127.0.0.1:8813;\n}', [8811]],
    ['down, backup', 'upstream myweb {\n  server 127.0.0.1:8811 down;\n  server 127.0.0.1:8812 backup;\n  server 127.0.0.1:8813 weight=2 down;\n}', [8812]],
    ['a name with "down" in it', 'upstream myweb {\n  server down:8811;\n  server cool-down.example:8812;\n}', [8811, 8812]],
    ['a socket, and no port', 'upstream myweb {\n  server unix:/run/app.sock;\n  server example.org;\n  server 127.0.0.1:8811;\n}', [8811]],
    ['CRLF', 'upstream myweb {\r\n  server 127.0.0.1:8811;\r\n  server 127.0.0.1:8812;\r\n}\r\n', [8811, 8812]],
    ['server_name is not server', 'upstream myweb {\n  server_tokens off;\n  server 127.0.0.1:8811;\n}', [8811]],
    ['a comment between the words', 'upstream myweb {\n  server # the first\n    127.0.0.1:8811;\n}', [8811]],
  ] as const) test(situation, () => assert.deepEqual(portsIn(text), ports));
});

describe('a file may be written over', () => {
  for (const [situation, text] of [
    ['ours', `${HEADER}\n# Application: osyw\nanything else { }`],
    ['empty', ''],
    ['blanks', ' \n\t\n'],
    ['comments', '# nothing here\n  # upstream other { }\n'],
    ['a block', 'upstream myweb {\n  server 127.0.0.1:8811;\n}\n'],
    ['a block in one line', 'upstream myweb{server 127.0.0.1:8811;}'],
    ['a block with comments around', '# by hand\nupstream myweb { # the app\n  server 127.0.0.1:8811; # first }\n  # } server {\n}\n# end\n'],
    ['a quoted name', 'upstream "myweb" { server 127.0.0.1:8811; }'],
    ['a name in single quotes', "upstream 'myweb' { server 127.0.0.1:8811; }"],
    ['CRLF', 'upstream myweb {\r\n  server 127.0.0.1:8811;\r\n}\r\n'],
    ['a byte order mark', '\ufeffupstream myweb {\n  server 127.0.0.1:8811;\n}\n'],
    ['a # in quotes', 'upstream myweb {\n  hash "a # b"; server 127.0.0.1:8811;\n}'],
  ] as const) test(situation, () => assert.equal(mayReplace(text, 'myweb', 'osyw'), true));
});

describe('a file may not be written over', () => {
  for (const [situation, text] of [
    ['of another application', `${HEADER}\n# Application: other\nupstream myweb { server 127.0.0.1:8811; }`],
    ['of an application whose name begins with ours', `${HEADER}\n# Application: osyw2\nupstream myweb { server 127.0.0.1:8811; }`],
    ['another name', 'upstream other { server 127.0.0.1:8811; }'],
    ['a longer name', 'upstream myweb2 { server 127.0.0.1:8811; }'],
    ['a name with a dot for any character', 'upstream my.web { server 127.0.0.1:8811; }'],
    ['two blocks', 'upstream myweb { server 127.0.0.1:8811; }\nupstream other { server 127.0.0.1:8812; }'],
    ['a server after it', 'upstream myweb { server 127.0.0.1:8811; }\nserver { listen 80; }'],
    ['a line before it', 'proxy_buffering off;\nupstream myweb { server 127.0.0.1:8811; }'],
    ['a line after it', 'upstream myweb { server 127.0.0.1:8811; }\nproxy_buffering off;'],
    ['an unfinished block', 'upstream myweb { server 127.0.0.1:8811;'],
    ['a brace too many', 'upstream myweb { server 127.0.0.1:8811; } }'],
    ['the header further down', `# by hand\n${HEADER}\nserver { listen 80; }`],
    ['a directive after a quoted #', 'upstream myweb { server 127.0.0.1:8811; }\nlog_format x "a #";\n# "'],
    ['not nginx at all', 'hello'],
    ['an include hidden by a # within a word', 'upstream myweb { server 127.0.0.1:8811; }include x#y;'],
    ['a second block after a closing brace in quotes', 'upstream myweb { hash "}"; server 127.0.0.1:8811; } server { listen 80; }'],
    ['something behind a quoted # in the block', 'upstream myweb {\n  hash " # "; server 127.0.0.1:8811; } server { listen 80; #\n}'],
  ] as const) test(situation, () => assert.equal(mayReplace(text, 'myweb', 'osyw'), false));
  test('a name with a dot for any character, the other way round', () => assert.equal(mayReplace('upstream my-web { server 127.0.0.1:1; }', 'my.web', 'osyw'), false));
});
