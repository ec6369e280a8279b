import {unlinkSync} from 'node:fs';
import {join} from 'node:path';
import type {Generation, Worker} from '../deploy/deployment.ts';
import {entriesOf} from '../support/entries-of.ts';
import {ignoreMissing, readRegularFile, replaceFile} from './atomic-file.ts';

/**
 * A worker that died and was started again on its own port, under its own mark: only its process is another one. It is on record in a
 * file of its own, so that this needs no part of the state, which belongs to whoever holds the lock.
 */
type Restart = Pick<Worker, 'process' | 'startedAt'> & {readonly restarts: number};

/** Durable on return. */
export function writeRestart(stateDir: string, id: string, restart: Restart): void {
  replaceFile(pathOf(stateDir, id), JSON.stringify({version: 1, ...restart}), {mode: 0o600});
}

/** The worker as it runs now. What cannot be read of a restart is left out: its process carries the mark, and is found by that. */
export function asRestarted(stateDir: string, worker: Worker): Worker {
  const restart = readRestart(pathOf(stateDir, worker.id));
  return restart === undefined ? worker : {...worker, ...restart};
}

export function generationAsRestarted(stateDir: string, generation: Generation): Generation {
  return {...generation, workers: generation.workers.map(worker => asRestarted(stateDir, worker))};
}

/** Removes what is on record of all other workers. May run twice. */
export function forgetRestarts(stateDir: string, others: ReadonlySet<string>): void {
  const kept = new Set([...others].map(nameOf));
  for (const name of entriesOf(directoryOf(stateDir))) {
    if (!kept.has(name)) ignoreMissing(() => unlinkSync(join(directoryOf(stateDir), name)));
  }
}

function readRestart(path: string): Restart | undefined {
  const text = readRegularFile(path)?.toString('utf8');
  if (text === undefined) return undefined;
  try {
    const {version, process, startedAt, restarts} = JSON.parse(text) as Restart & {version: number};
    return version === 1 ? {process, startedAt, restarts} : undefined;
  } catch {
    return undefined; // Damaged: its process is found by the mark.
  }
}

function pathOf(stateDir: string, id: string): string {
  return join(directoryOf(stateDir), nameOf(id));
}

/** No name of an application or a deploy has a dot. */
function nameOf(id: string): string {
  return `${id.replaceAll('/', '.')}.json`;
}

function directoryOf(stateDir: string): string {
  return join(stateDir, 'restarts');
}
