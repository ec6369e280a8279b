import {readdirSync} from 'node:fs';
import {errnoOf} from '../errors.ts';

/** The names in a directory; none where there is no directory yet. Errors: the system's. */
export function entriesOf(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw error;
  }
}
