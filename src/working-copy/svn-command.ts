import {existsSync, mkdirSync} from 'node:fs';
import {join} from 'node:path';
import {setTimeout as wait} from 'node:timers/promises';
import type {Config} from '../config/config.ts';
import {DeployError} from '../errors.ts';
import {formatDuration} from '../support/durations.ts';
import {runCommand} from '../support/run-command.ts';
import {SYSTEM_PATH} from '../support/system-path.ts';
import {liveCommands} from './live-commands.ts';
import {readPassword} from './password-file.ts';
import {lastWords} from './shown-text.ts';

export interface SvnRun {
  readonly ok: boolean;
  readonly stdout: string;
  readonly stderr: string;
  /** The `E155004`s of standard error. */
  readonly codes: readonly string[];
}

export interface Svn {
  /** Makes the directory that svn keeps its own files in; until then svn writes none. */
  prepare(): void;
  /** Runs once. Errors: UPDATE_FAILED when svn cannot be started or does not end in time. */
  once(subcommand: string, args: readonly string[], options: SvnOptions): Promise<SvnRun>;
  /**
   * Runs until it succeeds or there is no more to be done about it: locks of dead commands are removed, a busy database and a
   * server that does not answer are asked again.
   * Errors: UPDATE_FAILED, unless the failure has one of the `expected` codes.
   */
  stubborn(subcommand: string, args: readonly string[], options: SvnOptions & {readonly expected?: readonly string[]}): Promise<SvnRun>;
  /** Removes the locks that dead commands left in the working copy. Errors: UPDATE_FAILED when a living svn still has them at the deadline. */
  unlock(signal: AbortSignal): Promise<void>;
  version(signal: AbortSignal): Promise<string>;
}

interface SvnOptions {
  readonly signal: AbortSignal;
  /** Talks to the repository: then the password is at hand. */
  readonly network?: boolean;
}

const LOCKED = ['E155004', 'E155037'];
const CORRUPT = ['E155016', 'E200030'];
const DENIED = ['E170001', 'E215004', 'E175013', 'E220004'];
// Cannot connect, connection refused, timed out, unreachable, host unknown, closed in the middle.
const UNREACHABLE = ['E170013', 'E000111', 'E000110', 'E000113', 'E670002', 'E670003', 'E210002', 'E175012', 'E000104', 'E120106'];
const RECONNECT_AFTER_MS = [250, 750, 1500];
// svn itself waits 10 s for its database before it says E200033.
const LOCK_WAITS_MS = [300, 600, 1200, 2500, 5000];

function lockWait(waits: number): number {
  return LOCK_WAITS_MS[Math.min(waits, LOCK_WAITS_MS.length - 1)] ?? 0;
}

