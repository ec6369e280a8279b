import {statSync} from 'node:fs';
import {join} from 'node:path';
import {setTimeout as delay} from 'node:timers/promises';
import type {Config} from '../config/config.ts';
import {defaultWorkerLog} from '../config/places.ts';
import type {Generation, Worker} from '../deploy/deployment.ts';
import {asFailure} from '../deploy/run.ts';
import {onTrialSince} from '../deploy/retention.ts';
import type {DeployTools} from '../deploy/tools.ts';
import {checkWorker} from '../health/check-worker.ts';
import {portOwner} from '../health/port-owner.ts';
import {deployLockPath, isLock, tryLock} from '../state/deploy-lock.ts';
import {writeRestart} from '../state/restarts.ts';
import {readState} from '../state/state-file.ts';
import {formatDuration} from '../support/durations.ts';
import {isCrashLoop, isHung, pauseBeforeRestart, recentDeaths} from '../supervise/judge.ts';
import type {LaunchedWorker} from '../workers/launch-worker.ts';
import type {Beat} from './beat.ts';
import type {Reviving} from './reviving.ts';
import {onChildDeath} from '../workers/child-deaths.ts';
import {openLifeLine, type LifeLine} from '../workers/life-line.ts';
import {isAlive} from '../workers/process-identity.ts';
import {journalOf} from '../workers/unit-journal.ts';
import {unitOf} from '../workers/unit-name.ts';
import {standings} from '../workers/units.ts';
import {fillIn} from '../workers/worker-environment.ts';
import {lastLines} from '../workers/worker-log.ts';

/** What the lock's record says while a worker is started again: that ends by itself, and is waited for. */
export const RESTARTING = 'restart';

export interface SupervisorNeeds {
  config(): Config;
  /** Those of the configuration with this hash, where it was read in this watch; else of the present one. */
  tools(configHash: string): DeployTools;
  readonly reviving: Reviving;
  readonly beat: Beat;
  /** Asks for a deploy that replaces this worker of what serves on a spare port. */
  replace(worker: Worker): void;
  /** Asks for the last good release, instead of this one. */
  rollBack(release: string, reason: string): void;
  /** Says what everybody who runs a watch wants to know. */
  say(text: string): void;
  readonly signal: AbortSignal;
}

export interface Supervisor {
  /** Ends when nothing of it is under way any more. */
  close(): Promise<void>;
}

const UNIT_POLL_MS = 200;
const FAILED_CHECK_AGAIN_MS = 1000;
const GIVEN_UP_PAUSE_MS = 5000;
const REPLACE_AGAIN_MS = 30_000;
const LONGEST_REPLACE_AGAIN_MS = 600_000;
const LOCK_POLL_MS = 300;
const SHOWN_LINES = 5;

/** A worker that serves, as supervision knows it. */
interface Watched {
  worker: Worker;
  line: LifeLine | undefined;
  /** Something is being done about it. */
  busy: boolean;
  failedChecks: number;
  nextCheck: number;
  readonly past: Past;
}

/** What is remembered of a place over the workers that take it, while the release is the same. Milliseconds. */
interface Past {
  /** Those of the last minute; a replacement counts as one. */
  deaths: number[];
  replaceAgain: number;
  notReplacedBefore: number;
}

