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

const POLL_MS = 10;
/** While nginx workers live, connections count only for `quiet`, so they are looked at seldom: the table is long on a busy machine. */
const SELDOM_MS = 1000;
const LONGEST_PAUSE_MS = 500;

/**
 * Waits until nothing can reach the old workers any more: every nginx worker of before the switch is gone, then no connection is left.
 * In this order: an old nginx worker with no connection at all may still open one, for a request whose body is on its way.
 * Units: milliseconds on the monotonic clock. `quietMs` without a single connection: the nginx workers linger for others and are not waited for.
 * Errors: the signal's reason; what a passed deadline cuts stands in the result (zeros when all went by itself).
 */
export async function waitDrained(old: {
  nginxWorkers: readonly ProcessIdentity[];
  ports: readonly number[];
  quietMs: number;
  deadlineMs: number;
  report(progress: DrainProgress): void;
  readonly signal?: AbortSignal | undefined;
}): Promise<DrainProgress> {
  const began = performance.now();
  const deadline = began + old.deadlineMs;
  let [lastConnection, lastLook, lookTook, connections] = [began, -Infinity, 0, 0];
  for (;;) {
    const nginxWorkers = old.nginxWorkers.filter(isAlive).length;
    const begun = performance.now();
    const late = begun >= deadline;
    if (nginxWorkers === 0 || late || begun - lastLook >= Math.min(SELDOM_MS, old.quietMs)) {
      connections = [...(await openConnections(old.ports)).values()].reduce((sum, n) => sum + n, 0);
      lastLook = performance.now();
      lookTook = lastLook - begun;
      if (connections > 0) lastConnection = lastLook;
      const isQuiet = lastLook - lastConnection >= old.quietMs;
      if (connections === 0 && (nginxWorkers === 0 || isQuiet)) return {nginxWorkers: 0, connections: 0, waitedMs: Math.round(lastLook - began)};
    }
    const progress = {nginxWorkers, connections, waitedMs: Math.round(performance.now() - began)};
    if (late) return progress;
    old.report(progress);
    const pause = nginxWorkers === 0 ? Math.min(Math.max(POLL_MS, 2 * lookTook), LONGEST_PAUSE_MS) : POLL_MS;
    await delay(Math.max(1, Math.min(pause, deadline - performance.now())), undefined, old.signal === undefined ? {} : {signal: old.signal});
  }
}
