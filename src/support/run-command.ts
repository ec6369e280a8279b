import {spawn, type ChildProcess} from 'node:child_process';
import {StringDecoder} from 'node:string_decoder';
import {errnoOf} from '../errors.ts';

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
  let timedOut = false;
  let lineError: {readonly error: unknown} | undefined;
  let killGroup = () => {};
  const lines = options.onLine === undefined ? undefined : lineSplitter(options.onLine);
  const {child, ended} = lines === undefined ? startKept(command, options, () => killGroup()) : await startStreamed(command, options, chunk => {
    if (lineError !== undefined) return;
    try {
      lines.write(chunk);
    } catch (error) {
      lineError = {error};
      killGroup();
    }
  });
  const letGoOfPipes = () => {
    child?.stdout?.destroy();
    child?.stderr?.destroy();
  };
  killGroup = () => {
    if (child?.pid !== undefined) killProcessGroup(child.pid);
    // A descendant that left the group may still hold the pipes; without this the promise would wait for it.
    letGoOfPipes();
  };
  const timer = setTimeout(() => {
    timedOut = true;
    killGroup();
  }, options.timeoutMs);
  let pipesTimer: NodeJS.Timeout | undefined;
  child?.once('exit', () => {
    clearTimeout(timer);
    // Where we stood still meanwhile, the timer comes before what waits in the pipes: that is read first.
    pipesTimer = setTimeout(() => setImmediate(letGoOfPipes), PIPES_AFTER_EXIT_MS);
  });
  options.signal?.addEventListener('abort', killGroup, {once: true});
  if (options.signal?.aborted === true) killGroup(); // While execa was loaded.
  try {
    const result = await ended;
    options.signal?.throwIfAborted();
    if (lineError === undefined) lines?.end();
    else throw lineError.error;
    return {...result, timedOut};
  } finally {
    clearTimeout(timer);
    clearTimeout(pipesTimer);
    options.signal?.removeEventListener('abort', killGroup);
  }
}

interface Started {
  /** Undefined when there was not even an attempt: an argument that cannot be given to a program. */
  readonly child: ChildProcess | undefined;
  readonly ended: Promise<Omit<CommandResult, 'timedOut'>>;
}

/** Keeps what it writes. By Node's own `spawn`: execa takes as long to load as svn to answer, and most runs have no use for more. */
function startKept(command: Command, options: RunOptions, flooded: () => void): Started {
  const unstarted = (error: unknown) => ({exitCode: undefined, endedBy: undefined, spawnError: errnoOf(error) ?? 'unknown', stdout: '', stderr: ''});
  let child: ChildProcess;
  try {
    child = spawn(command.file, command.args, {cwd: options.cwd, env: options.env, detached: true, stdio: [options.input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe']});
  } catch (error) {
    return {child: undefined, ended: Promise.resolve(unstarted(error))};
  }
  const keep = (stream: NodeJS.ReadableStream | null) => {
    const chunks: Buffer[] = [];
    let size = 0;
    stream?.on('data', (chunk: Buffer) => {
      size += chunk.length;
      if (size > MAX_OUTPUT_BYTES) flooded();
      else chunks.push(chunk);
    });
    return () => Buffer.concat(chunks).toString('utf8');
  };
  const [stdout, stderr] = [keep(child.stdout), keep(child.stderr)];
  child.stdin?.on('error', () => {}); // It need not read what it is given; its own end is what counts.
  child.stdin?.end(options.input);
  const ended = new Promise<Omit<CommandResult, 'timedOut'>>(resolve => {
    child.on('error', error => {
      if (child.pid === undefined) resolve(unstarted(error));
    });
    child.once('close', (code, signal) => {
      if (child.pid !== undefined) resolve({exitCode: code ?? undefined, endedBy: signal ?? undefined, spawnError: undefined, stdout: stdout(), stderr: stderr()});
    });
  });
  return {child, ended};
}

/** Hands on what it writes, both streams in their order. */
async function startStreamed(command: Command, options: RunOptions, write: (chunk: Buffer) => void): Promise<Started> {
  const {execa} = await import('execa');
  const child = execa(command.file, command.args, {
    ...(options.cwd === undefined ? {} : {cwd: options.cwd}),
    env: options.env,
    extendEnv: false,
    detached: true,
    reject: false,
    buffer: false,
    all: true,
    ...(options.input === undefined ? {stdin: 'ignore' as const} : {input: options.input}),
  });
  child.all.on('data', write);
  child.all.on('error', () => {}); // A destroyed pipe ends with an error; the command's own end is what counts.
  const ended = child.then(result => ({
    exitCode: result.exitCode,
    endedBy: result.signal,
    spawnError: child.pid === undefined ? (result.code ?? 'unknown') : undefined,
    stdout: '',
    stderr: '',
  }));
  return {child: child as unknown as ChildProcess, ended};
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
