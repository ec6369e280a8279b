import assert from 'node:assert/strict';
import {describe, test} from 'node:test';
import {namesAny} from '../../../src/working-copy/path-globs.ts';

const DEEP = 'src/a/b/c.py';

describe('a glob', () => {
  for (const [glob, named, others] of [
    ['src/**', ['src/x', DEEP, 'src/.env', 'src/.d/.e/f', 'src/sp ace/é', 'src'], ['srcs/x', 'lib/src/x', 'sr', '']],
    ['src', ['src', 'src/x', DEEP, 'src/.env'], ['srcs', 'srcs/x', 'lib/src', 'lib/src/x', '']],
    ['src/a', ['src/a/b/c.py'], ['src/ab', 'src/b', 'src']],
    ['*.py', ['osyw.py', '.hidden.py', '-x.py', 'é.py', 'a b@c%.py'], [DEEP, 'a/x.py', 'x.pyc', 'x.PY']],
    ['**/*.py', ['osyw.py', DEEP, 'src/.x.py', '.d/x.py'], ['x.txt', DEEP + 'c']],
    ['src/*', ['src/x', 'src/.x'], [DEEP, 'src']],
    ['**', ['x', DEEP, '.x', '.d/x', ''], []],
    ['*', ['x', '.x', '-x'], [DEEP, '']],
    ['{src,lib}/**/*.{py,txt}', ['src/x.py', 'lib/a/b.txt'], ['doc/x.py', 'src/x.sh']],
    ['v[0-9]/x?.txt', ['v1/xy.txt', 'v9/x@.txt'], ['va/xy.txt', 'v1/x.txt']],
    ['-x', ['-x', '-x/y'], ['x']],
    ['a@b', ['a@b', 'a@b/c'], ['a']],
    ['50%', ['50%', '50%/x'], ['50%25', '50']],
    ['a b/é', ['a b/é/x'], ['a b', 'a%20b/é']],
    ['a|b', ['a|b'], ['a', 'b']],
    ['a+b.py', ['a+b.py'], ['aab.py', 'a+bxpy']],
    ['a.b', ['a.b'], ['axb']],
    [String.raw`a\*b`, ['a*b', 'a*b/c'], ['axb', String.raw`a\*b`]],
    ['a[b', ['a[b'], ['ab']],
    ['[x] (copy)', ['[x] (copy)'], ['y (copy)']],
  ] as const) {
    test(glob, async () => {
      for (const path of named) assert.equal(await namesAny([glob], [path]), true, `"${path}" is named`);
      for (const path of others) assert.equal(await namesAny([glob], [path]), false, `"${path}" is not named`);
    });
  }
});

test('one path and one glob are enough', async () => {
  assert.equal(await namesAny(['lib/**', 'src/**'], ['doc/x', 'src/x']), true);
  assert.equal(await namesAny(['lib/**', 'src/**'], ['doc/x', 'x']), false);
  assert.equal(await namesAny(['**'], []), false);
});
