import {oldLinesIn} from '../adopt/old-set-up.ts';
import type {Config} from '../config/config.ts';
import {DeployError} from '../errors.ts';
import {lstatIfThere} from '../support/lstat-if-there.ts';
import {findRepository} from '../trigger/find-repository.ts';
import {lookAtHooks} from '../trigger/install-hook.ts';
import type {Context} from './context.ts';

/** A hook of somebody else's with lines that update or restart by themselves; the first line is 1. */
export interface OldHook {
  readonly file: string;
  readonly lines: readonly number[];
}

/** Those in the repository, where that is on this machine; undefined where it is not, or cannot be told. */
export async function findOldHooks(config: Config, {cwd, signal, hookScript}: Context): Promise<OldHook[] | undefined> {
  try {
    const repository = await findRepository(config.source, {cwd, signal});
    return lookAtHooks(repository, hookScript).flatMap(({file, before, text}) => [...(text.kind === 'foreign' ? [file] : []), ...(lstatIfThere(before) === undefined ? [] : [before])])
      .map(file => ({file, lines: oldLinesIn(file)})).filter(({lines}) => lines.length > 0);
  } catch (error) {
    if (error instanceof DeployError) return undefined;
    throw error;
  }
}
