import {setTimeout as delay} from 'node:timers/promises';
import type {ProcessIdentity} from '../deploy/deployment.ts';
import {childrenOf, identify, isAlive, processStat} from '../workers/process-identity.ts';
import {hasPendingHup, isIdle, nginxChildren, titleOf, type NginxChild, type NginxMaster} from './nginx-master.ts';

/** nginx as it was before a HUP. */
export interface BeforeReload {
  /** Workers that accept, or are about to: a fork has no title yet. */
  readonly accepting: readonly ProcessIdentity[];
  /** Every child, whatever its title. */
  readonly all: readonly ProcessIdentity[];
}

export type ReloadVerdict =
  /** New workers accept, no old one does. */
  | {readonly kind: 'live'}
  /** The master looked at the new configuration and kept the old one; `said`: what the reload command added. */
  | {readonly kind: 'failed'; readonly said: string}
  /**
   * Not carried out in time; `pending`: the master has not even begun, so it will read whatever the files say then.
   * `workerless`: it has been carried out, but no worker came of it, and those of before are leaving: nobody accepts.
   */
  | {readonly kind: 'unclear'; readonly pending: boolean; readonly masterState: string; readonly workerless?: true};

const POLL_MS = 1;
/** Without the right to see the master's system call, "nothing happened" needs time: nginx tries a taken port 5 times, 500 ms apart. */
const BLIND_FAILURE_MS = 4000;
/** nginx forks its new workers before it sends the old ones away, so an idle master without any has failed to fork. */
const WORKERLESS_MS = 300;

export function beforeReload(master: NginxMaster): BeforeReload {
  const children = nginxChildren(master);
  return {
    accepting: children.filter(({title}) => title === 'worker' || title === 'untitled').map(child => child.process),
    all: children.map(child => child.process),
  };
}

/**
 * Watches nginx carry out a reload; the order of the looks matters. Never sleeps and hopes.
 * `sentByUs`: the HUP is on its way already, so an idle master has handled it; a command may still be about to send it.
 * Units: `timeoutMs` on the monotonic clock; not below 3 s, see BLIND_FAILURE_MS.
 * Source: ngx_process_cycle.c: new workers are forked and titled, 100 ms later the old ones get QUIT and change their title
 * before they close their listening sockets.
 */
export async function observeReload(master: NginxMaster, before: BeforeReload, {timeoutMs, sentByUs}: {timeoutMs: number; sentByUs: boolean}): Promise<ReloadVerdict> {
  const began = performance.now();
  const wasThere = new Set(before.all.map(({pid, startTime}) => `${pid} ${startTime}`));
  let failedLooks = 0;
  let workerlessSince = Infinity;
  for (;;) {
    // Pending is read first: a reload by somebody else, begun before our file was in place, must not be taken for ours.
    const pending = hasPendingHup(master);
    const idle = isIdle(master);
    const children = nginxChildren(master);
    const fresh = children.filter(({process: {pid, startTime}}) => !wasThere.has(`${pid} ${startTime}`));
    const oldAccept = before.accepting.some(identity => isAlive(identity) && ['worker', 'untitled'].includes(titleOf(identity.pid) ?? ''));
    const elapsed = performance.now() - began;
    if (!isAlive(master.process)) return {kind: 'unclear', pending: false, masterState: 'gone'};
    if (!pending && idle !== false) {
      if (!oldAccept && areServing(fresh)) return {kind: 'live'};
      const nothingNew = fresh.length === 0 && childrenOf(master.process.pid).every(pid => isKnown(pid, wasThere));
      // The list of children may miss one while another ends, so it takes two looks.
      failedLooks = nothingNew && oldAccept && ((idle === true && sentByUs) || elapsed > BLIND_FAILURE_MS) ? failedLooks + 1 : 0;
      if (failedLooks >= 2) return {kind: 'failed', said: ''};
    }
    const workerless = !pending && idle !== false && !oldAccept && children.every(({title}) => title === 'shutting down' || title === 'other');
    workerlessSince = workerless ? Math.min(workerlessSince, elapsed) : Infinity;
    if (elapsed - workerlessSince > WORKERLESS_MS) return {kind: 'unclear', pending: false, masterState: processStat(master.process.pid)?.state ?? 'gone', workerless: true};
    if (elapsed > timeoutMs) return {kind: 'unclear', pending, masterState: processStat(master.process.pid)?.state ?? 'gone'};
    await delay(POLL_MS);
  }
}

function areServing(fresh: readonly NginxChild[]): boolean {
  return fresh.some(({title}) => title === 'worker') && fresh.every(({title}) => title !== 'untitled');
}

function isKnown(pid: number, wasThere: ReadonlySet<string>): boolean {
  const identity = identify(pid);
  return identity === undefined || wasThere.has(`${pid} ${identity.startTime}`);
}
