import {closeSync, constants, fstatSync, openSync, readSync} from 'node:fs';
import type {Stats} from 'node:fs';
import {errnoOf, messageOf} from '../errors.ts';

export type FileRead =
  | {readonly kind: 'read'; readonly bytes: Buffer; readonly stats: Stats}
  | {readonly kind: 'missing'}
  | {readonly kind: 'refused'; readonly reason: string};

/** Reads a regular file of at most `maxBytes`. A FIFO or a device is refused, and never waited for. */
export function readRegularFile(path: string, maxBytes: number): FileRead {
  let descriptor: number;
  try {
    descriptor = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === 'ENOENT' || errno === 'ENOTDIR') return {kind: 'missing'};
    return {kind: 'refused', reason: `cannot be opened (${errno ?? messageOf(error)})`};
  }
  try {
    const stats = fstatSync(descriptor);
    if (!stats.isFile()) return {kind: 'refused', reason: 'is not a regular file'};
    if (stats.size > maxBytes) return {kind: 'refused', reason: `has ${stats.size} bytes, and at most ${maxBytes} are read`};
    // One byte more than allowed: files of /proc have size 0, and a file may grow while it is read.
    const bytes = Buffer.alloc(Math.min(maxBytes, Math.max(stats.size, 4096)) + 1);
    let length = 0;
    for (let count = -1; count !== 0 && length < bytes.length;) {
      count = readSync(descriptor, bytes, length, bytes.length - length, null);
      length += count;
    }
    if (length === bytes.length) return {kind: 'refused', reason: `has more than ${length - 1} bytes`};
    return {kind: 'read', bytes: bytes.subarray(0, length), stats};
  } catch (error) {
    return {kind: 'refused', reason: `cannot be read (${errnoOf(error) ?? messageOf(error)})`};
  } finally {
    closeSync(descriptor);
  }
}

/** The bytes as text without its byte order mark; undefined when they are not UTF-8 or hold a NUL. */
export function utf8Of(bytes: Buffer): string | undefined {
  try {
    const text = new TextDecoder('utf-8', {fatal: true}).decode(bytes);
    return text.includes('\0') ? undefined : text;
  } catch {
    return undefined;
  }
}
