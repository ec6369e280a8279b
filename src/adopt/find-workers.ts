import {readFileSync} from 'node:fs';
import type {ProcessIdentity} from '../deploy/deployment.ts';
import {DeployError, errnoOf} from '../errors.ts';
import {accountOf} from '../support/accounts.ts';
import {plainText} from '../support/plain-text.ts';
import {listeners, allListenersOn, ownerAmong, ownersOf, type Listener} from '../workers/listeners.ts';
import {commandLine, identify, processStat, readProcFile, readProcLink, TICKS_PER_SECOND} from '../workers/process-identity.ts';
import {descendants} from '../workers/worker-tree.ts';
import {isManager, supervisorRemedy} from './starters.ts';

/** The process that serves on a port, as it was found. */
export interface FoundWorker {
  readonly port: number;
  /** The topmost process of the application: it listens, or those that listen descend from it. */
  readonly process: ProcessIdentity;
  readonly uid: number;
  /** Its name, or `#1234`. */
  readonly user: string;
  /** ISO 8601. */
  readonly startedAt: string;
  /** The words of its command line; empty when it wrote over them. */
  readonly words: readonly string[];
  /** Undefined when it is not ours to see. */
  readonly executable: string | undefined;
  readonly directory: string | undefined;
  readonly environment: ReadonlyMap<string, string>;
}

/**
 * Who serves on each of these ports. Pid files are not asked: the kernel says who has the socket.
 * Errors: USAGE for a port on which nobody listens, which several programs share, whose processes we may not see or signal,
 * which live in a container, which only start others, or of which one process serves several, or others beside.
 */
export function findWorkers(host: string, ports: readonly number[]): FoundWorker[] {
  const sockets = ports.map(port => ({port, listeners: allListenersOn(host, port)}));
  const silent = sockets.filter(({listeners}) => listeners.length === 0).map(({port}) => port);
  if (silent.length > 0) {
    throw new DeployError('USAGE', `nobody listens on ${host}:${silent.join(', ')}, which the upstream names`,
      {hint: `Start what belongs there, or take ${silent.length === 1 ? 'its `server` line' : 'those `server` lines'} out and reload nginx, then adopt.`});
  }
  const owners = ownersOf(sockets.flatMap(({listeners}) => listeners.map(({inode}) => inode)));
  const found = sockets.map(({port, listeners}) => workerAt(port, listeners, owners));
  const elsewhere = listeners().filter(({port}) => !ports.includes(port));
  for (const {port, process: {pid, startTime, bootId}} of found) {
    const tree = descendants({pid, startTime, bootId});
    const within = found.find(other => other.port !== port && tree.some(one => one.pid === other.process.pid));
    if (within !== undefined) {
      throw new DeployError('USAGE', `ports ${port} and ${within.port} are served by one program: ${shownProcess(pid)}${within.process.pid === pid ? '' : `, which started ${shownProcess(within.process.pid)}`}`,
        {hint: 'Each worker must be a process of its own, which can be stopped without the others: start one program a port, then adopt.'});
    }
    const beside = elsewhere.filter(({inode}) => ownerAmong(tree, inode) !== undefined);
    if (beside.length === 0) continue;
    throw new DeployError('USAGE', `${shownProcess(pid)} serves on port ${port}, and it or what it started listens on ${beside.map(one => `${one.address}:${one.port}`).join(', ')}, too, which the upstream does not name`,
      {hint: 'The first deploy would end that as well: let another program serve there, or end it, then adopt.'});
  }
  return found;
}

function workerAt(port: number, listeners: readonly Listener[], owners: ReadonlyMap<number, readonly ProcessIdentity[]>): FoundWorker {
  const unseen = listeners.find(({inode}) => (owners.get(inode) ?? []).length === 0);
  if (unseen !== undefined) {
    throw new DeployError('USAGE', `the process that listens on port ${port} cannot be seen: it runs as ${nameOf(unseen.uid)}, or in a container`,
      {hint: 'Run it as root, or as that account: who cannot see a process cannot stop it either. What runs in a container cannot be adopted.'});
  }
  const processes = unique(listeners.flatMap(({inode}) => owners.get(inode) ?? []));
  const top = topOf(processes);
  const tree = top === undefined ? [] : descendants(top);
  const strangers = processes.filter(one => !tree.some(({pid}) => pid === one.pid));
  if (top === undefined || strangers.length > 0) {
    throw new DeployError('USAGE', `port ${port} belongs to several programs, and none of them started the others:${processes.map(({pid}) => `\n  ${shownProcess(pid)}`).join('')}`,
      {hint: 'It cannot be told which of them is the worker. End those that only hold the socket, then adopt.'});
  }
  refuseStarter(port, top);
  refuseOurselves(port, tree);
  refuseContained(port, top);
  for (const one of tree) refuseUnsignallable(port, one);
  const stat = processStat(top.pid);
  const environment = environmentOf(top.pid);
  return {
    port, process: top,
    uid: effectiveUid(top.pid),
    user: nameOf(effectiveUid(top.pid)),
    startedAt: timeOf(stat?.startTime ?? top.startTime),
    words: commandLine(top.pid),
    executable: readProcLink(`/proc/${top.pid}/exe`)?.replace(/ \(deleted\)$/, ''),
    directory: readProcLink(`/proc/${top.pid}/cwd`),
    environment,
  };
}

