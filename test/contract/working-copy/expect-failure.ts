import assert from 'node:assert/strict';
import {DeployError, type FailureCode} from '../../../src/errors.ts';

/** For `assert.rejects`: a failure of this code whose message and hint have these words. */
export function failure(code: FailureCode, ...words: readonly string[]): (error: unknown) => true {
  return error => {
    assert.ok(error instanceof DeployError, `expected a DeployError, got ${String(error)}`);
    assert.equal(error.code, code, error.message);
    for (const word of words) assert.ok(`${error.message} ${error.hint}`.includes(word), `"${word}" is missing in: ${error.message} / ${error.hint}`);
    return true;
  };
}
