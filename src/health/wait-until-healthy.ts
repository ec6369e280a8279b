import type {Config} from '../config/config.ts';
import type {Release, Worker} from '../deploy/deployment.ts';
import {DeployError} from '../errors.ts';
import {formatDuration} from '../support/durations.ts';
import type {LaunchedWorker} from '../workers/launch-worker.ts';
import {outputEnd} from '../workers/worker-log.ts';
import {checkWorker, repeatCheck, type CheckResult} from './check-worker.ts';
import {listensOn, portOwner} from './port-owner.ts';

/** How soon a port is asked again on which nothing listens yet, for each worker that starts: a refused connection costs next to nothing. */
const NOT_LISTENING_POLL_MS = 3;
/** One look takes a check and a pause at most; what goes beyond is time in which we did not run, and no worker's fault. */
const LOOK_SLACK_MS = 1000;

export interface HealthNeeds {
  readonly config: Config;
  readonly release: Release;
  readonly signal: AbortSignal;
  /** Starts the same slot again on another port, after a stranger was found on this one. */
  relaunch(worker: LaunchedWorker): Promise<LaunchedWorker>;
  /** For the progress shown. */
  report(worker: LaunchedWorker, saw: string): void;
}

/**
 * Waits until every worker passed `check.consecutive` checks in a row, each answered by a socket of its own.
 * Units: `check.deadline`, on the monotonic clock, counted from the call; without the time in which this process stood still.
 * Errors: START_FAILED at once for one that ended before its first good check, NEVER_HEALTHY for one that ended later or is not healthy in time.
 */
export async function waitUntilHealthy(launched: readonly LaunchedWorker[], needs: HealthNeeds): Promise<Worker[]> {
  const others = new AbortController();
  const signal = AbortSignal.any([needs.signal, others.signal]);
  const settled = await Promise.allSettled(launched.map(async worker => {
    try {
      return await untilHealthy(worker, {...needs, signal}, launched.length);
    } catch (error) {
      others.abort(error);
      throw error;
    }
  }));
  needs.signal.throwIfAborted();
  const failures = settled.flatMap(result => result.status === 'rejected' && result.reason instanceof UnhealthyWorker ? [result.reason] : []);
  const [first] = failures;
  if (first !== undefined) throw new DeployError(first.code, [...new Set(failures.map(({message}) => message))].join('\n'));
  return settled.map(result => {
    if (result.status === 'rejected') throw result.reason;
    return result.value;
  });
}

/** One worker's failure, told in full. */
class UnhealthyWorker extends Error {
  readonly code: 'START_FAILED' | 'NEVER_HEALTHY';
  constructor(code: 'START_FAILED' | 'NEVER_HEALTHY', message: string) {
    super(message);
    this.code = code;
  }
}

async function untilHealthy(first: LaunchedWorker, needs: HealthNeeds, launchedTogether: number): Promise<Worker> {
  const {config, release, signal} = needs;
  const {check, workers: {host}} = config;
  const began = performance.now();
  let [waited, looked] = [0, began];
  let worker = first;
  let inARow = 0;
  let everGood = false;
  let last: CheckResult | undefined;
  const relaunched = async () => {
    worker = await needs.relaunch(worker);
    [inARow, everGood, last] = [0, false, undefined];
  };
  for (;;) {
    signal.throwIfAborted();
    const life = worker.life();
    const ended = life.kind === 'ended';
    const now = performance.now();
    waited += Math.min(now - looked, check.timeoutMs + check.intervalMs + LOOK_SLACK_MS);
    looked = now;
    const late = waited >= check.deadlineMs;
    if (!ended && !late) last = await checkWorker(config, release, worker.port, signal);
    // Whoever answers, and whoever keeps a worker from its port, is looked at: a stranger may be healthy, too.
    const owner = ended || last?.good === true || last?.listens === true
      ? portOwner(host, worker.port, {id: worker.id, process: life.kind === 'running' ? life.process : undefined})
      : undefined;
    // A daemon that overwrote its environment is known only once its pid file is there.
    if (owner?.kind === 'stranger' && life.kind !== 'starting') {
      await relaunched();
      continue;
    }
    if (ended) throw new UnhealthyWorker(everGood ? 'NEVER_HEALTHY' : 'START_FAILED', await describeFailure(worker, needs, life.how, last));
    if (late) throw new UnhealthyWorker('NEVER_HEALTHY', await describeFailure(worker, needs, `was not healthy after ${formatDuration(performance.now() - began)}`, last));
    if (last?.good === true && owner?.kind === 'worker' && life.kind === 'running') {
      everGood = true;
      inARow++;
      needs.report(worker, `passed ${inARow} of ${check.consecutive}`);
      if (inARow >= check.consecutive) return worker.worker();
    } else {
      inARow = 0;
      if (last?.good === false) needs.report(worker, last.saw);
    }
    await untilNextCheck(worker, life.kind === 'starting' || (last?.good === false && !last.listens) ? Math.min(NOT_LISTENING_POLL_MS * launchedTogether, check.intervalMs) : check.intervalMs, signal);
  }
}

/** Waits for the interval, or until the worker ends, or the abort. */
function untilNextCheck(worker: LaunchedWorker, ms: number, signal: AbortSignal): Promise<void> {
  return new Promise(resolve => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener('abort', done, {once: true});
    worker.onEnd(done);
  });
}

async function describeFailure(worker: LaunchedWorker, {config, release}: HealthNeeds, how: string, last: CheckResult | undefined): Promise<string> {
  const {host} = config.workers;
  const life = worker.life();
  const lines = [`worker ${worker.slot + 1} on ${host}:${worker.port} of release ${release.id} (${release.revision}) ${how}`];
  if (last !== undefined && !last.good) lines.push(`  last check: ${last.saw}`);
  if (life.kind === 'running') {
    const elsewhere = listensOn({id: worker.id, process: life.process}).filter(({port}) => port !== worker.port || last?.good === false && !last.listens);
    if (elsewhere.length > 0) lines.push(`  it listens on ${elsewhere.map(({address, port}) => `${address}:${port}`).join(', ')}, not on ${host}:${worker.port}`);
  }
  lines.push(`  to repeat the check: ${repeatCheck(config.check, host, worker.port)}`);
  return [...lines, ...await outputEnd(worker.output)].join('\n');
}
