import {linkSync, unlinkSync} from 'node:fs';
import {dirname} from 'node:path';
import {DeployError, errnoOf, messageOf} from '../errors.ts';
import {syncDirectory, unfinishedName, writeDurably} from '../state/atomic-file.ts';

/** Whole or not at all; never over one that is there. Errors: USAGE, with a hint for where there is one and one for where none can be written. */
export function writeNew(file: string, text: string, hints: {readonly there: string; readonly denied: string}): void {
  const candidate = unfinishedName(file);
  try {
    writeDurably(candidate, text, {mode: 0o644});
    try {
      linkSync(candidate, file);
    } finally {
      unlinkSync(candidate);
    }
    syncDirectory(dirname(file));
  } catch (error) {
    if (errnoOf(error) === 'EEXIST') throw new DeployError('USAGE', `${file} is there already and is never overwritten`, {hint: hints.there});
    throw new DeployError('USAGE', `cannot write ${file}: ${messageOf(error)}`, {hint: hints.denied, cause: error});
  }
}
