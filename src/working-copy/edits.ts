import {createHash} from 'node:crypto';
import {constants, mkdirSync, readdirSync, readFileSync, rmdirSync, rmSync, symlinkSync, writeFileSync} from 'node:fs';
import {chmod, copyFile, open, readlink} from 'node:fs/promises';
import {dirname, join} from 'node:path';
import {DeployError, errnoOf} from '../errors.ts';
import {splitEdits, withEdits} from '../support/edited-revision.ts';
import {lstatIfThere} from '../support/lstat-if-there.ts';
import {shownText} from './shown-text.ts';

/** One path that somebody edited in a working copy. */
export interface Edit {
  /** Relative to the top, which is `.`. */
  readonly path: string;
  /** The edit takes it away, whatever else stands there now. */
  readonly gone: boolean;
  /** The revision has nothing there. */
  readonly added: boolean;
  /** Another thing took its place; what the revision has below it went without being named. */
  readonly replaced: boolean;
}

/** The edits of names that were met of late: a tree that was made of one is told from others by them. */
export interface KnownEdits {
  /** Undefined: they are not known any more; of a name without edits there are none. */
  of(name: string): readonly Edit[] | undefined;
  remember(name: string, edits: readonly Edit[]): void;
}

const REMEMBERED_EDITS = 20;

/** `r41`, or `r41+edits:…` where there are edits: the same ones have the same name, whoever made them, and when. */
export async function editedName(revision: string, edits: readonly Edit[], workingCopy: string): Promise<string> {
  return edits.length === 0 ? revision : withEdits(revision, await digestOf(edits, workingCopy));
}

/**
 * SHA-256, hex, of what the edits make of their paths: type, executable bit, content.
 * By links nothing is read: a path below one is gone, as it is for svn and git.
 */
async function digestOf(edits: readonly Edit[], root: string): Promise<string> {
  const digest = createHash('sha256');
  const directories = new Map<string, boolean>();
  for (const {path, gone} of inOrder(edits)) {
    const {kind, content} = gone ? GONE : await stateOf(root, path, directories);
    digest.update(`${kind}\0${path}\0${content}\0`);
  }
  return digest.digest('hex');
}

interface PathState {
  readonly kind: 'gone' | 'directory' | 'file' | 'program' | 'link' | 'other';
  /** The hash of a file, where a link leads. */
  readonly content: string;
}

const GONE: PathState = {kind: 'gone', content: ''};

async function stateOf(root: string, path: string, directories: Map<string, boolean>): Promise<PathState> {
  if (!isInDirectory(root, path, directories)) return GONE;
  const at = join(root, path);
  const stat = lstatIfThere(at);
  if (stat === undefined) return GONE;
  if (stat.isDirectory()) return {kind: 'directory', content: ''};
  try {
    if (stat.isSymbolicLink()) return {kind: 'link', content: (await readlink(at, {encoding: 'buffer'})).toString('hex')};
    // Neither a link that took its place is followed, nor a pipe waited for.
    return stat.isFile() ? {kind: isProgram(stat.mode) ? 'program' : 'file', content: await hashOf(at)} : {kind: 'other', content: ''};
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return GONE; // An editor puts a new file in the place of the old one: the next look sees it.
    throw new DeployError('UPDATE_FAILED', `The edited ${shownText(path)} in ${root} cannot be read (${errnoOf(error) ?? String(error)}).`, {hint: 'See to it that the account that deploys may read it.', cause: error});
  }
}

function isInDirectory(root: string, path: string, known: Map<string, boolean>): boolean {
  const parent = dirname(path);
  if (parent === '.') return true;
  let is = known.get(parent);
  if (is === undefined) {
    is = isInDirectory(root, parent, known) && lstatIfThere(join(root, parent))?.isDirectory() === true;
    known.set(parent, is);
  }
  return is;
}

function isProgram(mode: number): boolean {
  return (mode & 0o100) !== 0;
}

