import {readdirSync} from 'node:fs';
import {DeployError, errnoOf} from '../errors.ts';

/** Refuses to fill a directory that holds somebody's files. Errors: UPDATE_FAILED; nothing was touched. */
export function refuseForeignDirectory(workingCopy: string, wanted: 'git work tree' | 'Subversion working copy'): void {
  let entries: string[];
  try {
    entries = readdirSync(workingCopy);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return;
    throw new DeployError('UPDATE_FAILED', `source.working_copy ${workingCopy} is not a directory.`, {hint: 'Move it away, or name another place.', cause: error});
  }
  if (entries.length === 0) return;
  throw new DeployError('UPDATE_FAILED', `source.working_copy ${workingCopy} holds files but is not a ${wanted}. It is untouched.`, {
    hint: 'Move it away, or name another place in source.working_copy.',
  });
}
