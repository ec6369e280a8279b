import {spawn} from 'node:child_process';
import type {Config} from '../config/config.ts';
import {deploy, type Deployed} from '../deploy/deploy.ts';
import type {DeployEvent, DeployResult, FiledRequest, Request} from '../deploy/events.ts';
import {finishDrain} from '../deploy/finish-drain.ts';
import {recover, unfinished} from '../deploy/recover.ts';
import {releasesToKeep} from '../deploy/retention.ts';
import {asFailure, startRun, type Failure} from '../deploy/run.ts';
import type {DeployTools} from '../deploy/tools.ts';
import {FAILURES, messageOf} from '../errors.ts';
import {openLog} from '../log.ts';
import {deployLockPath, isLock, tryLock, type HeldLock} from '../state/deploy-lock.ts';
import type {HeldDrain} from '../state/drains.ts';
import {forgetRestarts} from '../state/restarts.ts';
import {openCommitters, type Committers} from '../trigger/committers.ts';
import {clearSpool, readSpool} from '../trigger/request-spool.ts';
import {wire} from '../wire.ts';
import type {Context} from './context.ts';
import {recordAdoption} from './record-adoption.ts';
import {openRenderer, type Renderer} from './renderer.ts';

/** What a command that changes something may use; it holds the lock, and what a crash left is settled. */
export interface Change {
  readonly config: Config;
  readonly tools: DeployTools;
  readonly recovered: Deployed | undefined;
  /** What waits in the spool, oldest first, for the next deploy to answer. Junk is set aside, and reported. */
  filed(): FiledRequest[];
  /** `signal`: the command's own, unless told. */
  deploy(request: Request, signal?: AbortSignal): Promise<Deployed>;
}

/** What was done under the lock, which is free again. */
export interface Turn {
  readonly result: DeployResult;
  /** Sees to the drains, ours and those of before, and to the releases that are kept no longer. Returns how it ended in all. */
  finish(): Promise<DeployResult>;
}

export interface TurnOptions {
  readonly context: Pick<Context, 'output' | 'signal' | 'letGo' | 'reviving'>;
  readonly config: Config;
  readonly renderer: Renderer;
  /** Whether this process stays until everything old is gone. */
  readonly wait: boolean;
  /** Whether the work answers what lies in the spool. */
  readonly answers: boolean;
}

/** One turn under the lock: recover, then the work. The lock is free on return; who waits at a hook has heard how it went. */
export async function takeTurn(lock: HeldLock, {context, config, renderer, wait, answers}: TurnOptions, work: (change: Change) => Promise<Deployed>): Promise<Turn> {
  const committers = openCommitters(config.stateDir);
  const plain = tellCommitters(committers);
  let tools: DeployTools;
  let report: (event: DeployEvent) => void;
  let deployed: Deployed;
  let beside: Promise<(Failure | undefined)[]>;
  let own: HeldDrain | undefined;
  let untaken: Failure | undefined;
  let stopTelling = (): void => undefined;
  try {
    const log = openLog(config.stateDir);
    report = event => {
      log.info(event);
      renderer.event(event);
      plain.event(event);
    };
    stopTelling = tellOfBugs(failed => {
      log.info({event: 'result', ...failed});
      renderer.result(failed);
      plain.result(failed);
      committers.end(failed.exit);
    });
    tools = wire(config, report);
    // Others than committers could ask to hear it; so only where it is wanted at all. Before the recovery: that may be the end of it.
    const join = () => {
      if (answers && config.hook.wait) committers.join(readSpool(config.stateDir, config.app).requests);
    };
    join();
    const recovered = await recover(tools);
    recordAdoption(tools);
    // Who does not wait leaves those of earlier deploys to the process that drains in the background, too.
    if (!wait && tools.records.drains().length > 0) drainInBackground(config);
    beside = wait ? finishDrains(tools, renderer, context.letGo) : Promise.resolve([]);
    deployed = await work({
      config, tools, recovered,
      filed: () => {
        for (const text of clearSpool(config.stateDir, config.app)) report({event: 'note', text});
        join();
        return tools.records.filed();
      },
      deploy: (request, signal = context.signal) => {
        // Only what fetches and builds takes long before its start.
        if (request.target.kind === 'revision') context.reviving?.permit(lock);
        return deploy(request, beforeItsStart(tools, async () => context.reviving?.forbid(lock)), signal, {historyNow: !wait});
      },
    });
    // Taken before the lock is free: another command would finish it as well, but then we would not wait for it.
    try {
      if (wait && deployed.drain !== undefined) own = tools.records.takeDrain(deployed.drain);
    } catch (error) {
      // The new release serves all the same.
      untaken = {...asFailure(error, 'drain'), hint: 'The old workers are still to be stopped: run `osyw-deploy recover`.'};
    }
    log.info({event: 'result', ...deployed.result});
  } catch (error) {
    stopTelling();
    const failed = failedResult(asFailure(error));
    plain.result(failed);
    committers.end(failed.exit);
    throw error;
  } finally {
    await context.reviving?.forbid(lock);
    lock.release();
  }
  const {result, drain} = deployed;
  plain.result(result);
  committers.end(result.exit);
  return {result, finish: async () => {
    const patience = () => context.output.err('The switch is done; what does not serve any more is being drained. The same signal again leaves at once, and the next command takes that up.\n');
    if (drain !== undefined && context.signal.aborted) patience();
    else if (drain !== undefined) context.signal.addEventListener('abort', patience, {once: true});
    if (!wait && drain !== undefined) {
      stopTelling();
      drainInBackground(config);
      return result;
    }
    const failure = untaken ?? (own === undefined ? undefined : await finishOne(tools, own, result, context.letGo)) ?? (await beside).find(one => one !== undefined);
    await pruneReleases(config, tools).catch((error: unknown) => report({event: 'note', text: `old releases could not be removed: ${asFailure(error).message}`}));
    stopTelling();
    return failure === undefined || result.exit !== 0 ? result
      : {...result, exit: FAILURES.CLEANUP_INCOMPLETE.exit, code: 'CLEANUP_INCOMPLETE' as const, error: failure.message, hint: failure.hint};
  }};
}

