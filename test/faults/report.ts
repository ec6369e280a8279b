import {appendFileSync} from 'node:fs';

/** One run of a fault suite. */
export interface FaultRun {
  /** `barriers`, `system calls`, `soak`. */
  readonly suite: string;
  /** What was done, e.g. `SIGKILL`. */
  readonly fault: string;
  /** The phase of the deploy that it met: `update`, `build`, `start`, `check`, `switch`, `bake`, `record`, `drain`, `recover`. */
  readonly phase: string;
  readonly held: boolean;
  /** Whatever else tells this run from another, e.g. the point and the configuration. */
  readonly [more: string]: string | number | boolean;
}

/** A line of JSON in the file that OSYW_FAULTS_REPORT names; without it nothing. Suites of several processes may share the file. */
export function recordRun(run: FaultRun): void {
  const file = process.env['OSYW_FAULTS_REPORT'];
  if (file !== undefined) appendFileSync(file, `${JSON.stringify(run)}\n`);
}
