import {mkdirSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {run} from './run.ts';
import {scrubbedEnv} from './scrubbed-env.ts';
import {type Files, writeInto} from './svn-rig.ts';

export interface GitRig {
  readonly url: string;
  /** The bare repository's directory. */
  readonly repository: string;
  /** The committer's clone, for what `commit` cannot say. */
  readonly workingCopy: string;
  /** Commits to a branch (`main` unless told) and pushes; returns the full hash. */
  commit(files: Files, message?: string, branch?: string): Promise<string>;
  /** Throws the branch's newest commits away and commits these files in their place. */
  forcePush(files: Files, back?: number): Promise<string>;
  deleteBranch(branch: string): Promise<void>;
  /** A git command in the committer's clone. */
  git(args: readonly string[]): Promise<string>;
  stop(): Promise<void>;
}

/** A bare git repository in `dir`, with a clone that commits to it. */
export async function makeGit(dir: string): Promise<GitRig> {
  const repository = join(dir, 'repository.git');
  const workingCopy = join(dir, 'committer');
  mkdirSync(dir, {recursive: true});
  // A test may give the repository to another account; the committer goes on all the same.
  const global = join(dir, 'gitconfig');
  writeFileSync(global, '[safe]\n\tdirectory = *\n');
  const env = scrubbedEnv(dir, {GIT_CONFIG_GLOBAL: global});
  const settings = ['user.name=committer', 'user.email=committer@localhost', 'commit.gpgsign=false', 'gc.auto=0'].flatMap((setting) => ['-c', setting]);
  const git = (args: readonly string[], cwd = workingCopy): Promise<string> => run('git', [...settings, ...args], {cwd, env});
  await git(['init', '-q', '--bare', '--initial-branch=main', repository], dir);
  await git(['init', '-q', '--initial-branch=main', workingCopy], dir);
  await git(['remote', 'add', 'origin', `file://${repository}`]);

  async function change(files: Files, message: string): Promise<string> {
    for (const [path, text] of Object.entries(files)) {
      if (text === null) await git(['rm', '-q', '--', path]);
      else writeInto(workingCopy, path, text);
    }
    await git(['add', '-A']);
    await git(['commit', '-q', '--allow-empty', '-m', message]);
    return (await git(['rev-parse', 'HEAD'])).trim();
  }

  return {
    url: `file://${repository}`,
    repository,
    workingCopy,
    git,
    async commit(files, message = 'a change', branch = 'main') {
      if (branch !== 'main') await git(['checkout', '-q', '-B', branch]);
      const hash = await change(files, message);
      await git(['push', '-q', 'origin', `HEAD:refs/heads/${branch}`]);
      if (branch !== 'main') await git(['checkout', '-q', 'main']);
      return hash;
    },
    async forcePush(files, back = 1) {
      await git(['reset', '-q', '--hard', `HEAD~${back}`]);
      const hash = await change(files, 'another history');
      await git(['push', '-q', '--force', 'origin', 'HEAD:refs/heads/main']);
      return hash;
    },
    deleteBranch: async (branch) => void (await git(['push', '-q', 'origin', `:refs/heads/${branch}`])),
    stop: async () => {},
  };
}
