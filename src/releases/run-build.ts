import {randomUUID} from 'node:crypto';
import {closeSync, constants as files, mkdirSync, openSync, writeSync} from 'node:fs';
import {constants} from 'node:os';
import {dirname} from 'node:path';
import type {Release} from '../deploy/deployment.ts';
import {DeployError} from '../errors.ts';
import {accountOf, type Account} from '../support/accounts.ts';
import {asUser} from '../support/as-user.ts';
import {formatDuration} from '../support/durations.ts';
import {killProcessesWith} from '../workers/process-identity.ts';
import {runCommand, type CommandResult} from '../support/run-command.ts';
import {SYSTEM_PATH} from '../support/system-path.ts';
import {findContainment} from './contain.ts';

const BUILD_MARK = 'OSYW_BUILD_ID';
const MAX_LOG_BYTES = 10 * 1024 * 1024;
const LAST_LINES = 20;

export interface Build {
  readonly release: Release;
  readonly commands: readonly (readonly string[])[];
  readonly timeoutMs: number;
  /** Undefined: our own. */
  readonly account: Account | undefined;
  readonly log: string;
  readonly onOutput: (line: string) => void;
  readonly signal: AbortSignal;
}

/** Runs the build commands one after the other, one deadline over all. Errors: BUILD_FAILED with the command, its end, its last lines and the log. */
export async function runBuild({release, commands, timeoutMs, account, log, onOutput, signal}: Build): Promise<void> {
  mkdirSync(dirname(log), {recursive: true, mode: 0o755});
  const deadline = performance.now() + timeoutMs;
  const output = openLog(log);
  const contained = await findContainment();
  const home = (account ?? accountOf(process.getuid?.() ?? 0))?.home ?? '/';
  try {
    for (const [file, ...args] of commands) {
      if (file === undefined) continue;
      const last: string[] = [];
      const mark = randomUUID();
      output.write(`$ ${[file, ...args].join(' ')}`);
      const onLine = (line: string) => {
        last.push(line);
        if (last.length > LAST_LINES) last.shift();
        output.write(line);
        onOutput(line);
      };
      let result: CommandResult;
      try {
        result = await runCommand(contained(asUser({file, args}, account)), {
          cwd: release.dir,
          env: {
            PATH: SYSTEM_PATH, HOME: home, LANG: 'C.UTF-8',
            OSYW_RELEASE: release.id, OSYW_REVISION: release.revision, [BUILD_MARK]: mark,
          },
          timeoutMs: Math.max(1, deadline - performance.now()),
          signal,
          onLine,
        });
      } finally {
        // A daemon that the build left behind would go on writing into a release that is taken for finished.
        killProcessesWith(`${BUILD_MARK}=${mark}`);
      }
      const end = howItFailed(result, timeoutMs);
      if (end !== undefined) {
        const words = last.length === 0 ? 'It said nothing.' : `Its last lines:\n${last.join('\n')}`;
        throw new DeployError('BUILD_FAILED', `Build command \`${[file, ...args].join(' ')}\` ${end}. ${words}`, {hint: `The whole output is in ${log}.`});
      }
    }
  } finally {
    output.close();
  }
}

function howItFailed(result: CommandResult, timeoutMs: number): string | undefined {
  if (result.timedOut) return `did not end within ${formatDuration(timeoutMs)} (release.build_timeout) and was killed`;
  if (result.spawnError === 'ENOENT') return 'was not found';
  if (result.spawnError !== undefined) return `could not be started (${result.spawnError})`;
  if (result.endedBy !== undefined) return `was ended by ${result.endedBy}`;
  // setpriv and sh say so of a program that is not there.
  if (result.exitCode === 127) return 'ended with exit code 127 (not found)';
  const signal = Object.entries(constants.signals).find(([, number]) => number + 128 === result.exitCode)?.[0];
  if (signal !== undefined) return `was ended by ${signal}`;
  return result.exitCode === 0 ? undefined : `ended with exit code ${result.exitCode ?? 'unknown'}`;
}

function openLog(path: string): {write(line: string): void; close(): void} {
  const fd = openSync(path, files.O_WRONLY | files.O_CREAT | files.O_TRUNC | files.O_NOFOLLOW, 0o640);
  let bytes = 0;
  return {
    write(line) {
      if (bytes > MAX_LOG_BYTES) return;
      const text = Buffer.from(`${line}\n`);
      bytes += text.length;
      try {
        writeSync(fd, bytes > MAX_LOG_BYTES ? Buffer.from(`[cut: more than ${MAX_LOG_BYTES / 1024 / 1024} MB of output]\n`) : text);
      } catch {
        bytes = MAX_LOG_BYTES + 1; // A log that cannot be written is no reason to fail a build.
      }
    },
    close: () => closeSync(fd),
  };
}
