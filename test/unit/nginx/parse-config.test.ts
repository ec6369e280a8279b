import assert from 'node:assert/strict';
import {describe, test} from 'node:test';
import fc from 'fast-check';
import {ConfigSyntaxError, parseConfig, type Directive} from '../../../src/nginx/parse-config.ts';

type Shape = readonly [words: string, block?: readonly Shape[]];
const shapeOf = (directives: readonly Directive[]): Shape[] => directives.map(({name, args, block}) => {
  const words = [name, ...args].map(({text}) => text).join('|');
  return block === undefined ? [words] : [words, shapeOf(block)];
});
const read = (text: string) => parseConfig(Buffer.from(text));

describe('words and blocks', () => {
  for (const [situation, text, shape] of [
    ['nothing', '', []],
    ['blanks and comments', ' \t\r\n# a { b; }\n#', []],
    ['one line', 'events{}http{server{listen 80;}}', [['events', []], ['http', [['server', [['listen|80']]]]]]],
    ['over lines', 'server\n\t127.0.0.1:80\r\n  weight=4;', [['server|127.0.0.1:80|weight=4']]],
    ['a comment between the words', 'server # the ; first {\n 127.0.0.1:1;', [['server|127.0.0.1:1']]],
    ['# within a word is none', 'return 200 a#b;#c\nx;', [['return|200|a#b'], ['x']]],
    ['quotes', `a "b ; { } # c" 'd"e' "f'g";`, [[`a|b ; { } # c|d"e|f'g`]]],
    ['a quote within a word is none', `a b"c d'e;`, [[`a|b"c|d'e`]]],
    ['an empty word', 'a "" \'\';', [['a||']]],
    ['escapes', String.raw`a \; "\"" '\'' \{x \\ "\t\r\n" \q\ z;`, [['a|\\;|"|\'|\\{x|\\|\t\r\n|\\q\\ z']]],
    ['a backslash before a line feed', 'a b\\\nc;', [['a|b\\\nc']]],
    ['${} is no block', 'set $a ${b}c"${d}" "${e}" x${f}${g};', [['set|$a|${b}c"${d}"|${e}|x${f}${g}']]],
    ['a brace after a name is one', 'if $x{y;}', [['if|$x', [['y']]]]],
    ['a closing brace within a word is none', 'a b};', [['a|b}']]],
    ['a parenthesis behind quotes begins a word', 'if ($a = "b") { c; }', [['if|($a|=|b|)', [['c']]]]],
    ['a map with braces', 'map $a $b { "~^\\d{4}$" 1; ~^x\\ \\{ 2; default "{"; }', [['map|$a|$b', [['~^\\d{4}$|1'], ['~^x\\ \\{|2'], ['default|{']]]]],
    ['UTF-8', 'add_header X "Grüße, 世界" ; # ü{\n', [['add_header|X|Grüße, 世界']]],
    ['Lua', 'location / { content_by_lua_block { if x == "}" then ngx.say([[}]], \'}\') end -- }\n local t = {a = {1}} } return 1; }', [['location|/', [['content_by_lua_block'], ['return|1']]]]],
    ['Lua with a long comment and levels', 'set_by_lua_block $x { --[==[ } ]] ]=] ]==] return [=[ } ]] ]=] }a;', [['set_by_lua_block|$x'], ['a']]],
    ['Lua with escaped quotes', String.raw`init_by_lua_block{ a = "\"}" b = '\\' }`, [['init_by_lua_block']]],
  ] as const) test(situation, () => assert.deepEqual(shapeOf(read(text)), shape));
});

test('places are bytes, with the quotes; lines are those of the names', () => {
  const text = '# ä\nupstream "my web" {\r\n  server\n    "127.0.0.1:80" weight=4;\n  content_by_lua_block {\n }\n x;}\n';
  const bytes = Buffer.from(text);
  const [upstream] = parseConfig(bytes);
  const [server, lua, x] = upstream?.block ?? [];
  const at = ({start, end}: {start: number; end: number} | undefined = {start: 0, end: 0}) => bytes.subarray(start, end).toString();
  assert.equal(at(upstream), text.slice(4, -1));
  assert.equal(at(upstream?.args[0]), '"my web"');
  assert.equal(at(server), 'server\n    "127.0.0.1:80" weight=4;');
  assert.equal(at(server?.args[0]), '"127.0.0.1:80"');
  assert.equal(at(lua), 'content_by_lua_block {\n }');
  assert.deepEqual([upstream, server, lua, x].map(one => one?.line), [2, 3, 5, 7]);
});

