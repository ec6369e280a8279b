import assert from 'node:assert/strict';
import {describe, test} from 'node:test';
import fc from 'fast-check';
import {parseConfig} from '../../../src/config/load-config.ts';
import {DeployError} from '../../../src/errors.ts';
import {editedInPlace} from '../../../src/upstream/edited-in-place.ts';

const configOf = (host = '127.0.0.1', more = '') => parseConfig(
  `app: osyw\nsource:\n  working_copy: /srv/osyw/copy\nworkers:\n  command: [x]\n  ports: 8811-8830\n  host: "${host}"\nnginx:\n  upstream: myweb\n  edit: /nowhere/nginx.conf\n${more}`, '/etc/osyw-deploy.yaml', {HOME: '/root'});
const text = editedInPlace(configOf());
const edited = (before: string, ports: readonly number[]) => text.render(Buffer.from(before, 'latin1'), ports).toString('latin1');

describe('only the addresses change', () => {
  for (const [situation, before, after] of [
    ['a block as people write it', '# the app\nupstream myweb {\n    ip_hash;\n\n    # first\n    server 127.0.0.1:1001 weight=4 max_fails=2; # one\n    server  127.0.0.1:1002\tfail_timeout=30s ;\n    keepalive 16;\n}\nserver { listen 80; }\n',
      '# the app\nupstream myweb {\n    ip_hash;\n\n    # first\n    server 127.0.0.1:8811 weight=4 max_fails=2; # one\n    server  127.0.0.1:8812\tfail_timeout=30s ;\n    keepalive 16;\n}\nserver { listen 80; }\n'],
    ['in one line', 'events{}http{upstream myweb{server 127.0.0.1:1;server 127.0.0.1:2 weight=2;}}', 'events{}http{upstream myweb{server 127.0.0.1:8811;server 127.0.0.1:8812 weight=2;}}'],
    ['Windows line ends', 'upstream myweb {\r\n\tserver 127.0.0.1:1;\r\n\tserver 127.0.0.1:2;\r\n}\r\n', 'upstream myweb {\r\n\tserver 127.0.0.1:8811;\r\n\tserver 127.0.0.1:8812;\r\n}\r\n'],
    ['quotes', 'upstream "myweb" {\n server "127.0.0.1:1" weight=1; server \'127.0.0.1:2\';\n}', 'upstream "myweb" {\n server "127.0.0.1:8811" weight=1; server \'127.0.0.1:8812\';\n}'],
    ['a comment and a line end between the words', 'upstream myweb {\n server # no 127.0.0.1:9;\n  127.0.0.1:1 # {\n  weight=2;server 127.0.0.1:2;}', 'upstream myweb {\n server # no 127.0.0.1:9;\n  127.0.0.1:8811 # {\n  weight=2;server 127.0.0.1:8812;}'],
    ['bytes that are no UTF-8, and some that are', '# \xe4\xff\nupstream myweb { server 127.0.0.1:1; # \xc3\xbc\n server 127.0.0.1:2; }', '# \xe4\xff\nupstream myweb { server 127.0.0.1:8811; # \xc3\xbc\n server 127.0.0.1:8812; }'],
    ['a port left out', 'upstream myweb { server 127.0.0.1; server 127.0.0.1:2; }', 'upstream myweb { server 127.0.0.1:8811; server 127.0.0.1:8812; }'],
    ['other upstreams, the same address elsewhere', 'upstream other { server 127.0.0.1:1; }\nupstream myweb { server 127.0.0.1:1; server 127.0.0.1:2; }\nupstream myweb2 { server 127.0.0.1:2; }\n# upstream myweb { server 127.0.0.1:3; }\n', 'upstream other { server 127.0.0.1:1; }\nupstream myweb { server 127.0.0.1:8811; server 127.0.0.1:8812; }\nupstream myweb2 { server 127.0.0.1:2; }\n# upstream myweb { server 127.0.0.1:3; }\n'],
    ['in http, beside one of stream', 'stream { upstream myweb { server 127.0.0.1:9; } } http { upstream myweb { server 127.0.0.1:1; server 127.0.0.1:2; } }', 'stream { upstream myweb { server 127.0.0.1:9; } } http { upstream myweb { server 127.0.0.1:8811; server 127.0.0.1:8812; } }'],
    ['backup and down stay as they are, on whatever host', 'upstream myweb {\n server 127.0.0.1:1;\n server 127.0.0.1:1000 down;\n server 127.0.0.1:2 weight=2;\n server 10.0.0.7:80 backup;\n server unix:/run/sorry.sock backup;\n}', 'upstream myweb {\n server 127.0.0.1:8811;\n server 127.0.0.1:1000 down;\n server 127.0.0.1:8812 weight=2;\n server 10.0.0.7:80 backup;\n server unix:/run/sorry.sock backup;\n}'],
  ] as const) {
    test(situation, () => {
      assert.equal(edited(before, [8811, 8812]), after);
      assert.deepEqual(text.ports(Buffer.from(after, 'latin1')), [8811, 8812]);
      assert.equal(edited(after, [8811, 8812]), after);
    });
  }

  test('IPv6', () => {
    const v6 = editedInPlace(configOf('::1'));
    assert.equal(v6.render(Buffer.from('upstream myweb { server [::1]:1 weight=2; }'), [8811]).toString(), 'upstream myweb { server [::1]:8811 weight=2; }');
  });
});

