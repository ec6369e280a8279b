import {readFileSync, realpathSync, statSync} from 'node:fs';
import {join} from 'node:path';
import type {NginxConfig} from '../config/config.ts';
import {errnoOf} from '../errors.ts';
import type {ConfigFile} from '../nginx/effective-config.ts';
import {shellWord} from '../service/quoting.ts';
import {runCommand} from '../support/run-command.ts';
import {formatDuration} from '../support/durations.ts';
import {SYSTEM_PATH} from '../support/system-path.ts';
import type {NginxChild, NginxMaster} from '../upstream/nginx-master.ts';
import {accountIdOf, processStat, readProcLink, TICKS_PER_SECOND} from '../workers/process-identity.ts';
import {counted, type Finding} from './finding.ts';
import {settingIn, valuesIn, type Scope} from './nginx-scopes.ts';

const COMMAND_MS = 10_000;
/** nginx starts its new workers some milliseconds after the file was renamed into place; a deploy may be at it just now. */
const SAME_MOMENT_MS = 1000;

/** `[1, 22, 1]`, of the nginx that runs, be it that its file was replaced since. Undefined when it does not say. */
export async function runningVersion(master: NginxMaster, signal: AbortSignal): Promise<readonly number[] | undefined> {
  return await versionOf(`/proc/${master.process.pid}/exe`, signal) ?? versionOf(master.binary, signal);
}

/** Of a program. Forks such as OpenResty begin with nginx's own. */
export async function versionOf(binary: string, signal: AbortSignal): Promise<readonly number[] | undefined> {
  const {stderr} = await runCommand({file: binary, args: ['-v']}, {env: {PATH: SYSTEM_PATH, LC_ALL: 'C.UTF-8'}, cwd: '/', timeoutMs: COMMAND_MS, signal});
  const [, major, minor, patch] = /^nginx version: [\w.-]+\/(\d+)\.(\d+)\.(\d+)/m.exec(stderr) ?? [];
  return major === undefined ? undefined : [major, minor, patch].map(Number);
}

/** Whether a version is `wanted` or newer. */
export function atLeast(version: readonly number[], wanted: readonly number[]): boolean {
  const differing = wanted.findIndex((part, i) => part !== version[i]);
  return differing === -1 || (version[differing] ?? 0) > (wanted[differing] ?? 0);
}

/** Which nginx runs, and whether it is the one that is installed. */
export function whichNginx(master: NginxMaster, version: readonly number[] | undefined, workers: readonly NginxChild[]): Finding {
  const check = 'nginx-running';
  const {pid} = master.process;
  const says = `nginx ${version?.join('.') ?? 'of an unknown version'} runs, master pid ${pid}, ${counted(workers.filter(({title}) => title === 'worker').length, 'worker')}`;
  if (readProcLink(`/proc/${pid}/exe`)?.endsWith(' (deleted)') !== true) return {check, level: 'ok', says, place: master.binary};
  return {
    check, level: 'warning', place: master.binary, says: `${says}; its program was replaced since it was started`,
    means: 'a deploy tests the configuration with the program that is installed, and the one that runs loads it: they may not agree', mend: 'systemctl restart nginx',
  };
}

/** Whether the workers that accept are of after the last change of each file. `namesServing`: the upstream file names the very ports that serve, whatever else was changed in it. */
export function isLoaded(files: readonly {readonly path: string}[], workers: readonly NginxChild[], {master, file, namesServing}: {master: NginxMaster; file: string; namesServing: boolean}, now = Date.now()): Finding[] {
  const check = 'nginx-loaded';
  const starts = workers.filter(({title}) => title === 'worker').map(({process}) => startedAt(process.startTime, now));
  if (starts.length === 0) return [];
  const oldest = Math.min(...starts);
  const newer = files.flatMap(({path}) => {
    const changed = mtimeOf(path);
    return changed === undefined || changed <= oldest + SAME_MOMENT_MS ? [] : [{path, changed}];
  });
  if (newer.length === 0) return [{check, level: 'ok', says: `nginx's workers are younger than all ${counted(files.length, 'file')} of its configuration`}];
  return newer.map(({path, changed}) => {
    const ours = realPath(path) === file && !namesServing;
    return {
      check, level: ours ? 'problem' as const : 'warning' as const, place: path,
      says: `${path} was changed ${formatDuration(changed - oldest)} after nginx's workers were started`,
      means: ours ? 'nginx sends requests to other ports than the file says; the next reload by anybody loads it' : 'the next reload, that of a deploy perhaps, loads a change that was never tried',
      mend: `${nginxLine(master, '-t')} && ${nginxLine(master, '-s', 'reload')}`,
    };
  });
}

