import {existsSync, realpathSync} from 'node:fs';
import {basename, join} from 'node:path';

interface Watching {
  /** The whole tree is watched, not only what tells the revision. */
  readonly edits: boolean;
}

/**
 * Calls back when the working copy may have come to another revision: somebody ran `svn update`, `git pull` or `git checkout` there.
 * Only what tells the revision is watched, a handful of files however large the tree is; with `edits` each directory as well, and
 * it calls back once in the beginning, for what was edited before. What is called for may be nothing: look.
 * `onFault` is told once why nothing, or not everything, can be watched.
 */
export async function watchWorkingCopy(workingCopy: string, {edits}: Watching, onChange: () => void, onFault: (text: string) => void): Promise<{close(): Promise<void>}> {
  const {watch} = await import('chokidar');
  const tells = whatTells(workingCopy);
  // `git add` writes the index alone.
  if (edits && existsSync(join(workingCopy, '.git/HEAD'))) tells.push(join(workingCopy, '.git/index'));
  // chokidar is never ready with nothing to watch, as in a linked work tree of git.
  const watchers = tells.length === 0 ? [] : [watch(tells, {ignoreInitial: true, followSymlinks: false}).on('all', onChange)];
  if (edits) {
    // The kernel tells by a directory what happens to its files, so these need no watches of their own: the system has few.
    const ignored = (path: string, stats?: {isDirectory(): boolean}) => ['.svn', '.git'].includes(basename(path)) || stats?.isDirectory() === false;
    watchers.push(watch(realpathSync(workingCopy), {ignored, ignoreInitial: true, followSymlinks: false}).on('raw', onChange));
  }
  let told = false;
  for (const watcher of watchers) {
    watcher.on('error', error => {
      if (!told) onFault(watchFault(error));
      told = true;
    });
  }
  await Promise.all(watchers.map(watcher => new Promise<void>(resolve => watcher.once('ready', resolve))));
  if (edits) onChange();
  return {close: async () => void await Promise.all(watchers.map(watcher => watcher.close()))};
}

/** Whether there is a working copy yet, and not only the directory of one that is being checked out. */
export function isWatchable(workingCopy: string): boolean {
  return whatTells(workingCopy).length > 0 || existsSync(join(workingCopy, '.git'));
}

function whatTells(workingCopy: string): string[] {
  // `git pack-refs` removes the file of a branch, so it is the directory that is watched.
  return ['.svn/wc.db', '.git/HEAD', '.git/packed-refs', '.git/refs/heads'].map(name => join(workingCopy, name)).filter(path => existsSync(path));
}

function watchFault(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? String(error.code) : undefined;
  const limit = {ENOSPC: 'fs.inotify.max_user_watches', EMFILE: 'fs.inotify.max_user_instances'}[code ?? ''];
  return limit === undefined ? `the working copy cannot be watched: ${error instanceof Error ? error.message : String(error)}`
    : `the working copy cannot be watched, for the system's limit is reached; raise it: sysctl ${limit}. It is still looked at with each poll (watch.poll)`;
}