/**
 * The process above all of these that belongs to the application. An owner of the socket does; above it, a parent with the very same
 * command line and account (a reloader, a master that let its children open the socket). A shell, a supervisor or pid 1 do not.
 */
function topOf(processes: readonly ProcessIdentity[]): ProcessIdentity | undefined {
  const above = new Set(processes.flatMap(one => descendants(one).slice(1).map(({pid}) => pid)));
  const tops = unique(processes.filter(({pid}) => !above.has(pid)).map(climb));
  return tops.length === 1 ? tops[0] : undefined;
}

function climb(process: ProcessIdentity): ProcessIdentity {
  const parent = identify(processStat(process.pid)?.ppid ?? 0);
  if (parent === undefined || parent.pid <= 1 || effectiveUid(parent.pid) !== effectiveUid(process.pid)) return process;
  const [own, other] = [commandLine(process.pid), commandLine(parent.pid)];
  return own.length > 0 && own.length === other.length && own.every((word, i) => word === other[i]) ? climb(parent) : process;
}

function unique(processes: readonly ProcessIdentity[]): ProcessIdentity[] {
  return [...new Map(processes.map(one => [one.pid, one])).values()];
}

/** Who opens a socket and hands it to what it starts has it open, too, and stands above all that it ever started. */
function refuseStarter(port: number, {pid}: ProcessIdentity): void {
  const words = commandLine(pid);
  if (pid > 1 && !isManager(words) && supervisorRemedy(words) === undefined) return;
  throw new DeployError('USAGE', `the socket of port ${port} belongs to ${shownProcess(pid)}, which starts other programs and hands it to them`,
    {hint: 'Let the program open its port itself (no unit .socket of systemd, no cluster mode of pm2, no fcgi-program of supervisord), then adopt.'});
}

function refuseOurselves(port: number, tree: readonly ProcessIdentity[]): void {
  if (!tree.some(({pid}) => pid === process.pid)) return;
  throw new DeployError('USAGE', `this command was started by the process that serves on port ${port}, and would end with it`, {hint: 'Run it from a shell of its own.'});
}

function refuseContained(port: number, {pid}: ProcessIdentity): void {
  const [own, its] = ['/proc/self/ns/pid', `/proc/${pid}/ns/pid`].map(readProcLink);
  if (own === undefined || its === undefined || own === its) return;
  throw new DeployError('USAGE', `${shownProcess(pid)} on port ${port} lives in a container`, {hint: 'Only plain processes of this machine can be adopted.'});
}

function refuseUnsignallable(port: number, {pid}: ProcessIdentity): void {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if (errnoOf(error) !== 'EPERM') return; // It has just ended; whether what counts still lives is looked at again.
    throw new DeployError('USAGE', `${shownProcess(pid)} on port ${port} runs as ${nameOf(effectiveUid(pid))}, and this account may not stop it`, {hint: 'Run it as root, or as that account.'});
  }
}

/** `pid 4711 (python osyw.py 8811)` */
export function shownProcess(pid: number): string {
  return `pid ${pid} (${shownWords(commandLine(pid)) || 'without a command line'})`;
}

/** A command line of somebody else, on one line. */
export function shownWords(words: readonly string[]): string {
  return plainText(words.join(' ')).replace(/[\n\t]+/g, ' ').trim();
}

/** Not of the directory in /proc: that belongs to root where a process gave up an account without a new program. */
function effectiveUid(pid: number): number {
  return Number(/^Uid:\s+\d+\s+(\d+)/m.exec(readProcFile(`/proc/${pid}/status`)?.toString('latin1') ?? '')?.[1] ?? NaN);
}

function nameOf(uid: number): string {
  return accountOf(uid)?.name ?? `#${uid}`;
}

/** What it was started with; empty when it is not ours to read. */
function environmentOf(pid: number): Map<string, string> {
  const lines = readProcFile(`/proc/${pid}/environ`)?.toString('utf8').split('\0') ?? [];
  return new Map(lines.filter(line => line.includes('=')).map(line => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]));
}

/** Source: proc(5), `btime` of /proc/stat, in seconds. */
function timeOf(ticks: number): string {
  const boot = Number(/^btime (\d+)/m.exec(readFileSync('/proc/stat', 'latin1'))?.[1] ?? 0);
  return new Date(boot * 1000 + ticks / TICKS_PER_SECOND * 1000).toISOString();
}
