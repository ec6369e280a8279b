import {readdirSync} from 'node:fs';
import {join} from 'node:path';
import {readRegularFile, utf8Of} from '../config/regular-file.ts';
import {runCommand} from '../support/run-command.ts';
import {systemdRuns} from '../support/systemd.ts';
import {SYSTEM_PATH} from '../support/system-path.ts';
import {commandLine, processStat, readProcFile} from '../workers/process-identity.ts';
import {descendants} from '../workers/worker-tree.ts';
import {shownProcess, type FoundWorker} from './find-workers.ts';
import {isManager, supervisorRemedy} from './starters.ts';

/** Something of before that starts or stops workers, and what ends that. */
export interface OldHand {
  /** `the unit osyw.service, which starts them again (Restart=always)` */
  readonly what: string;
  readonly remedy: string;
}

/** What a pid file says, which proves nothing. */
export interface PidFile {
  readonly path: string;
  readonly port: number;
  /** Undefined when it holds none. */
  readonly pid: number | undefined;
  /** Whether that is the process that was found by its socket. */
  readonly right: boolean;
}

const COMMAND_MS = 5000;
const MOST_PID_FILE_BYTES = 64;
const LARGEST_SCRIPT = 1 << 20;
/** Who would start or stop these processes beside us: their parents and the units of systemd that they are in. */
export async function findOldHands(workers: readonly FoundWorker[]): Promise<OldHand[]> {
  const units = await Promise.all([...new Set(workers.flatMap(({process: {pid}}) => unitAround(pid) ?? []))].map(unit => unitHand(unit, workers)));
  const parents = [...new Set(workers.map(({process: {pid}}) => processStat(pid)?.ppid ?? 0))].flatMap(pid => parentHand(pid) ?? []);
  return [...units, ...parents];
}

/** The unit of systemd that a process is in, of the system or, as `--user NAME`, of a user; undefined for a session's. */
function unitAround(pid: number): string | undefined {
  const text = readProcFile(`/proc/${pid}/cgroup`)?.toString('utf8') ?? '';
  const path = text.split('\n').flatMap(line => /^(?:0:|\d+:name=systemd):(.*)$/.exec(line)?.[1] ?? [])[0] ?? '';
  return unitIn(path);
}

/** Source: cgroups(7), systemd.slice(5). Shape: `/system.slice/osyw.service` → `osyw.service`. */
export function unitIn(path: string): string | undefined {
  const parts = path.split('/');
  const unit = parts.findLast(part => part.endsWith('.service') && !part.startsWith('user@'));
  if (unit === undefined || !/^[A-Za-z0-9:_.\\@-]{1,255}$/.test(unit) || unit.startsWith('-')) return undefined;
  return parts.some(part => part.startsWith('user@')) ? `--user ${unit}` : unit;
}

async function unitHand(unit: string, workers: readonly FoundWorker[]): Promise<OldHand> {
  const shown = unit.startsWith('--user ') ? undefined : await showUnit(unit);
  const restart = shown?.get('Restart') ?? 'no';
  const main = Number(shown?.get('MainPID') ?? 0);
  const isTheirs = shown === undefined || main === 0 || workers.some(({process}) => descendants(process).some(({pid}) => pid === main));
  const again = restart === 'no' ? '' : `, which starts them again when they end (Restart=${restart})`;
  if (!isTheirs) return {what: `the unit ${unit}, in whose control group they are: stopping or restarting it ends them, too`, remedy: `Leave ${unit} alone until the first \`osyw-deploy now\` has replaced them.`};
  return {what: `the unit ${unit}${again}`, remedy: `After the first \`osyw-deploy now\`, not before, as it stops them: \`systemctl disable --now ${unit}\``};
}

async function showUnit(unit: string): Promise<Map<string, string> | undefined> {
  if (!systemdRuns()) return undefined;
  const {exitCode, stdout} = await runCommand({file: 'systemctl', args: ['show', '--property=MainPID,Restart', '--', unit]}, {env: {PATH: SYSTEM_PATH, LC_ALL: 'C.UTF-8'}, cwd: '/', timeoutMs: COMMAND_MS});
  if (exitCode !== 0) return undefined;
  return new Map(stdout.split('\n').filter(line => line.includes('=')).map(line => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]));
}

function parentHand(pid: number): OldHand | undefined {
  const words = commandLine(pid);
  if (pid <= 1 || isManager(words)) return undefined;
  const remedy = supervisorRemedy(words);
  return {
    what: `their parent ${shownProcess(pid)}${remedy === undefined ? '; if it starts them again when they end, it has to go' : ', which starts them again when they end'}`,
    remedy: remedy === undefined ? `After the first \`osyw-deploy now\`: end ${pid}, and what starts it.` : `After the first \`osyw-deploy now\`: ${remedy}.`,
  };
}

/** Pid files of these ports: `pattern` has {port}; without one, those of /run that have the port in their names. */
export function findPidFiles(workers: readonly FoundWorker[], pattern: string | undefined): PidFile[] {
  return workers.flatMap(({port, process}) => pidFilePaths(port, pattern).flatMap(path => {
    const file = readRegularFile(path, MOST_PID_FILE_BYTES);
    if (file.kind !== 'read') return [];
    const text = file.bytes.toString('latin1').trim();
    const pid = /^\d{1,10}$/.test(text) ? Number(text) : undefined;
    return [{path, port, pid, right: pid === process.pid}];
  }));
}

function pidFilePaths(port: number, pattern: string | undefined): string[] {
  if (pattern !== undefined) return [pattern.replaceAll('{port}', String(port))];
  return namesIn('/run').filter(name => name.endsWith('.pid') && new RegExp(`(?<!\\d)${port}(?!\\d)`).test(name)).map(name => join('/run', name));
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return []; // Not ours to see: a hint less.
  }
}

/** Where a machine keeps what starts programs at a boot or by the clock. */
const SCRIPT_PLACES = ['/etc/init.d', '/etc/systemd/system', '/etc/cron.d', '/var/spool/cron/crontabs'];

/** Files in these directories that name all of these ports: scripts that most likely start and stop the workers. */
export function scriptsNaming(ports: readonly number[], places: readonly string[] = SCRIPT_PLACES): string[] {
  return places.flatMap(place => namesIn(place).map(name => join(place, name))).filter(path => {
    const file = readRegularFile(path, LARGEST_SCRIPT);
    const text = file.kind === 'read' ? file.bytes.toString('latin1') : '';
    return ports.every(port => new RegExp(`(?<!\\d)${port}(?!\\d)`).test(text));
  });
}

/** Lines of a hook that update the working copy or restart workers by themselves. What they say is not shown: it may hold a password. */
export function oldLinesIn(hook: string): number[] {
  const file = readRegularFile(hook, LARGEST_SCRIPT);
  const text = file.kind === 'read' ? utf8Of(file.bytes) ?? '' : '';
  return text.split('\n').flatMap((line, i) => /^\s*(?:#|\w+=\S*\s*$)/.test(line) || !/\b(svn\s+(?:\S+\s+)*?(?:up|update)|git\s+(?:\S+\s+)*?(?:pull|checkout|reset)|kill(?:all)?|pkill|restart|reload|init\.d|systemctl|service)\b/.test(line) ? [] : [i + 1]);
}
