import {readFileSync} from 'node:fs';
import {dirname, join} from 'node:path';
import {errnoOf} from '../errors.ts';
import {counted, megabytes, type Finding} from './finding.ts';

/** Some of what is free must stay so: for the page cache, for nginx's second set of workers. */
const RESERVE_BYTES = 64 * 1024 * 1024;

/**
 * Whether a second set of workers fits beside the first, as it must from start to drain. `resident`: bytes of each worker that serves, with
 * its children; `pid` one of them, whose cgroup counts. `proc` is /proc, `cgroups` where they are mounted.
 */
export function memoryForTwo(resident: readonly number[], {count, pid, proc, cgroups}: {count: number; pid: number | undefined; proc: string; cgroups: string}): Finding {
  const check = 'memory';
  const {available: ofMachine, swap} = readMemory(proc);
  const ofGroup = roomInGroup(join(proc, String(pid ?? 'self'), 'cgroup'), cgroups);
  const available = Math.min(ofMachine, ofGroup ?? Infinity);
  if (resident.length === 0) return {check, level: 'note', says: `${megabytes(available)} of memory available; what a worker takes is known once one serves`};
  const each = resident.reduce((sum, bytes) => sum + bytes, 0) / resident.length;
  const need = each * count;
  const says = `${counted(count, 'worker')} of ${megabytes(each)} serve, a deploy starts as many beside them: ${megabytes(need)} more, ${megabytes(available)} available${available < ofMachine ? ' in the cgroup of the workers' : ''}${swap > 0 ? ` and ${megabytes(swap)} of swap` : ''}`;
  if (available >= need + RESERVE_BYTES) return {check, level: 'ok', says};
  const fits = available + swap >= need + RESERVE_BYTES;
  return {
    check, level: fits ? 'warning' : 'problem', says, place: 'workers.count',
    means: fits ? 'during a deploy the machine swaps, and every answer gets slow' : 'during a deploy the kernel runs out of memory and kills a process: a worker that serves, perhaps, or a database',
    mend: count > 1 ? `count: ${Math.max(1, Math.min(count - 1, Math.floor((available - RESERVE_BYTES) / each)))}` : 'fallocate -l 2G /swapfile && chmod 600 /swapfile && mkswap /swapfile && swapon /swapfile',
  };
}

/** What is left of the tightest limit around a process; undefined where none is set. Source: cgroup-v2, memory.max, memory.current, memory.stat. */
function roomInGroup(file: string, cgroups: string): number | undefined {
  const path = /^0::(\/.*)$/m.exec(readIfThere(file) ?? '')?.[1];
  const rooms: number[] = [];
  for (let at = path; at !== undefined && at !== '/'; at = dirname(at)) {
    const [most, used] = ['memory.max', 'memory.current'].map(name => Number.parseInt(readIfThere(join(cgroups, at ?? '', name)) ?? '', 10));
    // The kernel takes the cache of files that nobody uses back before it runs out.
    const cache = Number(/^inactive_file (\d+)$/m.exec(readIfThere(join(cgroups, at, 'memory.stat')) ?? '')?.[1] ?? 0);
    if (most !== undefined && used !== undefined && !Number.isNaN(most) && !Number.isNaN(used)) rooms.push(Math.max(0, most - used + cache));
  }
  return rooms.length === 0 ? undefined : Math.min(...rooms);
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
    return undefined; // It ended, has no limit of its own, or is not ours to see.
  }
}

/** Source: proc(5), meminfo; MemAvailable is the kernel's own estimate of what can be had without swapping. */
function readMemory(proc: string): {available: number; swap: number} {
  const text = readFileSync(join(proc, 'meminfo'), 'utf8');
  const bytes = (name: string) => Number(new RegExp(`^${name}:\\s*(\\d+) kB$`, 'm').exec(text)?.[1] ?? 0) * 1024;
  return {available: bytes('MemAvailable'), swap: bytes('SwapFree')};
}
