import {join} from 'node:path';
import type {Config} from '../config/config.ts';
import type {Release, Worker} from '../deploy/deployment.ts';
import type {FiledRequest} from '../deploy/events.ts';
import {unfinished} from '../deploy/recover.ts';
import {portsOf, type Health} from '../deploy/tools.ts';
import {errnoOf} from '../errors.ts';
import {readDrains} from '../state/drains.ts';
import {deployLockPath, readHolder, type LockHolder} from '../state/deploy-lock.ts';
import {lastDeploys} from '../state/history.ts';
import {readJournal} from '../state/journal.ts';
import {readState} from '../state/state-file.ts';
import {readSpool} from '../trigger/request-spool.ts';
import {openConnections} from '../workers/connections.ts';
import {isAlive} from '../workers/process-identity.ts';
import {standings, type Standing} from '../workers/units.ts';
import {usageMeter} from '../workers/usage.ts';
import {wire} from '../wire.ts';
import type {ShownDeploy, ShownStatus, ShownWorker} from './status-lines.ts';
import {namedFile} from '../upstream/upstream-text.ts';

const SHOWN_DEPLOYS = 5;

/**
 * Looks at one application, once a call. The first look tells each worker's CPU since its start, a later one since the look before.
 * Errors: STATE_UNCERTAIN, and what the system says of a file that is just being replaced; the signal's reason.
 */
export function openLook(config: Config, signal: AbortSignal): () => Promise<ShownStatus> {
  const {stateDir} = config;
  const {health, upstream} = wire(config, () => undefined);
  const measure = usageMeter();
  const show = (worker: Worker, {process = worker.process, restarts}: Standing, state: ShownWorker['state'], saw: string | null): ShownWorker => {
    const {memory, cpu} = state === 'dead' ? {memory: null, cpu: null} : measure(process) ?? {memory: null, cpu: null};
    return {port: worker.port, pid: process.pid, state, started_at: worker.startedAt, restarts, saw, memory, cpu};
  };
  return async () => {
    const {serving} = readState(stateDir);
    const drains = readDrains(stateDir);
    const {deploy, interrupted, filed} = openDeploy(stateDir);
    const ports = drains.flatMap(({generation}) => portsOf(generation));
    // The table is long on a busy machine.
    const connections = ports.length === 0 ? new Map<number, number>() : await openConnections(ports);
    return {
      app: config.app,
      serving: serving === null ? null : {
        release: serving.release.id, revision: serving.release.revision, since: serving.since,
        workers: await shownAll(serving.workers, async ({worker, standing}) => {
          const {state, saw} = await stateOf(worker, standing, serving.release, health, signal);
          return show(worker, standing, state, saw);
        }),
      },
      draining: await Promise.all(drains.map(async ({generation, oldNginxWorkers, since}) => ({
        release: generation.release.id, revision: generation.release.revision,
        workers: await shownAll(generation.workers, ({worker, standing}) => show(worker, standing, standing.process === undefined ? 'dead' : 'draining', null)),
        connections: portsOf(generation).reduce((sum, port) => sum + (connections.get(port) ?? 0), 0),
        nginx_workers: oldNginxWorkers.filter(isAlive).map(({pid}) => pid),
        since,
      }))),
      deploy,
      interrupted,
      pending: pending(config, filed),
      upstream: {name: config.nginx.upstream, file: namedFile(config), ports: upstream.filePorts()},
      watch: runningWatch(stateDir),
      deploys: lastDeploys(stateDir, SHOWN_DEPLOYS),
    };
  };
}

async function shownAll<T>(workers: readonly Worker[], show: (one: {worker: Worker; standing: Standing}) => T | Promise<T>): Promise<T[]> {
  const all = await standings(workers);
  return Promise.all(workers.flatMap((worker, i) => {
    const standing = all[i];
    return standing === undefined ? [] : [show({worker, standing})];
  }));
}

async function stateOf(worker: Worker, {process, restarting}: Standing, release: Release, health: Health, signal: AbortSignal): Promise<Pick<ShownWorker, 'state' | 'saw'>> {
  if (process === undefined) return {state: restarting ? 'starting' : 'dead', saw: null};
  const result = await health.check(release, worker, signal);
  return result.good ? {state: 'healthy', saw: null} : {state: 'unhealthy', saw: result.saw};
}

/** The journal's open deploy: at hand as long as whoever holds the lock lives, else killed, and not settled yet. */
export function openDeploy(stateDir: string): {deploy: ShownDeploy | null; interrupted: ShownDeploy | null; filed: readonly FiledRequest[]} {
  const entries = readJournal(stateDir);
  const open = unfinished(entries);
  if (open === undefined) return {deploy: null, interrupted: null, filed: []};
  const {id, phase, revision, startedAt: since, filed} = open;
  const shown = {id, phase, revision, since, phase_since: entries.findLast(({type}) => type === 'phase')?.at ?? since};
  return livingHolder(deployLockPath(stateDir)) === undefined ? {deploy: null, interrupted: shown, filed} : {deploy: shown, interrupted: null, filed: []};
}

function runningWatch(stateDir: string): ShownStatus['watch'] {
  const holder = livingHolder(join(stateDir, 'watching'));
  return holder === undefined ? null : {pid: holder.process.pid, since: holder.since};
}

/** Whoever is on record as the holder of a lock, if that very process lives. */
function livingHolder(path: string): LockHolder & {readonly process: NonNullable<LockHolder['process']>} | undefined {
  const holder = readHolder(path);
  return holder?.process !== undefined && isAlive(holder.process) ? {...holder, process: holder.process} : undefined;
}

/** What waits: in the spool, or with a deploy that was killed. Null as well for whoever may not look. */
function pending({stateDir, app}: Config, stranded: readonly FiledRequest[]): {revision: string | null; since: string} | null {
  try {
    const requests = [...stranded, ...readSpool(stateDir, app).requests];
    const [oldest] = requests;
    return oldest === undefined ? null : {revision: requests.at(-1)?.revision ?? null, since: oldest.filedAt};
  } catch (error) {
    if (errnoOf(error) === 'EACCES') return null;
    throw error;
  }
}
