import assert from 'node:assert/strict';
import {test} from 'node:test';
import {splitEdits, withEdits} from '../../../src/support/edited-revision.ts';

const SHA = '0123456789abcdef0123456789abcdef01234567';

test('a revision with edits is named by both', () => {
  for (const revision of ['r41', SHA]) {
    const name = withEdits(revision, '1f0c9a7be2d4ffff');
    assert.equal(name, `${revision}+edits:1f0c9a7be2d4`);
    assert.deepEqual(splitEdits(name), {revision, edits: '1f0c9a7be2d4'});
  }
});

test('everything else is a name without edits, and whatever refuses names refuses it', () => {
  for (const name of ['r41', SHA, '', 'r41+edits:', 'r41+edits:1f0c', 'r41+edits:1f0c9a7be2d4 ', 'r41+edits:1F0C9A7BE2D4', '+edits:1f0c9a7be2d4', 'r41+edits:1f0c9a7be2d4+edits:1f0c9a7be2d4', 'r41\n+edits:1f0c9a7be2d4\n']) {
    assert.deepEqual(splitEdits(name), {revision: name, edits: undefined});
  }
});
