import type {ProcessIdentity} from '../deploy/deployment.ts';
import {identify} from '../workers/process-identity.ts';
import {listeners, listenersOn, ownerAmong, type Listener} from '../workers/listeners.ts';
import {descendants, markedProcesses, workerTree} from '../workers/worker-tree.ts';

export type PortOwner =
  | {readonly kind: 'nobody'}
  | {readonly kind: 'worker'; readonly process: ProcessIdentity}
  | {readonly kind: 'stranger'; readonly listener: Listener};

/** Whose sockets would answer on `host:port`: all of them must belong to the worker's own processes. */
export function portOwner(host: string, port: number, worker: {id: string; process: ProcessIdentity | undefined}): PortOwner {
  const sockets = listenersOn(host, port);
  if (sockets.length === 0) return {kind: 'nobody'};
  let known = worker.process === undefined ? [] : descendants(worker.process);
  let complete = false;
  let owner: ProcessIdentity | undefined;
  for (const listener of sockets) {
    let found = ownerAmong(known, listener.inode);
    if (found === undefined && !complete) {
      // The search by mark reads the whole of /proc, so it is left for those who moved away from their parent.
      known = [...known, ...markedProcesses(worker.id)];
      complete = true;
      found = ownerAmong(known, listener.inode);
    }
    if (found === undefined) return {kind: 'stranger', listener};
    owner = found;
  }
  return owner === undefined ? {kind: 'nobody'} : {kind: 'worker', process: identify(owner.pid) ?? owner};
}

/** Where a worker's processes listen, whatever port they were given. */
export function listensOn(worker: {id: string; process: ProcessIdentity | undefined}): Listener[] {
  const tree = workerTree(worker);
  return listeners().filter(({inode}) => ownerAmong(tree, inode) !== undefined);
}
