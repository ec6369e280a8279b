import {DeployError} from '../errors.ts';
import type {Git} from './git-command.ts';
import type {GitChange} from './git-diff.ts';
import {namedFiles} from './shown-text.ts';

const MAX_NAMED_PATHS = 300;
// A pointer has about 130 bytes, and the specification bounds it at 1024.
const LFS_POINTER = '^version https://git-lfs';

/**
 * Refuses what a deploy would get wrong without a word: a submodule is an empty directory in an export, a large file a pointer.
 * `changes`: what differs from a tree that was checked before; undefined checks the whole.
 * Errors: UPDATE_FAILED naming the paths.
 */
export async function refuseUnsupported(git: Git, cwd: string, sha: string, changes: readonly GitChange[] | undefined, signal: AbortSignal): Promise<void> {
  let submodules: string[];
  let files: string[] | undefined;
  if (changes === undefined) {
    const {stdout} = await git.must(['ls-tree', '-r', '-z', '--full-tree', sha], {cwd, signal});
    const entries = stdout.split('\0').flatMap(line => {
      const [meta, path] = line.split('\t', 2);
      return meta === undefined || path === undefined ? [] : [{mode: meta.slice(0, 6), path}];
    });
    submodules = entries.filter(entry => entry.mode === '160000').map(entry => entry.path);
    // Without attributes no file is a pointer, whatever it begins with; reading every blob is worth it only then.
    files = entries.some(entry => /(?:^|\/)\.gitattributes$/.test(entry.path)) ? undefined : [];
  } else {
    submodules = changes.filter(change => change.newMode === '160000').map(change => change.path);
    files = changes.filter(change => change.newMode === '100644' || change.newMode === '100755').map(change => change.path);
    if (files.length > MAX_NAMED_PATHS) files = undefined;
  }
  if (submodules.length > 0) {
    throw new DeployError('UPDATE_FAILED', `Submodules are not supported, and the revision has some: ${namedFiles(submodules)}.`, {
      hint: 'Put their content into the repository (`git subtree add`), or fetch them in a `release.build` command from a plain file.',
    });
  }
  if (files?.length === 0) return;

  // -L lists the files *without* a match, because a git without a word to say costs simple-git 50 ms of waiting.
  const paths = files === undefined ? [] : ['--', ...files.map(path => `:(literal)${path}`)];
  const {stdout, exitCode} = await git.run(['grep', '-L', '-a', '-z', '-e', LFS_POINTER, sha, ...paths], {cwd, signal});
  if (exitCode > 1) return;
  const plain = new Set(stdout.split('\0'));
  const all = files ?? (await git.must(['ls-tree', '-r', '-z', '--name-only', '--full-tree', sha], {cwd, signal})).stdout.split('\0').filter(path => path !== '');
  // Links are not read by grep, and are no pointers.
  const suspects = all.filter(path => !plain.has(`${sha}:${path}`));
  if (suspects.length === 0) return;
  const pointers = (await git.run(['grep', '-l', '-a', '-z', '-e', LFS_POINTER, sha, '--', ...suspects.slice(0, MAX_NAMED_PATHS).map(path => `:(literal)${path}`)], {cwd, signal}))
    .stdout.split('\0').flatMap(name => name === '' ? [] : [name.slice(sha.length + 1)]);
  if (pointers.length === 0) return;
  throw new DeployError('UPDATE_FAILED', `Git LFS is not supported, and these files are pointers to large files: ${namedFiles(pointers)}.`, {
    hint: 'Put the files themselves into the repository, or fetch them in a `release.build` command.',
  });
}
