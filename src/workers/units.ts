import {constants} from 'node:os';
import {setTimeout as delay} from 'node:timers/promises';
import type {ProcessIdentity, Worker} from '../deploy/deployment.ts';
import {DeployError} from '../errors.ts';
import {runCommand, type CommandResult} from '../support/run-command.ts';
import {SYSTEM_PATH} from '../support/system-path.ts';
import {identify, isAlive} from './process-identity.ts';
import {unitOf} from './unit-name.ts';

/** What systemd says of a unit, as far as it is used here. */
export interface UnitState {
  /** Its main process; undefined while it has none. */
  readonly main: ProcessIdentity | undefined;
  /** How its main process ended, in words that follow its name; undefined while it runs, or when systemd does not know yet or any more. */
  readonly ended: string | undefined;
  /** Its main process has ended, and systemd has not noticed yet. */
  readonly unnoticed: boolean;
  /** Systemd is about to start it again. */
  readonly restarting: boolean;
  readonly restarts: number;
}

/** How a worker stands now. */
export interface Standing {
  /** The process that is the worker, be it not the one on record: systemd starts a unit anew. Undefined when none lives. */
  readonly process: ProcessIdentity | undefined;
  readonly restarting: boolean;
  readonly restarts: number;
}

const ANSWER_TIMEOUT_MS = 10_000;
/** Systemd hears of the end of a process at once, but may have other things to do. */
const NOTICE_TIMEOUT_MS = 2000;
const NOTICE_POLL_MS = 10;

const PROPERTIES = ['Id', 'SubState', 'MainPID', 'NRestarts', 'Result', 'ExecMainCode', 'ExecMainStatus'] as const;
type Property = (typeof PROPERTIES)[number];

/** Runs systemctl to its end. */
export function systemctl(args: readonly string[], timeoutMs = ANSWER_TIMEOUT_MS): Promise<CommandResult> {
  return runCommand({file: '/usr/bin/systemctl', args: ['--no-ask-password', ...args]}, {env: {PATH: SYSTEM_PATH, LC_ALL: 'C.UTF-8'}, timeoutMs});
}

/**
 * What one unit is doing; calls that come together are one question to systemd. A unit that is gone has neither a process nor an end.
 * Errors: START_FAILED when systemd does not answer.
 */
export const unitState = together(async units => {
  const {exitCode, stdout, stderr} = await systemctl(['show', `--property=${PROPERTIES.join(',')}`, '--', ...units]);
  if (exitCode !== 0) throw new DeployError('START_FAILED', `systemd does not say how ${units.join(', ')} stand: ${stderr.trim() || 'no answer'}`, {hint: 'See `systemctl status`.'});
  const states = new Map(stdout.split('\n\n').map(block => {
    const said = Object.fromEntries(block.split('\n').map(line => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)])) as Partial<Record<Property, string>>;
    return [said.Id ?? '', stateFrom(said)] as const;
  }));
  return unit => states.get(unit) ?? {main: undefined, ended: undefined, unnoticed: false, restarting: false, restarts: 0};
});

/** How the main process of a unit ended, in words that follow its name. Errors: as unitState. */
export async function howItEnded(unit: string): Promise<string> {
  const deadline = performance.now() + NOTICE_TIMEOUT_MS;
  for (;;) {
    const {ended, unnoticed} = await unitState(unit);
    if (!unnoticed || performance.now() >= deadline) return ended ?? 'ended';
    await delay(NOTICE_POLL_MS);
  }
}

/** How these workers stand; of all that are units systemd is asked at once. Where it does not answer, the recorded process is what is known. */
export function standings(workers: readonly Worker[]): Promise<Standing[]> {
  return Promise.all(workers.map(async ({id, process, restarts = 0}) => {
    const recorded = {process: isAlive(process) ? process : undefined, restarting: false, restarts};
    const unit = unitOf(id);
    if (unit === undefined) return recorded;
    const state = await unitState(unit).catch(() => undefined);
    return state === undefined ? recorded : {process: state.main, restarting: state.restarting, restarts: state.restarts};
  }));
}

/** One call of `ask` for all units that are asked about before it begins. */
export function together<Answer>(ask: (units: readonly string[]) => Promise<(unit: string) => Answer>): (unit: string) => Promise<Answer> {
  let waiting: string[] = [];
  let asked: Promise<(unit: string) => Answer> | undefined;
  return async unit => {
    waiting.push(unit);
    asked ??= new Promise<void>(resolve => {
      setImmediate(resolve);
    }).then(() => {
      const units = waiting;
      [waiting, asked] = [[], undefined];
      return ask(units);
    });
    return (await asked)(unit);
  };
}

function stateFrom(said: Partial<Record<Property, string>>): UnitState {
  const pid = Number(said.MainPID ?? 0);
  const main = identify(pid);
  return {
    main,
    ended: main === undefined ? endOf(said) : undefined,
    unnoticed: main === undefined && pid > 0,
    restarting: main === undefined && (pid > 0 || said.SubState === 'auto-restart' || said.SubState === 'start'),
    restarts: Number(said.NRestarts ?? 0),
  };
}

/** Source: the codes are those of waitid(2), `CLD_EXITED` and its like. */
function endOf({ExecMainCode: code, ExecMainStatus: status, Result: result}: Partial<Record<Property, string>>): string | undefined {
  const why = result === undefined || ['success', 'exit-code', 'signal', 'core-dump'].includes(result) ? '' : ` (systemd: ${result})`;
  if (code === '1') return `exited with ${status}${why}`;
  if (code !== '2' && code !== '3') return undefined;
  const signal = Object.entries(constants.signals).find(([, number]) => String(number) === status)?.[0];
  return `was ended by ${signal ?? `signal ${status}`}${why}`;
}