/** Keeps the workers of what serves alive: one that died is started again on its own port, one that hangs is replaced. */
export function supervise(needs: SupervisorNeeds): Supervisor {
  const {signal} = needs;
  const watched = new Map<string, Watched>();
  const pasts = new Map<string, Past>();
  const underWay = new Set<Promise<void>>();
  const serving = servingReader(needs);

  const look = (): void => {
    if (signal.aborted) return;
    const generation = serving();
    const ids = new Set(generation?.workers.map(({id}) => id));
    for (const [id, one] of watched) {
      if (ids.has(id) || one.busy) continue;
      letGo(one);
      watched.delete(id);
    }
    if (generation === undefined) return;
    for (const worker of generation.workers) {
      const known = watched.get(worker.id);
      const one: Watched = known ?? {worker, line: undefined, busy: false, failedChecks: 0, nextCheck: performance.now() + needs.config().watch.checkMs, past: pastOf(generation, worker)};
      if (known === undefined) watched.set(worker.id, one);
      if (one.busy) continue;
      one.line ??= openLifeLine(one.worker.process);
      if (one.line?.isAlive() !== true) begin(one, () => revive(one, generation, needs));
      else if (performance.now() >= one.nextCheck) begin(one, () => examine(one, generation, needs));
    }
  };
  let blind: string | undefined;
  const lookIfPossible = (): void => {
    try {
      look();
      blind = undefined;
    } catch (error) {
      // With no descriptor left for one; the next look may see again.
      const {message} = asFailure(error);
      if (message !== blind) note(needs, `the workers cannot be looked at: ${message}`);
      blind = message;
    }
  };
  /** A successor in the same place of the same release begins with what is known of the worker before it. */
  const pastOf = ({release}: Generation, {slot}: Worker): Past => {
    const place = `${release.id} ${slot}`;
    const past = pasts.get(place) ?? {deaths: [], replaceAgain: REPLACE_AGAIN_MS, notReplacedBefore: 0};
    for (const other of pasts.keys()) if (!other.startsWith(`${release.id} `)) pasts.delete(other);
    pasts.set(place, past);
    return past;
  };
  const begin = (one: Watched, work: () => Promise<void>): void => {
    one.busy = true;
    // Whatever is found there next is a process of its own.
    if (one.line?.isAlive() === false) letGo(one);
    const done = work().catch((error: unknown) => {
      if (!signal.aborted) note(needs, `worker ${one.worker.slot + 1} on port ${one.worker.port}: ${asFailure(error).message}`);
    }).finally(() => {
      one.busy = false;
      underWay.delete(done);
    });
    underWay.add(done);
  };
  const stopLooking = [needs.beat.every(1, lookIfPossible), onChildDeath(() => setImmediate(lookIfPossible))];
  return {
    close: async () => {
      for (const stop of stopLooking) stop();
      await Promise.all(underWay);
      for (const one of watched.values()) letGo(one);
    },
  };
}

function letGo(one: Watched): void {
  one.line?.close();
  one.line = undefined;
}

/** What serves, read again when another file stands there. */
function servingReader({config, ...needs}: SupervisorNeeds): () => Generation | undefined {
  let seen = '';
  let told: string | undefined;
  let serving: Generation | undefined;
  return () => {
    const {stateDir} = config();
    const stat = statSync(join(stateDir, 'state.json'), {throwIfNoEntry: false, bigint: true});
    const now = `${stateDir} ${stat?.ino} ${stat?.mtimeNs}`;
    if (now === seen) return serving;
    try {
      serving = readState(stateDir).serving ?? undefined;
      [seen, told] = [now, undefined];
    } catch (error) {
      // What cannot be told is left alone, until it can.
      serving = undefined;
      const {message} = asFailure(error);
      if (message !== told) note(needs, `the workers are not supervised: ${message}`);
      told = message;
    }
    return serving;
  };
}

async function examine(one: Watched, generation: Generation, needs: SupervisorNeeds): Promise<void> {
  const config = needs.config();
  const result = await checkWorker(config, generation.release, one.worker.port, needs.signal);
  const now = performance.now();
  if (result.good) {
    // In step with the others: many checks at once cost a third of as many that each wake us.
    one.nextCheck = Math.max(one.nextCheck + config.watch.checkMs, now);
    one.failedChecks = 0;
    return;
  }
  one.nextCheck = now + Math.min(config.watch.checkMs, FAILED_CHECK_AGAIN_MS);
  // A death is seen by its own look.
  if (!isAlive(one.worker.process)) return;
  one.failedChecks++;
  // It may go on for days.
  if (!isHung(one.failedChecks - 1)) note(needs, `worker ${one.worker.slot + 1} on port ${one.worker.port} fails its check: ${result.saw}`);
  if (isHung(one.failedChecks)) askToReplace(one, generation, needs);
}

