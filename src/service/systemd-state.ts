import {existsSync} from 'node:fs';
import {runCommand, type CommandResult} from '../support/run-command.ts';
import {SYSTEM_PATH} from '../support/system-path.ts';

/** A start waits until what served is back, and a build may come before that. */
const COMMAND_TIMEOUT_MS = 30 * 60_000;

/** What systemd says of a unit. */
export interface UnitState {
  readonly enabled: boolean;
  /** `active`, `reloading`, `inactive`, `failed`, `activating`, `deactivating`. */
  readonly active: string;
  readonly sub: string;
  readonly mainPid: number | undefined;
  /** The file is not the one that systemd read. */
  readonly needsReload: boolean;
}

/** Source: sd_booted(3). */
export function systemdRuns(): boolean {
  return existsSync('/run/systemd/system');
}

/** Of the programs that are installed here; undefined where there are none. */
export async function systemdVersion(signal: AbortSignal): Promise<number | undefined> {
  const {stdout} = await runSystem('systemctl', ['--version'], signal);
  const version = /^systemd (\d+)/.exec(stdout)?.[1];
  return version === undefined ? undefined : Number(version);
}

export async function unitState(unit: string, signal: AbortSignal): Promise<UnitState> {
  const {stdout} = await runSystem('systemctl', ['show', '--property=UnitFileState,ActiveState,SubState,MainPID,NeedDaemonReload', '--', unit], signal);
  const said = new Map(stdout.split('\n').map(line => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]));
  const mainPid = Number(said.get('MainPID') ?? 0);
  return {
    enabled: said.get('UnitFileState') === 'enabled',
    active: said.get('ActiveState') ?? 'unknown',
    sub: said.get('SubState') ?? 'unknown',
    mainPid: mainPid === 0 ? undefined : mainPid,
    needsReload: said.get('NeedDaemonReload') === 'yes',
  };
}


/** A command of the system's, as root would type it. */
export function runSystem(file: string, args: readonly string[], signal: AbortSignal): Promise<CommandResult> {
  return runCommand({file, args}, {cwd: '/', env: {PATH: SYSTEM_PATH, LC_ALL: 'C.UTF-8'}, timeoutMs: COMMAND_TIMEOUT_MS, signal});
}
