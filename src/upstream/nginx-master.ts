import {realpathSync} from 'node:fs';
import {isAbsolute, join} from 'node:path';
import type {NginxConfig} from '../config/config.ts';
import type {ProcessIdentity} from '../deploy/deployment.ts';
import {DeployError} from '../errors.ts';
import type {Command} from '../support/run-command.ts';
import {runCommand} from '../support/run-command.ts';
import {accountIdOf, allPids, childrenOf, commandLine, identify, isDead, processStat, readProcFile, readProcLink} from '../workers/process-identity.ts';

/** The running nginx that the configuration means, proved through /proc; its pid file is not asked. */
export interface NginxMaster {
  readonly process: ProcessIdentity;
  readonly binary: string;
  /** As the master was started: `-c`, `-p`, `-g`, `-e` with their values. */
  readonly args: readonly string[];
}

export interface NginxChild {
  readonly process: ProcessIdentity;
  /** `untitled` is a fork that still shows the master's title; `other` a cache manager or the like. */
  readonly title: 'worker' | 'shutting down' | 'untitled' | 'other';
}

/** What of the configuration says which nginx is meant. */
export type NginxPlace = Pick<NginxConfig, 'binary' | 'conf' | 'prefix'>;

const MASTER_TITLE = 'nginx: master process ';
/** Where the running one does not show its own. */
const USUAL_BINARY = '/usr/sbin/nginx';

/**
 * Finds the master by its title, account, binary and main file.
 * Errors: SWITCH_REFUSED when none runs, when several would fit, or in the middle of a binary upgrade.
 */
export async function findMaster(nginx: NginxPlace): Promise<NginxMaster> {
  const {fitting, others} = await findMasters(nginx);
  const [found, second] = fitting;
  const which = [nginx.binary, ...mainArgs(nginx)].join(' ');
  if (found === undefined) {
    const running = others.length === 0 ? '' : ` (running with another main file: ${others.map(({process: {pid}, args}) => `pid ${pid} ${args.join(' ')}`).join('; ')})`;
    throw new DeployError('SWITCH_REFUSED', `nginx is not running: no master process of ${which}${running}`,
      {hint: 'Start nginx, or say in `nginx.binary`, `nginx.conf` and `nginx.prefix` which one is meant.'});
  }
  if (second !== undefined) {
    throw new DeployError('SWITCH_REFUSED', `several nginx masters run as ${which}: pids ${fitting.map(({process: {pid}}) => pid).join(', ')}`,
      {hint: 'Say in `nginx.conf` which main file is meant.'});
  }
  const successor = nginxChildren(found).find(({process: {pid}, title}) => title === 'untitled' && childrenOf(pid).length > 0);
  if (successor !== undefined) {
    throw new DeployError('SWITCH_REFUSED', `nginx is in the middle of a binary upgrade: masters ${found.process.pid} and ${successor.process.pid}`,
      {hint: `End it first: \`kill -QUIT ${found.process.pid}\` keeps the new binary.`});
  }
  return found;
}

/** Every master that the configuration could mean, and those of the same binary with another main file. */
export async function findMasters(nginx: NginxPlace): Promise<{fitting: NginxMaster[]; others: NginxMaster[]}> {
  const binary = realPath(nginx.binary);
  const running = allPids().flatMap(pid => masterAt(pid) ?? []).filter(master => master.binary === undefined || realPath(master.binary) === binary);
  const wanted = await mainFile(nginx);
  const [exact, cutOff, others]: [NginxMaster[], NginxMaster[], NginxMaster[]] = [[], [], []];
  for (const {process, binary: path = nginx.binary, args, trusted} of running) {
    const master = {process, binary: path, args};
    const file = wanted === undefined ? undefined : await mainFileOf(args, nginx);
    // Anybody can give a process a master's title: without root's account or ours it counts for the very file that is configured, and its words for nothing.
    if (file === undefined || wanted === undefined) (trusted ? exact : others).push(master);
    else if (realPath(file) === realPath(wanted)) exact.push(trusted ? master : {...master, args: mainArgs(nginx)});
    // A title has no more room than arguments and environment had at the start, so its end may be cut off.
    else if (trusted && args.at(-2) === '-c' && wanted.startsWith(file)) cutOff.push({...master, args: mainArgs(nginx)});
    else others.push(master);
  }
  return {fitting: exact.length > 0 ? exact : cutOff, others};
}

