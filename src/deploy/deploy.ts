import {setImmediate as turn, setTimeout as delay} from 'node:timers/promises';
import type {Generation, ProcessIdentity, Release, Worker} from './deployment.ts';
import {LOOK_TRIGGERS, type DeployResult, type Request} from './events.ts';
import {fileNewestAgain, isNews, overtakenBy, takeFiled} from './filed-requests.ts';
import {asFailure, historyLine, newDeployId, resultOf, startRun, Superseded, type Failure, type Run} from './run.ts';
import {portsOf, type DeployTools} from './tools.ts';
import {DeployError} from '../errors.ts';
import type {State} from '../state/state-file.ts';
import {formatDuration} from '../support/durations.ts';
import type {SwitchIntent, Switched, SwitchSteps} from '../upstream/switch-upstream.ts';
import type {LaunchedWorker} from '../workers/launch-worker.ts';

/** How a deploy ended, and whose drain it leaves to be finished once the lock is free. */
export interface Deployed {
  readonly result: DeployResult;
  readonly drain: string | undefined;
}

/** At most so many generations drain at a time; the next deploy waits for the oldest. */
const MOST_DRAINS = 3;
const DRAINS_POLL_MS = 50;
/** A range that is full of strangers is no reason to try for ever. */
const MOST_RELAUNCHES = 10;

/** What a deploy has made so far, for the abort to take back. */
interface Made {
  revision: string | null;
  release: Release | undefined;
  /** The release was there before this deploy. */
  existing: boolean;
  updated: boolean;
  workers: {id: string; port: number; launched: LaunchedWorker | undefined}[];
}

/**
 * Deploys. Reads top to bottom as the phases; traffic moves in `switch`. The caller holds the lock and has recovered.
 * Before the switch every failure is an abort and the old release was never touched; after it the way is forward,
 * but for a failed probe or bake, which switches back.
 * `signal` aborts until the switch begins. `historyNow` puts the line into the history before the drain.
 */
export async function deploy(request: Request, tools: DeployTools, signal: AbortSignal, {historyNow}: {historyNow: boolean}): Promise<Deployed> {
  const before = tools.records.state();
  const now = new Date();
  const run = startRun({id: newDeployId(now), trigger: request.trigger, requestedBy: request.requestedBy, startedAt: now.toISOString()}, tools.report);
  takeFiled(request, tools, run);
  const failed = new AbortController();
  const asked = ask(request, tools, AbortSignal.any([signal, failed.signal]));
  const made: Made = {revision: null, release: undefined, existing: false, updated: false, workers: []};
  let generation: Generation;
  try {
    await turn(); // The question is on its way; what follows reads the whole of /proc.
    if (!isComeback(request, before, tools) || await tools.upstream.isRunning()) await tools.upstream.requireRunning();
    const revision = await run.phase('update', () => update(request, asked, made, before, tools, run, signal));
    if (revision === 'unchanged') return endUnchanged(made.revision, before, tools, run);
    const release = await run.phase('build', () => build(request, revision, made, before, tools, run, signal));
    const launched = await run.phase('start', () => start(release, request, made, before, tools, run, signal));
    const fresh = await run.phase('check', () => check(release, launched, made, before, tools, run, signal));
    signal.throwIfAborted();
    generation = generationWith(fresh, release, request, before, tools, run);
  } catch (cause) {
    failed.abort(cause);
    await asked.catch(() => undefined);
    return abort(cause, request, made, before, tools, run);
  }
  let was: BeforeSwitch = {intent: undefined, oldNginxWorkers: [], before, historyNow};
  const move = async () => {
    try {
      const {oldNginxWorkers} = await moveTraffic(generation, isComeback(request, before, tools), tools, journalSwitch(run, intent => {
        was = {...was, intent};
      }));
      was = {...was, oldNginxWorkers};
    } catch (cause) {
      return {refused: cause};
    }
    return nowLive(generation, was, tools, run);
  };
  // That the phase begins may not be put on record either: then it does not.
  const live = await run.phase('switch', move).catch((cause: unknown) => ({refused: cause}));
  return 'refused' in live ? abort(live.refused, request, made, before, tools, run) : settle(generation, live, was, tools, run);
}

