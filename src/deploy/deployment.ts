/** Who a process is. A pid alone is nobody: the kernel gives it to somebody else after its owner's death. */
export interface ProcessIdentity {
  readonly pid: number;
  /** Field 22 of /proc/PID/stat: clock ticks since boot. */
  readonly startTime: number;
  /** /proc/sys/kernel/random/boot_id: pids of another boot mean nothing. */
  readonly bootId: string;
}

/** One application process on one port. */
export interface Worker {
  /** Its place in the upstream, from 0: kept over deploys, so that `ip_hash` keeps its clients. */
  readonly slot: number;
  readonly port: number;
  /** The mark in its environment (OSYW_WORKER_ID), by which its whole tree is known. */
  readonly id: string;
  /** The process that listens, or the ancestor of it that we started. */
  readonly process: ProcessIdentity;
  /** ISO 8601. */
  readonly startedAt: string;
  /** How often it was started again in its place. */
  readonly restarts?: number;
}

/** A revision, and the directory that it was built into. */
export interface Release {
  /** Six digits, counted up: `000012`. */
  readonly id: string;
  /** As its system writes it: `r41`, or the full hash of a commit. */
  readonly revision: string;
  /** Where its workers run: a directory of its own, or the working copy with `tree: in_place`. */
  readonly dir: string;
  /** It was set up by hand and runs in the working copy: it has no tree of its own that could serve beside a newer revision. */
  readonly adopted?: true;
}

/** A release with the workers that run it. */
export interface Generation {
  /** The deploy that started it. */
  readonly deploy: string;
  readonly release: Release;
  readonly configHash: string;
  /** When it began to serve, ISO 8601. */
  readonly since: string;
  /** In slot order. */
  readonly workers: readonly Worker[];
}

export const PHASES = ['update', 'build', 'start', 'check', 'switch', 'bake', 'drain', 'record'] as const;
export type Phase = (typeof PHASES)[number];

export type Trigger = 'manual' | 'hook' | 'watch' | 'poll' | 'webhook' | 'rollback' | 'recover' | 'boot';
export type Outcome = 'deployed' | 'unchanged' | 'aborted' | 'rolled_back' | 'superseded' | 'uncertain';

/** Milliseconds that each phase took. */
export type PhaseTimes = Partial<Record<Phase, number>>;
