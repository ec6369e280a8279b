import {type ChildProcess, execFile, spawn, type SpawnOptions} from 'node:child_process';
import {existsSync} from 'node:fs';

/** Runs a tool of the test's own to its end; throws with its output when it fails. */
export function run(file: string, args: readonly string[], options: {cwd?: string; env?: Record<string, string>; input?: string} = {}): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = execFile(file, [...args], {cwd: options.cwd, env: options.env, maxBuffer: 64 << 20, timeout: 60_000}, (error, stdout, stderr) => {
      if (error) reject(new Error(`${file} ${args.join(' ')}: ${error.message}\n${stdout}${stderr}`));
      else resolve(stdout);
    });
    // A tool that ends without having read its input is no failure of the test.
    child.stdin?.on('error', () => {}).end(options.input ?? '');
  });
}

/**
 * A server that must not outlive this process, however that one ends: the kernel sends the signal.
 * `setpriv` becomes the program, so the child's pid is the program's.
 */
export function spawnBound(file: string, args: readonly string[], options: SpawnOptions): ChildProcess {
  const setpriv = '/usr/bin/setpriv';
  return existsSync(setpriv) ? spawn(setpriv, ['--pdeathsig', 'KILL', '--', file, ...args], options) : spawn(file, [...args], options);
}

/** Sends the signal and waits for the end of a child of ours. */
export async function endChild(child: ChildProcess, signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((resolve) => child.once('exit', resolve));
  const forced = setTimeout(() => child.kill('SIGKILL'), 5000);
  child.kill(signal);
  await ended;
  clearTimeout(forced);
}
