import {userInfo} from 'node:os';
import {setTimeout as delay} from 'node:timers/promises';
import type {Config} from '../config/config.ts';
import type {Deployed} from '../deploy/deploy.ts';
import {asFailure} from '../deploy/run.ts';
import {DeployError, FAILURES} from '../errors.ts';
import {deployLockPath, isLock, tryLock, type HeldLock, type LockHolder} from '../state/deploy-lock.ts';
import {RESTARTING} from '../watch/supervisor.ts';
import {readJournal} from '../state/journal.ts';
import {makeStateDir, refuseForeignState} from '../state/state-file.ts';
import type {Context} from './context.ts';
import {failedResult, PRUNING, takeTurn, type Change} from './turn.ts';

export interface ChangeOptions {
  readonly wait: boolean;
  /** Whether it answers what lies in the spool. */
  readonly answers?: boolean;
}

/**
 * Runs a command that changes something: lock, recover, the command, unlock, drain, prune. Returns the exit code.
 * Every end, also one before the first effect, is told as a result.
 */
export async function change(context: Context, command: string, {wait, answers = false}: ChangeOptions, work: (change: Change) => Promise<Deployed>): Promise<number> {
  const renderer = context.renderer();
  try {
    const config = context.loadConfig();
    refuseForeignState(config.stateDir);
    makeStateDir(config.stateDir);
    const turn = await takeTurn(await takeLock(config, command), {context, config, renderer, wait, answers}, work);
    const result = await turn.finish();
    renderer.result(result);
    return result.exit;
  } catch (error) {
    const failure = asFailure(error);
    renderer.result(failedResult(failure));
    return FAILURES[failure.code].exit;
  }
}

const PASSING_TIMEOUT_MS = 15_000;
const PASSING_POLL_MS = 20;

async function takeLock(config: Config, command: string): Promise<HeldLock> {
  const deadline = performance.now() + PASSING_TIMEOUT_MS;
  let lock = tryLock(deployLockPath(config.stateDir), command);
  while (!isLock(lock) && [PRUNING, RESTARTING].includes(lock.heldBy?.command ?? '') && performance.now() < deadline) {
    await delay(PASSING_POLL_MS);
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

/** Who runs the command, for the record: the account, and behind sudo the one who called it. */
export function requester({env, requestedBy}: Pick<Context, 'env' | 'requestedBy'>): string {
  if (requestedBy !== undefined) return requestedBy;
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