async function hashOf(path: string): Promise<string> {
  const handle = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  const hash = createHash('sha256');
  for await (const chunk of handle.createReadStream()) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

/** Parents first. */
function inOrder(edits: readonly Edit[]): Edit[] {
  return edits.toSorted((a, b) => (a.path < b.path ? -1 : 1));
}

/** Makes of an export of the revision the tree that the edits make of it. Errors: the system's. */
export async function copyEdits(edits: readonly Edit[], workingCopy: string, dir: string, {keepsEmpty}: {keepsEmpty: boolean}): Promise<void> {
  const directories = new Map<string, boolean>();
  for (const {path, gone, added, replaced} of inOrder(edits)) {
    const [from, to] = [join(workingCopy, path), join(dir, path)];
    const stat = gone || !isInDirectory(workingCopy, path, directories) ? undefined : lstatIfThere(from);
    const staysDirectory = stat?.isDirectory() === true && !added && !replaced;
    if (staysDirectory) continue;
    rmSync(to, {recursive: true, force: true});
    if (stat === undefined) {
      if (!keepsEmpty) removeEmpty(dirname(path), dir);
      continue;
    }
    mkdirSync(dirname(to), {recursive: true, mode: 0o755});
    if (stat.isDirectory()) {
      mkdirSync(to, {mode: 0o755});
    } else if (stat.isSymbolicLink()) {
      symlinkSync(await readlink(from, {encoding: 'buffer'}), to);
    } else if (stat.isFile()) {
      await copyFile(from, to, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE);
      await chmod(to, isProgram(stat.mode) ? 0o755 : 0o644);
    }
  }
}

/** git knows no directories: one without a file is not there. */
function removeEmpty(path: string, dir: string): void {
  if (path === '.' || lstatIfThere(join(dir, path))?.isDirectory() !== true || readdirSync(join(dir, path)).length > 0) return;
  rmdirSync(join(dir, path));
  removeEmpty(dirname(path), dir);
}

/**
 * Paths that may differ for the edits that one tree has and the other has not; undefined when not every one of them is named.
 * `revisionDiffers`: the paths that differ between the two revisions as they were committed.
 * `workingCopy` shows the tree with the edits `to`.
 */
export function editedPaths(from: readonly Edit[], to: readonly Edit[], revisionDiffers: readonly string[], workingCopy: string): string[] | undefined {
  if ([...from, ...to].some(({replaced}) => replaced)) return undefined;
  const told = new Set([...to.map(({path}) => path), ...revisionDiffers]);
  const shows = (path: string) => lstatIfThere(join(workingCopy, path));
  // What was taken out of the repository and left where it was must not pass for versioned.
  if (to.some(({path, gone}) => gone && shows(path) !== undefined)) return undefined;
  // So for what was added then and is not now. Of a directory that is back nobody names what is in it.
  if (from.some(({path, gone, added}) => !told.has(path) && ((added && shows(path) !== undefined) || (gone && shows(path)?.isDirectory() === true)))) return undefined;
  return [...from, ...to].map(({path}) => path).filter(path => path !== '.');
}

/** Errors: UPDATE_FAILED, and it is worth another try: who edits is not done yet. */
export function refuseOtherEdits(expected: string, found: string, workingCopy: string): void {
  if (expected !== found) throw new DeployError('UPDATE_FAILED', `${workingCopy} was edited meanwhile: it is at ${found}, not at ${expected} any more.`, {hint: 'Deploy again; a running `osyw-deploy watch` does so by itself.', passing: true});
}

/** Whether `dir` was given the very edits that the name tells. Errors: UPDATE_FAILED, as above. */
export async function refuseOtherCopies(name: string, edits: readonly Edit[], dir: string, workingCopy: string): Promise<void> {
  const {revision} = splitEdits(name);
  refuseOtherEdits(name, await editedName(revision, edits.map(edit => ({...edit, gone: false})), dir), workingCopy);
}

/** `r41+edits:…` is nothing that anybody can ask for. Errors: USAGE. */
export function refuseEditedName(wanted: string): void {
  if (splitEdits(wanted).edits === undefined) return;
  throw new DeployError('USAGE', `"${shownText(wanted)}" cannot be had again: what was edited then is not in the repository.`, {
    hint: '`osyw-deploy rollback --to RELEASE` brings a release back that is still there; see `osyw-deploy history`.',
  });
}

/** `file`: where the edits of the last names are kept, as JSON. */
export function openKnownEdits(file: string): KnownEdits {
  const met = new Map<string, readonly Edit[]>();
  const read = (): [string, readonly Edit[]][] => {
    try {
      const kept: unknown = JSON.parse(readFileSync(file, 'utf8'));
      return Array.isArray(kept) && kept.every(isKept) ? kept : [];
    } catch {
      return []; // Not there, or torn by a power cut: then the next release is exported whole.
    }
  };
  return {
    of: name => splitEdits(name).edits === undefined ? [] : met.get(name) ?? read().find(([known]) => known === name)?.[1],
    remember: (name, edits) => {
      if (splitEdits(name).edits === undefined) return;
      met.set(name, edits);
      const others = read().filter(([known]) => known !== name);
      writeFileSync(file, JSON.stringify([...others.slice(1 - REMEMBERED_EDITS), [name, edits]]), {mode: 0o600});
    },
  };
}

function isKept(value: unknown): value is [string, readonly Edit[]] {
  return Array.isArray(value) && value.length === 2 && typeof value[0] === 'string' && Array.isArray(value[1]) && value[1].every(isEdit);
}

function isEdit(value: unknown): value is Edit {
  return typeof value === 'object' && value !== null && 'path' in value && typeof value.path === 'string'
    && ['gone', 'added', 'replaced'].every(key => typeof (value as Record<string, unknown>)[key] === 'boolean');
}
