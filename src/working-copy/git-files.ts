import {existsSync, readFileSync, readdirSync, statSync} from 'node:fs';
import {dirname, join, resolve} from 'node:path';
import {lstatIfThere} from '../support/lstat-if-there.ts';

/** Where git keeps its files for a work tree. They differ from `.git` in a linked work tree. */
export interface GitDirectories {
  readonly own: string;
  /** Refs, objects and configuration, shared by all work trees. */
  readonly common: string;
}

/** Undefined when there is no work tree at this very path; one of a parent directory is somebody else's. */
export function gitDirectories(workingCopy: string): GitDirectories | undefined {
  const dotGit = join(workingCopy, '.git');
  if (lstatIfThere(dotGit) === undefined) return undefined;
  const stat = statSync(dotGit);
  if (stat.isDirectory()) return {own: dotGit, common: commonOf(dotGit)};
  const link = /^gitdir: (.+)$/m.exec(readFileSync(dotGit, 'utf8'))?.[1];
  if (link === undefined) return undefined;
  const own = resolve(dirname(dotGit), link.trim());
  return {own, common: commonOf(own)};
}

function commonOf(own: string): string {
  const file = join(own, 'commondir');
  return existsSync(file) ? resolve(own, readFileSync(file, 'utf8').trim()) : own;
}

/** The branch that is checked out, without `refs/heads/`; undefined when HEAD is detached. */
export function checkedOutBranch(directories: GitDirectories): string | undefined {
  const head = join(directories.own, 'HEAD');
  return existsSync(head) ? /^ref: refs\/heads\/(.+)\n?$/.exec(readFileSync(head, 'utf8'))?.[1] : undefined;
}

const UNFINISHED: Readonly<Record<string, string>> = {
  MERGE_HEAD: 'merge', 'rebase-merge': 'rebase', 'rebase-apply': 'rebase', CHERRY_PICK_HEAD: 'cherry-pick', REVERT_HEAD: 'revert', BISECT_LOG: 'bisect',
};

/** `merge`, `rebase` …: what somebody has begun in the work tree and not ended. */
export function unfinishedCommand(directories: GitDirectories): string | undefined {
  const file = Object.keys(UNFINISHED).find(name => existsSync(join(directories.own, name)));
  return file === undefined ? undefined : UNFINISHED[file];
}

/** Lock files that stand in the way of an update of this branch. */
export function presentLocks(directories: GitDirectories, branch: string): string[] {
  const {own, common} = directories;
  return [
    join(own, 'index.lock'), join(own, 'HEAD.lock'), join(own, 'ORIG_HEAD.lock'), join(common, 'shallow.lock'), join(common, 'packed-refs.lock'),
    join(common, 'config.lock'), join(common, `refs/heads/${branch}.lock`), join(common, 'refs/osyw/deploy.lock'), join(common, `refs/remotes/origin/${branch}.lock`),
  ].filter(path => existsSync(path));
}

/** As git itself guesses: this many loose objects in one directory of 256 stand for gc.auto, this many packs are gc.autoPackLimit. */
const LOOSE_IN_ONE = 27;
const PACKS = 50;

/** Whether it is time for git to pack the repository. */
export function isUntidy({common}: GitDirectories): boolean {
  const count = (directory: string, pattern: RegExp) => existsSync(directory) ? readdirSync(directory).filter(name => pattern.test(name)).length : 0;
  return count(join(common, 'objects/17'), /^[0-9a-f]+$/) >= LOOSE_IN_ONE || count(join(common, 'objects/pack'), /\.pack$/) >= PACKS;
}
