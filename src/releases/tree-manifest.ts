import {spawn} from 'node:child_process';
import {createHash} from 'node:crypto';
import {lstatSync, readdirSync, readlinkSync} from 'node:fs';
import type {Readable} from 'node:stream';
import {errnoOf} from '../errors.ts';

/**
 * What a directory tree looks like to `lstat`: path → `type mode uid gid size inode mtime ctime NUL link-target`, for directories
 * `d mode uid gid`. Two equal lines mean that nobody wrote the file in between: whoever does changes its ctime.
 * Names are Latin-1 strings, one character a byte, so that every name survives and 10,000 of them are read in 10 ms.
 */
export type Tree = ReadonlyMap<string, string>;

export interface Manifest {
  readonly revision: string;
  readonly vcs: 'svn' | 'git';
  /** `uid:gid` that everything in it belongs to. */
  readonly owner: string;
  /** Milliseconds since 1970, right before the tree was read. */
  readonly readAt: number;
  readonly tree: Tree;
}

export interface ScannedTree {
  readonly readAt: number;
  readonly tree: Tree;
  readonly bytes: Buffer;
}

const FORMAT = ['(', '-type', 'd', '-printf', '%y %m %U %G\\0\\0%P\\0', ')', '-o', '-printf', '%y %m %U %G %s %i %T@ %C@\\0%l\\0%P\\0'];

/** So many are read here in the time that a process takes to start. */
const FEW = 300;

/**
 * Reads a tree, its root left out. `find` does it beside us: 10,000 `lstat` calls here would stop everything else for 100 ms.
 * `about`: how many entries there will be, when that is known.
 */
export async function scanTree(directory: string, about = Infinity): Promise<ScannedTree> {
  const readAt = Date.now();
  const bytes = (about <= FEW ? undefined : await findTree(directory)) ?? walkTree(directory);
  return {readAt, bytes, tree: parseTree(bytes)};
}

function findTree(directory: string): Promise<Buffer | undefined> {
  return new Promise(resolve => {
    const child = spawn('find', ['-P', directory, '-mindepth', '1', ...FORMAT], {
      env: {PATH: '/usr/local/bin:/usr/bin:/bin', LC_ALL: 'C'}, stdio: ['ignore', 'pipe', 'ignore'],
    });
    const chunks: Buffer[] = [];
    child.on('error', () => resolve(undefined));
    // Where no descriptor is left there is none, whatever the types say.
    (child.stdout as Readable | undefined)?.on('data', (chunk: Buffer) => chunks.push(chunk));
    // busybox has no -printf; and a directory that vanishes meanwhile, or is closed to us, is told by the walk.
    child.on('close', code => resolve(code === 0 ? Buffer.concat(chunks) : undefined));
  });
}

function walkTree(root: string): Buffer {
  const records: Buffer[] = [];
  const walk = (directory: Buffer, relative: Buffer) => {
    for (const name of readdirSync(directory, {encoding: 'buffer'})) {
      const path = Buffer.concat([directory, Buffer.from('/'), name]);
      const below = relative.length === 0 ? name : Buffer.concat([relative, Buffer.from('/'), name]);
      const stat = lstatSync(path, {bigint: true});
      const type = stat.isDirectory() ? 'd' : stat.isFile() ? 'f' : stat.isSymbolicLink() ? 'l' : stat.isFIFO() ? 'p' : stat.isSocket() ? 's' : stat.isBlockDevice() ? 'b' : 'c';
      const owner = `${type} ${(stat.mode & 0o7777n).toString(8)} ${stat.uid} ${stat.gid}`;
      const line = type === 'd' ? owner : `${owner} ${stat.size} ${stat.ino} ${asSeconds(stat.mtimeNs)} ${asSeconds(stat.ctimeNs)}`;
      const link = type === 'l' ? readlinkSync(path, {encoding: 'buffer'}) : Buffer.alloc(0);
      records.push(Buffer.from(`${line}\0`), link, Buffer.from('\0'), below, Buffer.from('\0'));
      if (type === 'd') walk(path, below);
    }
  };
  walk(Buffer.from(root), Buffer.alloc(0));
  return Buffer.concat(records);
}

/** As `find` prints it: ten digits after the point. */
function asSeconds(nanoseconds: bigint): string {
  return `${nanoseconds / 1_000_000_000n}.${(nanoseconds % 1_000_000_000n).toString().padStart(9, '0')}0`;
}

function parseTree(bytes: Buffer): Tree {
  const fields = bytes.toString('latin1').split('\0');
  const tree = new Map<string, string>();
  for (let i = 0; i + 2 < fields.length; i += 3) tree.set(fields[i + 2] ?? '', `${fields[i] ?? ''}\0${fields[i + 1] ?? ''}`);
  return tree;
}

/** A manifest as a file. It checks itself, so it needs no sync: a torn one is no manifest. */
export function renderManifest(scanned: ScannedTree, of: {revision: string; vcs: 'svn' | 'git'; owner: string}): Buffer {
  const header = {version: 1, ...of, readAt: scanned.readAt, entries: scanned.tree.size, sha256: checksum(scanned.bytes)};
  return Buffer.concat([Buffer.from(`${JSON.stringify(header)}\n`), scanned.bytes]);
}

/** Undefined for anything that is not a whole manifest of this version. */
export function parseManifest(bytes: Buffer): Manifest | undefined {
  const end = bytes.indexOf('\n');
  if (end === -1) return undefined;
  let header: unknown;
  try {
    header = JSON.parse(bytes.toString('utf8', 0, end));
  } catch {
    return undefined;
  }
  if (typeof header !== 'object' || header === null) return undefined;
  const {version, revision, vcs, owner, readAt, sha256} = header as Partial<Record<string, unknown>>;
  const body = bytes.subarray(end + 1);
  if (version !== 1 || typeof revision !== 'string' || (vcs !== 'svn' && vcs !== 'git') || typeof owner !== 'string') return undefined;
  if (typeof readAt !== 'number' || sha256 !== checksum(body)) return undefined;
  return {revision, vcs, owner, readAt, tree: parseTree(body)};
}

function checksum(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('base64');
}

export interface TreeLine {
  readonly type: string;
  /** Permission bits. */
  readonly mode: number;
  readonly owner: string;
  /** Undefined for directories. */
  readonly size: number | undefined;
  /** Milliseconds since 1970; undefined for directories. */
  readonly changedAt: number | undefined;
  readonly link: string;
}

export function parseLine(line: string): TreeLine {
  const [stat = '', link = ''] = line.split('\0');
  const [type = '', mode = '', uid = '', gid = '', size, , , ctime] = stat.split(' ');
  return {
    type, mode: Number.parseInt(mode, 8), owner: `${uid}:${gid}`, link,
    size: size === undefined ? undefined : Number(size),
    changedAt: ctime === undefined ? undefined : Number(ctime) * 1000,
  };
}

/** A path of a tree as the file system wants it. */
export function inTree(directory: string, path: string): Buffer {
  return Buffer.from(`${asLatin1(directory)}/${path}`, 'latin1');
}

export function asLatin1(text: string): string {
  return Buffer.from(text, 'utf8').toString('latin1');
}

/** A path of a tree for people. */
export function asText(path: string): string {
  return Buffer.from(path, 'latin1').toString('utf8');
}

export function isMissing(error: unknown): boolean {
  return errnoOf(error) === 'ENOENT';
}
