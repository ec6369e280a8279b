import {existsSync} from 'node:fs';
import {join} from 'node:path';

/**
 * Calls back when the working copy may have come to another revision: somebody ran `svn update`, `git pull` or `git checkout` there.
 * Only what tells the revision is watched, a handful of files however large the tree is.
 * `onFault` is told once why nothing, or not everything, can be watched.
 */
export async function watchWorkingCopy(workingCopy: string, onChange: () => void, onFault: (text: string) => void): Promise<{close(): Promise<void>}> {
  const {watch} = await import('chokidar');
  // `git pack-refs` removes the file of a branch, so it is the directory that is watched.
  const tells = ['.svn/wc.db', '.git/HEAD', '.git/packed-refs', '.git/refs/heads'].map(name => join(workingCopy, name)).filter(path => existsSync(path));
  const watcher = watch(tells, {ignoreInitial: true, followSymlinks: false});
  let told = false;
  watcher.on('all', onChange);
  watcher.on('error', error => {
    if (!told) onFault(watchFault(error));
    told = true;
  });
  await new Promise<void>(resolve => watcher.once('ready', resolve));
  return {close: () => watcher.close()};
}

function watchFault(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? String(error.code) : undefined;
  const limit = {ENOSPC: 'fs.inotify.max_user_watches', EMFILE: 'fs.inotify.max_user_instances'}[code ?? ''];
  return limit === undefined ? `the working copy cannot be watched: ${error instanceof Error ? error.message : String(error)}`
    : `the working copy cannot be watched, for the system's limit is reached; raise it: sysctl ${limit}. The repository is still polled`;
}
