import {spawn} from 'node:child_process';
import {userInfo} from 'node:os';
import {setTimeout as delay} from 'node:timers/promises';
import type {Config} from '../config/config.ts';
import {deploy, type Deployed} from '../deploy/deploy.ts';
import type {DeployEvent, DeployResult, Request} from '../deploy/events.ts';
import {finishDrain} from '../deploy/finish-drain.ts';
import {recover, unfinished} from '../deploy/recover.ts';
import {releasesToKeep} from '../deploy/retention.ts';
import {asFailure, startRun, type Failure} from '../deploy/run.ts';
import type {DeployTools} from '../deploy/tools.ts';
import {DeployError, FAILURES} from '../errors.ts';
import {openLog} from '../log.ts';
import {deployLockPath, isLock, tryLock, type HeldLock, type LockHolder} from '../state/deploy-lock.ts';
import type {HeldDrain} from '../state/drains.ts';
import {readJournal} from '../state/journal.ts';
import {makeStateDir} from '../state/state-file.ts';
import {wire} from '../wire.ts';
import type {Context} from './context.ts';
import type {Renderer} from './renderer.ts';

/** What a command that changes something may use; it holds the lock, and what a crash left is settled. */
export interface Change {
  readonly config: Config;
  readonly tools: DeployTools;
  readonly recovered: Deployed | undefined;
  /** `signal`: the command's own, unless told. */
  deploy(request: Request, signal?: AbortSignal): Promise<Deployed>;
}

/**
 * Runs a command that changes something: lock, recover, the command, unlock, drain, prune. Returns the exit code.
 * Every end, also one before the first effect, is told as a result.
 */
export async function change(context: Context, command: string, {wait}: {wait: boolean}, work: (change: Change) => Promise<Deployed>): Promise<number> {
  const renderer = context.renderer();
  try {
    const config = context.loadConfig();
    return await changeApplication(context, config, renderer, command, wait, work);
  } catch (error) {
    const failure = asFailure(error);
    renderer.result(failedResult(failure));
    return FAILURES[failure.code].exit;
  }
}

async function changeApplication(context: Context, config: Config, renderer: Renderer, command: string, wait: boolean, work: (change: Change) => Promise<Deployed>): Promise<number> {
  makeStateDir(config.stateDir);
  const turn = await takeTurn(await takeLock(config, command), {context, config, renderer, wait}, work);
  const result = await turn.finish();
  renderer.result(result);
  return result.exit;
}

/** What was done under the lock, which is free again. */
export interface Turn {
  readonly result: DeployResult;
  /** Sees to the drains, ours and those of before, and to the releases that are kept no longer. Returns how it ended in all. */
  finish(): Promise<DeployResult>;
}

interface TurnOptions {
  readonly context: Pick<Context, 'output' | 'signal'>;
  readonly config: Config;
  readonly renderer: Renderer;
  /** Whether this process stays until everything old is gone. */
  readonly wait: boolean;
}

/** One turn under the lock: recover, then the work. The lock is free on return. */
export async function takeTurn(lock: HeldLock, {context, config, renderer, wait}: TurnOptions, work: (change: Change) => Promise<Deployed>): Promise<Turn> {
  const log = openLog(config.stateDir);
  const report = (event: DeployEvent) => {
    log.info(event);
    renderer.event(event);
  };
  const tools = wire(config, report);
  let deployed: Deployed;
  let beside: Promise<(Failure | undefined)[]>;
  let own: HeldDrain | undefined;
  try {
    const recovered = await recover(tools);
    // Who does not wait leaves those of earlier deploys to the process that drains in the background, too.
    if (!wait && tools.records.drains().length > 0) drainInBackground(config);
    beside = wait ? finishDrains(tools, renderer) : Promise.resolve([]);
    deployed = await work({
      config, tools, recovered,
      deploy: (request, signal = context.signal) => deploy(request, tools, signal, {historyNow: !wait}),
    });
    // Taken before the lock is free: another command would finish it as well, but then we would not wait for it.
    if (wait && deployed.drain !== undefined) own = tools.records.takeDrain(deployed.drain);
  } finally {
    lock.release();
  }
  const {result, drain} = deployed;
  log.info({event: 'result', ...result});
  return {result, finish: async () => {
    const patience = () => context.output.err('The switch is done; what does not serve any more is being drained. The same signal again leaves at once, and the next command takes that up.\n');
    if (drain !== undefined && context.signal.aborted) patience();
    else if (drain !== undefined) context.signal.addEventListener('abort', patience, {once: true});
    if (!wait && drain !== undefined) {
      drainInBackground(config);
      return result;
    }
    const failure = (own === undefined ? undefined : await finishOne(tools, own, result)) ?? (await beside).find(one => one !== undefined);
    await pruneReleases(config, tools).catch((error: unknown) => report({event: 'note', text: `old releases could not be removed: ${asFailure(error).message}`}));
    return failure === undefined || result.exit !== 0 ? result
      : {...result, exit: FAILURES.CLEANUP_INCOMPLETE.exit, code: 'CLEANUP_INCOMPLETE' as const, error: failure.message, hint: failure.hint};
  }};
}

