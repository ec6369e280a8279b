import {readdirSync, readlinkSync} from 'node:fs';
import {sep} from 'node:path';

/** The entries of `parent` in which a process works, or from which one was started. */
export function liveDirectories(parent: string): Set<string> {
  const live = new Set<string>();
  const prefix = parent + sep;
  for (const pid of readdirSync('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    for (const link of ['cwd', 'exe', 'root']) {
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
