import {mkdirSync, rmSync, writeFileSync} from 'node:fs';
import {dirname, join} from 'node:path';
import {leasePorts, type PortLease} from './free-ports.ts';
import {listens} from './nginx-rig.ts';
import {endChild, run, spawnBound} from './run.ts';
import {scrubbedEnv} from './scrubbed-env.ts';
import {waitUntil} from './wait-until.ts';

/** What a commit does: path → new text, or null to remove the file. */
export type Files = Readonly<Record<string, string | null>>;

export interface SvnRig {
  readonly url: string;
  /** The repository's own directory. */
  readonly repository: string;
  /** The committer's working copy of trunk, for what `commit` cannot say. */
  readonly workingCopy: string;
  /** Commits to trunk; returns the revision as osyw-deploy writes it, `r7`. */
  commit(files: Files, message?: string): Promise<string>;
  /** An svn command with the test's own configuration directory, in the committer's working copy. */
  svn(args: readonly string[]): Promise<string>;
  stop(): Promise<void>;
}

/** A Subversion repository in `dir`, reached as `file://`, or as `svn://` where `serve` asks for it. */
export async function makeSvn(dir: string, options: {serve?: boolean | {user: string; password: string}} = {}): Promise<SvnRig> {
  const repository = join(dir, 'repository');
  const workingCopy = join(dir, 'committer');
  mkdirSync(dir, {recursive: true});
  const env = scrubbedEnv(dir);
  const svn = (args: readonly string[], cwd = workingCopy): Promise<string> =>
    run('svn', ['--non-interactive', '--config-dir', join(dir, 'config'), ...args], {cwd, env});

  await run('svnadmin', ['create', repository], {env});
  await svn(['mkdir', '-q', '-m', 'layout', `file://${repository}/trunk`, `file://${repository}/branches`], dir);
  await svn(['checkout', '-q', `file://${repository}/trunk`, workingCopy], dir);
  const server = options.serve ? await serveSvn(dir, options.serve, env) : undefined;

  return {
    url: server ? `${server.url}/repository/trunk` : `file://${repository}/trunk`,
    repository,
    workingCopy,
    svn,
    async commit(files, message = 'a change') {
      for (const [path, text] of Object.entries(files)) {
        if (text === null) await svn(['rm', '-q', '--force', `${path}@`]);
        else writeInto(workingCopy, path, text);
      }
      await svn(['add', '-q', '--force', '.']);
      const said = await svn(['commit', '-m', message]);
      const revision = /Committed revision (\d+)/.exec(said)?.[1];
      if (revision === undefined) throw new Error(`nothing was committed: ${said}`);
      return `r${revision}`;
    },
    stop: async () => server?.stop(),
  };
}

async function serveSvn(
  dir: string,
  access: true | {user: string; password: string},
  env: Record<string, string>,
): Promise<{url: string; stop(): Promise<void>}> {
  const lease: PortLease = await leasePorts(1);
  const settings = access === true ? 'anon-access = write\n' : 'anon-access = none\nauth-access = write\npassword-db = passwd\nrealm = osyw\n';
  writeFileSync(join(dir, 'repository', 'conf', 'svnserve.conf'), `[general]\n${settings}`);
  if (access !== true) writeFileSync(join(dir, 'repository', 'conf', 'passwd'), `[users]\n${access.user} = ${access.password}\n`);
  const child = spawnBound('/usr/bin/svnserve', ['--daemon', '--foreground', '--listen-host', '127.0.0.1', '--listen-port', String(lease.first), '--root', dir], {
    env,
    stdio: 'ignore',
  });
  await waitUntil('svnserve to listen', () => listens(lease.first));
  return {
    url: `svn://127.0.0.1:${lease.first}`,
    async stop() {
      await endChild(child);
      await lease.release();
    },
  };
}

/** Writes one file of a commit, with its directories; a path that ends in `.py` may be run. */
export function writeInto(tree: string, path: string, text: string): void {
  const file = join(tree, path);
  mkdirSync(dirname(file), {recursive: true});
  rmSync(file, {force: true});
  writeFileSync(file, text, {mode: path.endsWith('.py') ? 0o755 : 0o644});
}
