import {closeSync, constants, fsync, openSync} from 'node:fs';
import {dirname} from 'node:path/posix';
import {promisify} from 'node:util';
import {DeployError, errnoOf} from '../errors.ts';
import {runCommand} from '../support/run-command.ts';
import {inTree} from './tree-manifest.ts';

const MAX_SINGLE_SYNCS = 50;
const SYNC_TIMEOUT_MS = 10 * 60_000;
const fsyncLater = promisify(fsync);

/**
 * Brings what was written in a tree to the disk: a few files one by one, many by a sync of the whole file system, which also
 * waits for everybody else's writes. `touched`: undefined for "nobody knows".
 */
export async function syncTree(dir: string, touched: readonly string[] | undefined, signal: AbortSignal): Promise<void> {
  const paths = touched === undefined ? undefined : new Set(touched.flatMap(path => [path, dirname(path)]));
  if (paths === undefined || paths.size > 2 * MAX_SINGLE_SYNCS) {
    const result = await runCommand({file: 'sync', args: ['-f', dir]}, {env: {PATH: '/usr/local/bin:/usr/bin:/bin', LC_ALL: 'C'}, timeoutMs: SYNC_TIMEOUT_MS, signal});
    if (result.exitCode !== 0) throw new DeployError('BUILD_FAILED', `${dir} could not be synced to the disk: ${result.stderr.trim()}`);
    return;
  }
  await Promise.all([...paths].map(async path => {
    let fd: number;
    try {
      fd = openSync(path === '.' ? dir : inTree(dir, path), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    } catch (error) {
      // Removed, or a link, which its directory holds.
      if (['ENOENT', 'ENOTDIR', 'ELOOP'].includes(errnoOf(error) ?? '')) return;
      throw error;
    }
    try {
      await fsyncLater(fd);
    } finally {
      closeSync(fd);
    }
  }));
}
