import assert from 'node:assert/strict';
import {test} from 'node:test';
import {plainText} from '../../../src/support/plain-text.ts';

test('nothing that a terminal would obey is left, and everything else is', () => {
  assert.equal(plainText('a\tb\nGrüße ✓ 日本 \u{1f600}'), 'a\tb\nGrüße ✓ 日本 \u{1f600}');
  assert.equal(plainText('\x1b[2J\x07\r\x00\x7f\x9b'), '\\x1b[2J\\x07\\x0d\\x00\\x7f\\x9b');
});
