import {setTimeout as delay} from 'node:timers/promises';
import type {ProcessIdentity} from '../deploy/deployment.ts';
import {isAlive, LOOKS, signalProcess} from './process-identity.ts';
import {workerTree} from './worker-tree.ts';

/** A worker as far as it is known: before its process is on record, by its mark alone. */
export interface StoppableWorker {
  readonly id: string;
  readonly port: number;
  readonly process: ProcessIdentity | undefined;
}

export interface StopResult {
  readonly port: number;
  readonly pid: number | undefined;
  /** `gone`: there was nothing; `stopped`: it ended on the signal; `killed`: something had to be killed; `undead`: it will not die. */
  readonly end: 'gone' | 'stopped' | 'killed' | 'undead';
  readonly left: readonly number[];
}

const POLL_MS = 10;
/** Of killing what was started since the one before. */
const MOST_ROUNDS = 20;
/** A process that does not die of SIGKILL in this time is stuck in the kernel. */
export const KILL_TIMEOUT_MS = 5000;

/**
 * Stops one worker with all that belongs to it: the signal to its main process, the grace, then SIGKILL to whatever is left.
 * May run twice. No process is signalled that does not carry the worker's mark or descend from its recorded process.
 */
export async function stopWorker(worker: StoppableWorker, stop: {signal: NodeJS.Signals; timeoutMs: number}): Promise<StopResult> {
  const result = {port: worker.port, pid: worker.process?.pid};
  const tree = wholeTree(worker);
  if (tree.length === 0) return {...result, end: 'gone', left: []};
  const main = worker.process !== undefined && isAlive(worker.process) ? [worker.process] : tree;
  for (const identity of main) signalProcess(identity, stop.signal);
  await untilGone(main, stop.timeoutMs);

  // What the main process started may have joined since, or been handed to init: look again, by the mark.
  return killLeft({...result, end: 'stopped', left: []}, tree, worker);
}

/** Kills what is alive of `tree`, and of the worker, until nothing of it is found. `stopped` is the answer when that is nobody. */
export async function killLeft(stopped: StopResult, tree: readonly ProcessIdentity[], worker: StoppableWorker): Promise<StopResult> {
  let {end} = stopped;
  for (let round = 0; ; round++) {
    const found = wholeTree(worker);
    const alive = [...tree, ...found].filter(isAlive);
    // One that ended since it was found may have handed itself on.
    if (alive.length === 0 && found.length === 0) return {...stopped, end};
    for (const identity of alive) signalProcess(identity, 'SIGKILL');
    await untilGone(alive, KILL_TIMEOUT_MS);
    const left = alive.filter(isAlive).map(({pid}) => pid);
    if (left.length > 0 || round === MOST_ROUNDS) return {...stopped, end: 'undead', left};
    if (alive.length > 0) end = 'killed';
  }
}

/** By looks enough that what hands itself on from parent to child does not escape them all. */
function wholeTree(worker: StoppableWorker): ProcessIdentity[] {
  // What began after a look is all that the next one has not seen.
  const seen = new Set<number>();
  for (let looks = 0; looks < LOOKS; looks++) {
    const tree = workerTree(worker, seen);
    if (tree.length > 0) return tree;
  }
  return [];
}

/** Whether they have all ended in this time. */
export async function untilGone(identities: readonly ProcessIdentity[], timeoutMs: number): Promise<boolean> {
  const deadline = performance.now() + timeoutMs;
  while (identities.some(isAlive)) {
    if (performance.now() >= deadline) return false;
    await delay(POLL_MS);
  }
  return true;
}
