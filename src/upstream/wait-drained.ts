import {setTimeout as delay} from 'node:timers/promises';
import type {ProcessIdentity} from '../deploy/deployment.ts';
import {openConnections} from '../workers/connections.ts';
import {isAlive} from '../workers/process-identity.ts';

export interface DrainProgress {
  /** nginx workers of before the switch that still live. */
  readonly nginxWorkers: number;
  /** Connections open to the old workers. */
  readonly connections: number;
  readonly waitedMs: number;
}

const FIRST_POLL_MS = 10;
const LONGEST_POLL_MS = 250;
/** Reading the connection table may take at most this share of the time: it is long on a busy machine. */
const SHARE_OF_TIME = 10;

/**
 * Waits until nothing can reach the old workers any more: every nginx worker of before the switch is gone, then no connection is left.
 * In this order: an old nginx worker with no connection at all may still open one, for a request whose body is on its way.
 * Units: milliseconds on the monotonic clock. `quietMs` without a single connection: the nginx workers linger for others and are not waited for.
 * Errors: none; what a passed deadline cuts stands in the result (zeros when all went by itself).
 */
export async function waitDrained(old: {
  nginxWorkers: readonly ProcessIdentity[];
  ports: readonly number[];
  quietMs: number;
  deadlineMs: number;
  report(progress: DrainProgress): void;
}): Promise<DrainProgress> {
  const began = performance.now();
  let lastConnection = began;
  for (let pause = FIRST_POLL_MS; ; pause = Math.min(pause * 1.5, LONGEST_POLL_MS)) {
    const nginxWorkers = old.nginxWorkers.filter(isAlive).length;
    const looked = performance.now();
    const connections = [...(await openConnections(old.ports)).values()].reduce((sum, n) => sum + n, 0);
    const now = performance.now();
    if (connections > 0) lastConnection = now;
    const progress = {nginxWorkers, connections, waitedMs: Math.round(now - began)};
    if (connections === 0 && (nginxWorkers === 0 || now - lastConnection >= old.quietMs)) return {...progress, nginxWorkers: 0};
    if (now - began >= old.deadlineMs) return progress;
    old.report(progress);
    await delay(Math.min(Math.max(pause, (now - looked) * SHARE_OF_TIME), old.deadlineMs));
  }
}
