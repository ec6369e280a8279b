import {existsSync, readdirSync, readlinkSync, realpathSync} from 'node:fs';
import {sep} from 'node:path';

/** The entries of `parent` in which a process works, from which one was started, or in which one has something open. */
export function liveDirectories(parent: string): Set<string> {
  const live = new Set<string>();
  // Before the first release there is nothing to look after.
  if (!existsSync(parent)) return live;
  // The kernel names real paths; a link may stand on the way to ours.
  const prefix = realpathSync(parent) + sep;
  for (const pid of readdirSync('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    for (const link of ['cwd', 'exe', 'root', ...openFiles(pid)]) {
      try {
        const path = readlinkSync(`/proc/${pid}/${link}`);
        const name = path.startsWith(prefix) ? path.slice(prefix.length).split(sep)[0] : undefined;
        // The kernel adds " (deleted)" to what is gone; such a directory needs no care any more.
        if (name !== undefined) live.add(name);
      } catch {
        // Gone meanwhile, or of another account: then its directories are not ours to look after.
      }
    }
  }
  return live;
}

function openFiles(pid: string): string[] {
  try {
    return readdirSync(`/proc/${pid}/fd`).map(fd => `fd/${fd}`);
  } catch {
    return []; // As above.
  }
}
