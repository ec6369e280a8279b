import {readFileSync, realpathSync} from 'node:fs';
import {join} from 'node:path';
import type {Config} from '../config/config.ts';
import {DeployError, errnoOf} from '../errors.ts';
import {shellWord} from '../service/quoting.ts';
import {readHolder} from '../state/deploy-lock.ts';
import type {Identity} from '../support/accounts.ts';
import {runCommand} from '../support/run-command.ts';
import {SYSTEM_PATH} from '../support/system-path.ts';
import {systemdRuns} from '../support/systemd.ts';
import {findRepository, type HookedRepository} from '../trigger/find-repository.ts';
import {hookStatus, isOutdated, onlyDelays, sudoersIn, type HookStatus} from '../trigger/hook-status.ts';
import {hookedApplication, lookAtHooks} from '../trigger/install-hook.ts';
import {rememberedOptions} from '../trigger/install-options.ts';
import {allPids, isAlive, readProcFile} from '../workers/process-identity.ts';
import {counted, type Finding} from './finding.ts';

const COMMAND_MS = 10_000;
/** The oldest Node that runs us: `engines` in package.json, which a test compares. */
export const OLDEST_NODE = [20, 19] as const;

/** The hook as `hook status` sees it, the node that it calls, and what its children live in. */
export async function hookFindings(config: Config, deployer: Identity, {hookScript, cwd, signal}: {hookScript: string; cwd: string; signal: AbortSignal}): Promise<Finding[]> {
  let repository: HookedRepository;
  const install = installCommand(config.file);
  try {
    repository = await findRepository(config.source, {repository: rememberedOptions(config.stateDir).repository, cwd, signal});
  } catch (error) {
    if (!(error instanceof DeployError)) throw error;
    return [{check: 'hook', level: 'note', says: `the repository's hooks cannot be looked at: ${error.message}`, means: 'a commit deploys itself only by a hook of its repository, a webhook or a poll', mend: `${install} --repository PATH`}];
  }
  const wanted = hookedApplication(config, deployer, {umask: '077', node: process.execPath, script: realpathSync(process.argv[1] ?? '')});
  const status = await hookStatus(repository, hookScript, wanted, signal);
  if (status.hooks.every(({state}) => state === 'not_installed')) {
    return [{check: 'hook', level: 'note', place: repository.path, says: `no hook of ${repository.path} is ours`, means: 'a commit does not deploy itself, but for `watch.poll` and a webhook', mend: install}];
  }
  const lines = lookAtHooks(repository, hookScript).flatMap(({text}) => text.kind === 'ours' ? text.applications.filter(({stateDir}) => stateDir === config.stateDir) : []);
  const nodes = await Promise.all([...new Set(lines.map(({node}) => node))].map(node => hookNode(node, install, signal)));
  const watching = readHolder(join(config.stateDir, 'watching'))?.process;
  const serving = systemdRuns() ? allPids().flatMap(pid => servesCommits(pid) ? unitIn(`/proc/${pid}/cgroup`) ?? [] : []) : [];
  return [...judgeHook(status, config.file), ...nodes, cgroupOfHooks(status.accounts, {systemd: systemdRuns(), watched: watching !== undefined && isAlive(watching), units: [...new Set(serving)]})];
}

function installCommand(config: string): string {
  return `osyw-deploy hook install --config ${shellWord(config)}`;
}

/** What runs the hooks of others, as it calls itself. */
function servesCommits(pid: number): boolean {
  return /^(?:svnserve|sshd|apache2|httpd|git-daemon|git-http-backend)$/.test(readProcFile(`/proc/${pid}/comm`)?.toString('utf8').trim() ?? '');
}

/** Whether a deploy that a hook starts, and the workers of it, would be ended with the service that ran the hook. `units`: those that serve commits here. */
export function cgroupOfHooks(accounts: HookStatus['accounts'], {systemd, watched, units}: {systemd: boolean; watched: boolean; units: readonly string[]}): Finding {
  const check = 'hook-cgroup';
  const starting = accounts.filter(({account, starts}) => starts && account !== 'root').map(({account}) => account);
  if (!systemd) return {check, level: 'ok', says: 'systemd does not run here: no service ends what a hook started'};
  if (watched) return {check, level: 'ok', says: 'a watch runs: what a hook asks for is started there'};
  if (starting.length === 0) return {check, level: 'ok', says: "no hook but root's starts a deploy, and that gets a scope of its own"};
  return {
    check, level: 'warning', says: `a hook of ${starting.join(', ')} starts the deploy in the cgroup of what ran the hook${units.length === 0 ? '' : ` (here: ${units.join(', ')})`}`,
    means: 'when that service is stopped or restarted, systemd ends the workers with it. A watch that runs as a service of its own deploys in the hook\'s place', mend: 'osyw-deploy service install --enable',
  };
}

