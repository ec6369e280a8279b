import assert from 'node:assert/strict';
import {test} from 'node:test';
import {DeployError, FAILURES, errnoOf, messageOf} from '../../src/errors.ts';

/** Copied from the contract, the rows with a code. */
const CONTRACT = `
| 1 | INTERNAL: a bug | as the journal says |
| 2 | USAGE | old |
| 3 | CONFIG_INVALID | old |
| 4 | BUSY: another deploy holds the lock | old |
| 5 | UPDATE_FAILED: conflict, network, authentication, unknown revision | old |
| 6 | BUILD_FAILED | old |
| 7 | START_FAILED: no spare port, could not be started, exited at once | old |
| 8 | NEVER_HEALTHY | old |
| 9 | SWITCH_REFUSED: \`nginx -t\` failed, or nginx did not take the new configuration | old, and its file is back |
| 10 | CLEANUP_INCOMPLETE | new; something old is left to stop |
| 11 | ROLLED_BACK: the new release failed after the switch | old |
| 12 | STATE_UNCERTAIN: nothing was stopped; look before you touch | unknown |
| 13 | INTERRUPTED: SIGINT, SIGTERM or SIGHUP before the switch (after it the deploy is finished first) | old |
`;

test('the catalogue is the table of the contract', () => {
  const rows = CONTRACT.trim().split('\n').map(line => {
    const [, exit, words, serves] = line.split('|').map(cell => cell.trim());
    return [words?.split(':')[0], {exit: Number(exit), serving: serves?.split(/[,;]/)[0]}];
  });
  assert.deepEqual(Object.entries(FAILURES).map(([code, {exit, serving}]) => [code, {exit, serving}]), rows);
  for (const [code, {hint}] of Object.entries(FAILURES)) assert.match(hint, /^(?:[A-Z`]|nginx ).*\.$/s, `${code} has no sentence that helps`);
});

test('a failure has its exit code, and a hint of its own before that of the catalogue', () => {
  const cause = new Error('inner');
  const error = new DeployError('BUSY', 'taken', {hint: 'wait', cause});
  assert.deepEqual([error.exit, error.hint, error.cause, error.name], [4, 'wait', cause, 'DeployError']);
  assert.equal(new DeployError('BUSY', 'taken').hint, FAILURES.BUSY.hint);
  assert.equal('cause' in new DeployError('BUSY', 'taken'), false);
});

test('anything that is thrown has a message', () => {
  assert.deepEqual([messageOf(new Error('a')), messageOf('b'), messageOf(undefined), messageOf(null)], ['a', 'b', 'undefined', 'null']);
  assert.deepEqual([errnoOf(Object.assign(new Error('x'), {code: 'ENOENT'})), errnoOf(new Error('x')), errnoOf('ENOENT'), errnoOf(Object.assign(new Error('x'), {code: 5}))], ['ENOENT', undefined, undefined, undefined]);
});
