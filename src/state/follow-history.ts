import {closeSync, constants, fstatSync, openSync, readFileSync, watch, type FSWatcher} from 'node:fs';
import {basename, dirname} from 'node:path';
import {errnoOf} from '../errors.ts';
import {decodeHistory, historyPath, type HistoryLine} from './history.ts';

/** What no event told of is found so late. */
const LOOK_AGAIN_MS = 1000;

/**
 * Tells each line of the history once, oldest first: of those that are there the last `limit`, then what comes, until the signal.
 * The file and its directory need not be there yet; the file may be cut, replaced or moved away meanwhile.
 * Errors: the system's, for a file that may not be read.
 */
export function followHistory(stateDir: string, {limit, tell, signal}: {limit: number | undefined; tell: (line: HistoryLine) => void; signal: AbortSignal}): Promise<void> {
  const told = new Set<string>();
  const reader = openReader(historyPath(stateDir));
  let watcher: FSWatcher | undefined;
  let skip = (lines: number): number => {
    skip = () => 0;
    return limit === undefined ? 0 : Math.max(0, lines - limit);
  };
  const look = () => {
    // One that a replaced file has again was told, whatever stands before it now.
    const lines = reader.changed().flatMap(decodeHistory).filter(({id}) => !told.has(id) && told.add(id));
    lines.slice(skip(lines.length)).forEach(tell);
  };
  return new Promise((resolve, reject) => {
    const lookOrEnd = () => {
      try {
        watcher ??= watchFile(historyPath(stateDir), lookOrEnd);
        look();
      } catch (error) {
        end();
        reject(error as Error);
      }
    };
    const end = () => {
      clearInterval(timer);
      watcher?.close();
      reader.close();
      signal.removeEventListener('abort', end);
      resolve();
    };
    const timer = setInterval(lookOrEnd, LOOK_AGAIN_MS);
    signal.addEventListener('abort', end, {once: true});
    if (signal.aborted) end();
    else lookOrEnd();
  });
}

/** Reads a file whole when it is another one than at the last look; one that was moved away once more before the one in its place, for what came last. */
function openReader(path: string): {changed(): Buffer[]; close(): void} {
  let open: {readonly fd: number; stamp: string} | undefined;
  const readIfChanged = (): Buffer[] => {
    if (open === undefined) return [];
    const stamp = stampOf(open.fd);
    if (stamp === open.stamp) return [];
    open.stamp = stamp;
    // By its descriptor it would be read on from where the last look ended.
    return [readFileSync(`/proc/self/fd/${open.fd}`)];
  };
  const close = () => {
    if (open !== undefined) closeSync(open.fd);
    open = undefined;
  };
  return {
    changed: () => {
      const found = openIfThere(path);
      // While it is open, no other file gets its inode.
      const isSame = found !== undefined && open !== undefined && fstatSync(found, {bigint: true}).ino === fstatSync(open.fd, {bigint: true}).ino;
      const last = readIfChanged();
      if (isSame) closeSync(found);
      if (isSame || found === undefined) return last;
      close();
      open = {fd: found, stamp: ''};
      return [...last, ...readIfChanged()];
    },
    close,
  };
}

function openIfThere(path: string): number | undefined {
  try {
    return openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

function stampOf(fd: number): string {
  const {size, mtimeNs} = fstatSync(fd, {bigint: true});
  return `${size} ${mtimeNs}`;
}

/** Undefined where there is nothing to watch yet, or the machine has no watches left. */
function watchFile(path: string, onChange: () => void): FSWatcher | undefined {
  try {
    const watcher = watch(dirname(path), (_, name) => {
      if (name === null || name === basename(path)) onChange();
    });
    return watcher.on('error', () => watcher.close());
  } catch {
    return undefined; // It is looked at again anyway.
  }
}
