import {readFileSync, readdirSync} from 'node:fs';
import {join} from 'node:path';
import {errnoOf} from '../errors.ts';
import type {Finding} from './finding.ts';

/** What `watch` needs beside directories: the files that tell the revision, the spool, the history. */
const OWN_WATCHES = 20;
const MOST_DIRECTORIES = 1_000_000;

/** Whether the kernel lets `watch` see the tree. `uid`: who deploys; limits are per account. `proc` is /proc. */
export function inotifyLimits({edits, workingCopy}: {edits: boolean; workingCopy: string}, uid: number, proc: string): Finding[] {
  const limit = (name: string) => Number(readFileSync(join(proc, 'sys/fs/inotify', name), 'utf8'));
  const used = usedBy(uid, proc);
  const need = OWN_WATCHES + (edits ? directoriesIn(workingCopy) : 0);
  const [watches, instances] = [limit('max_user_watches'), limit('max_user_instances')];
  const judge = (check: string, key: string, [most, has, wants]: readonly [number, number, number], means: string): Finding => {
    const says = `fs.inotify.${key} is ${most}; this account uses ${has}, \`osyw-deploy watch\` needs ${wants}${check === 'inotify-watches' && edits ? ' (watch.edits: one for each directory of the working copy)' : ''}`;
    if (has + wants <= most) return {check, level: 'ok', says};
    const wanted = 2 ** Math.ceil(Math.log2((has + wants) * 2));
    return {check, level: 'warning', says, means, mend: `echo fs.inotify.${key}=${wanted} >/etc/sysctl.d/60-inotify.conf && sysctl -p /etc/sysctl.d/60-inotify.conf`};
  };
  return [
    judge('inotify-watches', 'max_user_watches', [watches, used.watches, need], `\`watch\` sees ${edits ? 'edits' : 'requests and updates'} only when it polls`),
    judge('inotify-instances', 'max_user_instances', [instances, used.instances, 2], '`watch` can watch nothing, and sees changes only when it polls'),
  ];
}

/** Source: proc(5), fdinfo: a line `inotify wd:…` for each watch. Of processes that are not ours to read nothing is known. */
function usedBy(uid: number, proc: string): {watches: number; instances: number} {
  let [watches, instances] = [0, 0];
  for (const pid of readdirSync(proc).filter(name => /^\d+$/.test(name))) {
    const status = readOrEmpty(join(proc, pid, 'status'));
    if (Number(/^Uid:\s*\d+\s+(\d+)/m.exec(status)?.[1] ?? -1) !== uid) continue;
    for (const fd of namesIn(join(proc, pid, 'fdinfo'))) {
      const found = readOrEmpty(join(proc, pid, 'fdinfo', fd)).match(/^inotify wd:/gm)?.length ?? 0;
      watches += found;
      instances += found > 0 ? 1 : 0;
    }
  }
  return {watches, instances};
}

function directoriesIn(top: string): number {
  let count = 1;
  const pending = [top];
  for (let at = pending.pop(); at !== undefined && count < MOST_DIRECTORIES; at = pending.pop()) {
    for (const name of directoryNames(at)) {
      if (name === '.svn' || name === '.git') continue;
      count++;
      pending.push(join(at, name));
    }
  }
  return count;
}

function directoryNames(directory: string): string[] {
  try {
    return readdirSync(directory, {withFileTypes: true}).filter(entry => entry.isDirectory()).map(({name}) => name);
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
    return []; // Not there yet, or not ours to read.
  }
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
    return []; // Another account's, or gone.
  }
}

function readOrEmpty(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
    return ''; // The same.
  }
}