/** Every nginx that runs here under root's account or ours, with its main file. */
export function runningMasters(): Promise<{master: NginxMaster; mainFile: string}[]> {
  const running = allPids().flatMap(pid => masterAt(pid) ?? []).filter(({trusted}) => trusted);
  return Promise.all(running.map(async ({process, binary = USUAL_BINARY, args}) => ({master: {process, binary, args}, mainFile: await mainFileOf(args, {binary})})));
}

/** The children of the master that live now. Those that end at this moment may or may not be among them. */
export function nginxChildren(master: NginxMaster): NginxChild[] {
  return childrenOf(master.process.pid).flatMap(pid => {
    const child = identify(pid);
    const title = titleOf(pid);
    return child === undefined || title === undefined ? [] : [{process: child, title}];
  });
}

/**
 * Workers that serve on without a master, because it was killed; only asked for where none runs. `known` are those with the old configuration.
 * Errors: STATE_UNCERTAIN when there are others: nobody can tell what those have loaded.
 */
export function orphansAmong(known: readonly ProcessIdentity[]): ProcessIdentity[] {
  const orphans = allPids().flatMap(pid => titleOf(pid) === 'worker' && !hasMaster(pid) ? identify(pid) ?? [] : []);
  const others = orphans.filter(({pid, startTime}) => !known.some(one => one.pid === pid && one.startTime === startTime));
  if (others.length > 0) {
    const pids = others.map(({pid}) => pid).join(' ');
    throw new DeployError('STATE_UNCERTAIN', `nginx's master is dead, and workers of it serve on with what they have loaded, the old configuration or the new: pids ${pids}`,
      {hint: `Nothing was stopped. End them with \`kill -QUIT ${pids}\`, start nginx, then run \`osyw-deploy recover\`.`});
  }
  return orphans;
}

function hasMaster(pid: number): boolean {
  return (commandLine(processStat(pid)?.ppid ?? 0)[0] ?? '').startsWith(MASTER_TITLE);
}

/** Undefined for a process that is gone or has an empty command line, as a zombie has. */
export function titleOf(pid: number): NginxChild['title'] | undefined {
  const [line] = commandLine(pid);
  if (line === undefined) return undefined;
  if (line === 'nginx: worker process') return 'worker';
  if (line === 'nginx: worker process is shutting down') return 'shutting down';
  return line.startsWith('nginx: master process') ? 'untitled' : 'other';
}

/** A test of the whole configuration as the running master would read it, or one that is started; `-T` also prints every file that it reads. */
export function testCommand(master: Pick<NginxMaster, 'binary' | 'args'> | undefined, nginx: NginxPlace): Command {
  const args = master === undefined || master.args.length === 0 ? mainArgs(nginx) : master.args;
  return {file: master?.binary ?? nginx.binary, args: ['-T', '-q', ...args]};
}

function mainArgs(nginx: NginxPlace): string[] {
  return [...(nginx.conf === undefined ? [] : ['-c', nginx.conf]), ...(nginx.prefix === undefined ? [] : ['-p', nginx.prefix])];
}

function masterAt(pid: number): {process: ProcessIdentity; binary: string | undefined; args: string[]; trusted: boolean} | undefined {
  const [title] = commandLine(pid);
  if (title === undefined || !title.startsWith(MASTER_TITLE)) return undefined;
  const stat = processStat(pid);
  const self = identify(pid);
  if (stat === undefined || isDead(stat) || self === undefined) return undefined;
  const owner = accountIdOf(pid);
  // A fork that has no title yet looks like a master; its parent is one.
  if ((commandLine(stat.ppid)[0] ?? '').startsWith(MASTER_TITLE)) return undefined;
  return {
    process: self,
    // Undefined when we may not look; a binary that was replaced since the start shows as deleted.
    binary: readProcLink(`/proc/${pid}/exe`)?.replace(/ \(deleted\)$/, ''),
    args: parseTitle(title.slice(MASTER_TITLE.length)),
    trusted: owner === 0 || owner === process.getuid?.(),
  };
}