/** Finishes every drain that nobody else holds. */
export function finishDrains(tools: DeployTools, renderer: Renderer): Promise<(Failure | undefined)[]> {
  const quiet = startRun({id: '', trigger: 'recover', requestedBy: '', startedAt: ''}, event => {
    if (event.event === 'note') renderer.event(event);
  });
  return Promise.all(tools.records.drains().map(async ({deploy: id}) => {
    try {
      const held = tools.records.takeDrain(id);
      return held === undefined ? undefined : await finishDrain(held, tools, {...quiet, phases: {}});
    } catch (error) {
      return asFailure(error, 'drain');
    }
  }));
}

async function finishOne(tools: DeployTools, held: HeldDrain, result: DeployResult): Promise<Failure | undefined> {
  const run = startRun({id: held.drain.deploy, trigger: 'manual', requestedBy: '', startedAt: ''}, tools.report);
  const failure = await finishDrain(held, tools, run);
  Object.assign(result.phases, run.phases);
  return failure;
}

/** Removes what is kept no longer; left to the next deploy when one is under way. */
export async function pruneReleases(config: Config, tools: DeployTools): Promise<void> {
  const lock = tryLock(deployLockPath(config.stateDir), PRUNING);
  if (!isLock(lock)) return;
  try {
    // What a killed deploy switched to is not in the state yet, and must not be taken for rubbish.
    if (unfinished(tools.records.readJournal()) !== undefined) return;
    const state = tools.records.state();
    const keep = releasesToKeep(state, tools.records.drains(), tools.config.keep);
    const served = state.served.filter(({id}) => keep.includes(id));
    if (served.length < state.served.length) tools.records.save({...state, served});
    await tools.releases.prune(keep);
  } finally {
    lock.release();
  }
}

/** What the lock's record says while old releases are removed: that ends by itself, and is waited for. */
const PRUNING = 'prune';
const PRUNING_TIMEOUT_MS = 10_000;
const PRUNING_POLL_MS = 20;

async function takeLock(config: Config, command: string): Promise<HeldLock> {
  const deadline = performance.now() + PRUNING_TIMEOUT_MS;
  let lock = tryLock(deployLockPath(config.stateDir), command);
  while (!isLock(lock) && lock.heldBy?.command === PRUNING && performance.now() < deadline) {
    await delay(PRUNING_POLL_MS);
    lock = tryLock(deployLockPath(config.stateDir), command);
  }
  if (isLock(lock)) return lock;
  throw new DeployError('BUSY', `another deploy of ${config.app} is under way: ${describeHolder(lock.heldBy)}${phaseNow(config.stateDir)}`);
}

function describeHolder(holder: LockHolder | undefined): string {
  return holder === undefined ? 'its holder is not known' : `pid ${holder.process?.pid ?? '?'}, \`osyw-deploy ${holder.command}\`, since ${holder.since}`;
}

function phaseNow(stateDir: string): string {
  try {
    const phase = readJournal(stateDir).findLast(({type}) => type === 'phase');
    return phase?.type === 'phase' ? `, in ${phase.phase}` : '';
  } catch {
    return ''; // The journal is being written; the lock is what counts.
  }
}

/** Leaves a process behind that finishes the drains: in a session of its own, holding nothing of ours. */
function drainInBackground(config: Config): void {
  const [, script = ''] = process.argv;
  spawn(process.execPath, [script, 'drain', '--quiet', '--config', config.file], {detached: true, stdio: 'ignore', cwd: '/'})
    // The next command that changes something finishes them, if this one cannot be started.
    .on('error', () => undefined)
    .unref();
}

/** A result for what ended before there was a deploy. */
export function failedResult(failure: Failure): DeployResult {
  return {outcome: failure.code === 'STATE_UNCERTAIN' ? 'uncertain' : 'aborted', exit: FAILURES[failure.code].exit, code: failure.code, release: null, revision: null, previous: null, phases: {}, error: failure.message, hint: failure.hint};
}

/** Who runs the command, for the record: the account, and behind sudo the one who called it. */
export function requester(env: NodeJS.ProcessEnv): string {
  const account = process.getuid === undefined ? 'unknown' : accountName();
  const caller = env['SUDO_USER'];
  return caller !== undefined && /^[\w.-]{1,64}$/.test(caller) ? `${caller} (as ${account})` : account;
}

function accountName(): string {
  try {
    return userInfo().username;
  } catch {
    return `uid ${process.getuid?.() ?? '?'}`; // An account without a name, as in a container.
  }
}