/** The generation that is to serve: fresh workers alone, or beside those that go on. */
function generationWith(fresh: readonly Worker[], release: Release, {target}: Request, {serving}: Pick<State, 'serving'>, tools: DeployTools, run: Run): Generation {
  const generation = {deploy: run.id, release, configHash: configHashOf({target}, {serving}, tools), since: new Date().toISOString(), workers: fresh};
  if (target.kind !== 'release' || target.slots === undefined || serving === null) return generation;
  return {...generation, since: serving.since, workers: serving.workers.map(worker => fresh.find(({slot}) => slot === worker.slot) ?? worker)};
}

/** Of the configuration that the workers run with; where some go on it is still theirs, so that a later deploy sees the difference. */
function configHashOf({target}: Pick<Request, 'target'>, {serving}: Pick<State, 'serving'>, tools: DeployTools): string {
  return target.kind === 'release' && target.slots !== undefined && serving !== null ? serving.configHash : tools.config.hash;
}

/** Those of the workers that the other generation has not. */
export function without(generation: Generation, other: Generation | null): Generation {
  return {...generation, workers: generation.workers.filter(worker => other?.workers.some(({id}) => id === worker.id) !== true)};
}

/** Whether a release that was proved before is to come back where no worker is left, as after a reboot or a stop: nginx need not run for that. */
function isComeback({target}: Request, {serving}: State, tools: DeployTools): boolean {
  if (target.kind !== 'release') return false;
  return serving === null || (serving.release.id === target.release.id && !serving.workers.some(worker => tools.workers.isAlive(worker)));
}

async function moveTraffic(generation: Generation, comeback: boolean, {upstream, report}: DeployTools, steps: SwitchSteps): Promise<Switched> {
  if (comeback && !await upstream.isRunning()) {
    upstream.writeAhead(portsOf(generation), steps);
    // One that was started meanwhile may have read the file before.
    if (!await upstream.isRunning()) {
      report({event: 'note', text: 'nginx does not run; it finds the workers in its file when it is started'});
      return {oldNginxWorkers: []};
    }
  }
  return upstream.switchTo(portsOf(generation), steps);
}

/** nginx uses the new workers: whether they do well there, or why that could not even be put on record. */
export type Live = {readonly fault: string | undefined} | {readonly unrecorded: unknown};

export async function nowLive(generation: Generation, was: BeforeSwitch, tools: DeployTools, run: Run): Promise<Live> {
  try {
    run.journal?.append({type: 'switched', workers: generation.workers, oldNginxWorkers: was.oldNginxWorkers});
    return {fault: await confirm(without(generation, was.before.serving), tools)};
  } catch (cause) {
    return {unrecorded: cause};
  }
}

/** What is still needed, after the switch, of how things were before it. */
export interface BeforeSwitch {
  readonly intent: SwitchIntent | undefined;
  /** They may still send requests to the old generation. */
  readonly oldNginxWorkers: readonly ProcessIdentity[];
  readonly before: State;
  readonly historyNow: boolean;
}

/**
 * From the switch on: bake, then record; or back, when the new release failed. Recovery comes here, too.
 * Nothing is taken back because it could not be written down.
 */
