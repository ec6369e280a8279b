import {constants, mkdirSync, readFileSync, rmSync} from 'node:fs';
import {chmod, copyFile, lchown, lstat, readlink, symlink, unlink} from 'node:fs/promises';
import {dirname} from 'node:path/posix';
import {errnoOf} from '../errors.ts';
import {lstatIfThere} from '../support/lstat-if-there.ts';
import {asLatin1, inTree, parseLine, scanTree, type Manifest, type ScannedTree, type Tree, type TreeLine} from './tree-manifest.ts';

/**
 * A file that was written in the same tick of the kernel's clock in which the tree was read keeps its line when it is written
 * once more in that tick. The tick is 10 ms at most; such files are compared, and copied again when they differ.
 */
const CLOCK_TICK_MS = 12;
/** To copy a larger one takes no longer than to read it twice. */
const MOST_COMPARED_BYTES = 256 * 1024;
const COPIES_AT_ONCE = 16;

export interface Recycling {
  /** Where the old tree stands, and the new one will. */
  readonly dir: string;
  readonly manifest: Manifest;
  /** What the old tree looks like now. */
  readonly found: Tree;
  readonly workingCopy: string;
  /** Paths that differ between the manifest's revision and the one that the working copy is at. */
  readonly changed: readonly string[];
  readonly uid: number;
  readonly gid: number;
  readonly signal: AbortSignal;
}

export interface Recycled {
  readonly scanned: ScannedTree;
  /** Everything that was written. */
  readonly touched: readonly string[];
}

/**
 * Makes the tree of a new revision out of an old one: undoes whatever was done to it, copies what changed from the working
 * copy, reads the result and compares it with what it has to be. The cost follows what changed.
 * Undefined: the result is not exact, or cannot be shown to be; the tree is then of no use.
 */