/** Where the release is on trial, and its workers do badly again and again, the last good one is to serve. */
function blame({worker, past: {deaths}}: Watched, how: string, {release}: Generation, needs: SupervisorNeeds): void {
  const since = onTrialSince(readState(needs.config().stateDir));
  if (since !== undefined && isCrashLoop(deaths.length, Date.now() - Date.parse(since))) needs.rollBack(release.id, `worker ${worker.slot + 1} ${how} ${deaths.length} times within a minute`);
}

/** Further and further apart, while its successors do no better. */
function askToReplace(one: Watched, generation: Generation, needs: SupervisorNeeds): void {
  const now = performance.now();
  if (now < one.past.notReplacedBefore) return;
  if (now - one.past.notReplacedBefore > LONGEST_REPLACE_AGAIN_MS) one.past.replaceAgain = REPLACE_AGAIN_MS;
  one.past.notReplacedBefore = now + one.past.replaceAgain;
  one.past.replaceAgain = Math.min(LONGEST_REPLACE_AGAIN_MS, one.past.replaceAgain * 2);
  one.past.deaths = recentDeaths([...one.past.deaths, now], now);
  blame(one, 'had to be replaced', generation, needs);
  needs.replace(one.worker);
}

/** Starts a dead worker again on its own port, under its own mark; with longer and longer pauses while it goes on dying. */
async function revive(one: Watched, generation: Generation, needs: SupervisorNeeds): Promise<void> {
  const {stateDir} = needs.config();
  for (;;) {
    const {worker} = one;
    const owner = portOwner(needs.config().workers.host, worker.port, {id: worker.id, process: undefined});
    if (owner.kind === 'worker') {
      // Another process of the worker has it, as after a watch that died between a start and its record.
      one.worker = {...worker, process: owner.process};
      writeRestart(stateDir, worker.id, {process: owner.process, startedAt: worker.startedAt, restarts: worker.restarts ?? 0});
      return;
    }
    one.past.deaths = recentDeaths([...one.past.deaths, performance.now()], performance.now());
    const isUnit = unitOf(worker.id) !== undefined;
    const pause = isUnit ? 0 : pauseBeforeRestart(one.past.deaths.length);
    await tellDeath(one, generation, pause, needs);
    blame(one, 'died', generation, needs);
    if (isUnit) {
      if (await isBackByItself(one, needs)) return;
      note(needs, `systemd has given up on worker ${worker.slot + 1}; another one takes its place`);
      askToReplace(one, generation, needs);
      await delay(GIVEN_UP_PAUSE_MS, undefined, {signal: needs.signal});
      if (!isServing(one, needs)) return;
      continue;
    }
    await delay(pause, undefined, {signal: needs.signal});
    const launched = await underLock(needs, () => startAgain(one, generation, needs));
    if (launched === 'not ours any more') return;
    if (launched === 'port taken') {
      note(needs, `port ${worker.port} of worker ${worker.slot + 1} was taken by a process that is not ours; it gets another`);
      askToReplace(one, generation, needs);
      // Until it is replaced its port may come free, too.
      await delay(pauseBeforeRestart(one.past.deaths.length + 1), undefined, {signal: needs.signal});
      continue;
    }
    if (await isHealthySoon(one, launched, generation, needs)) return;
  }
}

/** Whether systemd, whose unit it is, has started it again and it listens, before `check.deadline`. */
async function isBackByItself(one: Watched, needs: SupervisorNeeds): Promise<boolean> {
  const {check, workers: {host}, stateDir} = needs.config();
  for (let deadline = performance.now() + check.deadlineMs; performance.now() < deadline; await delay(UNIT_POLL_MS, undefined, {signal: needs.signal})) {
    const [standing] = await standings([one.worker]);
    if (standing === undefined || (standing.process === undefined && !standing.restarting)) return false;
    const owner = portOwner(host, one.worker.port, {id: one.worker.id, process: standing.process});
    if (standing.process === undefined || owner.kind !== 'worker') continue;
    one.worker = {...one.worker, process: standing.process, startedAt: new Date().toISOString(), restarts: standing.restarts};
    writeRestart(stateDir, one.worker.id, {process: standing.process, startedAt: one.worker.startedAt, restarts: standing.restarts});
    return true;
  }
  return false;
}

