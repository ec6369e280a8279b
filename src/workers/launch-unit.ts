import {closeSync, unlinkSync} from 'node:fs';
import {dirname, join} from 'node:path';
import type {Config, SystemdWorkers} from '../config/config.ts';
import type {ProcessIdentity, Release} from '../deploy/deployment.ts';
import {DeployError} from '../errors.ts';
import {ignoreMissing} from '../state/atomic-file.ts';
import {findAccount, type Account} from '../support/accounts.ts';
import {runCommand} from '../support/run-command.ts';
import {environmentFileOf, writeEnvironmentFile} from './environment-file.ts';
import type {LaunchedWorker, WorkerLife, WorkerPlan} from './launch-worker.ts';
import {isAlive} from './process-identity.ts';
import {journalOf} from './unit-journal.ts';
import {unitOf} from './unit-name.ts';
import {howItEnded, unitState} from './units.ts';
import {fillIn, workerEnvironment, type Placeholders} from './worker-environment.ts';
import {isRootsAlone, lastLines, openWorkerLog, outputEnd, type WorkerOutput} from './worker-log.ts';
import {WORKER_MARK} from './worker-tree.ts';

/** How much longer than the unit itself the command that starts it may take. */
const ANSWER_MS = 5000;

/**
 * Starts one worker as a transient unit of systemd, which starts it again when it dies. Returns when systemd has run the program,
 * or with `pid_file` when the daemon is there. Errors: START_FAILED when it cannot be started, or has ended already.
 */
export async function launchUnit({app, runDir, check}: Config, workers: SystemdWorkers, release: Release, plan: WorkerPlan): Promise<LaunchedWorker> {
  const unit = unitOf(plan.id);
  if (unit === undefined) throw new TypeError(`${plan.id} is not the mark of a unit`);
  const account = workers.user === undefined ? undefined : findAccount(workers.user);
  const values = {port: plan.port, release: release.id, revision: release.revision};
  const pidFile = workers.pidFile === undefined ? undefined : fillIn(workers.pidFile, values);
  // A pid file of an earlier worker on this port would name a process of the past.
  if (pidFile !== undefined) ignoreMissing(() => unlinkSync(pidFile));
  const environment = workerEnvironment(workers, values, plan.id, account);
  const environmentFile = environmentFileOf(runDir, unit);
  writeEnvironmentFile(environmentFile, environment);
  const {output, properties: outputProperties} = outputOf(workers, values, account, unit);
  const startedAt = new Date().toISOString();
  const [file = '', ...args] = workers.command.map(word => fillIn(word, values));
  const {exitCode, stderr, spawnError, timedOut} = await runCommand({
    file: '/usr/bin/systemd-run',
    args: [
      `--unit=${unit}`, `--description=worker ${plan.slot + 1} of ${app} on port ${plan.port}, release ${release.id}`, '--quiet', '--collect', '--no-ask-password',
      ...Object.entries({
        ...defaultProperties(app, account),
        ...workers.systemd.properties,
        ...outputProperties,
        ...(workers.systemd.memoryMax === undefined ? {} : {MemoryMax: workers.systemd.memoryMax}),
        ...(workers.systemd.tasksMax === undefined ? {} : {TasksMax: String(workers.systemd.tasksMax)}),
        ...(account === undefined ? {} : {User: account.name}),
        ...(pidFile === undefined ? {Type: 'exec'} : {Type: 'forking', PIDFile: pidFile}),
        WorkingDirectory: release.dir,
        EnvironmentFile: asGlob(environmentFile),
        UnsetEnvironment: ACCOUNT_VARIABLES.filter(name => !Object.hasOwn(environment, name)).join(' '),
        TimeoutStartSec: `${check.deadlineMs}ms`,
        KillMode: 'mixed',
        KillSignal: workers.stop.signal,
        TimeoutStopSec: `${workers.stop.timeoutMs}ms`,
        Restart: 'always',
      }).map(([name, value]) => `--property=${name}=${value}`),
      '--', program(file, release.dir), ...args,
    ],
  }, {
    // The mark is for a recovery: a command that is still about to start the unit when the deployer is killed belongs to the worker.
    env: {PATH: environment['PATH'] ?? '', LC_ALL: 'C.UTF-8', [WORKER_MARK]: plan.id},
    timeoutMs: check.deadlineMs + ANSWER_MS,
  });
  const {main: process} = await unitState(unit);
  if (exitCode !== 0 || process === undefined) {
    const how = exitCode === 0 ? await howItEnded(unit) : `systemd could not start it: ${spawnError ?? (timedOut ? 'it did not answer' : stderr.trim())}`;
    throw new DeployError('START_FAILED', [`worker ${plan.slot + 1} on port ${plan.port} of release ${release.id} (${release.revision}): ${how}`, ...await outputEnd(output)].join('\n'),
      exitCode === 0 ? {} : {hint: `Are \`workers.command\` and \`workers.systemd\` right? It runs in ${release.dir}.`});
  }
  const {life, onEnd} = watchMain(unit, process);
  return {...plan, output, life, onEnd, worker: () => ({slot: plan.slot, port: plan.port, id: plan.id, process, startedAt})};
}

