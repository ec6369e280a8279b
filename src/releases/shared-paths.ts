import {chownSync, lchownSync, mkdirSync, readdirSync, renameSync, rmSync, symlinkSync} from 'node:fs';
import {dirname, join, relative} from 'node:path';
import {DeployError} from '../errors.ts';
import type {Account} from '../support/accounts.ts';
import {lstatIfThere} from '../support/lstat-if-there.ts';
import {runCommand} from '../support/run-command.ts';

const COPY_TIMEOUT_MS = 10 * 60_000;

export interface SharedPaths {
  /** Relative, as in `release.shared`. */
  readonly paths: readonly string[];
  /** Where they live. */
  readonly sharedDir: string;
  readonly workingCopy: string;
  readonly owner: Account | undefined;
}

/**
 * Puts links to the shared copies in place of the release's own paths. The first release that has a path gives the initial
 * content; later versioned content under it is replaced by the link.
 * `tree` is where the release is now, `dir` where it is going to be.
 * Errors: BUILD_FAILED when a path leads through a link, or would begin without what the working copy has there unversioned.
 */
export async function linkSharedPaths(tree: string, dir: string, {paths, sharedDir, workingCopy, owner}: SharedPaths, signal: AbortSignal): Promise<void> {
  // A path below another shared one comes with it.
  for (const path of paths.filter(path => !paths.some(other => other !== path && path.startsWith(`${other}/`)))) {
    refuseLinkedParents(tree, path);
    const link = join(tree, path);
    const shared = join(sharedDir, path);
    if (lstatIfThere(shared) === undefined) {
      refuseToLeaveBehind(link, join(workingCopy, path), shared);
      await createShared(link, shared, owner, signal);
    }
    const target = relative(dirname(join(dir, path)), shared);
    rmSync(link, {recursive: true, force: true});
    mkdirSync(dirname(link), {recursive: true});
    symlinkSync(target, link);
  }
}

/** What an application that ran in the working copy keeps there is in no release: a site must not come up with an empty database. */
function refuseToLeaveBehind(initial: string, theirs: string, shared: string): void {
  const left = firstMissing(initial, theirs);
  if (left === undefined) return;
  const [from, to] = [quoted(theirs), quoted(shared)];
  // What is versioned has to stay in the working copy, so what runs there goes on with its own; else it follows the link.
  const move = lstatIfThere(initial) === undefined ? `mv -T -- ${from} ${to} && ln -sT -- ${to} ${from}` : `cp -aT -- ${from} ${to}`;
  throw new DeployError('BUILD_FAILED', `${shared} is not there yet, and would begin without ${left}, which is not versioned`,
    {hint: `To let all releases have it: mkdir -p ${quoted(dirname(shared))} && ${move}. To begin without it: ${lstatIfThere(theirs)?.isDirectory() === true ? `mkdir -p ${to}` : `put a file of your own at ${to}`}.`});
}

/** The first path below `theirs`, or itself, that has no counterpart below `initial`. An empty directory is nothing. */
function firstMissing(initial: string, theirs: string): string | undefined {
  const stat = lstatIfThere(theirs);
  if (stat === undefined) return undefined;
  if (!stat.isDirectory()) return lstatIfThere(initial) === undefined ? theirs : undefined;
  for (const name of readdirSync(theirs)) {
    const found = firstMissing(join(initial, name), join(theirs, name));
    if (found !== undefined) return found;
  }
  return undefined;
}

function quoted(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

async function createShared(initial: string, shared: string, owner: Account | undefined, signal: AbortSignal): Promise<void> {
  mkdirSync(dirname(shared), {recursive: true, mode: 0o755});
  const candidate = join(dirname(shared), `.osyw-new-${shared.split('/').at(-1) ?? ''}`);
  rmSync(candidate, {recursive: true, force: true});
  if (lstatIfThere(initial) === undefined) {
    mkdirSync(candidate, {mode: 0o755});
    if (owner !== undefined) chownSync(candidate, owner.uid, owner.gid);
  } else {
    const env = {PATH: '/usr/local/bin:/usr/bin:/bin', LC_ALL: 'C'};
    const copied = await runCommand({file: 'cp', args: ['-a', '--reflink=auto', '-T', '--', initial, candidate]}, {env, timeoutMs: COPY_TIMEOUT_MS, signal});
    if (copied.exitCode !== 0) throw new DeployError('BUILD_FAILED', `${initial} could not be copied to ${shared}: ${copied.stderr.trim()}`);
    if (owner !== undefined) {
      lchownSync(candidate, owner.uid, owner.gid);
      await runCommand({file: 'chown', args: ['-hR', `${owner.uid}:${owner.gid}`, '--', candidate]}, {env, timeoutMs: COPY_TIMEOUT_MS, signal});
    }
  }
  renameSync(candidate, shared);
}

/** A link in the repository must not decide where our own link goes. */
function refuseLinkedParents(dir: string, path: string): void {
  for (let parent = dirname(path); parent !== '.'; parent = dirname(parent)) {
    const stat = lstatIfThere(join(dir, parent));
    if (stat !== undefined && !stat.isDirectory()) {
      throw new DeployError('BUILD_FAILED', `The shared path ${path} cannot be put in place: ${parent} is not a directory in the release.`, {hint: 'Mend release.shared.'});
    }
  }
}
