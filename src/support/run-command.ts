import {StringDecoder} from 'node:string_decoder';
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
  /** Called for each line of either stream; the streams are then not kept. A line longer than 64 KB comes in pieces. */
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

const MAX_OUTPUT_BYTES = 16 * 1024 * 1024;
const MAX_LINE_CHARACTERS = 64 * 1024;
/** A daemon that the command left behind may hold the pipes for ever; what it had to say itself is there by now. */
const PIPES_AFTER_EXIT_MS = 200;

/**
 * Runs a program with an argument list, never a shell, in a process group of its own that is killed whole at the deadline
 * or the abort. It is over when the program itself has ended, whoever else still holds its pipes.
 * Errors: the signal's reason when aborted; every other end is a result.
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
  let lineError: {readonly error: unknown} | undefined;
  const letGoOfPipes = () => {
    child.stdout?.destroy();
    child.stderr?.destroy();
  };
  const killGroup = () => {
    if (child.pid !== undefined) killProcessGroup(child.pid);
    // A descendant that left the group may still hold the pipes; without this the promise would wait for it.
    letGoOfPipes();
  };
  const timer = setTimeout(() => {
    timedOut = true;
    killGroup();
  }, options.timeoutMs);
  let pipesTimer: NodeJS.Timeout | undefined;
  child.once('exit', () => {
    clearTimeout(timer);
    pipesTimer = setTimeout(letGoOfPipes, PIPES_AFTER_EXIT_MS);
  });
  options.signal?.addEventListener('abort', killGroup, {once: true});
  const lines = options.onLine === undefined ? undefined : lineSplitter(options.onLine);
  if (lines !== undefined) {
    child.all?.on('data', (chunk: Buffer) => {
      if (lineError !== undefined) return;
      try {
        lines.write(chunk);
      } catch (error) {
        lineError = {error};
        killGroup();
      }
    });
    child.all?.on('error', () => {}); // A destroyed pipe ends with an error; the command's own end is what counts.
  }
  try {
    const result = await child;
    options.signal?.throwIfAborted();
    if (lineError === undefined) lines?.end();
    else throw lineError.error;
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
    clearTimeout(pipesTimer);
    options.signal?.removeEventListener('abort', killGroup);
  }
}

/** Bytes in, lines out. Bounded: a program that never ends its line must not fill our memory. */
function lineSplitter(onLine: (line: string) => void): {write(chunk: Buffer): void; end(): void} {
  const decoder = new StringDecoder('utf8');
  let rest = '';
  return {
    write(chunk) {
      const lines = (rest + decoder.write(chunk)).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) onLine(line.endsWith('\r') ? line.slice(0, -1) : line);
      while (rest.length >= MAX_LINE_CHARACTERS) {
        onLine(rest.slice(0, MAX_LINE_CHARACTERS));
        rest = rest.slice(MAX_LINE_CHARACTERS);
      }
    },
    end() {
      rest += decoder.end();
      if (rest !== '') onLine(rest);
      rest = '';
    },
  };
}

function killProcessGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // Gone already, or another account's by setuid: there is nobody here who could do more about it, and this runs in a timer.
  }
}
