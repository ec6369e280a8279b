import {existsSync, readFileSync, realpathSync, statSync} from 'node:fs';
import {basename, dirname, isAbsolute, join, resolve} from 'node:path';
import {fileURLToPath} from 'node:url';
import type {SourceConfig} from '../config/config.ts';
import {DeployError, errnoOf} from '../errors.ts';
import {accountOf} from '../support/accounts.ts';
import {runCommand, type CommandResult} from '../support/run-command.ts';
import {SYSTEM_PATH} from '../support/system-path.ts';
import {findVcs, repositoryAt} from '../working-copy/open-working-copy.ts';
import {lastWords, shownText} from '../working-copy/shown-text.ts';

/** The repository whose commits deploy, on this machine. */
export interface HookedRepository {
  readonly kind: 'svn' | 'git-bare' | 'git-work-tree';
  /** The repository, or the top of the work tree. */
  readonly path: string;
  readonly hooksDir: string;
  readonly hooks: readonly HookName[];
  /** What everybody writes who commits: its rights say who may. */
  readonly data: string;
}

export type HookName = 'post-commit' | 'post-merge' | 'post-receive';

const COMMAND_MS = 20_000;

/**
 * The repository that the configuration names, or `--repository`. Errors: USAGE when it is not on this machine, cannot be told, or
 * keeps its hooks where other repositories would run them, too.
 */
export async function findRepository(source: SourceConfig, options: {repository?: string | undefined; cwd: string; signal: AbortSignal}): Promise<HookedRepository> {
  const asked = options.repository === undefined ? await configuredPath(source, options.signal) : {path: resolve(options.cwd, options.repository), by: '--repository'};
  const repository = look(asked.path);
  if (repository === undefined) {
    throw new DeployError('USAGE', `${asked.by}: there is no Subversion or git repository in ${shownText(asked.path)}`, {hint: 'Name the directory of the repository with --repository PATH (svn: the one with `db` and `hooks`).'});
  }
  const vcs = repository.kind === 'svn' ? 'svn' : 'git';
  const expected = source.vcs ?? (source.url === undefined && !existsSync(source.workingCopy) ? vcs : findVcs(source.workingCopy, source.url));
  if (expected !== vcs) throw new DeployError('USAGE', `${asked.by}: ${repository.path} is a ${vcs} repository, but the application comes from ${expected}`, {hint: 'Name the repository that the working copy comes from.'});
  const hooksDir = repository.kind === 'svn' ? repository.hooksDir : await gitHooksDir(repository, options.signal);
  refuseSharedHooks(hooksDir, repository);
  return {...repository, hooksDir};
}

/** Where `source.url`, else the working copy itself, says that the repository is. */
async function configuredPath({url, workingCopy, vcs}: SourceConfig, signal: AbortSignal): Promise<{path: string; by: string}> {
  if (url !== undefined) return {path: localPath(url) ?? elsewhere(url, 'source.url'), by: 'source.url'};
  const system = vcs ?? findVcs(workingCopy, undefined);
  const by = `the working copy ${workingCopy}`;
  const said = system === 'svn'
    ? await ask('svn', ['info', '--non-interactive', '--config-dir', '/proc/none/svn', '--show-item', 'repos-root-url', '--no-newline', '--', `${workingCopy}@`], signal)
    : await ask('git', ['--git-dir', gitDirectoryOf(workingCopy) ?? join(workingCopy, '.git'), 'config', '--get', 'remote.origin.url'], signal);
  const origin = said.stdout.replace(/\n$/, '');
  if (said.exitCode === 0 && origin !== '') return {path: localPath(origin, workingCopy) ?? elsewhere(origin, by), by};
  // A work tree that comes from nowhere is what people commit in.
  if (system === 'git' && said.exitCode === 1) return {path: workingCopy, by};
  throw new DeployError('USAGE', `${by} does not say where its repository is: ${lastWords(said.stderr) || 'it said nothing'}`, {hint: 'Set source.url, or name the repository with --repository PATH.'});
}