export async function recycleTree({dir, manifest, found, workingCopy, changed, uid, gid, signal}: Recycling): Promise<Recycled | undefined> {
  const expected = new Map(manifest.tree);
  const touched = new Set<string>();
  const directoriesAreTracked = manifest.vcs === 'svn';
  const source = (path: string) => inTree(workingCopy, path);
  const realDirectories = new Set(['.']);
  /** Where to write a path. Its parents are looked at first: by a link to what is shared we would write, or delete, over there. */
  const target = (path: string): Buffer => {
    const parent = dirname(path);
    if (!realDirectories.has(parent)) {
      const stat = lstatIfThere(target(parent));
      if (stat !== undefined && !stat.isDirectory()) throw new Error(`${path} is below something that is no directory`);
      if (stat !== undefined) realDirectories.add(parent);
    }
    return inTree(dir, path);
  };
  const remove = (path: string) => rmSync(target(path), {recursive: true, force: true});

  // 1. What was added since, or turned into something else (a directory into a link to what is shared), topmost first: the rest
  //    goes with it. From here on every parent is a directory or missing.
  const removedRoots = new Set<string>();
  for (const path of [...found.keys()].filter(path => expected.get(path)?.charAt(0) !== found.get(path)?.charAt(0)).sort()) {
    if (removedRoots.has(dirname(path))) {
      removedRoots.add(path);
      continue;
    }
    remove(path);
    removedRoots.add(path);
  }

  // 2. What the new revision has no more, or has changed.
  const wanted = new Map<string, 'directory' | 'other'>();
  for (const path of changed.map(asLatin1)) {
    const stat = lstatIfThere(source(path));
    // git knows no directories: one that stands where a file was is named by the files in it.
    const kind = stat === undefined || (stat.isDirectory() && !directoriesAreTracked) ? undefined : stat.isDirectory() ? 'directory' : 'other';
    if (kind !== undefined) wanted.set(path, kind);
    const had = expected.get(path);
    const staysDirectory = kind === 'directory' && had !== undefined && parseLine(had).type === 'd';
    if (staysDirectory) continue;
    remove(path);
    touched.add(path);
    expected.delete(path);
    if (had !== undefined && parseLine(had).type === 'd') {
      for (const below of expected.keys()) if (below.startsWith(`${path}/`)) expected.delete(below);
    }
  }
  if (!directoriesAreTracked && touched.size > 0) {
    const needed = new Set<string>();
    const need = (path: string) => {
      for (let parent = dirname(path); parent !== '.' && !needed.has(parent); parent = dirname(parent)) needed.add(parent);
    };
    for (const [path, line] of expected) if (!line.startsWith('d')) need(path);
    for (const path of wanted.keys()) need(path);
    for (const path of [...expected.keys()].filter(path => expected.get(path)?.startsWith('d') === true && !needed.has(path)).sort()) {
      remove(path);
      expected.delete(path);
      touched.add(path);
    }
  }

  // 3. Directories, parents first: their entries need them.
  const ownDirectory = async (path: string) => {
    const stat = lstatIfThere(target(path));
    if (stat !== undefined && !stat.isDirectory()) remove(path);
    if (stat === undefined || !stat.isDirectory()) mkdirSync(target(path));
    await chmod(target(path), 0o755);
    await lchown(target(path), uid, gid);
    touched.add(path);
  };
  const newDirectories = new Set<string>();
  for (const [path, kind] of wanted) {
    if (kind === 'directory') newDirectories.add(path);
    for (let parent = dirname(path); parent !== '.'; parent = dirname(parent)) if (!expected.has(parent)) newDirectories.add(parent);
  }
  for (const path of [...newDirectories].sort()) expected.set(path, `d 755 ${uid} ${gid}\0`);
  const drifted: string[] = [];
  for (const [path, line] of expected) {
    if (wanted.get(path) === 'other') continue;
    const parsed = parseLine(line);
    if (newDirectories.has(path) || found.get(path) !== line) {
      if (parsed.type === 'd') newDirectories.add(path);
      else drifted.push(path);
    } else if (parsed.changedAt !== undefined && parsed.changedAt >= manifest.readAt - CLOCK_TICK_MS && !isSameFile(source(path), target(path), parsed)) {
      drifted.push(path);
    }
  }
  for (const path of [...newDirectories].sort()) await ownDirectory(path);

  // 4. Files and links.
  const written = new Map<string, {type: string; mode: number; size: number | undefined}>();
  const copy = async (path: string, mode: number | undefined): Promise<void> => {
    signal.throwIfAborted();
    const from = source(path);
    const to = target(path);
    const stat = await lstat(from);
    await removeFile(to);
    touched.add(path);
    if (stat.isSymbolicLink()) {
      const link = await readlink(from, {encoding: 'buffer'});
      await symlink(link, to);
      written.set(path, {type: 'l', mode: 0o777, size: link.length});
    } else {
      const permissions = mode ?? ((stat.mode & 0o100) === 0 ? 0o644 : 0o755);
      await copyFile(from, to, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE);
      if ((stat.mode & 0o7777) !== permissions) await chmod(to, permissions);
      written.set(path, {type: 'f', mode: permissions, size: stat.size});
    }
    if (process.getuid?.() !== uid || process.getgid?.() !== gid) await lchown(to, uid, gid);
  };
  for (const path of drifted) {
    // The content is as of the new revision, the type must be the one on record, or it is not what it should be.
    const was = parseLine(expected.get(path) ?? '').type;
    const stat = lstatIfThere(source(path));
    if (stat === undefined || (was === 'l' ? !stat.isSymbolicLink() : !stat.isFile())) return undefined;
  }
  const copies: (() => Promise<void>)[] = [
    ...drifted.map(path => () => copy(path, parseLine(expected.get(path) ?? '').type === 'l' ? undefined : parseLine(expected.get(path) ?? '').mode)),
    ...[...wanted].filter(([, kind]) => kind === 'other').map(([path]) => () => copy(path, undefined)),
  ];
  await inParallel(copies, COPIES_AT_ONCE);
  for (const path of written.keys()) expected.set(path, '');

  // 5. The proof.
  const scanned = await scanTree(dir, expected.size);
  if (scanned.tree.size !== expected.size) return undefined;
  for (const [path, line] of scanned.tree) {
    const should = expected.get(path);
    if (should === undefined) return undefined;
    const copied = written.get(path);
    if (copied === undefined) {
      if (line !== should) return undefined;
      continue;
    }
    const is = parseLine(line);
    if (is.type !== copied.type || is.mode !== copied.mode || is.size !== copied.size || is.owner !== `${uid}:${gid}`) return undefined;
  }
  return {scanned, touched: [...touched]};
}

/** Whether two files hold the same; false also where that is not worth the reading. */
function isSameFile(a: Buffer, b: Buffer, {type, size}: TreeLine): boolean {
  try {
    return type === 'f' && size !== undefined && size <= MOST_COMPARED_BYTES && lstatIfThere(a)?.isFile() === true && readFileSync(a).equals(readFileSync(b));
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
    return false; // The copy is made without reading what it replaces.
  }
}

async function removeFile(path: Buffer): Promise<void> {
  try {
    await unlink(path);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return;
    if (errnoOf(error) !== 'EISDIR' && errnoOf(error) !== 'EPERM') throw error;
    rmSync(path, {recursive: true, force: true});
  }
}

async function inParallel(tasks: readonly (() => Promise<void>)[], atOnce: number): Promise<void> {
  let next = 0;
  const worker = async () => {
    for (let task = tasks[next++]; task !== undefined; task = tasks[next++]) await task();
  };
  await Promise.all(Array.from({length: Math.min(atOnce, tasks.length)}, worker));
}
