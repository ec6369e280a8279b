import type {ProcessIdentity} from '../deploy/deployment.ts';
import {allPids, childrenOf, hasEnvironmentLine, identify, isAlive, processesWith, readProcFile} from './process-identity.ts';
import {unitOf} from './unit-name.ts';

/** The variable that marks every process of a worker, however far it moved from its parent. */
export const WORKER_MARK = 'OSYW_WORKER_ID';

/** All living processes that carry the mark of this worker, in their environment or as the unit whose cgroup they are in. `seen`: as for `processesWith`; of use for plain processes alone. */
export function markedProcesses(id: string, seen = new Set<number>()): ProcessIdentity[] {
  const mark = `${WORKER_MARK}=${id}`;
  const unit = unitOf(id);
  if (unit === undefined) return processesWith(mark, seen);
  return allPids().filter(pid => pid !== process.pid && (isInUnit(pid, unit) || hasEnvironmentLine(pid, mark))).flatMap(pid => identify(pid) ?? []);
}

/** Whether this worker lives: its recorded process, or, as systemd starts a unit anew, whatever is in its place. */
export function isWorkerAlive({id, process}: {id: string; process: ProcessIdentity}): boolean {
  return isAlive(process) || (unitOf(id) !== undefined && markedProcesses(id).length > 0);
}

/** Source: cgroups(7), /proc/PID/cgroup; wherever the hierarchy is mounted, and whatever slice the unit is in. */
function isInUnit(pid: number, unit: string): boolean {
  return readProcFile(`/proc/${pid}/cgroup`)?.toString('latin1').split(/[\n/]/).includes(unit) === true;
}

/** Every living process that carries the mark of a worker of this application, whatever the state says of it. */
export function markedWorkers(app: string): {pid: number; id: string}[] {
  return allPids().flatMap(pid => {
    const lines = readProcFile(`/proc/${pid}/environ`)?.toString('latin1').split('\0') ?? [];
    const id = lines.find(line => line.startsWith(`${WORKER_MARK}=${app}/`))?.slice(WORKER_MARK.length + 1);
    return id === undefined ? [] : [{pid, id}];
  });
}

/** A process and all that descend from it, as far as they are still its children's children. */
export function descendants(root: ProcessIdentity): ProcessIdentity[] {
  if (!isAlive(root)) return [];
  const found = [root];
  for (let i = 0; i < found.length; i++) {
    const parent = found[i];
    if (parent === undefined) break;
    for (const pid of childrenOf(parent.pid)) {
      const child = identify(pid);
      if (child !== undefined && !found.some(known => known.pid === child.pid)) found.push(child);
    }
  }
  return found;
}

/** Everything that belongs to a worker: its descendants, and what carries its mark after a double fork. `seen`: as for `processesWith`. */
export function workerTree(worker: {id: string; process: ProcessIdentity | undefined}, seen?: Set<number>): ProcessIdentity[] {
  const tree = markedProcesses(worker.id, seen);
  const roots = worker.process === undefined ? tree : [worker.process, ...tree];
  for (const root of roots) {
    for (const member of descendants(root)) {
      if (!tree.some(known => known.pid === member.pid)) tree.push(member);
    }
  }
  return tree;
}
