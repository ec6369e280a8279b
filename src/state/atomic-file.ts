import {closeSync, constants, fchmodSync, fchownSync, fdatasyncSync, fsyncSync, openSync, readSync, fstatSync, renameSync, unlinkSync, writeSync} from 'node:fs';
import {basename, dirname, join} from 'node:path';
import {errnoOf} from '../errors.ts';

/**
 * Replaces a file so that every reader, and a machine that loses power, finds the old or the new bytes and nothing else:
 * a dotfile in the same directory, synced, renamed, the directory synced.
 * Errors: the system's; before the rename the old file is untouched and the dotfile is gone.
 */
export function replaceFile(path: string, bytes: string | Buffer, options: {mode: number; owner?: {uid: number; gid: number}}): void {
  const candidate = unfinishedName(path);
  writeDurably(candidate, bytes, options);
  renameDurably(candidate, path);
}

/** The dotfile that a replacement is written to; one that was killed leaves it. */
export function unfinishedName(path: string): string {
  return join(dirname(path), `.${basename(path)}.new`);
}

/** Creates or replaces `path` itself and syncs its bytes; not atomic, so only for names that nobody reads yet. */
export function writeDurably(path: string, bytes: string | Buffer, options: {mode: number; owner?: {uid: number; gid: number}}): void {
  ignoreMissing(() => unlinkSync(path));
  const fd = openSync(path, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW, options.mode);
  try {
    writeAll(fd, typeof bytes === 'string' ? Buffer.from(bytes) : bytes);
    fchmodSync(fd, options.mode);
    if (options.owner !== undefined) fchownSync(fd, options.owner.uid, options.owner.gid);
    fsyncSync(fd);
  } catch (error) {
    // Half a file under a name of ours is of no use to anybody, and a failed sync must not be tried again on this descriptor.
    ignoreMissing(() => unlinkSync(path));
    throw error;
  } finally {
    closeSync(fd);
  }
}

/** Renames and syncs the directory, so that the new name survives a crash. */
export function renameDurably(from: string, to: string): void {
  renameSync(from, to);
  syncDirectory(dirname(to));
}

export function syncDirectory(path: string): void {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** Appends bytes to an open descriptor and waits until the disk has them. */
export function appendDurably(fd: number, bytes: Buffer): void {
  writeAll(fd, bytes);
  fdatasyncSync(fd);
}

/** The whole of a regular file that is not a link; undefined when there is none. */
export function readRegularFile(path: string): Buffer | undefined {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile()) throw new Error(`${path} is not a regular file`);
    const buffer = Buffer.alloc(stat.size);
    let read = 0;
    while (read < buffer.length) {
      const n = readSync(fd, buffer, read, buffer.length - read, read);
      if (n === 0) break;
      read += n;
    }
    return buffer.subarray(0, read);
  } finally {
    closeSync(fd);
  }
}

/** Runs an unlink or a rename whose target may be gone already: that is what was wanted. */
export function ignoreMissing(effect: () => void): void {
  try {
    effect();
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
  }
}

function writeAll(fd: number, bytes: Buffer): void {
  let written = 0;
  while (written < bytes.length) written += writeSync(fd, bytes, written);
}