/** The path in a URL of this machine; undefined when it leads anywhere else. A relative one is git's. */
function localPath(url: string, from?: string): string | undefined {
  if (url.startsWith('/')) return url;
  if (/^file:\/\//i.test(url)) return fileURLToPath(url);
  return from !== undefined && !url.includes(':') && url !== '' ? resolve(from, url) : undefined;
}

function elsewhere(url: string, by: string): never {
  throw new DeployError('USAGE', `${by} is ${shownText(url)}, which does not say where on this machine the repository is`, {
    hint: [
      'A hook has to stand in the repository itself. Three ways:',
      '  the repository is on this machine (svn://127.0.0.1/…, say): osyw-deploy hook install --repository PATH, where PATH has `db` and `hooks` (svn: below svnserve\'s --root), or is the bare repository (git);',
      '  it is on another machine: the hook has to stand there, and so has the deployer;',
      '  neither: leave the hook out, and let cron ask with `osyw-deploy now --quiet`.',
    ].join('\n'),
  });
}

/** What stands at a path. A Subversion URL may name a directory inside the repository, and git leaves out a `.git` at the end. */
function look(path: string): HookedRepository | undefined {
  const found = [path, `${path}.git`].find(one => repositoryAt(one) !== undefined);
  if (found === undefined) return undefined;
  if (repositoryAt(found) === 'svn') {
    const top = svnTop(found);
    return {kind: 'svn', path: top, hooksDir: join(top, 'hooks'), hooks: ['post-commit'], data: join(top, 'db')};
  }
  const git = gitDirectoryOf(found);
  if (git === undefined) return {kind: 'git-bare', path: found, hooksDir: join(found, 'hooks'), hooks: ['post-receive'], data: join(found, 'objects')};
  return {kind: 'git-work-tree', path: found, hooksDir: join(git, 'hooks'), hooks: ['post-commit', 'post-merge'], data: join(git, 'objects')};
}

function svnTop(path: string): string {
  return existsSync(join(path, 'format')) && existsSync(join(path, 'db')) ? path : svnTop(dirname(path));
}

/** What the work trees of one repository have in common: `.git`, or where a `.git` file leads (a linked work tree, a submodule). */
function gitDirectoryOf(workTree: string): string | undefined {
  const dotGit = join(workTree, '.git');
  if (!existsSync(dotGit)) return undefined;
  if (statSync(dotGit).isDirectory()) return dotGit;
  const own = /^gitdir: (.+)$/m.exec(readFileSync(dotGit, 'utf8'))?.[1];
  if (own === undefined) return undefined;
  const directory = resolve(workTree, own);
  const common = join(directory, 'commondir');
  return existsSync(common) ? resolve(directory, readFileSync(common, 'utf8').trim()) : directory;
}

/** As git finds it when the repository's owner commits: `core.hooksPath` may name another place. */
async function gitHooksDir({kind, path, hooksDir, data}: HookedRepository, signal: AbortSignal): Promise<string> {
  const home = accountOf(statSync(data).uid)?.home;
  const said = await ask('git', ['--git-dir', dirname(data), 'config', '--show-scope', '--type=path', '--get', 'core.hooksPath'], signal, home);
  if (said.exitCode === 1) return hooksDir;
  const [, scope, value] = /^(\w+)\t([^]+)\n$/.exec(said.stdout) ?? [];
  if (said.exitCode !== 0 || scope === undefined || value === undefined) throw new DeployError('USAGE', `git does not say where ${path} has its hooks: ${lastWords(said.stderr) || 'it said nothing'}`);
  if (scope !== 'local' && scope !== 'worktree') {
    throw new DeployError('USAGE', `core.hooksPath is ${shownText(value)} in the ${scope} configuration of git: other repositories would run a hook there, too`, {
      hint: `Give this repository hooks of its own: git --git-dir ${dirname(data)} config core.hooksPath ${hooksDir}`,
    });
  }
  // A relative one starts where hooks run: in the bare repository, or at the top of the work tree.
  return isAbsolute(value) ? value : resolve(kind === 'git-bare' ? dirname(data) : path, value);
}

/** A directory of hooks outside of the repository, or a link to one, is most likely that of many repositories. */
function refuseSharedHooks(hooksDir: string, {path, data, kind}: HookedRepository): void {
  const real = realPath(hooksDir);
  const within = (directory: string) => `${real}/`.startsWith(`${realPath(directory)}/`);
  if (within(path) || within(dirname(data))) return;
  throw new DeployError('USAGE', `the hooks of ${path} are in ${real}, outside of it: other repositories may run a hook there, too`, {
    hint: kind === 'svn' ? `Make ${hooksDir} a directory of its own, with what it needs of the other.` : `Give this repository hooks of its own: git --git-dir ${dirname(data)} config core.hooksPath ${join(dirname(data), 'hooks')}`,
  });
}

/** Of the directory, or of the nearest one above it that is there. */
function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
    return join(realPath(dirname(path)), basename(path));
  }
}

async function ask(file: string, args: readonly string[], signal: AbortSignal, home = '/'): Promise<CommandResult> {
  const result = await runCommand({file, args}, {cwd: '/', env: {PATH: SYSTEM_PATH, HOME: home, LC_ALL: 'C.UTF-8'}, timeoutMs: COMMAND_MS, signal});
  if (result.spawnError !== undefined) throw new DeployError('USAGE', `${file} cannot be started (${result.spawnError})`, {hint: `Install ${file === 'svn' ? 'Subversion (package `subversion`)' : 'git (package `git`)'}.`});
  return result;
}