describe('more workers than lines, and fewer', () => {
  for (const [situation, one, two, three] of [
    ['lines of their own', 'upstream myweb {\n    server 127.0.0.1:8811;\n    keepalive 2;\n}\n', 'upstream myweb {\n    server 127.0.0.1:8811;\n    server 127.0.0.1:8812;\n    keepalive 2;\n}\n', 'upstream myweb {\n    server 127.0.0.1:8811;\n    server 127.0.0.1:8812;\n    server 127.0.0.1:8813;\n    keepalive 2;\n}\n'],
    ['with parameters and a comment behind', 'upstream myweb {\n\tserver 127.0.0.1:8811 weight=4; # first\n}\n', 'upstream myweb {\n\tserver 127.0.0.1:8811 weight=4; # first\n\tserver 127.0.0.1:8812 weight=4;\n}\n', 'upstream myweb {\n\tserver 127.0.0.1:8811 weight=4; # first\n\tserver 127.0.0.1:8812 weight=4;\n\tserver 127.0.0.1:8813 weight=4;\n}\n'],
    ['in one line', 'upstream myweb { server "127.0.0.1:8811" weight=2; ip_hash; }', 'upstream myweb { server "127.0.0.1:8811" weight=2; server "127.0.0.1:8812" weight=2; ip_hash; }', 'upstream myweb { server "127.0.0.1:8811" weight=2; server "127.0.0.1:8812" weight=2; server "127.0.0.1:8813" weight=2; ip_hash; }'],
    ['Windows line ends', 'upstream myweb {\r\n  server 127.0.0.1:8811;\r\n}', 'upstream myweb {\r\n  server 127.0.0.1:8811;\r\n  server 127.0.0.1:8812;\r\n}', 'upstream myweb {\r\n  server 127.0.0.1:8811;\r\n  server 127.0.0.1:8812;\r\n  server 127.0.0.1:8813;\r\n}'],
    ['over two lines', 'upstream myweb {\n  server 127.0.0.1:8811\n    weight=2;\n}', 'upstream myweb {\n  server 127.0.0.1:8811\n    weight=2;\n  server 127.0.0.1:8812\n    weight=2;\n}', 'upstream myweb {\n  server 127.0.0.1:8811\n    weight=2;\n  server 127.0.0.1:8812\n    weight=2;\n  server 127.0.0.1:8813\n    weight=2;\n}'],
    ['a backup behind them', 'upstream myweb {\n  server 127.0.0.1:8811;\n  server 127.0.0.1:9 backup;\n}', 'upstream myweb {\n  server 127.0.0.1:8811;\n  server 127.0.0.1:8812;\n  server 127.0.0.1:9 backup;\n}', 'upstream myweb {\n  server 127.0.0.1:8811;\n  server 127.0.0.1:8812;\n  server 127.0.0.1:8813;\n  server 127.0.0.1:9 backup;\n}'],
  ] as const) {
    test(situation, () => {
      assert.equal(edited(one, [8811, 8812]), two);
      assert.equal(edited(one, [8811, 8812, 8813]), three);
      assert.equal(edited(three, [8811]), one);
      assert.equal(edited(three, [8811, 8812]), two);
      assert.equal(text.restore(Buffer.from(three), Buffer.from(one))?.toString(), one);
      assert.equal(text.restore(Buffer.from(one), Buffer.from(three))?.toString(), three);
    });
  }

  test('a comment behind a line that goes stays', () => {
    assert.equal(edited('upstream myweb {\n  server 127.0.0.1:1; # one\n  server 127.0.0.1:2; # two\n}', [8811]), 'upstream myweb {\n  server 127.0.0.1:8811; # one\n   # two\n}');
  });
});

