import type {Config} from '../config/config.ts';
import {lastDeploys} from '../state/history.ts';
import {runCommand} from '../support/run-command.ts';
import {formatDuration} from '../support/durations.ts';
import {SYSTEM_PATH} from '../support/system-path.ts';
import {systemdRuns} from '../support/systemd.ts';
import type {Finding} from './finding.ts';

const COMMAND_MS = 5000;
/** Two clocks that are both right differ by less. */
const TOLERANCE_MS = 2 * 60_000;

/** A moment that another clock, or this one earlier, put on record. */
export interface Moment {
  readonly what: string;
  /** Milliseconds since 1970. */
  readonly at: number;
}

/** Whether the clock can be right: no moment on record may lie in the future. `synchronized` as systemd says it; undefined where nobody does. */
export function clockIsRight(now: number, moments: readonly Moment[], synchronized: boolean | undefined): Finding {
  const check = 'clock';
  const mend = 'timedatectl set-ntp true';
  const means = 'the times in history and logs are wrong, certificates seem to be from the future or outdated, and `history` mixes up the order of deploys';
  const ahead = [...moments].sort((a, b) => b.at - a.at)[0];
  if (ahead !== undefined && ahead.at > now + TOLERANCE_MS) {
    return {check, level: 'warning', says: `this machine's clock says ${iso(now)}, ${formatDuration(ahead.at - now)} before ${ahead.what} of ${iso(ahead.at)}`, means, mend};
  }
  if (synchronized === false) return {check, level: 'warning', says: 'systemd says that no time server sets this clock', means: `it drifts; then ${means}`, mend};
  return {check, level: 'ok', says: synchronized === true ? 'the clock is set by a time server' : `the clock says ${iso(now)}; nothing on record is later${moments.length === 0 ? ', for there is nothing' : ''}`};
}

/** Undefined where systemd does not run, or does not say. */
export async function isSynchronized(signal: AbortSignal): Promise<boolean | undefined> {
  if (!systemdRuns()) return undefined;
  const {exitCode, stdout} = await runCommand({file: 'timedatectl', args: ['show', '--property=NTPSynchronized', '--value']}, {env: {PATH: SYSTEM_PATH, LC_ALL: 'C.UTF-8'}, cwd: '/', timeoutMs: COMMAND_MS, signal});
  return exitCode !== 0 || stdout.trim() === '' ? undefined : stdout.trim() === 'yes';
}

/** The last deploy. */
export function momentsOnRecord({stateDir}: Config): Moment[] {
  return lastDeploys(stateDir, 1).map(({id, ended_at: at}) => ({what: `the end of deploy ${id}`, at: Date.parse(at)}));
}

function iso(ms: number): string {
  return new Date(ms).toISOString().slice(0, 19).replace('T', ' ');
}
