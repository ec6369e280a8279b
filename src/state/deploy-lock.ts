import {spawn, spawnSync} from 'node:child_process';
import {closeSync, constants, ftruncateSync, openSync, writeSync} from 'node:fs';
import {join} from 'node:path';
import {errnoOf} from '../errors.ts';
import {identify} from '../workers/process-identity.ts';
import {readRegularFile} from './atomic-file.ts';
import type {ProcessIdentity} from '../deploy/deployment.ts';

/** Who holds a lock, for people; the lock itself is the kernel's. */
export interface LockHolder {
  readonly process: ProcessIdentity | undefined;
  readonly command: string;
  /** ISO 8601. */
  readonly since: string;
}

export interface HeldLock {
  release(): void;
}

/** Exit code of flock(1) when another holds the lock; not 1, which it also uses for its own errors. */
const TAKEN = 75;
const FLOCK_ENV = {PATH: '/usr/bin:/bin'};

/**
 * Locks an open file, or is false when another has it.
 * flock(1) locks the open file that it inherits from us, and ends; the lock then stands on our descriptor alone.
 * So the kernel frees it at our death, whatever way we die, and workers do not inherit it: the descriptor closes on exec.
 */
export function lockOpenFile(fd: number): boolean {
  const result = spawnSync('flock', ['--exclusive', '--nonblock', '--conflict-exit-code', String(TAKEN), '3'], {stdio: ['ignore', 'ignore', 'pipe', fd], env: FLOCK_ENV});
  if (result.status !== 0 && result.status !== TAKEN) throw result.error ?? new Error(`flock failed: ${result.stderr.toString()}`);
  return result.status === 0;
}

/** Takes the lock of an application, or tells who has it. Nobody else can squat it: the file is ours, mode 0600. */
export function tryLock(path: string, command: string): HeldLock | {readonly heldBy: LockHolder | undefined} {
  const fd = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
  if (!lockOpenFile(fd)) {
    closeSync(fd);
    return {heldBy: readHolder(path)};
  }
  return hold(fd, command);
}

/** Takes the lock of an application, after whoever has it. Errors: the signal's reason. */
export async function waitForLock(path: string, command: string, signal: AbortSignal): Promise<HeldLock> {
  signal.throwIfAborted();
  const fd = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
  try {
    // A signal to the whole group ends it before we hear of ours: then it is asked again, and we hear.
    for (let status: number | null = null; status === null;) status = await flock(fd, signal);
    return hold(fd, command);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** Its exit code once the lock is ours; null when a signal ended it. Errors: the reason of ours. */
async function flock(fd: number, signal: AbortSignal): Promise<number | null> {
  const child = spawn('flock', ['--exclusive', '3'], {stdio: ['ignore', 'ignore', 'ignore', fd], env: FLOCK_ENV});
  const stop = () => child.kill();
  signal.addEventListener('abort', stop, {once: true});
  try {
    const status = await new Promise<number | null>((resolve, reject) => child.once('error', reject).once('exit', resolve));
    signal.throwIfAborted();
    if (status !== null && status !== 0) throw new Error(`flock ended with ${status}`);
    return status;
  } finally {
    signal.removeEventListener('abort', stop);
  }
}

function hold(fd: number, command: string): HeldLock {
  const holder: LockHolder = {process: identify(process.pid), command, since: new Date().toISOString()};
  try {
    ftruncateSync(fd);
    writeSync(fd, JSON.stringify(holder), 0);
  } catch (error) {
    // The record is for people; on a full disk the lock holds without it.
    if (errnoOf(error) === undefined) throw error;
  }
  return {
    release: () => {
      try {
        ftruncateSync(fd);
      } catch (error) {
        if (errnoOf(error) === undefined) throw error;
      } finally {
        closeSync(fd);
      }
    },
  };
}

export function isLock(result: HeldLock | {readonly heldBy: LockHolder | undefined}): result is HeldLock {
  return 'release' in result;
}

/** The path of the lock that a deploy holds until its switch is on record. */
export function deployLockPath(stateDir: string): string {
  return join(stateDir, 'lock');
}

/** What the holder wrote about itself; undefined when nothing readable stands there. */
export function readHolder(path: string): LockHolder | undefined {
  try {
    const value: unknown = JSON.parse(readRegularFile(path)?.toString('utf8') ?? '');
    return typeof value === 'object' && value !== null && 'command' in value ? (value as LockHolder) : undefined;
  } catch (error) {
    // Half written, or not ours to read: the holder is then unknown, and the lock holds all the same.
    if (error instanceof SyntaxError || errnoOf(error) !== undefined) return undefined;
    throw error;
  }
}