describe('stopped', () => {
  const running = 'upstream myweb {\n  server 127.0.0.1:8811 weight=4;\n  server 127.0.0.1:8812 max_fails=0; # two\n  server 10.0.0.1:80 backup;\n}\n';
  const stopped = edited(running, []);
  test('every line stays and points where nobody listens', () => {
    assert.equal(stopped, running.replace(/881[12]/g, '1'));
    assert.deepEqual(text.ports(Buffer.from(stopped)), []);
  });
  test('the next start finds the lines as they were', () => assert.equal(edited(stopped, [8811, 8812]), running));
  test('stopping twice is stopping once', () => assert.equal(edited(stopped, []), stopped));
});

describe('back to what stood there', () => {
  const before = 'a;\nupstream myweb {\n  server 127.0.0.1:1 weight=4;\n  server 127.0.0.1:2;\n}\n';
  const after = edited(before, [8811, 8812]);
  const restored = (now: string, old = before) => text.restore(Buffer.from(now), Buffer.from(old))?.toString();
  test('to the byte, when nobody wrote meanwhile', () => assert.equal(restored(after), before));
  test('twice', () => assert.equal(restored(before), before));
  test('what somebody wrote elsewhere meanwhile stays', () => assert.equal(restored(`# hello\n${after}b;\n`), `# hello\n${before}b;\n`));
  test('and in the lines themselves, but for the addresses', () => assert.equal(restored(after.replace('weight=4', 'weight=7')), before.replace('weight=4', 'weight=7')));
  test('lines that went come back with what they said', () => {
    const fewer = edited(before, [8811]);
    assert.equal(restored(fewer), before);
    assert.equal(restored(`# hello\n${fewer}`), `# hello\n${before}`);
  });
  test('lines that came go', () => {
    const more = edited(before, [8811, 8812, 8813, 8814]);
    assert.equal(restored(more), before);
    assert.equal(restored(`# hello\n${more}`), `# hello\n${before}`);
  });
  test('from a stop', () => assert.equal(restored(edited(before, [])), before));
  test('not where the block is gone', () => assert.throws(() => restored('a;\n'), DeployError));
});

describe('what others change', () => {
  const bytes = (one: string) => Buffer.from(one);
  const block = 'upstream myweb { server 127.0.0.1:8811; server 127.0.0.1:8812; }';
  test('elsewhere, and in what the lines say, is their own', () => {
    for (const other of [`# x\n${block}`, block.replace('8811;', '8811 weight=2;'), `${block} upstream other { server 127.0.0.1:9; }`]) assert.equal(text.hash(bytes(other)), text.hash(bytes(block)), other);
  });
  test('an address, a line more, a slot that is down: that is noticed', () => {
    for (const other of [block.replace('8812', '8813'), block.replace('; }', '; server 127.0.0.1:9; }'), block.replace('8812;', '8812 down;'), 'x;']) assert.notEqual(text.hash(bytes(other)), text.hash(bytes(block)), other);
  });
});

describe('refused, with the reason and the lines to write instead', () => {
  for (const [situation, before, says] of [
    ['no such upstream', 'events {} http { upstream other { server 127.0.0.1:1; } }', /`upstream myweb` stands neither in it nor in/],
    ['two of them', 'upstream myweb { server 127.0.0.1:1; }\nupstream "myweb" { server 127.0.0.1:1; }', /has `upstream myweb` twice, in lines 1 and 2/],
    ['an include in it', 'upstream myweb {\n include servers.conf;\n}', /line 2: with `include`/],
    ['Lua decides', 'upstream myweb {\n server 127.0.0.1:1;\n balancer_by_lua_block { x = "}" } }', /line 3: with `balancer_by_lua_block`/],
    ['a socket', 'upstream myweb {\n server 127.0.0.1:1;\n server unix:/run/a.sock;\n}', /line 3: `server unix:\/run\/a\.sock` is no port of `workers\.host`, 127\.0\.0\.1/],
    ['a name', 'upstream myweb { server localhost:8811; }', /`server localhost:8811` is no port/],
    ['another host', 'upstream myweb {\n server 127.0.0.1:1;\n server 10.0.0.2:1; }', /line 3: `server 10\.0\.0\.2:1` is no port/],
    ['no address at all', 'upstream myweb { server a:b; }', /`server a:b` is no port/],
    ['nothing but a backup', 'upstream myweb {\n server 10.0.0.2:1 backup;\n}', /line 1: `upstream myweb` has no `server 127\.0\.0\.1:8811;`/],
    ['a backup on a port of the workers', 'upstream myweb {\n server 127.0.0.1:1;\n server 127.0.0.1:8830 backup; }', /line 3: the backup 127\.0\.0\.1:8830 has one of `workers\.ports`/],
    ['a text that is no configuration', 'upstream myweb {\n server 127.0.0.1:1;', /line 2: unexpected end of file/],
    ['an address that would rewrite a terminal', 'upstream myweb { server "\u001b[2J:1"; }', /`server \\x1b\[2J:1` is no port/],
  ] as const) {
    test(situation, () => {
      assert.throws(() => edited(before, [8811]), (error: unknown) => {
        assert.ok(error instanceof DeployError);
        assert.equal(error.code, 'SWITCH_REFUSED');
        assert.match(error.message, says);
        assert.match(error.message, /^\/nowhere\/nginx\.conf cannot be edited: /);
        assert.match(error.hint, /`include \/etc\/nginx\/osyw\.upstream\.conf;` .*`proxy_pass http:\/\/myweb;`/);
        return true;
      });
      assert.equal(text.hash(Buffer.from(before)), null);
    });
  }

  test('of a file that cannot be read rightly, every port counts as named', () => {
    assert.deepEqual(text.ports(Buffer.from('upstream myweb { server 127.0.0.1:8811; server unix:/a; } upstream other { server 127.0.0.1:9; }')), [8811, 9]);
  });
});

