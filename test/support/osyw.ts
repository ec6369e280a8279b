import {type ChildProcess, spawn} from 'node:child_process';
import {fileURLToPath} from 'node:url';
import {scrubbedEnv} from './scrubbed-env.ts';

export const CLI = fileURLToPath(new URL('../../dist/osyw-deploy.cjs', import.meta.url));

/** The last line of `now --json`, as the contract has it. */
export interface DeployResult {
  readonly event: 'result';
  readonly outcome: string;
  readonly exit: number;
  readonly code: string;
  readonly release: string | null;
  readonly revision: string | null;
  readonly previous: string | null;
  readonly phases: Readonly<Record<string, number>>;
  readonly error: string | null;
}

export type DeployEvent = DeployResult | {readonly event: 'phase'; readonly phase: string; readonly state: 'began' | 'ended'; readonly ms: number} | {readonly event: string};

export interface CommandEnd {
  readonly exit: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
  /** Each line of standard output that is a JSON value. */
  readonly lines: readonly unknown[];
  readonly events: readonly DeployEvent[];
  readonly result: DeployResult | undefined;
  readonly ms: number;
}

export interface RunningCommand {
  readonly child: ChildProcess;
  readonly pid: number;
  readonly ended: Promise<CommandEnd>;
  /** What it has printed so far. */
  stdout(): string;
  stderr(): string;
}

export interface CommandOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd: string;
  /** Another copy of the command. */
  readonly cli?: string;
  /** Another node. */
  readonly node?: string;
  /** Runs it as this account (setpriv); the test must be root. */
  readonly as?: {readonly uid: number; readonly gid: number};
  /** Put before the command, e.g. a shell that closes descriptors. */
  readonly wrap?: readonly string[];
  readonly withinMs?: number;
}

/** The command as a person would run it: a process of its own, with nothing of the test's environment. */
export function startCommand(args: readonly string[], options: CommandOptions): RunningCommand {
  const account = options.as ? ['setpriv', '--reuid', String(options.as.uid), '--regid', String(options.as.gid), '--clear-groups', '--'] : [];
  const [file = '', ...rest] = [...account, ...(options.wrap ?? []), options.node ?? process.execPath, options.cli ?? CLI, ...args];
  const began = performance.now();
  const child = spawn(file, rest, {cwd: options.cwd, env: scrubbedEnv(options.cwd, options.env), stdio: ['ignore', 'pipe', 'pipe']});
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (part: string) => (stdout += part));
  child.stderr.setEncoding('utf8').on('data', (part: string) => (stderr += part));
  // A deploy that hangs is a failure with its output, not a test runner that hangs.
  const limit = setTimeout(() => {
    stderr += '\n[the test ended this command: it took too long]';
    child.kill('SIGKILL');
  }, options.withinMs ?? 60_000);
  const ended = new Promise<CommandEnd>((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (exit, signal) => {
      clearTimeout(limit);
      const ms = performance.now() - began;
      // Workers must not hold our pipes; if one does, `close` would never come, so only what has arrived is read.
      const finish = (): void => {
        const lines = jsonLines(stdout);
        const events = lines.filter(isEvent);
        resolve({exit, signal, stdout, stderr, lines, events, result: events.filter(isResult).at(-1), ms});
      };
      const patience = setTimeout(() => {
        stderr += '\n[somebody still holds the output of this command]';
        finish();
      }, 2000);
      child.once('close', () => {
        clearTimeout(patience);
        finish();
      });
    });
  });
  if (child.pid === undefined) throw new Error(`cannot start ${file}`);
  return {child, pid: child.pid, ended, stdout: () => stdout, stderr: () => stderr};
}

export function runCommand(args: readonly string[], options: CommandOptions): Promise<CommandEnd> {
  return startCommand(args, options).ended;
}

function jsonLines(text: string): unknown[] {
  const values: unknown[] = [];
  for (const line of text.split('\n')) {
    if (!line.startsWith('{')) continue;
    try {
      values.push(JSON.parse(line));
    } catch {
      // a line for people, or one that a kill cut off
    }
  }
  return values;
}

function isEvent(value: unknown): value is DeployEvent {
  return typeof value === 'object' && value !== null && 'event' in value;
}

function isResult(event: DeployEvent): event is DeployResult {
  return event.event === 'result';
}
