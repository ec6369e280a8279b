import {randomBytes} from 'node:crypto';
import type {Outcome, Phase, PhaseTimes, Trigger} from './deployment.ts';
import type {DeployResult, Report} from './events.ts';
import {DeployError, FAILURES, errnoOf, messageOf, type FailureCode} from '../errors.ts';
import type {HistoryLine} from '../state/history.ts';
import type {Journal} from '../state/journal.ts';

/** One deploy under way: who asked, since when, and how long each phase took. */
export interface Run {
  readonly id: string;
  readonly trigger: Trigger;
  readonly requestedBy: string;
  readonly startedAt: string;
  readonly phases: PhaseTimes;
  /** Undefined until the first effect: what changes nothing needs no journal. */
  journal: Journal | undefined;
  /** The phase that runs, or ran last. */
  current: Phase | undefined;
  /** The newest revision, where this run asked for it. */
  newest: string | undefined;
  phase<T>(phase: Phase, work: () => Promise<T>): Promise<T>;
}

/** A failure as it is told and recorded. */
export interface Failure {
  readonly code: FailureCode;
  readonly message: string;
  readonly hint: string;
}

/** The reason of an abort: a newer request takes the place of a deploy that has not switched yet. */
export class Superseded extends Error {
  override readonly name = 'Superseded';
}

/** Sorts by time, and no two are the same: `20261123-021100-7f3a9c`. */
export function newDeployId(now: Date): string {
  return idAt(now, randomBytes(3).toString('hex'));
}

/** The id, in the history, of what began at `time`. */
export function idAt(time: Date, suffix: string): string {
  return `${time.toISOString().slice(0, 19).replaceAll('-', '').replace('T', '-').replaceAll(':', '')}-${suffix}`;
}

export function startRun(who: {id: string; trigger: Trigger; requestedBy: string; startedAt: string}, report: Report): Run {
  const phases: PhaseTimes = {};
  const run: Run = {
    ...who,
    phases,
    journal: undefined,
    current: undefined,
    newest: undefined,
    async phase(phase, work) {
      run.current = phase;
      run.journal?.append({type: 'phase', phase, state: 'began'});
      report({event: 'phase', phase, state: 'began'});
      const began = performance.now();
      const end = () => {
        phases[phase] = (phases[phase] ?? 0) + Math.round(performance.now() - began);
        report({event: 'phase', phase, state: 'ended', ms: phases[phase]});
      };
      try {
        return await work();
      } finally {
        end();
      }
    },
  };
  return run;
}

/** What the machine refuses, a full disk for one, is a failure of the phase that met it and not a bug. Source: errno(3). */
const REFUSALS: Readonly<Record<string, string>> = {
  ENOSPC: 'no space is left on the device', EDQUOT: 'the disk quota is used up', EROFS: 'the file system is read-only', EIO: 'the disk failed',
  EMFILE: 'too many files are open', ENFILE: 'too many files are open', ENOMEM: 'no memory is left', EAGAIN: 'no more processes may be started',
  EACCES: 'permission is denied', EPERM: 'permission is denied', ENOTDIR: 'a part of the path is not a directory', ELOOP: 'a link stands where none may be',
};
const CODE_OF_PHASE: Readonly<Record<Phase, FailureCode>> = {
  update: 'UPDATE_FAILED', build: 'BUILD_FAILED', start: 'START_FAILED', check: 'NEVER_HEALTHY', switch: 'SWITCH_REFUSED',
  bake: 'CLEANUP_INCOMPLETE', drain: 'CLEANUP_INCOMPLETE', record: 'CLEANUP_INCOMPLETE',
};

/** A thrown value as a failure; `phase` is where it was thrown. */
export function asFailure(cause: unknown, phase: Phase = 'update'): Failure {
  if (cause instanceof Superseded) return {code: 'INTERRUPTED', message: cause.message, hint: FAILURES.INTERRUPTED.hint};
  if (cause instanceof DeployError) return {code: cause.code, message: cause.message, hint: cause.hint};
  // Node's timers wrap the reason of an abort.
  if (cause instanceof Error && cause.name === 'AbortError' && cause.cause !== undefined) return asFailure(cause.cause, phase);
  const refusal = REFUSALS[errnoOf(cause) ?? ''];
  if (refusal !== undefined) return {code: CODE_OF_PHASE[phase], message: `${refusal}: ${messageOf(cause)}`, hint: 'Mend that and deploy again; what was begun is taken back.'};
  return {code: 'INTERNAL', message: cause instanceof Error ? (cause.stack ?? cause.message) : messageOf(cause), hint: FAILURES.INTERNAL.hint};
}

export function historyLine(run: Run, end: {outcome: Outcome; failure: Failure | undefined; release: string | null; revision: string | null}): HistoryLine {
  return {
    id: run.id,
    trigger: run.trigger,
    requested_by: run.requestedBy,
    revision: end.revision,
    release: end.release,
    outcome: end.outcome,
    exit: end.failure === undefined ? 0 : FAILURES[end.failure.code].exit,
    code: end.failure?.code ?? 'OK',
    error: end.failure?.message ?? null,
    phases: {...run.phases},
    started_at: run.startedAt,
    ended_at: new Date().toISOString(),
  };
}

export function resultOf(line: HistoryLine, previous: string | null, hint: string | null): DeployResult {
  const {outcome, exit, code, release, revision, phases, error} = line;
  return {outcome, exit, code: code as DeployResult['code'], release, revision, previous, phases, error, hint};
}
