import {closeSync, openSync, readFileSync, readSync, readdirSync, readlinkSync, statSync} from 'node:fs';
import {errnoOf} from '../errors.ts';
import type {ProcessIdentity} from '../deploy/deployment.ts';

/** What /proc/PID/stat says, as far as it is used here. */
export interface ProcessStat {
  readonly pid: number;
  /** `R S D Z T …`; Z and X are dead, whatever `kill(pid, 0)` says. */
  readonly state: string;
  readonly ppid: number;
  readonly session: number;
  readonly startTime: number;
  /** Clock ticks of a CPU that it used, and its ended children that it waited for. */
  readonly cpuTicks: number;
}

/** Of the clock ticks that /proc speaks of. Source: USER_HZ, the same on every architecture that Node runs on. */
export const TICKS_PER_SECOND = 100;

let knownBootId: string | undefined;

/** Names this boot of the machine. Source: /proc/sys/kernel/random/boot_id. */
export function bootId(): string {
  knownBootId ??= readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  return knownBootId;
}

/** Undefined when there is no such process. Source: proc(5), fields counted after the last `)` of the command name. */
export function processStat(pid: number): ProcessStat | undefined {
  const text = readProcFile(`/proc/${pid}/stat`)?.toString('latin1');
  if (text === undefined) return undefined;
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return {pid, state: fields[0] ?? 'X', ppid: Number(fields[1]), session: Number(fields[3]), startTime: Number(fields[19]), cpuTicks: fields.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks), 0)};
}

/** The identity of a living process; undefined when there is none of that pid, or a zombie. */
export function identify(pid: number): ProcessIdentity | undefined {
  const stat = processStat(pid);
  return stat === undefined || isDead(stat) ? undefined : {pid, startTime: stat.startTime, bootId: bootId()};
}

/** Whether this very process lives: same boot, same start, not a zombie. */
export function isAlive(identity: ProcessIdentity): boolean {
  if (identity.bootId !== bootId()) return false;
  const stat = processStat(identity.pid);
  return stat !== undefined && !isDead(stat) && stat.startTime === identity.startTime;
}

export function isDead(stat: ProcessStat): boolean {
  return stat.state === 'Z' || stat.state === 'X' || stat.state === 'x';
}

/**
 * Sends a signal to this very process and to no other; false when it is gone.
 * Errors: EPERM when it is not ours to signal.
 */
export function signalProcess(identity: ProcessIdentity, signal: NodeJS.Signals): boolean {
  if (identity.pid <= 1 || identity.pid === process.pid || identity.pid === process.ppid) return false;
  if (!isAlive(identity)) return false;
  try {
    process.kill(identity.pid, signal);
    return true;
  } catch (error) {
    if (errnoOf(error) === 'ESRCH') return false;
    throw error;
  }
}

/** The account that a process runs as; undefined when there is none of that pid. */
export function accountIdOf(pid: number): number | undefined {
  return statSync(`/proc/${pid}`, {throwIfNoEntry: false})?.uid;
}

export function allPids(): number[] {
  return readdirSync('/proc').filter(name => name >= '1' && name <= ':').map(Number);
}

/** The words of the command line; empty for a kernel thread, a zombie, or none. */
export function commandLine(pid: number): string[] {
  const bytes = readProcFile(`/proc/${pid}/cmdline`);
  if (bytes === undefined || bytes.length === 0) return [];
  return bytes.toString('utf8').replace(/\0+$/, '').split('\0');
}

/** Direct children. Source: proc(5), task/TID/children; may miss one while siblings exit. */
export function childrenOf(pid: number): number[] {
  const text = readProcFile(`/proc/${pid}/task/${pid}/children`)?.toString('latin1') ?? '';
  return text.split(' ').filter(word => word !== '').map(Number);
}

/** Whether `line` (`NAME=value`) stands in the environment that the process was started with. */
export function hasEnvironmentLine(pid: number, line: string): boolean {
  return environmentHas(pid, line) === true;
}

/** Undefined when it cannot be told, as in the middle of an exec. */
function environmentHas(pid: number, line: string): boolean | undefined {
  const environ = readProcFile(`/proc/${pid}/environ`);
  return environ === undefined || environ.length === 0 ? undefined : `\0${environ.toString('latin1')}\0`.includes(`\0${line}\0`);
}

/**
 * Every living process, but ourselves, with this line (`NAME=value`) in its environment: a command and what it started, wherever that moved to.
 * `seen`: pids that a look a moment before has told to be without it, which are passed over; those of this look are added.
 */
export function processesWith(line: string, seen = new Set<number>()): ProcessIdentity[] {
  return allPids().filter(pid => {
    if (pid === process.pid || seen.has(pid)) return false;
    const has = environmentHas(pid, line);
    if (has === false) seen.add(pid);
    return has === true;
  }).flatMap(pid => identify(pid) ?? []);
}

/** Kills them until none is found: one that forks while we look is caught by a later look. */
export function killProcessesWith(line: string): void {
  for (let round = 0, inVain = 0; round < MOST_KILL_ROUNDS && inVain < LOOKS; round++) {
    const left = processesWith(line);
    inVain = left.length === 0 ? inVain + 1 : 0;
    for (const identity of left) signalProcess(identity, 'SIGKILL');
  }
}

/**
 * So many looks in a row that find nobody say that there is nobody. One that forks and ends in the middle of a look escapes that look, and
 * its child, too; a program that becomes a daemon does so twice.
 */
export const LOOKS = 3;
const MOST_KILL_ROUNDS = 20;

/** Most of them fit; `readFileSync`, which cannot know their size, would begin with sixteen times as much for each. */
const shared = Buffer.allocUnsafe(4096);

/** A file of /proc; undefined when the process is gone or is not ours to read. */
export function readProcFile(path: string): Buffer | undefined {
  try {
    const fd = openSync(path, 'r');
    try {
      const chunks: Buffer[] = [];
      for (;;) {
        const n = readSync(fd, shared, 0, shared.length, null);
        if (n > 0) chunks.push(Buffer.from(shared.subarray(0, n)));
        // The kernel gives what there is: less than was asked for is not yet the end of a long one.
        if (n === 0) return chunks.length === 1 ? chunks[0] : Buffer.concat(chunks);
      }
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    const code = errnoOf(error);
    if (code === 'ENOENT' || code === 'ESRCH' || code === 'EACCES' || code === 'EPERM') return undefined;
    throw error;
  }
}

/** Where a link of /proc leads; undefined when the process is gone or is not ours to read. */
export function readProcLink(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch (error) {
    const code = errnoOf(error);
    if (code === 'ENOENT' || code === 'ESRCH' || code === 'EACCES' || code === 'EPERM') return undefined;
    throw error;
  }
}
