import {spawn} from 'node:child_process';
import {randomBytes} from 'node:crypto';
import {closeSync, unlinkSync} from 'node:fs';
import type {ProcessWorkers} from '../config/config.ts';
import type {ProcessIdentity, Release, Worker} from '../deploy/deployment.ts';
import {DeployError, errnoOf} from '../errors.ts';
import {readRegularFile} from '../config/regular-file.ts';
import {ignoreMissing} from '../state/atomic-file.ts';
import {findAccount} from '../support/accounts.ts';
import {asUser} from '../support/as-user.ts';
import {tellChildDeath} from './child-deaths.ts';
import {listenersOn, ownerAmong} from './listeners.ts';
import {accountIdOf, bootId, hasEnvironmentLine, isAlive, processStat} from './process-identity.ts';
import {UNIT_MARK} from './unit-name.ts';
import {fillIn, workerEnvironment} from './worker-environment.ts';
import {lastLines, openWorkerLog, type WorkerOutput} from './worker-log.ts';
import {WORKER_MARK, markedProcesses} from './worker-tree.ts';

export interface WorkerPlan {
  readonly slot: number;
  readonly port: number;
  readonly id: string;
}

export type WorkerLife =
  | {readonly kind: 'starting'}
  | {readonly kind: 'running'; readonly process: ProcessIdentity}
  | {readonly kind: 'ended'; readonly how: string};

/** A worker that we started in this run of the deployer; it lives on without us. */
export interface LaunchedWorker extends WorkerPlan {
  readonly output: WorkerOutput;
  /** How it stands at this instant. */
  life(): WorkerLife;
  /** As it is recorded; `process` is what we started, until the daemon it became is known. */
  worker(): Worker;
  /** The one listener that is called when the started process ends; never when it has ended already. */
  onEnd(listener: () => void): void;
}

/** A fresh mark for a worker: nobody else can know it, so whoever carries it is ours. It says by itself whether the worker is a unit. */
export function newWorkerId(app: string, deploy: string, slot: number, runner: 'process' | 'systemd'): string {
  return `${app}/${deploy}/${slot}/${runner === 'systemd' ? UNIT_MARK : ''}${randomBytes(6).toString('hex')}`;
}

/** How long a daemon may stay out of sight before its pid file is written: it has no mark when it overwrote its environment. */
const DAEMON_OUT_OF_SIGHT_MS = 2000;
const MOST_PID_FILE_BYTES = 64;

/**
 * Starts one worker, detached for good: a session of its own, output by descriptor, nothing inherited but 0, 1 and 2.
 * Errors: START_FAILED when it cannot be started.
 */
export async function launchWorker(workers: ProcessWorkers, release: Release, plan: WorkerPlan): Promise<LaunchedWorker> {
  const account = workers.user === undefined ? undefined : findAccount(workers.user);
  const values = {port: plan.port, release: release.id, revision: release.revision};
  const pidFile = workers.pidFile === undefined ? undefined : fillIn(workers.pidFile, values);
  // A pid file of an earlier worker on this port would name a process of the past.
  if (pidFile !== undefined) ignoreMissing(() => unlinkSync(pidFile));
  const [file = '', ...args] = workers.command.map(word => fillIn(word, values));
  const command = asUser({file, args}, account);
  const log = openWorkerLog(fillIn(workers.log, values), account);
  const startedAt = new Date().toISOString();
  const child = spawn(command.file, command.args, {
    cwd: release.dir,
    env: workerEnvironment(workers, values, plan.id, account),
    detached: true,
    stdio: ['ignore', log.fd, log.fd],
  });
  closeSync(log.fd);
  if (child.pid === undefined) {
    const error = await new Promise<Error>(resolve => child.once('error', resolve));
    throw new DeployError('START_FAILED', `worker on port ${plan.port}: cannot run ${file}: ${errnoOf(error) ?? error.message}`,
      {hint: `Is \`workers.command\` right? It runs in ${release.dir}.`, cause: error});
  }
  child.unref();
  const launcher: ProcessIdentity = {pid: child.pid, startTime: processStat(child.pid)?.startTime ?? 0, bootId: bootId()};

  const launched = performance.now();
  let ended: {code: number | null; signal: string | null; at: number} | undefined;
  let onEnd: (() => void) | undefined;
  child.once('exit', (code, signal) => {
    ended = {code, signal, at: performance.now()};
    onEnd?.();
    tellChildDeath();
  });

  let daemon: ProcessIdentity | undefined;
  const findDaemon = (): ProcessIdentity | undefined => {
    if (pidFile === undefined) return undefined;
    const read = readRegularFile(pidFile, MOST_PID_FILE_BYTES);
    const pid = Number(read.kind === 'read' ? read.bytes.toString('latin1').trim() : NaN);
    if (!Number.isSafeInteger(pid) || pid <= 1 || pid === process.pid) return undefined;
    const stat = processStat(pid);
    // The pid file is a hint, and the worker's account may have written anything: only what carries the mark is the worker,
    // or, where it overwrote its environment, what began after our launcher under its account and listens on the leased port.
    if (stat === undefined || stat.startTime < launcher.startTime) return undefined;
    const named = {pid, startTime: stat.startTime, bootId: bootId()};
    const isOurs = hasEnvironmentLine(pid, `${WORKER_MARK}=${plan.id}`)
      || (accountIdOf(pid) === (account?.uid ?? process.getuid?.()) && listenersOn(workers.host, plan.port).some(({inode}) => ownerAmong([named], inode) !== undefined));
    return isOurs ? named : undefined;
  };

  const life = (): WorkerLife => {
    if (ended === undefined) {
      if (pidFile === undefined) return {kind: 'running', process: launcher};
      daemon ??= findDaemon();
      if (daemon !== undefined && isAlive(daemon)) return {kind: 'running', process: daemon};
      // It may be about to become a daemon; after a while it is one that stays in the foreground.
      return performance.now() - launched < DAEMON_OUT_OF_SIGHT_MS ? {kind: 'starting'} : {kind: 'running', process: launcher};
    }
    if (ended.signal !== null) return {kind: 'ended', how: `was ended by ${ended.signal}`};
    if (ended.code !== 0 || pidFile === undefined) {
      const remedy = ended.code === 0 ? ' (an application that turns itself into a daemon needs `workers.pid_file`)' : '';
      return {kind: 'ended', how: `exited with ${ended.code}${remedy}`};
    }
    daemon ??= findDaemon();
    if (daemon !== undefined) return isAlive(daemon) ? {kind: 'running', process: daemon} : {kind: 'ended', how: 'became a daemon that ended'};
    if (markedProcesses(plan.id).length > 0 || performance.now() - ended.at < DAEMON_OUT_OF_SIGHT_MS) return {kind: 'starting'};
    return {kind: 'ended', how: `exited with 0 and left no process and no pid file ${pidFile}`};
  };

  return {
    ...plan,
    output: {place: log.path, lastLines: count => Promise.resolve(lastLines(log.path, log.offset, count))},
    life,
    worker: () => ({slot: plan.slot, port: plan.port, id: plan.id, process: daemon ?? launcher, startedAt}),
    onEnd: listener => {
      if (ended === undefined) onEnd = listener;
    },
  };
}
