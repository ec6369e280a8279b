import {existsSync, readdirSync, readFileSync, readlinkSync, realpathSync} from 'node:fs';
import {errnoOf} from '../errors.ts';

/**
 * Living svn or git commands that may be at work in a directory: by their working directory or an argument.
 * One whose working directory is not ours to read counts too: it may hold the lock that we are about to remove.
 */
export function liveCommands(program: 'svn' | 'git', directory: string): number[] {
  return readdirSync('/proc').flatMap(entry => {
    if (!/^\d+$/.test(entry)) return [];
    try {
      const comm = readFileSync(`/proc/${entry}/comm`, 'utf8').trim();
      if (program === 'svn' ? comm !== 'svn' : comm !== 'git' && !comm.startsWith('git-')) return [];
      const args = readFileSync(`/proc/${entry}/cmdline`, 'utf8').split('\0');
      const dead = args.length <= 1; // A zombie has no arguments, and no locks.
      return !dead && (args.some(arg => mentions(arg, directory)) || worksIn(entry, directory)) ? [Number(entry)] : [];
    } catch {
      return []; // Gone meanwhile.
    }
  });
}

function mentions(arg: string, directory: string): boolean {
  const at = arg.indexOf(directory);
  if (at === -1) return false;
  const after = arg[at + directory.length];
  return after === undefined || after === '/' || after === '@';
}

function worksIn(pid: string, directory: string): boolean {
  try {
    const cwd = readlinkSync(`/proc/${pid}/cwd`);
    // The kernel names real paths; a link may stand on the way to ours.
    const real = existsSync(directory) ? realpathSync(directory) : directory;
    return cwd === real || cwd.startsWith(`${real}/`);
  } catch (error) {
    return errnoOf(error) === 'EACCES' || errnoOf(error) === 'EPERM';
  }
}
