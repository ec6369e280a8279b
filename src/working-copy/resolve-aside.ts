import {mkdtempSync, rmSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import type {Config} from '../config/config.ts';
import {openWorkingCopy} from './open-working-copy.ts';

/**
 * Asks the repository which revision to deploy, beside whatever works on the working copy at the time: the files that svn and git
 * keep while they look lie in a directory that is gone afterwards. Errors: as `WorkingCopy.resolve`.
 */
export async function resolveAside(config: Config, wanted: string | undefined, signal: AbortSignal): Promise<string> {
  const aside = mkdtempSync(join(tmpdir(), 'osyw-deploy-ask-'));
  try {
    return await openWorkingCopy({...config, stateDir: aside}, {onlyAsks: true}).resolve(wanted, signal);
  } finally {
    rmSync(aside, {recursive: true, force: true});
  }
}