/** The life of the process that the unit began with: that systemd starts another in its place makes it no better while it is being checked. */
function watchMain(unit: string, process: ProcessIdentity): {life: () => WorkerLife; onEnd: (listener: () => void) => void} {
  let how: string | undefined;
  let asked = false;
  let onEnd: (() => void) | undefined;
  return {
    life: () => {
      if (how !== undefined) return {kind: 'ended', how};
      if (isAlive(process)) return {kind: 'running', process};
      if (!asked) {
        asked = true;
        void howItEnded(unit).catch(() => 'ended').then(told => {
          how = told;
          onEnd?.();
        });
      }
      return {kind: 'starting'};
    },
    onEnd: listener => {
      if (how === undefined) onEnd = listener;
    },
  };
}

/** What the configuration may say otherwise. A worker has as little power as one that we start ourselves, and a fault that stays gives systemd nothing to do for ever. */
function defaultProperties(app: string, account: Account | undefined): Record<string, string> {
  return {
    SyslogIdentifier: app,
    IgnoreSIGPIPE: 'no',
    RestartSec: '1s',
    StartLimitIntervalSec: '5min',
    StartLimitBurst: '20',
    ...(account === undefined || account.uid === 0 ? {} : {NoNewPrivileges: 'yes', CapabilityBoundingSet: ''}),
  };
}

/** What systemd adds for an account, and a worker that we start ourselves does not have. */
const ACCOUNT_VARIABLES = ['LOGNAME', 'USER', 'SHELL'] as const;

function outputOf(workers: SystemdWorkers, values: Placeholders, account: Account | undefined, unit: string): {output: WorkerOutput; properties: Record<string, string>} {
  if (workers.log === undefined) return {output: journalOf(unit), properties: {StandardOutput: 'journal', StandardError: 'inherit'}};
  const {fd, path, offset} = openWorkerLog(fillIn(workers.log, values), account);
  closeSync(fd);
  // Systemd opens it once more, as root and at each start of the worker, and follows links.
  if (account !== undefined && account.uid !== 0 && !isRootsAlone(dirname(path))) {
    throw new DeployError('START_FAILED', `the worker's log ${path} is in a directory that others than root can write, and systemd would follow a link there with root's rights`,
      {hint: `Let ${dirname(path)} belong to root and be writable by nobody else, or leave \`workers.log\` out: then the output goes to the journal.`});
  }
  return {output: {place: path, lastLines: count => Promise.resolve(lastLines(path, offset, count))}, properties: {StandardOutput: `append:${path}`, StandardError: 'inherit'}};
}

/** Systemd knows no directory to look for a program in but those of PATH. */
function program(file: string, dir: string): string {
  return file.includes('/') && !file.startsWith('/') ? join(dir, file) : file;
}

/** The path of an EnvironmentFile is a pattern. */
function asGlob(path: string): string {
  return path.replace(/[\\*?[]/g, '\\$&');
}
