import {readdirSync, readFileSync} from 'node:fs';

/**
 * Every living process that has `NAME=value` in the environment it was started with: a command and all its descendants,
 * whatever groups and sessions they went to. Our own process is never among them.
 */
export function markedProcesses(name: string, value: string): number[] {
  const mark = `\0${name}=${value}\0`;
  return readdirSync('/proc').flatMap(entry => {
    if (!/^\d+$/.test(entry) || Number(entry) === process.pid) return [];
    try {
      return `\0${readFileSync(`/proc/${entry}/environ`, 'latin1')}\0`.includes(mark) ? [Number(entry)] : [];
    } catch {
      return []; // Gone meanwhile, or of an account whose environment is not ours to read.
    }
  });
}

/** Kills them until none is found: a process that forks while we look is caught in the next round. */
export function killMarkedProcesses(name: string, value: string): void {
  for (let round = 0; round < 20; round++) {
    const left = markedProcesses(name, value);
    if (left.length === 0) return;
    for (const pid of left) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // Gone meanwhile.
      }
    }
  }
}
