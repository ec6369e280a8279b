import {DeployError, messageOf} from '../errors.ts';
import {readRegularFile} from '../state/atomic-file.ts';

/** The password in `source.password_file`, without the newline at its end. Errors: UPDATE_FAILED when it cannot be read. */
export function readPassword(path: string): string {
  let bytes: Buffer | undefined;
  try {
    bytes = readRegularFile(path);
  } catch (error) {
    throw new DeployError('UPDATE_FAILED', `source.password_file ${path} cannot be read: ${messageOf(error)}`, {cause: error});
  }
  if (bytes === undefined) throw new DeployError('UPDATE_FAILED', `source.password_file ${path} does not exist.`);
  return bytes.toString('utf8').replace(/\r?\n$/, '');
}