/** The same tools; ports are given away only after `ready`. */
function beforeItsStart(tools: DeployTools, ready: () => Promise<void>): DeployTools {
  const {workers} = tools;
  return {...tools, workers: {
    ...workers,
    leasePorts: async (...wanted) => {
      await ready();
      return workers.leasePorts(...wanted);
    },
    areSpare: async ports => {
      await ready();
      return workers.areSpare(ports);
    },
  }};
}

/** Tells, before Node ends the process for it, of an error that nobody catches; the journal stays, as after a kill. Returns the end of that. */
function tellOfBugs(tell: (result: DeployResult) => void): () => void {
  const told = (error: Error | null | undefined): void => tell(failedResult({code: 'INTERNAL', message: error?.stack ?? messageOf(error), hint: FAILURES.INTERNAL.hint}));
  process.on('uncaughtExceptionMonitor', told);
  return () => void process.off('uncaughtExceptionMonitor', told);
}

/** Finishes every drain that nobody else holds. */
export function finishDrains(tools: DeployTools, renderer: Renderer, letGo?: AbortSignal): Promise<(Failure | undefined)[]> {
  const quiet = startRun({id: '', trigger: 'recover', requestedBy: '', startedAt: ''}, event => {
    if (event.event === 'note') renderer.event(event);
  });
  return Promise.all(tools.records.drains().map(async ({deploy: id}) => {
    try {
      const held = tools.records.takeDrain(id);
      return held === undefined ? undefined : await finishDrain(held, tools, {...quiet, phases: {}}, letGo);
    } catch (error) {
      return asFailure(error, 'drain');
    }
  }));
}

async function finishOne(tools: DeployTools, held: HeldDrain, result: DeployResult, letGo: AbortSignal | undefined): Promise<Failure | undefined> {
  const run = startRun({id: held.drain.deploy, trigger: 'manual', requestedBy: '', startedAt: ''}, tools.report);
  const failure = await finishDrain(held, tools, run, letGo);
  Object.assign(result.phases, run.phases);
  return failure;
}

/** What the lock's record says while old releases are removed: that ends by itself, and is waited for. */
export const PRUNING = 'prune';

/** Removes what is kept no longer; left to the next deploy when one is under way. */
export async function pruneReleases(config: Config, tools: DeployTools): Promise<void> {
  const lock = tryLock(deployLockPath(config.stateDir), PRUNING);
  if (!isLock(lock)) return;
  try {
    // What a killed deploy switched to is not in the state yet, and must not be taken for rubbish.
    if (unfinished(tools.records.readJournal()) !== undefined) return;
    const state = tools.records.state();
    const drains = tools.records.drains();
    const keep = releasesToKeep(state, drains, tools.config.keep);
    const served = state.served.filter(({id}) => keep.includes(id));
    if (served.length < state.served.length) tools.records.save({...state, served});
    forgetRestarts(config.stateDir, new Set([...(state.serving?.workers ?? []), ...drains.flatMap(({generation}) => generation.workers)].map(({id}) => id)));
    await tools.releases.prune(keep);
  } finally {
    lock.release();
  }
}

/** Leaves a process behind that finishes the drains: in a session of its own, holding nothing of ours. */
export function drainInBackground(config: Config): void {
  const [, script = ''] = process.argv;
  spawn(process.execPath, [script, 'drain', '--quiet', '--config', config.file], {detached: true, stdio: 'ignore', cwd: '/'})
    // The next command that changes something finishes them, if this one cannot be started.
    .on('error', () => undefined)
    .unref();
}

/** In plain lines, as in a pipe. */
function tellCommitters({say}: Committers): Renderer {
  return openRenderer({out: say, err: say, terminal: false, colour: false}, {json: false, quiet: false, verbose: false});
}

/** A result for what ended before there was a deploy. */
export function failedResult(failure: Failure): DeployResult {
  return {outcome: failure.code === 'STATE_UNCERTAIN' ? 'uncertain' : 'aborted', exit: FAILURES[failure.code].exit, code: failure.code, release: null, revision: null, previous: null, phases: {}, error: failure.message, hint: failure.hint};
}
