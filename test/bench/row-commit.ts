import {spawnSync} from 'node:child_process';
import {existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {processesOf} from '../support/leftovers.ts';
import {scrubbedEnv} from '../support/scrubbed-env.ts';
import type {Site} from '../support/site.ts';
import {waitUntil} from '../support/wait-until.ts';
import {median, table} from './numbers.ts';
import {deployed, inRow, progress, type Row} from './rig.ts';

const ROUNDS = 30;
const TWO_SYNCS = '#!/bin/sh\nPATH=/usr/bin:/bin\n(echo x >SPOOL/.a && sync SPOOL/.a && mv SPOOL/.a SPOOL/a && sync SPOOL) </dev/null >/dev/null 2>&1\nexit 0\n';
/** `two syncs` is what no durable hook can do without: a file written, synced, renamed, its directory synced. */
const HOOKS = ['none', 'exit 0', 'two syncs', 'osyw-deploy'] as const;

/** One way to commit: in which repository its hook lies, and the command that fires it. */
interface Desk {
  readonly site: Site;
  readonly repository: string;
  readonly hooks: string;
  readonly hook: string;
  /** Makes a change that no hook runs for; returns the command that does the rest. */
  prepare(round: number): {file: string; args: readonly string[]; cwd: string};
}

/** (g) a commit's time with no hook, with one that does nothing, and with ours, turn by turn. */
export async function commit(): Promise<string> {
  const rows: string[][] = [];
  for (const [name, makeDesk] of Object.entries({'svn commit, file://': svnDesk(false), 'svn commit, svnserve': svnDesk(true), 'git push to a path': pushDesk, 'git commit in the work tree': commitDesk})) {
    progress(`(g) ${name}`);
    rows.push(await inRow(async row => {
      const took = await measure(await makeDesk(row));
      const [none = Number.NaN, trivial = Number.NaN, syncs = Number.NaN, ours = Number.NaN] = HOOKS.map(hook => median(took[hook]));
      return [name, tenths(none), `+${tenths(trivial - none)}`, `+${tenths(syncs - none)}`, `**+${tenths(ours - none)}**`, '+10 ms'];
    }));
  }
  return table(['', `no hook, median of ${ROUNDS}`, '`exit 0`', 'write, sync, rename, sync', 'ours', 'limit'], rows);
}

async function measure({site, repository, hooks, hook, prepare}: Desk): Promise<Record<(typeof HOOKS)[number], number[]>> {
  const took: Record<(typeof HOOKS)[number], number[]> = {'none': [], 'exit 0': [], 'two syncs': [], 'osyw-deploy': []};
  const [place, own] = [join(hooks, hook), join(hooks, 'of-osyw-deploy')];
  const installed = await site.run(['hook', 'install', '--repository', repository]);
  if (installed.exit !== 0) throw new Error(installed.stderr);
  renameSync(place, own);
  mkdirSync(join(site.dir, 'syncs'));
  for (let round = 0; round < ROUNDS * HOOKS.length; round++) {
    const which = HOOKS[round % HOOKS.length] ?? 'none';
    rmSync(place, {force: true});
    if (which === 'exit 0') writeFileSync(place, '#!/bin/sh\nexit 0\n', {mode: 0o755});
    if (which === 'two syncs') writeFileSync(place, TWO_SYNCS.replaceAll('SPOOL', join(site.dir, 'syncs')), {mode: 0o755});
    const {file, args, cwd} = prepare(round);
    if (which === 'osyw-deploy') renameSync(own, place);
    const began = performance.now();
    const {status, stderr} = spawnSync(file, args, {cwd, env: scrubbedEnv(site.dir, {GIT_CONFIG_GLOBAL: join(site.dir, 'git', 'gitconfig')})});
    took[which].push(performance.now() - began);
    if (status !== 0) throw new Error(`${file} ended with ${status}: ${stderr.toString()}`);
    if (which === 'osyw-deploy') {
      renameSync(place, own);
      // What the hook left behind is not the next commit's business.
      await waitUntil('the request to be answered', () => isQuiet(site), {withinMs: 30_000});
    }
  }
  return took;
}

function isQuiet(site: Site): boolean {
  return readdirSync(join(site.stateDir, 'spool')).length === 0 && !processesOf(site.dir).some(({command}) => /now --requested|flock|^sleep/.test(command));
}

// No path of these commits counts, so the request ends with the look.
const ONLY_A_LOOK = {config: {source: {paths: ['nothing/**']}}};

const svnDesk = (serve: boolean) => async (row: Row): Promise<Desk> => {
  const site = await row.site({vcs: 'svn', count: 1, svn: {serve}, ...ONLY_A_LOOK});
  deployed(await site.now());
  const desk = join(site.dir, 'desk');
  const svn = (args: readonly string[]) => spawnSync('svn', ['--non-interactive', '-q', ...args], {env: scrubbedEnv(site.dir)});
  svn(['checkout', site.svn.url, desk]);
  const {repository} = site.svn;
  return {site, repository, hooks: join(repository, 'hooks'), hook: 'post-commit', prepare: round => {
    writeFileSync(join(desk, 'VERSION'), `${round}\n`);
    if (round === 0) svn(['add', '--force', join(desk, 'VERSION')]);
    return {file: 'svn', args: ['--non-interactive', '-q', 'commit', '-m', `round ${round}`], cwd: desk};
  }};
};

const gitSite = async (row: Row): Promise<{site: Site; change(round: number): void; git(args: readonly string[]): void}> => {
  const site = await row.site({vcs: 'git', count: 1, ...ONLY_A_LOOK});
  deployed(await site.now());
  const git = (args: readonly string[]): void => {
    const {status, stderr} = spawnSync('git', args, {cwd: site.git.workingCopy, env: scrubbedEnv(site.dir, {GIT_CONFIG_GLOBAL: join(site.dir, 'git', 'gitconfig')})});
    if (status !== 0) throw new Error(stderr.toString());
  };
  git(['config', 'user.name', 'committer']);
  git(['config', 'user.email', 'committer@localhost']);
  git(['config', 'gc.auto', '0']);
  return {site, git, change: round => {
    writeFileSync(join(site.git.workingCopy, 'VERSION'), `${round}\n`);
    git(['add', 'VERSION']);
  }};
};

const pushDesk = async (row: Row): Promise<Desk> => {
  const {site, change, git} = await gitSite(row);
  const {repository, workingCopy} = site.git;
  return {site, repository, hooks: join(repository, 'hooks'), hook: 'post-receive', prepare: round => {
    change(round);
    git(['commit', '-q', '-m', `round ${round}`]);
    return {file: 'git', args: ['push', '-q', 'origin', 'HEAD:refs/heads/main'], cwd: workingCopy};
  }};
};

const commitDesk = async (row: Row): Promise<Desk> => {
  const {site, change} = await gitSite(row);
  const {workingCopy} = site.git;
  const hooks = join(workingCopy, '.git', 'hooks');
  if (!existsSync(hooks)) throw new Error(`${hooks} is not there`);
  return {site, repository: workingCopy, hooks, hook: 'post-commit', prepare: round => {
    change(round);
    return {file: 'git', args: ['commit', '-q', '-m', `round ${round}`], cwd: workingCopy};
  }};
};

function tenths(value: number): string {
  return `${value.toFixed(1)} ms`;
}
