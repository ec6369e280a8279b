import {execFileSync} from 'node:child_process';
import {chmodSync, existsSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, symlinkSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {dirname, join} from 'node:path';
import {pathToFileURL} from 'node:url';
import type {Config, ProcessWorkers} from '../../../src/config/config.ts';

export type Vcs = 'svn' | 'git';
export const BOTH: readonly Vcs[] = ['svn', 'git'];
export const isRoot = process.getuid?.() === 0;
export const never = new AbortController().signal;

export type Op =
  | {readonly write: string; readonly text: string; readonly executable?: boolean}
  | {readonly link: string; readonly to: string}
  | {readonly remove: string};

/** A repository with one developer, who commits to it. */
export interface Repository {
  readonly vcs: Vcs;
  readonly url: string;
  /** The developer's own working copy. */
  readonly dev: string;
  /** Commits the operations, in order; the revision as the deployer writes it. */
  commit(...ops: readonly Op[]): string;
  /** The tree of a revision, by the system's own means. */
  exportBy(revision: string, directory: string): void;
}

const ENVIRONMENT = {
  PATH: process.env['PATH'] ?? '/usr/bin:/bin', HOME: '/nonexistent', LC_ALL: 'C.UTF-8', GIT_CONFIG_NOSYSTEM: '1', GIT_CONFIG_GLOBAL: '/dev/null',
  GIT_AUTHOR_NAME: 'dev', GIT_AUTHOR_EMAIL: 'dev@example.org', GIT_COMMITTER_NAME: 'dev', GIT_COMMITTER_EMAIL: 'dev@example.org', GIT_ALLOW_PROTOCOL: 'file:git',
};

export function sh(file: string, args: readonly string[], cwd = '/'): string {
  return execFileSync(file, args, {cwd, env: ENVIRONMENT, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe']});
}
export const svn = (cwd: string, ...args: string[]): string => sh('svn', ['--non-interactive', ...args], cwd);
export const git = (cwd: string, ...args: string[]): string => sh('git', args, cwd).trim();

/** A directory that is gone when the test is. */
export function scratch(t: {after(fn: () => void): void}): string {
  const directory = mkdtempSync(join(tmpdir(), 'osyw-test-'));
  // A worker account must be able to go through it.
  chmodSync(directory, 0o755);
  t.after(() => rmSync(directory, {recursive: true, force: true, maxRetries: 5}));
  return directory;
}

export function createRepository(vcs: Vcs, root: string): Repository {
  return vcs === 'svn' ? createSvn(root) : createGit(root);
}

function createSvn(root: string): Repository {
  const repository = join(root, 'repo');
  const dev = join(root, 'dev');
  sh('svnadmin', ['create', repository]);
  const url = `${pathToFileURL(repository).href}/trunk`;
  svn(root, 'mkdir', '-q', '-m', 'trunk', url);
  svn(root, 'checkout', '-q', url, dev);
  const ci = () => {
    svn(dev, 'commit', '-q', '-m', 'change');
    svn(dev, 'update', '-q', '--ignore-externals');
  };
  return {
    vcs: 'svn', url, dev,
    commit(...ops) {
      for (const op of ops) {
        const path = 'remove' in op ? op.remove : 'link' in op ? op.link : op.write;
        const at = join(dev, path);
        // A node cannot change its kind in one commit.
        if ('remove' in op) {
          svn(dev, 'remove', '-q', '--force', '--', `${path}@`);
          ci();
        } else if ('link' in op) {
          mkdirSync(dirname(at), {recursive: true});
          symlinkSync(op.to, at);
          svn(dev, 'add', '-q', '--parents', '--', `${path}@`);
        } else {
          mkdirSync(dirname(at), {recursive: true});
          const isNew = !existsSync(at);
          writeFileSync(at, op.text);
          if (isNew) svn(dev, 'add', '-q', '--parents', '--', `${path}@`);
          if (op.executable === true) svn(dev, 'propset', '-q', 'svn:executable', 'x', '--', `${path}@`);
          if (op.executable === false) svn(dev, 'propdel', '-q', 'svn:executable', '--', `${path}@`);
        }
      }
      ci();
      return `r${svn(dev, 'info', '--show-item', 'last-changed-revision', '--', `${url}@`).trim()}`;
    },
    exportBy: (revision, directory) => {
      svn(root, 'export', '-q', '--force', '-r', revision.slice(1), '--', `${url}@${revision.slice(1)}`, directory);
    },
  };
}

function createGit(root: string): Repository {
  const url = join(root, 'repo.git');
  const dev = join(root, 'dev');
  git(root, 'init', '-q', '--bare', '-b', 'main', url);
  git(root, 'init', '-q', '-b', 'main', dev);
  git(dev, 'remote', 'add', 'origin', url);
  return {
    vcs: 'git', url, dev,
    commit(...ops) {
      for (const op of ops) {
        const at = join(dev, 'remove' in op ? op.remove : 'link' in op ? op.link : op.write);
        if ('remove' in op) {
          rmSync(at, {recursive: true, force: true});
        } else if ('link' in op) {
          rmSync(at, {recursive: true, force: true});
          mkdirSync(dirname(at), {recursive: true});
          symlinkSync(op.to, at);
        } else {
          // git leaves the empty directories of removed files where they are.
          if (existsSync(at) && lstatSync(at).isDirectory()) rmSync(at, {recursive: true});
          mkdirSync(dirname(at), {recursive: true});
          writeFileSync(at, op.text);
          if (op.executable !== undefined) chmodSync(at, op.executable ? 0o755 : 0o644);
        }
      }
      git(dev, 'add', '-A', '--force');
      git(dev, 'commit', '-q', '--allow-empty', '-m', 'change');
      git(dev, 'push', '-q', 'origin', 'HEAD');
      return git(dev, 'rev-parse', 'HEAD');
    },
    exportBy: (revision, directory) => {
      const tar = join(root, 'export.tar');
      git(dev, '-c', 'tar.umask=0022', 'archive', '-o', tar, revision);
      sh('tar', ['-xf', tar, '-C', directory]);
      rmSync(tar);
    },
  };
}

export interface ConfigParts {
  readonly watch?: Partial<Config['watch']>;
  readonly source?: Partial<Config['source']>;
  readonly release?: Partial<Config['release']>;
  readonly workers?: Partial<ProcessWorkers>;
}

/** A configuration as the deployer would read it, below one directory. */
export function configFor(root: string, repository: {vcs: Vcs; url: string} | undefined, parts: ConfigParts = {}): Config {
  return {
    file: join(root, 'osyw-deploy.yaml'),
    app: 'test',
    source: {
      vcs: repository?.vcs, workingCopy: join(root, 'wc'), timeoutMs: 30_000, url: repository?.url,
      branch: repository?.vcs === 'git' ? 'main' : undefined, username: undefined, passwordFile: undefined, paths: [], ...parts.source,
    },
    release: {tree: 'snapshot', build: [], buildTimeoutMs: 30_000, buildUser: undefined, shared: [], keep: 5, ...parts.release},
    workers: {
      command: ['/bin/true'], count: 1, ports: {first: 20_000, last: 20_010}, host: '127.0.0.1', env: {}, envFile: undefined, user: undefined,
      pidFile: undefined, log: join(root, 'log/worker.log'), runner: 'process', stop: {signal: 'SIGTERM', timeoutMs: 1000}, ...parts.workers,
    },
    check: {kind: 'tcp', intervalMs: 100, timeoutMs: 1000, consecutive: 1, deadlineMs: 5000},
    bake: {forMs: 0},
    nginx: {
      upstream: 'test', file: join(root, 'upstream.conf'), server: {}, directives: [], binary: '/usr/sbin/nginx', conf: undefined, prefix: undefined,
      probe: undefined, reload: undefined,
    },
    drain: {quietMs: 1000, deadlineMs: 5000},
    hook: {wait: false, waitTimeoutMs: 5000, supersede: false},
    watch: {pollMs: 0, settleMs: 100, edits: false, checkMs: 1000, webhook: undefined, ...parts.watch},
    stateDir: join(root, 'state'),
    runDir: join(root, 'run'),
  };
}

/** Every path of a tree with type, permissions and content: two equal ones are the same byte for byte. */
export function treeOf(directory: string, relative = ''): Record<string, string> {
  const tree: Record<string, string> = {};
  for (const name of readdirSync(join(directory, relative)).sort()) {
    if (relative === '' && (name === '.svn' || name === '.git')) continue;
    const path = relative === '' ? name : `${relative}/${name}`;
    const stat = lstatSync(join(directory, path));
    const mode = (stat.mode & 0o7777).toString(8);
    if (stat.isDirectory()) Object.assign(tree, {[path]: `directory ${mode}`}, treeOf(directory, path));
    else if (stat.isSymbolicLink()) tree[path] = `link ${readlinkSync(join(directory, path))}`;
    else tree[path] = `file ${mode} ${readFileSync(join(directory, path), 'latin1')}`;
  }
  return tree;
}
