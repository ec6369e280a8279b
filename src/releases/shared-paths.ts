import {chownSync, lchownSync, mkdirSync, renameSync, rmSync, symlinkSync} from 'node:fs';
import {dirname, join, relative} from 'node:path';
import {DeployError} from '../errors.ts';
import type {Account} from '../support/accounts.ts';
import {lstatIfThere} from '../support/lstat-if-there.ts';
import {runCommand} from '../support/run-command.ts';

const COPY_TIMEOUT_MS = 10 * 60_000;

/**
 * Puts links to the shared copies in place of the release's own paths. The first release that has a path gives the initial
 * content; later versioned content under it is replaced by the link.
 * `tree` is where the release is now, `dir` where it is going to be.
 * Errors: BUILD_FAILED when a path leads through a link.
 */
export async function linkSharedPaths(tree: string, dir: string, paths: readonly string[], sharedDir: string, owner: Account | undefined, signal: AbortSignal): Promise<void> {
  // A path below another shared one comes with it.
  for (const path of paths.filter(path => !paths.some(other => other !== path && path.startsWith(`${other}/`)))) {
    refuseLinkedParents(tree, path);
    const link = join(tree, path);
    const shared = join(sharedDir, path);
    if (lstatIfThere(shared) === undefined) await createShared(link, shared, owner, signal);
    const target = relative(dirname(join(dir, path)), shared);
    rmSync(link, {recursive: true, force: true});
    mkdirSync(dirname(link), {recursive: true});
    symlinkSync(target, link);
  }
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
