import {realpathSync, statSync, unlinkSync} from 'node:fs';
import {basename, dirname, join} from 'node:path';
import {createHash} from 'node:crypto';
import {DeployError, errnoOf, messageOf} from '../errors.ts';
import {ignoreMissing, readRegularFile, renameDurably, syncDirectory, writeDurably} from '../state/atomic-file.ts';

/** What an upstream file held, to the byte; null where there was none. */
export type UpstreamBytes = Buffer | null;

const MODE = 0o644;

/** The file behind links: a rename would replace the link itself, e.g. one in sites-enabled. */
export function followLinks(path: string): string {
  try {
    return realpathSync(path);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return join(realDirectory(dirname(path)), basename(path));
    throw error;
  }
}

export function readUpstream(path: string): UpstreamBytes {
  try {
    return readRegularFile(path) ?? null;
  } catch (error) {
    throw new DeployError('SWITCH_REFUSED', `cannot read the upstream file ${path}: ${messageOf(error)}`, {hint: 'See `nginx.file` or `nginx.edit`, and the rights of the file.', cause: error});
  }
}

/** Writes the candidate with the mode and owner of the live file. */
export function writeCandidate(candidate: string, path: string, bytes: string | Buffer): void {
  const live = statSync(path, {throwIfNoEntry: false});
  const keepOwner = live !== undefined && process.getuid?.() === 0;
  writeDurably(candidate, bytes, {mode: live === undefined ? MODE : live.mode & 0o777, ...(keepOwner ? {owner: {uid: live.uid, gid: live.gid}} : {})});
}

export function makeLive(candidate: string, path: string): void {
  renameDurably(candidate, path);
}

/** How often the file may be changed by somebody else while it is about to be changed by us. */
export const MOST_CHANGES = 5;

/**
 * Makes of the file what `change` makes of its bytes; null: there is none. What somebody else writes before the very last look is
 * changed in its turn. May run twice.
 */
export function changeFile(candidate: string, path: string, change: (now: UpstreamBytes) => UpstreamBytes): void {
  ignoreMissing(() => unlinkSync(candidate));
  for (let tried = 1; ; tried++) {
    const now = readUpstream(path);
    const bytes = change(now);
    if (isSame(now, bytes)) return;
    if (bytes === null) {
      unlinkSync(path);
      return syncDirectory(dirname(path));
    }
    writeCandidate(candidate, path, bytes);
    if (isSame(readUpstream(path), now)) return makeLive(candidate, path);
    ignoreMissing(() => unlinkSync(candidate));
    if (tried === MOST_CHANGES) throw new DeployError('SWITCH_REFUSED', `${path} is written by somebody else again and again`, {hint: 'See who writes it, then try again.'});
  }
}

function isSame(a: UpstreamBytes, b: UpstreamBytes): boolean {
  return a === null || b === null ? a === b : a.equals(b);
}

export function hashOf(bytes: string | Buffer | null): string | null {
  return bytes === null ? null : createHash('sha256').update(bytes).digest('hex');
}

function realDirectory(path: string): string {
  try {
    return realpathSync(path);
  } catch (error) {
    throw new DeployError('SWITCH_REFUSED', `the directory of the upstream file is missing: ${path}`, {hint: 'See `nginx.file` or `nginx.edit`.', cause: error});
  }
}
