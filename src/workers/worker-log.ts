import {closeSync, constants, fchownSync, fstatSync, lstatSync, mkdirSync, openSync, readSync} from 'node:fs';
import {dirname} from 'node:path';
import {DeployError, messageOf} from '../errors.ts';

/** Where the output of one worker can be read. */
export interface WorkerOutput {
  /** A file, or the command that shows it. */
  readonly place: string;
  /** The last lines that this worker wrote. */
  lastLines(count: number): Promise<readonly string[]>;
}

const SHOWN_LINES = 15;

/** The end of a worker's output, as lines of a failure's message. */
export async function outputEnd({place, lastLines}: WorkerOutput): Promise<string[]> {
  const lines = await lastLines(SHOWN_LINES);
  return lines.length === 0 ? [`  it wrote nothing to ${place}`] : [`  the end of its output, ${place}:`, ...lines.map(line => `  | ${line}`)];
}

/** A descriptor that a worker's output is appended to, and how long the file was before. */
export interface WorkerLog {
  readonly fd: number;
  readonly path: string;
  readonly offset: number;
}

/**
 * Opens a worker's log for appending; made with its directory when missing, for the worker's account to read.
 * A link or anything but a plain file is refused: the directory may belong to the worker's account, and we may be root.
 */
export function openWorkerLog(path: string, owner: {uid: number; gid: number} | undefined): WorkerLog {
  try {
    mkdirSync(dirname(path), {recursive: true, mode: 0o755});
    const flags = constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT | constants.O_NOFOLLOW | constants.O_NONBLOCK | constants.O_NOCTTY;
    const open = () => openSync(path, flags, 0o640);
    const fd = owner === undefined || isOursAlone(dirname(path)) ? open() : asAccount(owner, open);
    const stat = fstatSync(fd);
    if (!stat.isFile() || stat.nlink !== 1) {
      closeSync(fd);
      throw new Error('it is not a plain file');
    }
    if (owner !== undefined && stat.size === 0 && stat.uid !== owner.uid && process.getuid?.() === 0) fchownSync(fd, owner.uid, owner.gid);
    return {fd, path, offset: stat.size};
  } catch (error) {
    throw new DeployError('START_FAILED', `cannot write the worker's log ${path}: ${messageOf(error)}`, {hint: 'Mend `workers.log` or the rights of its directory.', cause: error});
  }
}

/** Whether nobody else can put a link into this path: every directory of it belongs to root or to us, and only they write there. */
function isOursAlone(directory: string): boolean {
  for (let path = directory; ; path = dirname(path)) {
    const {uid, mode} = lstatSync(path);
    const sticky = (mode & 0o1000) !== 0;
    if ((uid !== 0 && uid !== process.getuid?.()) || ((mode & 0o022) !== 0 && !sticky) || (mode & constants.S_IFMT) === constants.S_IFLNK) return false;
    if (path === '/') return true;
  }
}

/** Whether nobody but root can put anything into this directory, or another one in its place. */
export function isRootsAlone(directory: string): boolean {
  return isOursAlone(directory) && (lstatSync(directory).mode & 0o022) === 0;
}

/** What root opens where the worker's account may write, it opens with that account's rights: a link there leads no further than they do. */
function asAccount<T>({uid, gid}: {uid: number; gid: number}, open: () => T): T {
  if (process.getuid?.() !== 0 || uid === 0) return open();
  process.setegid?.(gid);
  process.seteuid?.(uid);
  try {
    return open();
  } finally {
    process.seteuid?.(0);
    process.setegid?.(0);
  }
}

const TAIL_BYTES = 16 * 1024;

/** The last lines of a file behind `offset`, e.g. what one worker wrote to a log that others wrote to before it. */
export function lastLines(path: string, offset: number, count: number): string[] {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch {
    return []; // A log that is gone or unreadable has nothing to show; the failure being told is another one.
  }
  try {
    const {size} = fstatSync(fd);
    const from = Math.max(size < offset ? 0 : offset, size - TAIL_BYTES);
    const buffer = Buffer.alloc(Math.max(0, size - from));
    const n = readSync(fd, buffer, 0, buffer.length, from);
    return buffer.toString('utf8', 0, n).split('\n').filter(line => line.trim() !== '').slice(-count);
  } finally {
    closeSync(fd);
  }
}