export async function settle(generation: Generation, live: Live, was: BeforeSwitch, tools: DeployTools, run: Run): Promise<Deployed> {
  try {
    if ('unrecorded' in live) throw live.unrecorded;
    let reason = live.fault;
    if (reason === undefined && tools.config.bakeMs > 0) reason = await run.phase('bake', () => bake(without(generation, was.before.serving), tools));
    return reason === undefined ? recordServing(generation, was, tools, run) : await rollBack(generation, reason, was, tools, run);
  } catch (cause) {
    run.journal?.close();
    const {message} = asFailure(cause, 'record');
    const failure: Failure = {code: 'CLEANUP_INCOMPLETE', message: `the new release serves, but that could not be put on record: ${message}`, hint: 'Mend that, then run `osyw-deploy recover`.'};
    const {id, revision} = generation.release;
    return {result: resultOf(historyLine(run, {outcome: 'deployed', failure, release: id, revision}), was.before.serving?.release.id ?? null, failure.hint), drain: undefined};
  }
}

/** Which revision it is to be. Changes nothing and takes long, so it is begun first, and nginx is looked at meanwhile. */
function ask({target}: Request, tools: DeployTools, signal: AbortSignal): Promise<string> {
  const asked = (async () => target.kind === 'release' ? target.release.revision : tools.workingCopy().resolve(target.wanted, signal))();
  asked.catch(() => undefined); // Told by `update`, which awaits it.
  return asked;
}

async function update(request: Request, asked: Promise<string>, made: Made, before: State, tools: DeployTools, run: Run, signal: AbortSignal): Promise<string> {
  const {target} = request;
  const revision = await asked;
  made.revision = revision;
  const newest = target.kind === 'revision' && target.wanted === undefined;
  if (newest) run.newest = revision;
  if (LOOK_TRIGGERS.some(trigger => trigger === request.trigger) && newest && !await isNews(revision, before, tools, signal)) return 'unchanged';
  if (target.kind === 'revision' && !request.force && await isUnchanged(revision, before, tools)) return 'unchanged';
  overtakenBy(revision, request, tools);
  run.journal ??= tools.records.beginJournal({type: 'deploy', version: 1, id: run.id, trigger: run.trigger, requestedBy: run.requestedBy, configHash: configHashOf(request, before, tools)});
  run.journal.append({type: 'phase', phase: 'update', state: 'began'}, {type: 'revision', revision, newest});
  if (target.kind === 'revision' || runsInWorkingCopy(target.release, tools)) {
    made.updated = true;
    tools.releases.lookAhead(tools.workingCopy(), revision, signal);
    const became = await tools.workingCopy().update(revision, signal);
    // A commit was merged into edits: what comes of that is known only now.
    if (became !== revision && target.kind === 'revision') {
      made.revision = became;
      if (newest) run.newest = became;
      run.journal.append({type: 'revision', revision: became, newest});
      return became;
    }
  }
  return revision;
}

/** What such workers load late they find in the working copy, so that stands at the revision that serves. */
function runsInWorkingCopy(release: Release | undefined, {config}: DeployTools): boolean {
  return config.inPlace || release?.adopted === true;
}

/** Whether this revision serves already: same configuration, its ports in the upstream file, all its workers healthy. */
export async function isUnchanged(revision: string, {serving}: State, tools: DeployTools): Promise<boolean> {
  if (serving === null || serving.release.revision !== revision || serving.configHash !== tools.config.hash || serving.release.adopted === true) return false;
  if (portsOf(serving).join() !== tools.upstream.filePorts().join()) return false;
  const checks = await Promise.all(serving.workers.map(worker => tools.health.check(serving.release, worker)));
  return checks.every(({good}) => good);
}

async function build(request: Request, revision: string, made: Made, before: State, tools: DeployTools, run: Run, signal: AbortSignal): Promise<Release> {
  const {target} = request;
  const {releases, report} = tools;
  if (target.kind === 'release') {
    made.existing = true;
    made.release = target.release;
    run.journal?.append({type: 'release', release: target.release, existing: true});
    if (tools.config.inPlace) await releases.build(target.release, tools.workingCopy(), line => report({event: 'output', line}), signal);
    else if (target.release.adopted !== true && !await releases.isComplete(target.release.id)) throw new DeployError('START_FAILED', `release ${target.release.id} is not complete any more`, {hint: 'Deploy its revision again: `osyw-deploy now --revision ' + revision + '`.'});
    return target.release;
  }
  const id = String(before.nextRelease).padStart(6, '0');
  const release = {id, revision, dir: releases.dirOf(id)};
  run.journal?.append({type: 'release', release, existing: false});
  made.release = release;
  await releases.build(release, tools.workingCopy(), line => report({event: 'output', line}), signal);
  return release;
}