/** The title holds the arguments joined by blanks; only `-g` has blanks within. Source: ngx_process_cycle.c, ngx_setproctitle. */
export function parseTitle(text: string): string[] {
  const args: string[] = [];
  const words = text.trim().split(' ').slice(1);
  for (let i = 0; i < words.length; i++) {
    const [, flag, attached] = /^(-[cpge])(.*)$/.exec(words[i] ?? '') ?? [];
    if (flag === undefined || attached === undefined) continue;
    const value = attached === '' ? [] : [attached];
    while (i + 1 < words.length && (value.length === 0 || (flag === '-g' && !/^-[cpe]$/.test(words[i + 1] ?? '')))) value.push(words[++i] ?? '');
    args.push(flag, value.join(' '));
  }
  return args;
}

/** The main file that the configuration means; undefined when it leaves that to the only nginx that runs. */
async function mainFile(nginx: NginxPlace): Promise<string | undefined> {
  if (nginx.conf === undefined && nginx.prefix === undefined) return undefined;
  return mainFileOf(mainArgs(nginx), nginx);
}

async function mainFileOf(args: readonly string[], nginx: Pick<NginxPlace, 'binary'>): Promise<string> {
  const value = (flag: string) => args[args.indexOf(flag) + 1];
  const conf = args.includes('-c') ? value('-c') : undefined;
  if (conf !== undefined && isAbsolute(conf)) return conf;
  const prefix = args.includes('-p') ? value('-p') : undefined;
  const built = prefix !== undefined && conf !== undefined ? undefined : await builtWith(nginx.binary);
  return join('/', prefix ?? built?.prefix ?? '/etc/nginx', conf ?? built?.conf ?? 'nginx.conf');
}

/** What the binary was built with. With a prefix of its own, a main file below the built-in prefix moves along. */
async function builtWith(binary: string): Promise<BuiltWith> {
  let known = builds.get(binary);
  if (known === undefined) {
    const {stderr} = await runCommand({file: binary, args: ['-V']}, {env: {LC_ALL: 'C.UTF-8'}, timeoutMs: 10_000});
    const option = (name: string) => new RegExp(`--${name}=(\\S+)`).exec(stderr)?.[1];
    known = {conf: option('conf-path'), prefix: option('prefix')};
    builds.set(binary, known);
  }
  return known;
}

interface BuiltWith {
  readonly conf: string | undefined;
  readonly prefix: string | undefined;
}
const builds = new Map<string, BuiltWith>();

function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path; // Not there, or not ours to follow: it is then only equal to itself.
  }
}

/** Whether a HUP is still waiting to be handled. World-readable. Source: proc(5), ShdPnd and SigPnd, bit 0 is SIGHUP. */
export function hasPendingHup(master: NginxMaster): boolean {
  const status = readProcFile(`/proc/${master.process.pid}/status`)?.toString('latin1') ?? '';
  return [/^SigPnd:\s*([0-9a-f]+)/m, /^ShdPnd:\s*([0-9a-f]+)/m].some(pattern => (BigInt(`0x${pattern.exec(status)?.[1] ?? '0'}`) & 1n) === 1n);
}

/** rt_sigsuspend by architecture: the master waits for signals in it. Source: the kernel's syscall tables. */
const SIGSUSPEND: Readonly<Record<string, string>> = {x64: '130', arm64: '133'};

/** Whether the master waits for a signal; undefined when we may not see, or when it is between two system calls. */
export function isIdle(master: NginxMaster): boolean | undefined {
  const text = readProcFile(`/proc/${master.process.pid}/syscall`)?.toString('latin1');
  const number = SIGSUSPEND[process.arch];
  return text === undefined || number === undefined ? undefined : text.split(' ')[0] === number;
}
