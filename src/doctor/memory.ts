import {readFileSync} from 'node:fs';
import {join} from 'node:path';
import {counted, megabytes, type Finding} from './finding.ts';

/** Some of what is free must stay so: for the page cache, for nginx's second set of workers. */
const RESERVE_BYTES = 64 * 1024 * 1024;

/** Whether a second set of workers fits beside the first, as it must from start to drain. `resident`: bytes of each worker that serves, with its children. `proc` is /proc. */
export function memoryForTwo(resident: readonly number[], count: number, proc: string): Finding {
  const check = 'memory';
  const {available, swap} = readMemory(proc);
  if (resident.length === 0) return {check, level: 'note', says: `${megabytes(available)} of memory available; what a worker takes is known once one serves`};
  const each = resident.reduce((sum, bytes) => sum + bytes, 0) / resident.length;
  const need = each * count;
  const says = `${counted(count, 'worker')} of ${megabytes(each)} serve, a deploy starts as many beside them: ${megabytes(need)} more, ${megabytes(available)} available${swap > 0 ? ` and ${megabytes(swap)} of swap` : ''}`;
  if (available >= need + RESERVE_BYTES) return {check, level: 'ok', says};
  const fits = available + swap >= need + RESERVE_BYTES;
  return {
    check, level: fits ? 'warning' : 'problem', says, place: 'workers.count',
    means: fits ? 'during a deploy the machine swaps, and every answer gets slow' : 'during a deploy the kernel runs out of memory and kills a process: a worker that serves, perhaps, or a database',
    mend: count > 1 ? `count: ${Math.max(1, Math.min(count - 1, Math.floor((available - RESERVE_BYTES) / each)))}` : 'fallocate -l 2G /swapfile && chmod 600 /swapfile && mkswap /swapfile && swapon /swapfile',
  };
}

/** Source: proc(5), meminfo; MemAvailable is the kernel's own estimate of what can be had without swapping. */
function readMemory(proc: string): {available: number; swap: number} {
  const text = readFileSync(join(proc, 'meminfo'), 'utf8');
  const bytes = (name: string) => Number(new RegExp(`^${name}:\\s*(\\d+) kB$`, 'm').exec(text)?.[1] ?? 0) * 1024;
  return {available: bytes('MemAvailable'), swap: bytes('SwapFree')};
}