export function openSvn(config: Config): Svn {
  const {workingCopy, timeoutMs, username, passwordFile} = config.source;
  const own = join(config.stateDir, 'svn');
  let prepared = existsSync(own);

  const environment = () => ({
    PATH: SYSTEM_PATH,
    HOME: own,
    LC_ALL: 'C.UTF-8',
    SVN_SSH: 'ssh -oBatchMode=yes -oStrictHostKeyChecking=yes -oConnectTimeout=20 -oServerAliveInterval=15 -oServerAliveCountMax=3',
  });
  // svn makes its directory when it can. Below /proc nobody can, so a question asked before the first deploy leaves nothing behind.
  const common = () => ['--non-interactive', '--no-auth-cache', '--config-dir', prepared ? own : '/proc/none/svn'];

  const run = async (file: string, args: readonly string[], shown: string, options: {signal: AbortSignal; input?: string}): Promise<SvnRun> => {
    const result = await runCommand({file, args}, {
      env: environment(), timeoutMs, signal: options.signal,
      ...(options.input === undefined ? {} : {input: options.input}),
    });
    if (result.spawnError !== undefined) {
      throw new DeployError('UPDATE_FAILED', `${file} cannot be started (${result.spawnError}).`, {hint: 'Install Subversion (package `subversion`).'});
    }
    if (result.timedOut) {
      throw new DeployError('UPDATE_FAILED', `${shown} did not end within ${formatDuration(timeoutMs)} and was killed.`, {
        hint: 'See whether the server answers; `source.timeout` is the limit for one command.',
      });
    }
    return {
      ok: result.exitCode === 0,
      stdout: result.stdout,
      stderr: result.stderr,
      codes: [...result.stderr.matchAll(/\b[EW](\d{6})\b/g)].map(match => `E${match[1] ?? ''}`),
    };
  };

  const once = (subcommand: string, args: readonly string[], options: SvnOptions): Promise<SvnRun> => {
    const asks = options.network === true;
    const user = asks && username !== undefined ? ['--username', username] : [];
    const password = asks && passwordFile !== undefined ? readPassword(passwordFile) : undefined;
    return run('svn', [subcommand, ...common(), ...user, ...(password === undefined ? [] : ['--password-from-stdin']), ...args], `svn ${subcommand}`, {
      signal: options.signal,
      ...(password === undefined ? {} : {input: `${password}\n`}),
    });
  };

  const stubborn: Svn['stubborn'] = async (subcommand, args, options) => {
    const deadline = performance.now() + timeoutMs;
    let connects = 0;
    let busyWaits = 0;
    let cleanups = 0;
    for (;;) {
      const result = await once(subcommand, args, options);
      const has = (codes: readonly string[]) => codes.some(code => result.codes.includes(code));
      if (result.ok || has(options.expected ?? [])) return result;

      if (has(LOCKED) && cleanups < 3) {
        // Not at the first sight: whoever has just ended may have been about to remove the lock itself.
        if (cleanups++ === 0) await wait(LOCK_WAITS_MS[0], undefined, {signal: options.signal});
        else await unlock(options.signal);
        continue;
      }
      const pause = lockWait(busyWaits);
      if (has(['E200033']) && performance.now() + pause < deadline) {
        busyWaits++;
        await wait(pause, undefined, {signal: options.signal});
        continue;
      }
      const pauseToConnect = RECONNECT_AFTER_MS[connects];
      if (has(UNREACHABLE) && !has(DENIED) && pauseToConnect !== undefined && performance.now() + pauseToConnect < deadline) {
        connects++;
        await wait(pauseToConnect, undefined, {signal: options.signal});
        continue;
      }
      throw failure(subcommand, result);
    }
  };

  const unlock = async (signal: AbortSignal): Promise<void> => {
    const deadline = performance.now() + timeoutMs;
    for (let waits = 0; ; waits++) {
      const alive = liveCommands('svn', workingCopy);
      if (alive.length === 0) break;
      if (performance.now() + lockWait(waits) > deadline) {
        throw new DeployError('UPDATE_FAILED', `The working copy ${workingCopy} is locked by a running svn, process ${alive.join(', ')}.`, {
          hint: 'Wait for it to end, or end it; then deploy again.',
        });
      }
      await wait(lockWait(waits), undefined, {signal});
    }
    const result = await once('cleanup', ['--', `${workingCopy}@`], {signal});
    if (!result.ok && !result.codes.some(code => LOCKED.includes(code))) throw failure('cleanup', result);
  };

  const failure = (subcommand: string, result: SvnRun): DeployError => {
    const has = (codes: readonly string[]) => codes.some(code => result.codes.includes(code));
    const said = lastWords(result.stderr) || 'it said nothing';
    if (has(DENIED)) {
      const who = username === undefined ? 'without a user name (source.username is not set)' : `as user "${username}"`;
      const secret = passwordFile === undefined ? 'source.password_file is not set' : `the password in ${passwordFile}`;
      return new DeployError('UPDATE_FAILED', `svn ${subcommand} was denied ${who}, with ${secret}: ${said}`, {
        hint: 'Mend source.username and the file named by source.password_file (mode 0600).',
      });
    }
    if (/disk is full|No space left/i.test(result.stderr)) {
      return new DeployError('UPDATE_FAILED', `svn ${subcommand} found no space left for ${workingCopy}: ${said}`, {
        hint: 'Make room on that file system; the next deploy heals the working copy.',
      });
    }
    if (has(CORRUPT) || /malformed/i.test(result.stderr)) {
      return new DeployError('UPDATE_FAILED', `The working copy ${workingCopy} is damaged: ${said}`, {
        hint: `Put it aside and deploy again, which checks it out afresh: \`mv ${workingCopy} ${workingCopy}.damaged\`. Unversioned files stay in the copy put aside.`,
      });
    }
    if (has(['E200033'])) {
      return new DeployError('UPDATE_FAILED', `The database of ${workingCopy} stayed busy: ${said}`, {hint: 'See which process has .svn/wc.db open (`fuser`), and let it end.'});
    }
    if (has(UNREACHABLE)) {
      return new DeployError('UPDATE_FAILED', `The repository does not answer: ${said}`, {hint: 'See that the server runs and that source.url is right.'});
    }
    return new DeployError('UPDATE_FAILED', `svn ${subcommand} failed: ${said}`);
  };

  return {
    prepare: () => {
      mkdirSync(config.stateDir, {recursive: true, mode: 0o711});
      mkdirSync(own, {recursive: true, mode: 0o700});
      prepared = true;
    },
    once,
    stubborn,
    unlock,
    version: async signal => (await run('svnversion', ['--', workingCopy], 'svnversion', {signal})).stdout.trim(),
  };
}
