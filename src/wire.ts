import {existsSync} from 'node:fs';
import {dirname} from 'node:path';
import type {Config} from './config/config.ts';
import {configHash} from './config/config-hash.ts';
import type {Report} from './deploy/events.ts';
import type {DeployTools, Health, Records, Upstream, WorkingCopy, Workers} from './deploy/tools.ts';
import {DeployError} from './errors.ts';
import {checkWorker} from './health/check-worker.ts';
import {portOwner} from './health/port-owner.ts';
import {waitUntilHealthy} from './health/wait-until-healthy.ts';
import {openReleases} from './releases/open-releases.ts';
import {addToHistory} from './state/history.ts';
import {asRestarted} from './state/restarts.ts';
import {readDrains, takeDrain, writeDrain} from './state/drains.ts';
import {beginJournal, continueJournal, readJournal} from './state/journal.ts';
import {readState, writeState} from './state/state-file.ts';
import {systemdRuns} from './support/systemd.ts';
import {fileAgain, readSpool, unfile} from './trigger/request-spool.ts';
import {findMaster, findMasters, hasPendingHup, isIdle, nginxChildren, orphansAmong, type NginxMaster} from './upstream/nginx-master.ts';
import {probeThroughNginx} from './upstream/probe.ts';
import {putUpstreamBack, rehearseSwitch, reloadAsItStands, restoreUpstream, switchUpstream, writeUpstreamAhead, type Rehearsal} from './upstream/switch-upstream.ts';
import {readUpstream} from './upstream/upstream-file.ts';
import {upstreamText} from './upstream/upstream-text.ts';
import {waitDrained} from './upstream/wait-drained.ts';
import {launchUnit} from './workers/launch-unit.ts';
import {launchWorker, newWorkerId} from './workers/launch-worker.ts';
import {listenersOn} from './workers/listeners.ts';
import {identify} from './workers/process-identity.ts';
import {areSpare, leasePorts} from './workers/spare-ports.ts';
import {unitStopper} from './workers/stop-units.ts';
import {stopWorker} from './workers/stop-workers.ts';
import {unitOf} from './workers/unit-name.ts';
import {isWorkerAlive, markedWorkers} from './workers/worker-tree.ts';
import {openWorkingCopy} from './working-copy/open-working-copy.ts';

/** The real tools of one application. */
export function wire(config: Config, report: Report): DeployTools {
  let workingCopy: WorkingCopy | undefined;
  let hash: string | undefined;
  return {
    config: {
      app: config.app,
      get hash() {
        return hash ??= configHash(config);
      },
      count: config.workers.count,
      keep: config.release.keep,
      bakeMs: config.bake.forMs,
      checkIntervalMs: config.check.intervalMs,
      longestDrainMs: config.drain.deadlineMs + config.workers.stop.timeoutMs + 10_000,
      inPlace: config.release.tree === 'in_place',
    },
    workingCopy: () => workingCopy ??= openWorkingCopy(config),
    releases: openReleases(config),
    workers: realWorkers(config),
    health: realHealth(config),
    upstream: realUpstream(config),
    records: realRecords(config),
    report,
  };
}

function realWorkers(config: Config): Workers {
  const {workers} = config;
  const {ports, host, stop, runner} = workers;
  const stopUnit = unitStopper({runDir: config.runDir, stop});
  return {
    leasePorts: (count, taken, after) => leasePorts({range: ports, host, count, taken, after: after ?? undefined}),
    answering: given => given.filter(port => listenersOn(host, port).length > 0),
    areSpare: given => areSpare(ports, host, given),
    newId: (deploy, slot) => newWorkerId(config.app, deploy, slot, runner),
    launch: (release, plan) => workers.runner === 'systemd' ? launchUnit(config, workers, release, plan) : launchWorker(workers, release, plan),
    // What runs was perhaps started under another configuration; its mark says how. Without systemd there is no unit any more.
    stop: worker => {
      const unit = unitOf(worker.id);
      return unit === undefined || !systemdRuns() ? stopWorker(worker, stop) : stopUnit(worker, unit);
    },
    isAlive: worker => isWorkerAlive(worker) || isWorkerAlive(asRestarted(config.stateDir, worker)),
  };
}

