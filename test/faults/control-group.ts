import {existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync} from 'node:fs';
import {randomUUID} from 'node:crypto';
import {join} from 'node:path';
import type {TestContext} from 'node:test';
import {waitUntil} from '../support/wait-until.ts';

const ROOT = '/sys/fs/cgroup';
/** The file of each limit: of a hierarchy of its own (version 1), and of the one for all (version 2). */
const LIMITS = {
  memory: ['memory.limit_in_bytes', 'memory.max'],
  pids: ['pids.max', 'pids.max'],
  cpu: ['cpu.cfs_quota_us', 'cpu.max'],
} as const;
const CPU_PERIOD_US = 100_000;

/** A control group of the test's own, which limits what is in it. */
export interface ControlGroup {
  /** Words to put before a command that is to run in it; what it starts is in it, too. */
  readonly enter: readonly string[];
  /** Takes a process in, without what it has started before. */
  join(pid: number): void;
  /** Bytes, processes, or percent of one CPU. */
  limit(to: number): void;
  unlimit(): void;
  /** How many there are in it, threads too; of a group for `pids`. */
  processes(): number;
  /** How many processes the kernel has killed in it for want of memory. */
  killedForMemory(): number;
}

/** Why there is no such group here, as a text. Its processes must have ended when the test does. */
export function makeControlGroup(test: TestContext, controller: keyof typeof LIMITS): ControlGroup | string {
  const own = existsSync(join(ROOT, controller));
  const dir = join(ROOT, own ? controller : '', `osyw-test-${randomUUID()}`);
  try {
    mkdirSync(dir);
  } catch (error) {
    return `no control group can be made here: ${String(error)}`;
  }
  test.after(() => waitUntil('the control group to be empty', () => {
    rmdirSync(dir);
    return true;
  }));
  const file = join(dir, LIMITS[controller][own ? 0 : 1]);
  if (!existsSync(file)) return `control groups have no ${controller} here`;
  const set = (to: string): void => writeFileSync(file, to);
  return {
    enter: ['/bin/sh', '-c', 'echo $$ >"$0" && exec "$@"', join(dir, 'cgroup.procs')],
    join: pid => writeFileSync(join(dir, 'cgroup.procs'), String(pid)),
    limit: to => set(controller !== 'cpu' ? String(to) : own ? String(to * CPU_PERIOD_US / 100) : `${to * CPU_PERIOD_US / 100} ${CPU_PERIOD_US}`),
    unlimit: () => set(controller === 'pids' || !own ? 'max' : '-1'),
    processes: () => Number(readFileSync(join(dir, 'pids.current'), 'utf8')),
    killedForMemory: () => Number(/^oom_kill (\d+)/m.exec(readFileSync(join(dir, own ? 'memory.oom_control' : 'memory.events'), 'utf8'))?.[1] ?? 0),
  };
}