async function start(release: Release, request: Request, made: Made, before: State, tools: DeployTools, run: Run, signal: AbortSignal): Promise<LaunchedWorker[]> {
  const {workers} = tools;
  await untilFewDrains(tools, signal);
  const slots = (request.target.kind === 'release' ? request.target.slots : undefined) ?? Array.from({length: tools.config.count}, (_, slot) => slot);
  const ports = (isComeback(request, before, tools) ? await portsToComeBackTo(slots, before, tools) : undefined) ?? await leaseBesideDrains(slots.length, before, tools, signal);
  const plans = slots.map((slot, i) => ({slot, port: ports[i] ?? 0, id: workers.newId(run.id, slot)}));
  // The marks are on disk before any process carries them: whatever dies now, recovery finds them all.
  run.journal?.append(...plans.map(({slot, port, id}) => ({type: 'starting', slot, port, worker: id} as const)));
  const settled = await Promise.allSettled(plans.map(async plan => {
    const entry = {id: plan.id, port: plan.port, launched: undefined as LaunchedWorker | undefined};
    made.workers.push(entry);
    entry.launched = await workers.launch(release, plan);
    return entry.launched;
  }));
  const launched = settled.flatMap(result => result.status === 'fulfilled' ? [result.value] : []);
  if (launched.length > 0) run.journal?.append(...launched.map(one => ({type: 'started', worker: one.worker()} as const)));
  const failed = settled.find(result => result.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
  tools.upstream.rehearse(portsOf(generationWith(launched.map(one => one.worker()), release, request, before, tools, run)));
  return launched;
}

/** Where nginx looks for the dead workers: fresh ones of the same release may listen there at once, for it was proved before. */
async function portsToComeBackTo(slots: readonly number[], {serving}: State, tools: DeployTools): Promise<number[] | undefined> {
  if (serving === null || serving.workers.length !== slots.length) return undefined;
  const ports = portsOf(serving);
  if (!await tools.workers.areSpare(ports)) return undefined;
  // What a dead worker left behind listens on none of them, so no request is touched.
  const stopped = await Promise.all(serving.workers.map(worker => tools.workers.stop(worker)));
  return stopped.every(({left}) => left.length === 0) ? ports : undefined;
}

async function check(release: Release, launched: readonly LaunchedWorker[], made: Made, before: State, tools: DeployTools, run: Run, signal: AbortSignal): Promise<Worker[]> {
  const strangers = new Set<number>();
  let relaunches = 0;
  const relaunch = async (worker: LaunchedWorker): Promise<LaunchedWorker> => {
    strangers.add(worker.port);
    tools.report({event: 'note', text: `port ${worker.port} was taken by a process that is not ours; worker ${worker.slot + 1} gets another`});
    await tools.workers.stop({...worker, process: worker.worker().process});
    if (++relaunches > MOST_RELAUNCHES) throw new DeployError('START_FAILED', `strangers took ${relaunches} ports one after the other, the last was ${worker.port}`);
    const taken = new Set([...takenPorts(before, tools), ...strangers, ...made.workers.map(({port}) => port)]);
    const [port = worker.port] = await tools.workers.leasePorts(1, taken, before.lastPort);
    const plan = {slot: worker.slot, port, id: tools.workers.newId(run.id, worker.slot)};
    run.journal?.append({type: 'starting', slot: plan.slot, port, worker: plan.id});
    const entry = {id: plan.id, port, launched: undefined as LaunchedWorker | undefined};
    made.workers.push(entry);
    entry.launched = await tools.workers.launch(release, plan);
    run.journal?.append({type: 'started', worker: entry.launched.worker()});
    return entry.launched;
  };
  const workers = await tools.health.waitUntilHealthy(launched, release, relaunch, tools.report, signal);
  // A daemon's own pid is known only now.
  run.journal?.append(...workers.map(worker => ({type: 'started', worker} as const)));
  return workers;
}

/** Whether the new workers serve well the moment they are live: alive, each good for one more check, and good through nginx. */
export async function confirm(generation: Generation, tools: DeployTools): Promise<string | undefined> {
  const faults = await Promise.all(generation.workers.map(async worker => {
    const result = await tools.health.check(generation.release, worker);
    return result.good ? undefined : `worker ${worker.slot + 1} on port ${worker.port}: ${result.saw}`;
  }));
  const fault = faults.find(text => text !== undefined);
  if (fault !== undefined) return `after the switch, ${fault}`;
  const seen = await tools.upstream.probe();
  return seen === undefined ? undefined : `after the switch, the probe through nginx failed: ${seen}`;
}

/** Watches the new release while the old workers stay ready. Undefined when it passed. */
async function bake(generation: Generation, tools: DeployTools): Promise<string | undefined> {
  const until = performance.now() + tools.config.bakeMs;
  while (performance.now() < until) {
    const fault = await confirm(generation, tools);
    if (fault !== undefined) return fault.replace('after the switch', 'during the bake');
    await delay(Math.min(tools.config.checkIntervalMs, Math.max(0, until - performance.now())));
  }
  return undefined;
}

/** Makes the new generation the serving one, durably, and leaves the old one to be drained. */
export function recordServing(generation: Generation, was: BeforeSwitch, tools: DeployTools, run: Run, failure?: Failure): Deployed {
  const {before} = was;
  const {release} = generation;
  const line = historyLine(run, {outcome: failure === undefined ? 'deployed' : 'uncertain', failure, release: release.id, revision: release.revision});
  const old = before.serving;
  const behind = old === null || old.deploy === run.id ? undefined : without(old, generation);
  // Workers that came back on the ports of dead ones leave nobody behind.
  const leaves = behind !== undefined && behind.workers.length > 0 && !portsOf(behind).some(port => portsOf(generation).includes(port));
  if (leaves) tools.records.writeDrain({version: 1, deploy: run.id, since: new Date().toISOString(), generation: behind, oldNginxWorkers: was.oldNginxWorkers, history: was.historyNow ? null : line});
  tools.records.save(stateServing(generation, was, run));
  if (!leaves || was.historyNow) tools.records.addToHistory(line);
  run.journal?.append({type: 'closed', outcome: line.outcome});
  run.journal?.close();
  return {result: resultOf(line, old?.release.id ?? null, failure?.hint ?? null), drain: leaves ? run.id : undefined};
}

function stateServing(generation: Generation, {before}: Pick<BeforeSwitch, 'before'>, run: Pick<Run, 'trigger' | 'newest'>): State {
  const {release} = generation;
  const rolledBackFrom = run.trigger === 'rollback' ? before.serving?.release : undefined;
  const was = before.served.find(({id}) => id === release.id);
  const known = was !== undefined;
  const entry = {...release, servedAt: generation.since, firstServedAt: was?.firstServedAt ?? was?.servedAt ?? generation.since, good: release.adopted !== true};
  const served = (known ? before.served.map(one => one.id === release.id ? entry : one) : [...before.served, entry])
    .map(one => one.id === rolledBackFrom?.id && one.id !== release.id ? {...one, good: false} : one);
  return {
    ...ended(before, run, release),
    serving: generation,
    served,
    lastPort: Math.max(...portsOf(generation)),
    leftAlone: rolledBackFrom?.revision ?? (before.serving?.release.id === release.id ? before.leftAlone : null),
  };
}

/** Back to what served before the switch, while it is still there; the failed workers are drained like any others. */
export async function rollBack(generation: Generation, reason: string, was: BeforeSwitch, tools: DeployTools, run: Run): Promise<Deployed> {
  const {before, intent} = was;
  const old = before.serving;
  const failure: Failure = {code: 'ROLLED_BACK', message: reason, hint: `The revision is not tried again by itself; \`osyw-deploy now\` tries it, \`osyw-deploy logs\` shows what the workers said.`};
  run.journal?.append({type: 'rolling_back', reason, intent: intent ?? null});
  tools.report({event: 'note', text: `${reason}; switching back`});
  try {
    // When nobody lives, as after a reboot, the file still goes back: `start` then brings the good release.
    const lives = (one: Generation) => one.workers.some(worker => tools.workers.isAlive(worker));
    if (old !== null && !lives(old) && lives(generation)) return noWayBack(generation, reason, was, tools, run);
    const steps: SwitchSteps = {intend: () => undefined, reloading: () => undefined};
    const {oldNginxWorkers} = intent?.oldBytes == null ? await tools.upstream.switchTo([], steps) : await tools.upstream.restore(intent, steps);
    run.journal?.append({type: 'rolled_back', oldNginxWorkers});
    const line = historyLine(run, {outcome: 'rolled_back', failure, release: generation.release.id, revision: generation.release.revision});
    tools.records.writeDrain({version: 1, deploy: run.id, since: new Date().toISOString(), generation: without(generation, old), oldNginxWorkers, history: was.historyNow ? null : line});
    if (was.historyNow) tools.records.addToHistory(line);
    const sameRelease = old?.release.id === generation.release.id;
    tools.records.save({...ended(before, run, generation.release), lastPort: Math.max(...portsOf(generation)), leftAlone: sameRelease ? before.leftAlone : generation.release.revision});
    if (old !== null && runsInWorkingCopy(old.release, tools)) await takeWorkingCopyBack(old.release.revision, tools);
    run.journal?.append({type: 'closed', outcome: 'rolled_back'});
    run.journal?.close();
    return {result: resultOf(line, old?.release.id ?? null, failure.hint), drain: run.id};
  } catch (cause) {
    return uncertain(cause, {release: generation.release.id, revision: generation.release.revision}, before, run, reason);
  }
}

/** The new release fails and the old one is dead: what nginx uses is on record, and a person has to look. */
function noWayBack(generation: Generation, reason: string, was: BeforeSwitch, tools: DeployTools, run: Run): Deployed {
  return recordServing(generation, was, tools, run, {
    code: 'STATE_UNCERTAIN',
    message: `${reason}; and no worker of the old release ${was.before.serving?.release.id ?? '?'} lives, so there is no way back`,
    hint: 'nginx uses the new release. See `osyw-deploy logs`, then deploy a revision that works.',
  });
}

/** Gives up before the switch. Never stops a worker that the upstream file names. */
async function abort(cause: unknown, request: Request, made: Made, before: State, tools: DeployTools, run: Run): Promise<Deployed> {
  const failure = asFailure(cause, run.current);
  const superseded = cause instanceof Superseded || (cause instanceof Error && cause.cause instanceof Superseded);
  const ids = {release: made.release?.id ?? null, revision: made.revision};
  if (failure.code === 'STATE_UNCERTAIN') return uncertain(cause, ids, before, run, undefined);
  const told: string[] = [failure.message];
  // Whatever the disk says: what was started is stopped. A journal without this line leads recovery to the same.
  record(() => run.journal?.append({type: 'aborting', code: failure.code, error: failure.message}), told);
  try {
    const started = made.workers.map(({id, port, launched}) => ({id, port, process: launched?.worker().process}));
    const left = await undo({workers: started, release: made.release, existing: made.existing, updated: made.updated}, before, tools);
    if (left.length > 0) told.push(`and these processes of it will not die: ${left.join(', ')}`);
  } catch (second) {
    return uncertain(second, ids, before, run, failure.message);
  }
  const line = superseded && told.length === 1 ? historyLine(run, {outcome: 'superseded', failure: undefined, ...ids})
    : historyLine(run, {outcome: 'aborted', failure: {...failure, message: told.join('\n')}, ...ids});
  record(() => {
    // Who was stopped in the middle, by a shutdown for one, or does not even know the revision, has not answered the request.
    if ((failure.code === 'INTERRUPTED' && !superseded) || made.revision === null) fileNewestAgain(request, {deploy: run.id, killed: 0}, tools);
    tools.records.addToHistory(line);
    saveEnded(before, failure.code === 'INTERRUPTED' || isPassing(cause) ? {...run, newest: undefined} : run, made.release, tools);
    run.journal?.append({type: 'closed', outcome: line.outcome});
  }, told);
  run.journal?.close();
  const error = line.error === null && told.length === 1 ? null : told.join('\n');
  return {result: {...resultOf(line, before.serving?.release.id ?? null, error === null ? null : failure.hint), error}, drain: undefined};
}

function isPassing(cause: unknown): boolean {
  return cause instanceof DeployError && cause.passing;
}

/** Writes down what it can; what cannot be written is said once, and recovery does it again. */
function record(write: () => void, told: string[]): void {
  try {
    write();
  } catch (error) {
    const said = `This could not be put on record: ${asFailure(error).message}`;
    if (!told.includes(said)) told.push(said);
  }
}

/** The state after a deploy that changed nothing of what serves: its number is used up, and its revision was tried. */
function ended(before: State, run: Pick<Run, 'newest'>, release: Release | undefined): State {
  const state = release === undefined ? before : numbered(before, release);
  return run.newest === undefined ? state : {...state, tried: run.newest};
}

/** Saves nothing where nothing changed. */
export function saveEnded(before: State, run: Pick<Run, 'newest'>, release: Release | undefined, tools: DeployTools): void {
  const state = ended(before, run, release);
  if (state.nextRelease !== before.nextRelease || state.tried !== before.tried) tools.records.save(state);
}

/** The number of a release is used once, whatever became of it. */
function numbered(state: State, release: Release): State {
  return {...state, nextRelease: Math.max(state.nextRelease, Number(release.id) + 1)};
}

/** Takes back what a deploy made before its switch. May run twice. Returns the pids that will not die. */
export async function undo(made: {workers: readonly {id: string; port: number; process: ProcessIdentity | undefined}[]; release: Release | undefined; existing: boolean; updated: boolean}, before: State, tools: DeployTools): Promise<number[]> {
  // A switch that failed has put the file back; if it still names one of these ports, traffic may be on its way there.
  // The ports of dead workers, on which these were to come back, it named before, too.
  const named = made.workers.length === 0 ? [] : tools.upstream.filePorts()
    .filter(port => made.workers.some(worker => worker.port === port) && before.serving?.workers.some(worker => worker.port === port) !== true);
  if (named.length > 0) throw new DeployError('STATE_UNCERTAIN', `the upstream file names ports ${named.join(', ')} of the release that failed`);
  const stopped = await Promise.all(made.workers.map(worker => tools.workers.stop(worker)));
  if (made.release !== undefined && !made.existing) await tools.releases.discard(made.release.id);
  if (made.updated && before.serving !== null && runsInWorkingCopy(before.serving.release, tools)) await takeWorkingCopyBack(before.serving.release.revision, tools);
  return stopped.flatMap(({left}) => left);
}

/** The old workers have what they need in memory; a repository that cannot be reached is no reason to leave the rest undone. */
async function takeWorkingCopyBack(revision: string, tools: DeployTools): Promise<void> {
  try {
    await tools.workingCopy().update(revision, new AbortController().signal);
  } catch (error) {
    tools.report({event: 'note', text: `the working copy could not be taken back to ${revision}: ${asFailure(error).message}`});
  }
}

/** Nothing is stopped and the journal stays open: the next recovery asks again. */
function uncertain(cause: unknown, ids: {release: string | null; revision: string | null}, before: State, run: Run, first: string | undefined): Deployed {
  const second = asFailure(cause);
  const message = first === undefined ? second.message : `${second.message}\nThis came after: ${first}`;
  const failure: Failure = {code: 'STATE_UNCERTAIN', message, hint: second.code === 'STATE_UNCERTAIN' ? second.hint : new DeployError('STATE_UNCERTAIN', '').hint};
  const line = historyLine(run, {outcome: 'uncertain', failure, ...ids});
  run.journal?.close();
  return {result: resultOf(line, before.serving?.release.id ?? null, failure.hint), drain: undefined};
}

/** Puts on record that there was nothing to deploy. May run twice. */
export function endUnchanged(asked: string | null, before: State, tools: DeployTools, run: Run): Deployed {
  run.journal?.append({type: 'unchanged', revision: asked});
  // What a hook is not to try, changes nothing of what serves either.
  const revision = before.serving?.release.revision ?? asked;
  const line = historyLine(run, {outcome: 'unchanged', failure: undefined, release: before.serving?.release.id ?? null, revision});
  if (run.trigger !== 'poll' && run.trigger !== 'watch') tools.records.addToHistory(line);
  saveEnded(before, run, undefined, tools);
  run.journal?.append({type: 'closed', outcome: 'unchanged'});
  run.journal?.close();
  return {result: resultOf(line, before.serving?.release.id ?? null, null), drain: undefined};
}

/** Journals each step of a switch before its effect, and hands the intent on. */
export function journalSwitch(run: Run, keep: (intent: SwitchIntent) => void): SwitchSteps {
  return {
    intend: intent => {
      keep(intent);
      run.journal?.append({type: 'switching', intent});
    },
    reloading: () => run.journal?.append({type: 'reloading'}),
  };
}

/** Where what drains holds the ports that are missing, they come free when it ends. */
async function leaseBesideDrains(count: number, before: State, tools: DeployTools, signal: AbortSignal): Promise<number[]> {
  for (;;) {
    const drains = tools.records.drains().length;
    try {
      return await tools.workers.leasePorts(count, takenPorts(before, tools), before.lastPort);
    } catch (error) {
      if (drains === 0) throw error;
      await untilFewDrains(tools, signal, drains);
    }
  }
}

/** Ports that no fresh worker may have. */
export function takenPorts(before: State, tools: DeployTools): Set<number> {
  const draining = tools.records.drains().flatMap(({generation}) => portsOf(generation));
  return new Set([...(before.serving === null ? [] : portsOf(before.serving)), ...draining, ...tools.upstream.filePorts()]);
}

async function untilFewDrains(tools: DeployTools, signal: AbortSignal, most = MOST_DRAINS): Promise<void> {
  const deadline = performance.now() + tools.config.longestDrainMs;
  for (let told = false; tools.records.drains().length >= most; told = true) {
    const [oldest] = tools.records.drains();
    if (performance.now() > deadline) {
      throw new DeployError('START_FAILED', `${most} generations still drain after ${formatDuration(tools.config.longestDrainMs)}, the oldest is release ${oldest?.generation.release.id ?? '?'}`,
        {hint: 'See `osyw-deploy status`; `osyw-deploy recover` says what will not end.'});
    }
    if (!told) tools.report({event: 'note', text: `waiting for release ${oldest?.generation.release.id ?? '?'} to drain: ${most} drain already`});
    await delay(DRAINS_POLL_MS, undefined, {signal});
  }
}