function realHealth(config: Config): Health {
  return {
    waitUntilHealthy: (launched, release, relaunch, report, signal) => waitUntilHealthy(launched, {
      config, release, signal, relaunch,
      report: (worker, saw) => report({event: 'note', text: `worker ${worker.slot + 1} on ${worker.port}: ${saw}`}),
    }),
    check: async (release, given, signal = new AbortController().signal) => {
      const worker = asRestarted(config.stateDir, given);
      if (!isWorkerAlive(worker)) return {good: false, saw: `its process ${worker.process.pid} is dead`, listens: false};
      const owner = portOwner(config.workers.host, worker.port, worker);
      if (owner.kind !== 'worker') return {good: false, saw: owner.kind === 'nobody' ? 'nothing listens' : 'a process that is not ours listens there', listens: owner.kind !== 'nobody'};
      return checkWorker(config, release, worker.port, signal);
    },
  };
}

function realUpstream(config: Config): Upstream {
  const {nginx, drain} = config;
  const text = upstreamText(config);
  const present = () => readUpstream(text.file());
  let master: NginxMaster | undefined;
  let rehearsal: Promise<Rehearsal | undefined> | undefined;
  const isRunning = async () => (await findMasters(nginx)).fitting.length > 0;
  const bytesOf = (base64: string | null) => base64 === null ? null : Buffer.from(base64, 'base64');
  return {
    isRunning,
    requireRunning: async () => {
      text.examine();
      master = await findMaster(nginx);
    },
    rehearse: ports => {
      if (master !== undefined) rehearsal = rehearseSwitch(config, master, ports);
    },
    switchTo: async (ports, steps) => {
      const rehearsed = await rehearsal;
      return switchUpstream(config, ports, steps, rehearsed);
    },
    writeAhead: (ports, steps) => writeUpstreamAhead(config, ports, steps),
    restore: ({oldBytes, newHash}, steps) => restoreUpstream(config, bytesOf(oldBytes), newHash, steps),
    putBack: oldBytes => putUpstreamBack(config, bytesOf(oldBytes)),
    reload: () => reloadAsItStands(config),
    file: text.file,
    fileHash: () => text.hash(present()),
    ownFile: () => {
      const byHeader = text.isOwn(present());
      // Nothing in a file of the user's says who wrote it; the workers do.
      return byHeader || (nginx.edit === true && anyMarked(config, text.ports(present()))) ? {file: text.file(), byHeader} : undefined;
    },
    filePorts: () => existsSync(dirname(nginx.file)) ? text.ports(present()) : [],
    acceptsOnly: async workers => {
      const {fitting: [master, second]} = await findMasters(nginx);
      if (master === undefined) return orphansAmong(workers).length > 0 ? true : undefined;
      if (second !== undefined) throw new DeployError('STATE_UNCERTAIN', `several nginx masters run (pids ${master.process.pid}, ${second.process.pid}); which one sends the requests cannot be told`);
      const accepting = nginxChildren(master).filter(({title}) => title === 'worker' || title === 'untitled');
      const same = accepting.length === workers.length && workers.every(worker => accepting.some(({process}) => process.pid === worker.pid && process.startTime === worker.startTime));
      return same && !hasPendingHup(master) && isIdle(master) !== false;
    },
    probe: async () => nginx.probe === undefined || !await isRunning() ? undefined : probeThroughNginx(nginx.probe),
    waitDrained: (nginxWorkers, ports, report, signal) => waitDrained({nginxWorkers, ports, report, signal, ...drain}),
  };
}

/** Whether a worker of this application, whatever the state says of it, listens on one of these ports. */
function anyMarked({app, workers: {host}}: Config, ports: readonly number[]): boolean {
  const marked = ports.length === 0 ? [] : markedWorkers(app);
  return ports.some(port => marked.some(({pid, id}) => portOwner(host, port, {id, process: identify(pid)}).kind === 'worker'));
}

function realRecords({stateDir, app}: Config): Records {
  return {
    state: () => readState(stateDir),
    save: state => writeState(stateDir, state),
    readJournal: () => readJournal(stateDir),
    beginJournal: first => beginJournal(stateDir, first),
    continueJournal: () => continueJournal(stateDir),
    addToHistory: (...lines) => addToHistory(stateDir, ...lines),
    drains: () => readDrains(stateDir),
    writeDrain: drain => writeDrain(stateDir, drain),
    takeDrain: deploy => takeDrain(stateDir, deploy),
    filed: () => [...readSpool(stateDir, app).requests],
    unfile: requests => unfile(stateDir, requests),
    fileAgain: (request, deploy) => fileAgain(stateDir, app, request, deploy),
  };
}