describe('any file', () => {
  const blank = fc.constantFrom(' ', '\n', '\t', '\r\n  ', ' # 127.0.0.1:1; {\n', '\n\n    ');
  const parameter = fc.constantFrom('weight=4', 'max_fails=2', 'fail_timeout=30s', 'max_conns="5"');
  const quote = fc.constantFrom('', '"', "'");
  const port = fc.integer({min: 1024, max: 65_535});
  const slot = fc.record({kind: fc.constant('slot' as const), quote, port, parameters: fc.array(fc.tuple(blank, parameter), {maxLength: 3}), space: blank, before: fc.constantFrom('', ' ', '\n')});
  const other = fc.record({kind: fc.constant('other' as const), text: fc.constantFrom('ip_hash;', 'keepalive 16;', '# server 127.0.0.1:5;\n', 'server 127.0.0.1:7 down;', 'server 10.0.0.1:80 backup;', 'zone "a b" 64k;', 'hash "${uri}{};";', '\n\n', '\t')});
  const lines = fc.array(fc.tuple(fc.oneof({weight: 2, arbitrary: slot}, other), fc.constantFrom('\n', '\r\n', ' ', '\n    ', '\r\n\t', '')), {maxLength: 10})
    .filter(all => all.some(([{kind}]) => kind === 'slot'));
  const around = fc.constantFrom('', 'upstream other { server 127.0.0.1:1; }\n', '# {\n', 'map $a $b { "~{" "}"; }\n', 'log_format x \'{"a": "$b"}\';', 'content_by_lua_block { x = "}" }', '\ufeff');

  const written = (all: readonly (readonly [{kind: 'slot'; quote: string; port: number; parameters: [string, string][]; space: string; before: string} | {kind: 'other'; text: string}, string])[], address: (index: number, port: number) => string) => {
    let index = 0;
    return all.map(([one, end]) => (one.kind === 'other' ? one.text
      : `${one.before}server${one.space}${one.quote}${address(index++, one.port)}${one.quote}${one.parameters.map(([space, word]) => space + word).join('')};`) + end).join('');
  };

  test('after an edit exactly the addresses differ', () => {
    fc.assert(fc.property(lines, around, around, fc.array(port, {minLength: 10, maxLength: 10}), (all, ahead, behind, ports) => {
      const file = (address: (index: number, port: number) => string) => `${ahead === '\ufeff' ? '# \ufeff\n' : ahead}upstream myweb {${written(all, address)}}${behind === '\ufeff' ? '' : behind}`;
      const before = file((_, old) => `127.0.0.1:${old}`);
      const count = all.filter(([{kind}]) => kind === 'slot').length;
      const expected = file(index => `127.0.0.1:${ports[index]}`);
      const after = text.render(Buffer.from(before), ports.slice(0, count));
      assert.equal(after.toString(), expected);
      assert.equal(text.restore(after, Buffer.from(before))?.toString(), before);
      const stopped = text.render(Buffer.from(before), []);
      assert.equal(text.render(stopped, ports.slice(0, count)).toString(), expected);
    }), {numRuns: 400});
  });

  test('any number of workers: that many lines, and back again to the byte', () => {
    fc.assert(fc.property(lines, fc.array(port, {minLength: 1, maxLength: 12}), (all, ports) => {
      const before = Buffer.from(`upstream myweb {${written(all, (_, old) => `127.0.0.1:${old}`)}}`);
      const after = text.render(before, ports);
      assert.deepEqual(text.ports(after), ports);
      assert.deepEqual(text.restore(after, before), before);
      // What was added goes again, and with it every byte that came.
      const count = text.ports(before).length;
      if (ports.length > count) assert.deepEqual(text.render(after, text.ports(before)), before);
    }), {numRuns: 400});
  });
});
