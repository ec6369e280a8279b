import {realpathSync} from 'node:fs';
import type {NginxConfig} from '../config/config.ts';
import {DeployError} from '../errors.ts';
import {runCommand, type Command, type CommandResult} from '../support/run-command.ts';
import {SYSTEM_PATH} from '../support/system-path.ts';
import {testCommand, type NginxMaster} from './nginx-master.ts';

const TEST_TIMEOUT_MS = 30_000;
/** Binds the candidate over the live file where only the test sees it. Its words are arguments, never text of the script. */
const BOUND_TEST = 'mount --bind -- "$1" "$2" && shift 2 && exec "$@"';

/** What a test that passed tells beside: where the main context's errors go, when it says so. */
export interface TestedConfiguration {
  readonly errorLog: string | undefined;
}

/**
 * Tests nginx's whole configuration with `candidate` in place of `live`, while everybody else still sees the old file.
 * Undefined where no private mount namespace can be had (not root, or no file to bind over); then nothing was tested.
 * Errors: SWITCH_REFUSED with nginx's words, the file at fault, and whether that is ours.
 */
export async function testAside(master: NginxMaster, nginx: NginxConfig, live: string, candidate: string): Promise<TestedConfiguration | undefined> {
  if (process.getuid?.() !== 0) return undefined;
  const test = testCommand(master, nginx);
  const result = await run({file: 'unshare', args: ['--mount', '--propagation', 'private', '--', 'sh', '-c', BOUND_TEST, 'sh', candidate, live, test.file, ...test.args]});
  if (result.spawnError !== undefined || /^(unshare|mount|sh):/m.test(result.stderr)) return undefined;
  return judge(result, live);
}

/** Tests the configuration as it stands. Errors: as `testAside`. */
export async function testInPlace(master: NginxMaster, nginx: NginxConfig, live: string): Promise<TestedConfiguration> {
  return judge(await run(testCommand(master, nginx)), live);
}

function run(command: Command): Promise<CommandResult> {
  return runCommand(command, {env: {PATH: SYSTEM_PATH, LC_ALL: 'C.UTF-8'}, cwd: '/', timeoutMs: TEST_TIMEOUT_MS});
}

function judge(result: CommandResult, live: string): TestedConfiguration {
  if (result.exitCode !== 0) {
    const words = result.stderr.trim() || (result.timedOut ? `no answer within ${TEST_TIMEOUT_MS / 1000} s` : `could not be run: ${result.spawnError ?? result.endedBy ?? 'unknown'}`);
    throw new DeployError('SWITCH_REFUSED', `nginx -t refuses the configuration:\n${words}${faultIn(words, live)}`, {hint: 'Mend the file that nginx names; the old upstream file is in place.'});
  }
  if (!isRead(result.stdout, live)) {
    throw new DeployError('SWITCH_REFUSED', `nginx does not read ${live}: no file of its configuration includes it`,
      {hint: howToInclude(live)});
  }
  return {errorLog: /^\s*error_log\s+(\/[^\s;]+)/m.exec(result.stdout)?.[1]};
}

export function howToInclude(live: string): string {
  return `Write \`include ${live};\` into the \`http { }\` block of nginx's main file, and \`proxy_pass http://UPSTREAM;\` where requests should go.`;
}

/** Whose the fault is, where nginx's words name another file than ours. */
export function faultIn(words: string, live: string): string {
  const fault = /\bin (\/\S+?):\d+/.exec(words)?.[1];
  return fault === undefined || fault === live || isSameFile(fault, live) ? '' : `\nThe fault is in ${fault}, which is not the file of this deploy.`;
}

/** Whether `live` is among the files that nginx read; `printed`: what `nginx -T` printed. */
export function isRead(printed: string, live: string): boolean {
  const read = [...printed.matchAll(/^# configuration file (.+):$/gm)].map(([, path]) => path ?? '');
  return read.includes(live) || read.some(path => isSameFile(path, live));
}

function isSameFile(path: string, live: string): boolean {
  try {
    return realpathSync(path) === live;
  } catch {
    return false; // A file that nginx read a moment ago and that is gone now is not ours.
  }
}