describe('refused, with the line', () => {
  for (const [situation, text, says] of [
    ['a file that ends in a block', 'a {\n b;\n', 'line 3: unexpected end of file, expecting "}"'],
    ['a file that ends in a directive', 'a;\nb c', 'line 2: unexpected end of file, expecting ";" or "}"'],
    ['words before a closing brace', 'a {\n b }', 'line 2: unexpected "}"'],
    ['a brace too many', 'a;\n}', 'line 2: unexpected "}"'],
    ['a semicolon alone', 'a;\n\n;', 'line 3: unexpected ";"'],
    ['a block without a name', '{}', 'line 1: unexpected "{"'],
    ['a quote without an end', 'a;\nb "c;\nd;', 'line 2: a quoted word has no end, probably missing terminating "'],
    ['something behind a quote', 'a "b"c;', 'line 1: unexpected "c" after a quoted word'],
    ['Lua without an end', 'a_by_lua_block {\n x = "}" ', 'line 1: the end of this block of Lua cannot be found'],
    ['Lua with a quote without an end', 'a_by_lua_block { x = " }\n', 'line 1: the end of this block of Lua cannot be found'],
    ['a word as long as nginx\'s buffer', `a ${'x'.repeat(4096)};`, 'line 1: too long parameter (word): 4096 bytes'],
    ['a comment as long', `\n#${'x'.repeat(4095)}\n`, 'line 2: too long parameter ("#..."): 4096 bytes'],
    ['in quotes as long', `a "${'x'.repeat(4095)}";`, 'line 1: too long parameter (in quotes): 4096 bytes'],
  ] as const) {
    test(situation, () => assert.throws(() => read(text), (error: unknown) => error instanceof ConfigSyntaxError && error.message === says));
  }
  test('what would exhaust the stack', () => {
    for (const text of [`a "${'\\ab'.repeat(4e6)}`, `a ${'\\a$'.repeat(4e6)};`, `a_by_lua_block { "${'\\a'.repeat(4e6)}`, 'a {'.repeat(100_000)]) assert.throws(() => read(text), ConfigSyntaxError);
  });
  test('one byte less is read', () => {
    assert.equal(read(`a ${'x'.repeat(4095)} "${'x'.repeat(4094)}";#${'x'.repeat(4094)}\n`).length, 1);
  });
});

test('any directives that are written are read', () => {
  const word = fc.string({minLength: 1, maxLength: 8, unit: fc.constantFrom('a', 'é', '"', "'", '\\', ';', '{', '}', '#', '$', ' ', '\n', '\t', ')')});
  const quoted = word.map(text => ({text, written: `"${text.replace(/["\\]/g, '\\$&')}"`}));
  const plain = fc.stringMatching(/^[a-z0-9:./=~^*-]{1,8}$/).map(text => ({text, written: text}));
  const blank = fc.constantFrom(' ', '\t', '\r\n', ' # x{;}"\n', '\n\n');
  const line = fc.tuple(plain, fc.array(fc.tuple(blank, fc.oneof(quoted, plain)), {maxLength: 4}));
  fc.assert(fc.property(fc.array(line, {maxLength: 5}), fc.boolean(), (lines, inBlock) => {
    const text = lines.map(([name, args]) => `${name.written}${args.map(([space, arg]) => space + arg.written).join('')};`).join('\n');
    const directives = inBlock ? read(`x {${text}}`)[0]?.block ?? [] : read(text);
    assert.deepEqual(directives.map(({name, args}) => [name, ...args].map(one => one.text)), lines.map(([name, args]) => [name.text, ...args.map(([, arg]) => arg.text)]));
  }));
});
