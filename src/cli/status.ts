import type {Config} from '../config/config.ts';
import type {Generation, Release, Worker} from '../deploy/deployment.ts';
import type {FiledRequest} from '../deploy/events.ts';
import {unfinished} from '../deploy/recover.ts';
import {portsOf} from '../deploy/tools.ts';
import {errnoOf, messageOf} from '../errors.ts';
import {readDrains} from '../state/drains.ts';
import {deployLockPath, readHolder} from '../state/deploy-lock.ts';
import {readJournal} from '../state/journal.ts';
import {readState} from '../state/state-file.ts';
import {readSpool} from '../trigger/request-spool.ts';
import {formatDuration} from '../support/durations.ts';
import {openConnections} from '../workers/connections.ts';
import {isAlive} from '../workers/process-identity.ts';
import {standings, type Standing} from '../workers/units.ts';
import {wire} from '../wire.ts';
import type {Context} from './context.ts';

/** As an init script answers. */
const LSB = {running: 0, dead: 1, notRunning: 3, unknown: 4} as const;

interface ShownWorker {
  readonly port: number;
  readonly pid: number;
  readonly state: 'starting' | 'healthy' | 'unhealthy' | 'draining' | 'dead';
  readonly started_at: string;
  readonly restarts: number;
}

/** `osyw-deploy status`. Exit codes are an init script's: 0 running, 1 dead but recorded, 3 not running, 4 unknown. */
export async function status(context: Context): Promise<number> {
  let shown: Awaited<ReturnType<typeof look>>;
  try {
    shown = await look(context.loadConfig());
  } catch (error) {
    context.output.err(`${messageOf(error)}\n`);
    return LSB.unknown;
  }
  if (context.json) context.output.out(`${JSON.stringify(shown)}\n`);
  else if (!context.quiet) context.output.out(tell(shown));
  if (shown.serving === null) return LSB.notRunning;
  return shown.serving.workers.some(({state}) => state !== 'dead') ? LSB.running : LSB.dead;
}

async function look(config: Config) {
  const {serving} = readState(config.stateDir);
  const tools = wire(config, () => undefined);
  const drains = readDrains(config.stateDir);
  const {deploy, interrupted, filed} = openDeploy(config.stateDir);
  const connections = await openConnections(drains.flatMap(({generation}) => portsOf(generation)));
  return {
    app: config.app,
    serving: serving === null ? null : {
      release: serving.release.id, revision: serving.release.revision, since: serving.since,
      workers: await shownAll(serving.workers, async ({worker, standing}) => shownWorker(worker, standing, await stateOf(worker, standing, serving.release, tools.health.check))),
    },
    draining: await Promise.all(drains.map(async ({generation, since}) => ({
      release: generation.release.id, revision: generation.release.revision,
      workers: await shownAll(generation.workers, ({worker, standing}) => shownWorker(worker, standing, standing.process === undefined ? 'dead' : 'draining')),
      connections: sum(generation, connections),
      since,
    }))),
    deploy,
    interrupted,
    pending: pending(config, filed),
    upstream: {name: config.nginx.upstream, file: config.nginx.file, ports: tools.upstream.filePorts()},
  };
}

async function shownAll<T>(workers: readonly Worker[], show: (one: {worker: Worker; standing: Standing}) => T | Promise<T>): Promise<T[]> {
  const all = await standings(workers);
  return Promise.all(workers.flatMap((worker, i) => {
    const standing = all[i];
    return standing === undefined ? [] : [show({worker, standing})];
  }));
}

async function stateOf(worker: Worker, {process, restarting}: Standing, release: Release, check: (release: Release, worker: Worker) => Promise<{good: boolean}>): Promise<ShownWorker['state']> {
  if (process === undefined) return restarting ? 'starting' : 'dead';
  return (await check(release, worker)).good ? 'healthy' : 'unhealthy';
}

function shownWorker(worker: Worker, {process = worker.process, restarts}: Standing, state: ShownWorker['state']): ShownWorker {
  return {port: worker.port, pid: process.pid, state, started_at: worker.startedAt, restarts};
}

function sum(generation: Generation, connections: ReadonlyMap<number, number>): number {
  return portsOf(generation).reduce((total, port) => total + (connections.get(port) ?? 0), 0);
}

interface ShownDeploy {
  readonly id: string;
  readonly phase: string;
  readonly revision: string | null;
  readonly since: string;
}

/** The journal's open deploy: at hand as long as whoever holds the lock lives, else killed, and not settled yet. */
function openDeploy(stateDir: string): {deploy: ShownDeploy | null; interrupted: ShownDeploy | null; filed: readonly FiledRequest[]} {
  const open = unfinished(readJournal(stateDir));
  if (open === undefined) return {deploy: null, interrupted: null, filed: []};
  const {id, phase, revision, startedAt: since, filed} = open;
  const shown = {id, phase, revision, since};
  const holder = readHolder(deployLockPath(stateDir));
  const alive = holder?.process !== undefined && isAlive(holder.process);
  return alive ? {deploy: shown, interrupted: null, filed: []} : {deploy: null, interrupted: shown, filed};
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

function tell(shown: Awaited<ReturnType<typeof look>>): string {
  const lines = [`${shown.app}: ${shown.serving === null ? 'nothing serves' : `release ${shown.serving.release} (${shown.serving.revision}) serves since ${shown.serving.since}`}`];
  for (const {port, pid, state, started_at: startedAt} of shown.serving?.workers ?? []) {
    lines.push(`  port ${port}  pid ${String(pid).padEnd(8)} ${state.padEnd(9)} up ${state === 'dead' ? '-' : formatDuration(Date.now() - Date.parse(startedAt))}`);
  }
  for (const drain of shown.draining) lines.push(`release ${drain.release} (${drain.revision}) drains since ${drain.since}: ${drain.connections} connections, ports ${drain.workers.map(({port}) => port).join(', ')}`);
  if (shown.deploy !== null) lines.push(`deploy ${shown.deploy.id} of ${shown.deploy.revision ?? '?'} is in ${shown.deploy.phase}`);
  if (shown.interrupted !== null) lines.push(`deploy ${shown.interrupted.id} of ${shown.interrupted.revision ?? '?'} was killed in ${shown.interrupted.phase}: \`osyw-deploy recover\` settles it, and so does whatever deploys next`);
  if (shown.pending !== null) lines.push(`a request for ${shown.pending.revision ?? 'the newest revision'} waits since ${shown.pending.since}`);
  lines.push(`upstream ${shown.upstream.name} in ${shown.upstream.file}: ports ${shown.upstream.ports.join(', ') || 'none'}`, '');
  return lines.join('\n');
}
