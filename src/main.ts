import {closeSync, readFileSync, readdirSync} from 'node:fs';
import {openOutput} from './cli/output.ts';
import {DeployError, FAILURES} from './errors.ts';

declare const __OSYW_VERSION__: string;
/** hooks/hook.sh: the command is one file. */
declare const __OSYW_HOOK__: string;

const LAST_CHECKED_BY_NODE = 15;
const O_CLOEXEC = 0o2000000;

const words = process.argv.slice(2);
if (words.length === 1 && words[0] === '--version') {
  process.stdout.write(`${__OSYW_VERSION__}\n`);
} else {
  void main().then(exit => {
    process.exitCode = exit;
  });
}

async function main(): Promise<number> {
  closeInherited();
  // Releases must be readable for the workers' account; what is secret is made with a mode of its own.
  process.umask(0o022);
  const output = openOutput(process.env);
  const {signal, onHangup} = interruptible();
  try {
    const {runProgram} = await import('./cli/program.ts');
    return await runProgram(words, {output, env: process.env, cwd: currentDirectory(), signal, onHangup, version: __OSYW_VERSION__, hookScript: __OSYW_HOOK__});
  } catch (error) {
    const {asFailure} = await import('./deploy/run.ts');
    const {failedResult} = await import('./cli/turn.ts');
    const {openRenderer} = await import('./cli/renderer.ts');
    const failure = asFailure(error);
    if (words.includes('--json')) openRenderer(output, {json: true, quiet: false, verbose: false}).result(failedResult(failure));
    else output.err(`${failure.code} (exit ${FAILURES[failure.code].exit}): ${failure.message}\n→ ${failure.hint}\n`);
    return FAILURES[failure.code].exit;
  }
}

/** The first signal asks for an end before the switch; the second leaves at once, and the journal stays for `recover`. */
function interruptible(): {signal: AbortSignal; onHangup(listener: () => void): void} {
  const controller = new AbortController();
  let hangup: (() => void) | undefined;
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(name, () => {
      if (name === 'SIGHUP' && hangup !== undefined) {
        hangup();
        return;
      }
      if (!controller.signal.aborted) {
        controller.abort(new DeployError('INTERRUPTED', `interrupted by ${name}`));
        return;
      }
      process.removeAllListeners(name);
      process.kill(process.pid, name);
    });
  }
  return {signal: controller.signal, onHangup: listener => {
    hangup = listener;
  }};
}

/** What the caller left open and would reach the workers: Node sees to the lowest descriptors, and stops at the first gap behind 15. */
function closeInherited(): void {
  for (const name of readdirSync('/proc/self/fd')) {
    const fd = Number(name);
    if (fd > LAST_CHECKED_BY_NODE && !closesOnExec(fd)) closeSync(fd);
  }
}

/** True for one that is closed already, as that of the directory that was just read. Source: proc(5), fdinfo. */
function closesOnExec(fd: number): boolean {
  try {
    const flags = /^flags:\s*([0-7]+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'))?.[1] ?? '0';
    return (Number.parseInt(flags, 8) & O_CLOEXEC) !== 0;
  } catch {
    return true;
  }
}

function currentDirectory(): string {
  try {
    return process.cwd();
  } catch {
    return '/'; // It was deleted; only a relative look for the configuration depends on it.
  }
}