/** One finding for each problem of the hook; who runs it and what that account reaches. */
export function judgeHook({hooks, problems, accounts, repository}: HookStatus, config: string): Finding[] {
  const install = installCommand(config);
  const places = hooks.map(({file}) => file).join(', ');
  const who = accounts.map(({account, files, starts}) => `${account} ${files ? 'can file requests' : 'cannot file requests'} and ${starts ? 'starts the deploy at once' : 'does not start the deploy'}`).join('; ');
  if (problems.length === 0) return [{check: 'hook', level: 'ok', says: `commits to ${repository.path} ask for a deploy: ${who}`, place: places}];
  return problems.map((problem): Finding => {
    const line = sudoersIn(problem);
    const says = problem.replace(/ To let it, put this line.*$/s, '');
    if (onlyDelays(problem)) return {check: 'hook-starts', level: 'warning', place: places, says, means: 'a commit of that account is deployed with the next one, or when somebody asks', mend: line ?? `* * * * * osyw-deploy now --requested --quiet --config ${shellWord(config)}`};
    return {check: 'hook', level: isOutdated(problem) ? 'warning' : 'problem', place: places, says, means: isOutdated(problem) ? 'it may do what was wanted once, and not what is now' : 'a commit does not deploy itself', mend: install};
  });
}

/** Whether the node that a hook calls is there, and new enough. */
export async function hookNode(node: string, install: string, signal: AbortSignal): Promise<Finding> {
  const check = 'hook-node';
  const {exitCode, stdout, spawnError} = await runCommand({file: node, args: ['--version']}, {env: {PATH: SYSTEM_PATH, LC_ALL: 'C.UTF-8'}, cwd: '/', timeoutMs: COMMAND_MS, signal});
  const [, major, minor] = /^v(\d+)\.(\d+)\./.exec(stdout) ?? [];
  const oldest = OLDEST_NODE.join('.');
  const broken = {check, level: 'problem' as const, place: node, means: 'the hook files its request, and nobody deploys it', mend: install};
  if (exitCode !== 0 || major === undefined) return {...broken, says: `${node}, which the hook calls, does not run (${spawnError ?? `exit ${exitCode ?? 'by a signal'}`})`};
  if (Number(major) < OLDEST_NODE[0] || (Number(major) === OLDEST_NODE[0] && Number(minor) < OLDEST_NODE[1])) return {...broken, says: `${node}, which the hook calls, is ${stdout.trim()}; at least ${oldest} is needed`};
  return {check, level: 'ok', place: node, says: `the hook calls ${node}, which is ${stdout.trim()}`};
}

/**
 * Whether what serves would die with a service that is not ours: systemd ends a service's whole cgroup when it stops it, and whoever was
 * started by a hook is in that of svnserve, sshd or Apache. `pids`: the workers that serve. `proc` is /proc.
 */
export function cgroupOfWorkers(pids: readonly number[], app: string, proc: string): Finding {
  const check = 'workers-cgroup';
  const groups = new Map<string, number[]>();
  for (const pid of pids) {
    const group = unitIn(join(proc, String(pid), 'cgroup'));
    if (group !== undefined) groups.set(group, [...groups.get(group) ?? [], pid]);
  }
  const foreign = [...groups].filter(([unit]) => !unit.startsWith(`osyw-deploy-${app}.`) && !unit.startsWith(`osyw-${app}-`) && !unit.startsWith('run-'));
  if (foreign.length === 0) return {check, level: 'ok', says: groups.size === 0 ? 'the workers are in no unit of systemd' : `the workers are in ${[...groups.keys()].join(', ')}`};
  // A session's end kills nobody by itself (KillUserProcesses=no); a service's does.
  const session = foreign.every(([unit]) => /^(?:session-|user@)/.test(unit));
  return {
    check, level: session ? 'warning' : 'problem', says: foreign.map(([unit, members]) => `${counted(members.length, 'worker')} (pid ${members.join(', ')}) in the cgroup of ${unit}`).join('; '),
    means: `whoever ${session ? 'ends that session (`loginctl terminate-session`, or a logout with KillUserProcesses=yes)' : 'stops or restarts that'} ends the workers with it: every request fails from that moment on. With a service the workers are in a unit of ours, which leaves them alone`, mend: 'osyw-deploy service install --enable\nosyw-deploy restart',
  };
}

/** `svnserve.service`, `session-4.scope`; undefined outside of any. Source: cgroups(7), /proc/PID/cgroup; systemd.io/CGROUP_DELEGATION. */
function unitIn(file: string): string | undefined {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
    return undefined; // It ended, or is not ours to see.
  }
  const path = /^0::(.+)$/m.exec(text)?.[1] ?? '';
  const inSystemd = /^\d+:name=systemd:(.+)$/m.exec(text)?.[1] ?? '';
  return [path, inSystemd].map(one => one.split('/').findLast(part => /\.(?:service|scope)$/.test(part))).find(unit => unit !== undefined);
}