function isServing({worker}: Watched, needs: SupervisorNeeds): boolean {
  return readState(needs.config().stateDir).serving?.workers.some(({id}) => id === worker.id) === true;
}

/** Runs while nobody can switch to another generation. */
async function underLock<T>(needs: SupervisorNeeds, work: () => Promise<T>): Promise<T> {
  for (;;) {
    needs.signal.throwIfAborted();
    const beside = needs.reviving.begin(work);
    if (beside !== undefined) return beside;
    const lock = tryLock(deployLockPath(needs.config().stateDir), RESTARTING);
    if (isLock(lock)) {
      try {
        return await work();
      } finally {
        lock.release();
      }
    }
    await delay(LOCK_POLL_MS, undefined, {signal: needs.signal});
  }
}

async function startAgain(one: Watched, {release, configHash}: Generation, needs: SupervisorNeeds): Promise<LaunchedWorker | 'not ours any more' | 'port taken'> {
  const {worker} = one;
  const {stateDir} = needs.config();
  const tools = needs.tools(configHash);
  if (!isServing(one, needs)) return 'not ours any more';
  // What it left behind may sit on its port, and is nobody's.
  await tools.workers.stop(worker);
  if (!await tools.workers.areSpare([worker.port])) return 'port taken';
  if (!isServing(one, needs)) return 'not ours any more';
  const launched = await tools.workers.launch(release, {slot: worker.slot, port: worker.port, id: worker.id});
  recordRestart(one, launched, (worker.restarts ?? 0) + 1, stateDir);
  return launched;
}

function recordRestart(one: Watched, launched: LaunchedWorker, restarts: number, stateDir: string): void {
  one.worker = {...launched.worker(), restarts};
  const {process, startedAt, id} = one.worker;
  writeRestart(stateDir, id, {process, startedAt, restarts});
}

async function isHealthySoon(one: Watched, launched: LaunchedWorker, {release, configHash}: Generation, needs: SupervisorNeeds): Promise<boolean> {
  const tools = needs.tools(configHash);
  const noOtherPort = () => Promise.reject(new Error(`port ${launched.port} was taken by a process that is not ours`));
  try {
    await tools.health.waitUntilHealthy([launched], release, noOtherPort, () => undefined, needs.signal);
    // A daemon's own pid is known only now.
    recordRestart(one, launched, one.worker.restarts ?? 1, needs.config().stateDir);
    one.failedChecks = 0;
    note(needs, `worker ${launched.slot + 1} on port ${launched.port} serves again (pid ${one.worker.process.pid})`);
    return true;
  } catch (error) {
    needs.signal.throwIfAborted();
    note(needs, asFailure(error).message);
    return false;
  }
}

async function tellDeath({worker, past: {deaths}}: Watched, {release}: Generation, pause: number, needs: SupervisorNeeds): Promise<void> {
  const {workers: {log}, stateDir} = needs.config();
  const unit = unitOf(worker.id);
  const said = unit !== undefined && log === undefined ? await journalOf(unit).lastLines(SHOWN_LINES)
    : lastLines(fillIn(log ?? defaultWorkerLog(stateDir), {port: worker.port, release: release.id, revision: release.revision}), 0, SHOWN_LINES);
  const again = pause === 0 ? 'it is started again' : `it is started again in ${formatDuration(pause)}, having died ${deaths.length} times within a minute`;
  note(needs, [`worker ${worker.slot + 1} on port ${worker.port} (pid ${worker.process.pid}) of release ${release.id} died; ${again}`, ...said.map(line => `  | ${line}`)].join('\n'));
}

function note({say}: Pick<SupervisorNeeds, 'say'>, text: string): void {
  say(text);
}
