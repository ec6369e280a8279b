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
    throw new DeployError('SWITCH_REFUSED', `cannot read the upstream file ${path}: ${messageOf(error)}`, {hint: 'See `nginx.file` and its rights.', cause: error});
  }
}

/** A dotfile beside the live one: nginx's `include conf.d/*` does not match it. */
export function candidateFor(path: string): string {
  return join(dirname(path), `.${basename(path)}.osyw-new`);
}

/** Writes the candidate with the mode and owner of the live file. */
export function writeCandidate(path: string, bytes: string | Buffer): string {
  const candidate = candidateFor(path);
  const live = statSync(path, {throwIfNoEntry: false});
  const keepOwner = live !== undefined && process.getuid?.() === 0;
  writeDurably(candidate, bytes, {mode: live === undefined ? MODE : live.mode & 0o777, ...(keepOwner ? {owner: {uid: live.uid, gid: live.gid}} : {})});
  return candidate;
}

export function makeLive(candidate: string, path: string): void {
  renameDurably(candidate, path);
}

/** Puts the exact old bytes back; no file where there was none. May run twice. */
export function putBack(path: string, old: UpstreamBytes): void {
  ignoreMissing(() => unlinkSync(candidateFor(path)));
  const now = readUpstream(path);
  if (old === null) {
    if (now === null) return;
    unlinkSync(path);
    syncDirectory(dirname(path));
  } else if (now === null || !now.equals(old)) {
    makeLive(writeCandidate(path, old), path);
  }
}

export function hashOf(bytes: string | Buffer | null): string | null {
  return bytes === null ? null : createHash('sha256').update(bytes).digest('hex');
}

function realDirectory(path: string): string {
  try {
    return realpathSync(path);
  } catch (error) {
    throw new DeployError('SWITCH_REFUSED', `the directory of the upstream file is missing: ${path}`, {hint: 'See `nginx.file`.', cause: error});
  }
}
