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

/** Makes the file hold these bytes; null: there is none. May run twice. */
export function putBytes(candidate: string, path: string, bytes: UpstreamBytes): void {
  ignoreMissing(() => unlinkSync(candidate));
  const now = readUpstream(path);
  if (bytes === null) {
    if (now === null) return;
    unlinkSync(path);
    syncDirectory(dirname(path));
  } else if (now === null || !now.equals(bytes)) {
    writeCandidate(candidate, path, bytes);
    makeLive(candidate, path);
  }
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
