import {randomBytes} from 'node:crypto';
import type {Outcome, Phase, PhaseTimes, Trigger} from './deployment.ts';
import type {DeployResult, Report} from './events.ts';
import {DeployError, FAILURES, messageOf, type FailureCode} from '../errors.ts';
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
  phase<T>(phase: Phase, work: () => Promise<T>): Promise<T>;
}

/** A failure as it is told and recorded. */
export interface Failure {
  readonly code: FailureCode;
  readonly message: string;
  readonly hint: string;
}

/** Sorts by time, and no two are the same: `20261123-021100-7f3a9c`. */
export function newDeployId(now: Date): string {
  return `${now.toISOString().slice(0, 19).replaceAll('-', '').replace('T', '-').replaceAll(':', '')}-${randomBytes(3).toString('hex')}`;
}

export function startRun(who: {id: string; trigger: Trigger; requestedBy: string; startedAt: string}, report: Report): Run {
  const phases: PhaseTimes = {};
  const run: Run = {
    ...who,
    phases,
    journal: undefined,
    async phase(phase, work) {
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

export function asFailure(cause: unknown): Failure {
  if (cause instanceof DeployError) return {code: cause.code, message: cause.message, hint: cause.hint};
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
