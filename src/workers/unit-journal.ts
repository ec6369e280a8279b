import {runCommand} from '../support/run-command.ts';
import {SYSTEM_PATH} from '../support/system-path.ts';
import type {WorkerOutput} from './worker-log.ts';

const READ_TIMEOUT_MS = 10_000;
/** As long as a timer can be set; it is the signal that ends it. */
const UNTIL_STOPPED_MS = 2 ** 31 - 1;

/** The output of a unit, and what systemd has to say of it, as they stand in the journal. */
export function journalOf(unit: string): WorkerOutput {
  return {
    place: `journalctl -u ${unit}`,
    lastLines: async count => {
      // What a process wrote a moment before its end may still be on its way; without a journal there is nothing to wait for.
      await journalctl(['--sync'], {timeoutMs: READ_TIMEOUT_MS});
      const {stdout} = await journalctl([...reading(unit), `--lines=${count}`], {timeoutMs: READ_TIMEOUT_MS});
      return stdout.split('\n').filter(line => line.trim() !== '').slice(-count);
    },
  };
}

/** Shows what comes into the journal from now on, until the signal. */
export async function followJournal(unit: string, show: (line: string) => void, signal: AbortSignal): Promise<void> {
  try {
    await journalctl([...reading(unit), '--lines=0', '--follow'], {timeoutMs: UNTIL_STOPPED_MS, onLine: show, signal});
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}

function reading(unit: string): string[] {
  return ['--quiet', '--no-pager', '--output=cat', `--unit=${unit}`];
}

function journalctl(args: readonly string[], options: Pick<Parameters<typeof runCommand>[1], 'timeoutMs' | 'onLine' | 'signal'>) {
  return runCommand({file: '/usr/bin/journalctl', args}, {env: {PATH: SYSTEM_PATH, LC_ALL: 'C.UTF-8'}, ...options});
}
