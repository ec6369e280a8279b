import {randomUUID} from 'node:crypto';
import {subscribe} from 'node:diagnostics_channel';
import {EventEmitter} from 'node:events';
import {existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {dirname, join} from 'node:path';
import type {Config} from '../config/config.ts';
import {DeployError, messageOf} from '../errors.ts';
import {replaceFile} from '../state/atomic-file.ts';
import {formatDuration} from '../support/durations.ts';
import {SYSTEM_PATH} from '../support/system-path.ts';
import {killProcessesWith} from '../workers/process-identity.ts';
import type {GitRemote} from './git-url.ts';
import {readPassword} from './password-file.ts';
import {lastWords, shownText} from './shown-text.ts';

export interface GitRun {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface GitOptions {
  /** The directory it runs in. */
  readonly cwd: string;
  readonly signal: AbortSignal;
  /** Set for a command that talks to the repository; no other way is allowed then, and none at all when it is left out. */
  readonly remote?: GitRemote;
  readonly input?: string;
  readonly env?: Readonly<Record<string, string>>;
}

export interface Git {
  /** Errors: UPDATE_FAILED when git cannot be started or does not end in time; every other end is a result. */
  run(args: readonly string[], options: GitOptions): Promise<GitRun>;
  /** As `run`. Errors: UPDATE_FAILED also when it exits with anything but 0. */
  must(args: readonly string[], options: GitOptions): Promise<GitRun>;
  /** Gives git a home in the state directory. Until then it has a temporary one, because a question must leave nothing behind. */
  prepare(): void;
  /** Removes the temporary home. */
  dispose(): void;
}

const COMMAND_MARK = 'OSYW_COMMAND_ID';
const MAX_OUTPUT_BYTES = 64 * 1024 * 1024;

// What git reads from its environment and simple-git would take away, because in a program whose environment is not its own
// each could run a command. Ours is built from nothing, a few lines below.
const GUARDED = [
  'GIT_CONFIG_NOSYSTEM', 'GIT_CONFIG_GLOBAL', 'GIT_TERMINAL_PROMPT', 'GIT_ALLOW_PROTOCOL', 'GIT_PROTOCOL_FROM_USER', 'GIT_SSH_COMMAND',
  'GIT_ASKPASS', 'GIT_CEILING_DIRECTORIES', 'GIT_INDEX_FILE', 'GIT_WORK_TREE', 'GIT_DIR', 'GIT_OPTIONAL_LOCKS',
];

/** git by way of simple-git, which is loaded with the first command: most runs of the program need none. */
export function openGit(config: Config): Git {
  const {workingCopy, timeoutMs, username, passwordFile} = config.source;
  const kept = join(config.stateDir, 'git');
  let temporary: string | undefined;
  let prepared = false;

  /** Repositories of this machine that git may use whoever owns them: exact paths, never `*`. */
  const trusted = new Set([workingCopy, join(workingCopy, '.git')]);

  /** The directory with git's configuration and the password program, brought up to date for this remote. */
  const home = (remote: GitRemote | undefined): string => {
    // Only a file has a say about a repository that git fetches *from*: neither `-c` nor the environment is passed on to the other side.
    if (remote?.path !== undefined) for (const path of spellings(remote.path)) trusted.add(path);
    const lines = [...trusted].map(path => `\tdirectory = ${quoted(path)}\n`);
    const program = passwordFile === undefined ? undefined : askpass(username, passwordFile);
    const text = readIfThere(join(kept, 'config'));
    if (text !== undefined && lines.every(line => text.includes(line)) && (program === undefined || readIfThere(join(kept, 'askpass')) === program)) return kept;
    temporary ??= prepared ? undefined : mkdtempSync(join(tmpdir(), 'osyw-deploy-git-'));
    const own = temporary ?? kept;
    replaceFile(join(own, 'config'), `[safe]\n${lines.join('')}`, {mode: 0o600});
    if (program !== undefined) replaceFile(join(own, 'askpass'), program, {mode: 0o700});
    return own;
  };

  const run: Git['run'] = async (args, options) => {
    options.signal.throwIfAborted();
    if (options.remote !== undefined && passwordFile !== undefined) readPassword(passwordFile);
    hearSpawnErrors();
    const {simpleGit} = await import('simple-git');
    const own = home(options.remote);
    const mark = randomUUID();
    const controller = new AbortController();
    let ended: GitRun | undefined;
    let timedOut = false;
    let flooded = false;
    let stop: () => void = () => {};
    const stopped = new Promise<void>(resolve => {
      stop = () => {
        // simple-git ends git itself with SIGINT; what git started, or what does not listen, is found by its mark.
        controller.abort();
        killProcessesWith(`${COMMAND_MARK}=${mark}`);
        resolve();
      };
    });
    const timer = setTimeout(() => {
      timedOut = true;
      stop();
    }, timeoutMs);
    options.signal.addEventListener('abort', stop, {once: true});
    try {
      const git = simpleGit({
        baseDir: options.cwd,
        binary: 'git',
        abort: controller.signal,
        allowEnvironment: GUARDED,
        config: [
          // Each of these in a repository's own configuration would run a command of its choice.
          'core.hooksPath=/dev/null', 'core.fsmonitor=false', 'submodule.recurse=false', 'core.quotePath=false', 'advice.detachedHead=false',
          ...(passwordFile === undefined ? [] : ['credential.helper=']),
        ],
        unsafe: {
          allowUnsafeHooksPath: true, // core.hooksPath=/dev/null: no hook at all.
          allowUnsafeFsMonitor: true, // core.fsmonitor=false: the same.
          allowUnsafeConfigPaths: true, // GIT_CONFIG_GLOBAL: our file with safe.directory.
          allowUnsafeSshCommand: true, // GIT_SSH_COMMAND: ssh that asks nothing.
          allowUnsafeAskPass: passwordFile !== undefined, // GIT_ASKPASS: the program that reads source.password_file.
          allowUnsafeCredentialHelper: passwordFile !== undefined, // credential.helper= (empty): nobody else is told the password.
        },
        // Whatever is written closes standard input; git then never waits there.
        input: () => options.input ?? '\n',
        // Our own record of how it ended: simple-git makes a text of it, and takes a failure without words for a success.
        errors: (_error, result) => {
          ended = {
            exitCode: result.exitCode,
            stdout: Buffer.concat(result.stdOut).toString('utf8'),
            stderr: Buffer.concat(result.stdErr).toString('utf8'),
          };
          return undefined;
        },
      }).env({
        PATH: SYSTEM_PATH,
        HOME: own,
        LC_ALL: 'C.UTF-8',
        GIT_CONFIG_NOSYSTEM: '1',
        GIT_CONFIG_GLOBAL: join(own, 'config'),
        GIT_TERMINAL_PROMPT: '0',
        GIT_ALLOW_PROTOCOL: options.remote?.protocol ?? 'none',
        GIT_PROTOCOL_FROM_USER: '0',
        GIT_CEILING_DIRECTORIES: dirname(workingCopy),
        GIT_SSH_COMMAND: 'ssh -oBatchMode=yes -oStrictHostKeyChecking=yes -oConnectTimeout=20 -oServerAliveInterval=15 -oServerAliveCountMax=3',
        ...(passwordFile === undefined ? {} : {GIT_ASKPASS: join(own, 'askpass')}),
        ...options.env,
        [COMMAND_MARK]: mark,
      });
      let bytes = 0;
      git.outputHandler((_command, stdout, stderr) => {
        const count = (chunk: Buffer) => {
          bytes += chunk.length;
          if (bytes > MAX_OUTPUT_BYTES && !flooded) {
            flooded = true;
            stop();
          }
        };
        stdout.on('data', count);
        stderr.on('data', count);
      });
      const done = git.raw([...args]).then(() => undefined, (error: unknown) => error);
      const error = await Promise.race([done, stopped.then(() => undefined)]);
      options.signal.throwIfAborted();
      const what = `git ${args.find(arg => !arg.startsWith('-')) ?? ''}`;
      if (timedOut) {
        throw new DeployError('UPDATE_FAILED', `${what} did not end within ${formatDuration(timeoutMs)} and was killed.`, {
          hint: 'See whether the server answers; `source.timeout` is the limit for one command.',
        });
      }
      if (flooded) throw new DeployError('UPDATE_FAILED', `${what} wrote more than 64 MB and was stopped.`);
      if (ended === undefined || ended.exitCode < 0) {
        if (/ENOENT/.test(ended?.stderr ?? '')) {
          throw new DeployError('UPDATE_FAILED', 'git cannot be started (ENOENT).', {hint: 'Install git (package `git`).'});
        }
        throw new DeployError('UPDATE_FAILED', `${what} could not be run: ${shownText(error === undefined ? (ended?.stderr ?? 'no answer') : messageOf(error))}`);
      }
      return ended;
    } finally {
      clearTimeout(timer);
      options.signal.removeEventListener('abort', stop);
    }
  };

  const must: Git['must'] = async (args, options) => {
    const result = await run(args, options);
    if (result.exitCode !== 0) throw gitFailure(args, result, options.remote, config);
    return result;
  };

  const dispose = () => {
    if (temporary !== undefined) rmSync(temporary, {recursive: true, force: true});
    temporary = undefined;
  };

  return {
    run,
    must,
    prepare: () => {
      mkdirSync(config.stateDir, {recursive: true, mode: 0o711});
      mkdirSync(kept, {recursive: true, mode: 0o700});
      prepared = true;
    },
    dispose,
  };
}

/** What a git command that exited with anything but 0 means for the deploy. */
export function gitFailure(args: readonly string[], result: GitRun, remote: GitRemote | undefined, config: Config): DeployError {
  const what = `git ${args.find(arg => !arg.startsWith('-')) ?? ''}`;
  const said = lastWords(result.stderr) || `exit ${result.exitCode}, and it said nothing`;
  const of = remote === undefined ? '' : ` of ${shownText(remote.url)}`;
  if (/Authentication failed|could not read (?:Username|Password)|Permission denied|HTTP Basic: Access denied|returned error: 40[13]|Host key verification failed/i.test(result.stderr)) {
    const {username, passwordFile} = config.source;
    const who = username === undefined ? '' : ` as user "${username}"`;
    const secret = passwordFile === undefined ? 'source.password_file is not set' : `with the password in ${passwordFile}`;
    return new DeployError('UPDATE_FAILED', `${what}${of} was denied${who}, ${secret}: ${said}`, {
      hint: 'Mend source.username and source.password_file, or the ssh key and known_hosts of the account that deploys.',
    });
  }
  if (/No space left on device|disk full/i.test(result.stderr)) {
    return new DeployError('UPDATE_FAILED', `${what} found no space left: ${said}`, {hint: `Make room on the file system of ${config.source.workingCopy}.`});
  }
  if (isUnreachable(result.stderr)) {
    return new DeployError('UPDATE_FAILED', `The repository${of} does not answer: ${said}`, {hint: 'See that the server runs and that source.url is right.'});
  }
  return new DeployError('UPDATE_FAILED', `${what}${of} failed: ${said}`);
}

export function isUnreachable(stderr: string): boolean {
  return /Could not resolve host|Connection (?:refused|reset|timed out|closed)|Operation timed out|No route to host|Network is unreachable|unable to connect|remote end hung up|early EOF/i.test(stderr);
}

function readIfThere(path: string): string | undefined {
  return existsSync(path) ? readFileSync(path, 'utf8') : undefined;
}

/** git compares the text of the path that it works with, which for a work tree's repository ends in `.git`. */
function spellings(path: string): string[] {
  const plain = path.replace(/\/+$/, '');
  return [plain, `${plain}.git`, join(plain, '.git')];
}

function quoted(value: string): string {
  return `"${value.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`;
}

/** git runs it with its question as the argument. It reads the password itself, so that no argument and no environment has it. */
function askpass(username: string | undefined, passwordFile: string): string {
  const sh = (text: string) => `'${text.replaceAll('\'', '\'\\\'\'')}'`;
  return [
    '#!/bin/sh',
    'case "$1" in',
    `  [Uu]sername*) printf '%s\\n' ${sh(username ?? '')} ;;`,
    `  *) IFS= read -r password <${sh(passwordFile)} || [ -n "$password" ] || exit 1; printf '%s\\n' "$password" ;;`,
    'esac',
    '',
  ].join('\n');
}

/**
 * Where no descriptor is left, `spawn` returns a child without streams, and its `error` comes later. simple-git trips over the missing
 * streams before it listens, so that event would end us; what it trips over is told as the failure of the command.
 */
function hearSpawnErrors(): void {
  if (!hears) subscribe('child_process', hearErrors);
  hears = true;
}

let hears = false;

function hearErrors(message: unknown): void {
  if (typeof message === 'object' && message !== null && 'process' in message && message.process instanceof EventEmitter) message.process.on('error', () => undefined);
}
