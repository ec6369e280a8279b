import {lstatSync, type Stats} from 'node:fs';
import {errnoOf} from '../errors.ts';

/** What stands at a path, links not followed; undefined when nothing does, be it that a parent is a file. */
export function lstatIfThere(path: string | Buffer): Stats | undefined {
  try {
    return lstatSync(path);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return undefined;
    throw error;
  }
}
