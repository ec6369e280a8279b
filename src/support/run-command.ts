import {execa} from 'execa';

export interface Command {
  readonly file: string;
  readonly args: readonly string[];
}

export interface RunOptions {
  readonly cwd?: string;
  /** The child's whole environment; nothing is inherited. */
  readonly env: Readonly<Record<string, string>>;
  /** Given to standard input, then closed. For passwords, which never stand in an argument. */
  readonly input?: string;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
  /** Called for each line of either stream; the streams are then not kept. */
  readonly onLine?: (line: string) => void;
}

export interface CommandResult {
  /** Undefined when it ended by a signal or could not be started. */
  readonly exitCode: number | undefined;
  readonly endedBy: string | undefined;
  readonly timedOut: boolean;
  /** Why it could not be started: `ENOENT`, `EACCES` …; undefined when it ran. */
  readonly spawnError: string | undefined;
  readonly stdout: string;
  readonly stderr: string;
}

const MAX_OUTPUT_BYTES = 64 * 1024 * 1024;

/**
 * Runs a program with an argument list, never a shell, in a process group of its own that is killed whole at the deadline
 * or the abort. Errors: the signal's reason when aborted; every other end is a result.
 */
export async function runCommand(command: Command, options: RunOptions): Promise<CommandResult> {
  options.signal?.throwIfAborted();
  const child = execa(command.file, command.args, {
    ...(options.cwd === undefined ? {} : {cwd: options.cwd}),
    env: options.env,
    extendEnv: false,
    detached: true,
    reject: false,
    stripFinalNewline: false,
    buffer: options.onLine === undefined,
    maxBuffer: MAX_OUTPUT_BYTES,
    ...(options.input === undefined ? {stdin: 'ignore' as const} : {input: options.input}),
    ...(options.onLine === undefined ? {} : {all: true as const}),
  });
  let timedOut = false;
  const killGroup = () => {
    if (child.pid !== undefined) killProcessGroup(child.pid);
    // A descendant that left the group may still hold the pipes; without this the promise would wait for it.
    child.stdout?.destroy();
    child.stderr?.destroy();
  };
  const timer = setTimeout(() => {
    timedOut = true;
    killGroup();
  }, options.timeoutMs);
  options.signal?.addEventListener('abort', killGroup, {once: true});
  try {
    if (options.onLine !== undefined) {
      try {
        for await (const line of child.iterable({from: 'all'})) options.onLine(line);
      } catch (error) {
        if (!timedOut && options.signal?.aborted !== true && child.pid !== undefined) throw error;
      }
    }
    const result = await child;
    options.signal?.throwIfAborted();
    return {
      exitCode: result.exitCode,
      endedBy: result.signal,
      timedOut,
      spawnError: child.pid === undefined ? (result.code ?? 'unknown') : undefined,
      stdout: typeof result.stdout === 'string' ? result.stdout : '',
      stderr: typeof result.stderr === 'string' ? result.stderr : '',
    };
  } finally {
    clearTimeout(timer);
    options.signal?.removeEventListener('abort', killGroup);
  }
}

function killProcessGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error;
  }
}