function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path; // Gone since nginx read it: it is then only equal to itself.
  }
}

/** Clock time of a process's start, by our own: what /proc/uptime says in a container may be another machine's. */
function startedAt(startTime: number, now: number): number {
  const own = processStat(process.pid)?.startTime ?? 0;
  return now - performance.now() + (startTime - own) * 1000 / TICKS_PER_SECOND;
}

function mtimeOf(path: string): number | undefined {
  try {
    return statSync(path).mtimeMs;
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
    return undefined; // Gone since nginx read it, or not ours to see.
  }
}

/** A line for a shell that addresses this very nginx: its program, and the main file and prefix that it was started with. */
export function nginxLine({binary, args}: NginxMaster, ...asked: readonly string[]): string {
  return [binary, ...asked, ...args].map(shellWord).join(' ');
}

/** Whether each worker may open as many files as connections, and the machine as many for two generations of workers. `proc` is /proc. */
export function connectionLimits(scopes: readonly Scope[], workers: readonly NginxChild[], proc: string): Finding[] {
  const events = scopes.find(({name}) => name === 'events');
  const connections = Number(valuesIn(events, 'worker_connections')?.[0] ?? 512);
  const accepting = workers.filter(({title}) => title === 'worker');
  const leaving = workers.filter(({title}) => title === 'shutting down').length;
  const [first] = accepting;
  const limit = first === undefined ? undefined : openFilesLimit(first.process.pid, proc);
  const place = settingIn(events, 'worker_connections')?.file ?? scopes[0]?.settings[0]?.file;
  const found: Finding[] = [];
  const check = 'nginx-open-files';
  if (limit !== undefined && limit < connections) {
    found.push({
      check, level: 'warning', says: `each nginx worker may open ${limit} files, and worker_connections is ${connections}`,
      means: 'a proxied request takes two connections; at the limit nginx refuses clients ("Too many open files"), the sooner as the workers of before a reload keep theirs until they have drained',
      mend: `worker_rlimit_nofile ${connections * 2};`, ...(place === undefined ? {} : {place}),
    });
  } else if (limit !== undefined) {
    found.push({check, level: 'ok', says: `each nginx worker may open ${limit} files for ${connections} connections`});
  }
  const [used, , most] = readFileSync(join(proc, 'sys/fs/file-nr'), 'utf8').trim().split(/\s+/).map(Number);
  const twice = accepting.length * connections * 2;
  if (used !== undefined && most !== undefined && used + twice > most) {
    found.push({
      check: 'open-files', level: 'warning', says: `the machine may open ${most} files, has ${used} open, and two generations of nginx workers can take ${twice} more`,
      means: 'while the workers of before a reload drain there are two generations of them; at the limit every program of the machine fails',
      mend: `sysctl -w fs.file-max=${2 ** Math.ceil(Math.log2(used + twice))}`,
    });
  }
  if (leaving > 0) found.push({check: 'nginx-lingering', level: 'note', says: `${counted(leaving, 'nginx worker')} of before a reload ${leaving === 1 ? 'is' : 'are'} still there, for connections that do not end`, means: 'each holds its memory and up to worker_connections connections'});
  return found;
}

/** Undefined when it is not ours to see, or there is none. Source: proc(5), limits. */
function openFilesLimit(pid: number, proc: string): number | undefined {
  try {
    const soft = /^Max open files\s+(\d+)/m.exec(readFileSync(join(proc, String(pid), 'limits'), 'utf8'))?.[1];
    return soft === undefined ? undefined : Number(soft);
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
    return undefined;
  }
}

/** The account that nginx's master runs as. */
export function masterUid(master: NginxMaster): number {
  return accountIdOf(master.process.pid) ?? 0;
}

/** An nginx that nobody configured: the one of the distribution, for a look at the machine alone. */
export const USUAL_NGINX: NginxConfig = {upstream: '', file: '', server: {}, directives: [], binary: '/usr/sbin/nginx', conf: undefined, prefix: undefined, probe: undefined, reload: undefined};

/** The files whose text we cannot read, though nginx takes it: what they say is not looked at. */
export function unreadFiles(files: readonly ConfigFile[]): Finding[] {
  return files.flatMap(({path, fault}) => fault === undefined ? [] : [{check: 'nginx-config-read', level: 'note' as const, says: `${path} cannot be read here as nginx reads it: ${fault}`, means: 'what it says is not looked at', place: path}]);
}
