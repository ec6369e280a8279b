import type {ProcessIdentity} from '../deploy/deployment.ts';
import {processStat, readProcFile, TICKS_PER_SECOND} from './process-identity.ts';
import {descendants} from './worker-tree.ts';

/** What a process and all that descend from it use. */
export interface Usage {
  /** Bytes resident; what several of the processes share counts in each. */
  readonly memory: number;
  /** CPUs kept busy on average: 0.5 is half of one, 2 two. */
  readonly cpu: number;
}

interface Sample {
  readonly startTime: number;
  readonly cpuTicks: number;
  readonly at: number;
}

/**
 * A meter for trees of processes: the first look at one tells its CPU since its start, each later one since the look before.
 * Undefined when the process is gone. Resident memory, not PSS: for that the kernel walks all pages of a worker, which waits meanwhile.
 */
export function usageMeter(): (root: ProcessIdentity) => Usage | undefined {
  const before = new Map<number, Sample>();
  return root => {
    const tree = descendants(root);
    if (tree.length === 0) return undefined;
    const cpuTicks = tree.reduce((sum, {pid}) => sum + (processStat(pid)?.cpuTicks ?? 0), 0);
    const now = {startTime: root.startTime, cpuTicks, at: ticksNow()};
    const known = before.get(root.pid);
    const since = known?.startTime === root.startTime ? known : {cpuTicks: 0, at: root.startTime};
    before.set(root.pid, now);
    return {
      memory: tree.reduce((sum, {pid}) => sum + residentBytes(pid), 0),
      // A child that nobody waited for takes its ticks with it.
      cpu: Math.max(0, Math.round((cpuTicks - since.cpuTicks) / Math.max(1, now.at - since.at) * 1000) / 1000),
    };
  };
}

/** Clock ticks since boot, by our own start: what /proc/uptime says in a container may be another machine's. */
function ticksNow(): number {
  own ??= processStat(process.pid)?.startTime ?? 0;
  return own + performance.now() / 1000 * TICKS_PER_SECOND;
}

let own: number | undefined;

/** Source: proc(5), VmRSS of /proc/PID/status; in stat it is counted in pages, whose size Node does not tell. */
function residentBytes(pid: number): number {
  const [, kilobytes] = /^VmRSS:\s*(\d+) kB$/m.exec(readProcFile(`/proc/${pid}/status`)?.toString('latin1') ?? '') ?? [];
  return Number(kilobytes ?? 0) * 1024;
}
