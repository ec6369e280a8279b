import type {Outcome, Phase, PhaseTimes, Release, Trigger} from './deployment.ts';
import type {FailureCode} from '../errors.ts';

/** What a deploy tells while it runs; rendered by the command line, never decided upon. */
export type DeployEvent =
  | {readonly event: 'phase'; readonly phase: Phase; readonly state: 'began' | 'ended'; readonly ms?: number}
  /** What is being waited for, or was found and mended. */
  | {readonly event: 'note'; readonly text: string}
  /** A line that a build command wrote. */
  | {readonly event: 'output'; readonly line: string};

export type Report = (event: DeployEvent) => void;

/** What makes the deployer look by itself, without a person who waits for the answer. */
export const LOOK_TRIGGERS = ['hook', 'watch', 'poll', 'webhook'] as const;
export type LookTrigger = (typeof LOOK_TRIGGERS)[number];

/** A request as it lay in the spool. It says no more than "look": what there is to deploy, the repository is asked. */
export interface FiledRequest {
  /** Its line in the history has this id; the same for one file whoever reads it, and when. */
  readonly id: string;
  /** Its name in the spool. */
  readonly file: string;
  /** Tells this very file from a later one of the same name. */
  readonly stamp: string;
  /** Absent in a journal of before there were others than hooks. */
  readonly trigger?: LookTrigger;
  /** The owner of the file, as the kernel says. */
  readonly requestedBy: string;
  readonly uid: number;
  /** A hint of its sender, for the record alone. */
  readonly revision: string | null;
  /** ISO 8601. */
  readonly filedAt: string;
  /** How many deploys that took it were killed. */
  readonly killed: number;
}

/** Who asks for what. */
export interface Request {
  readonly trigger: Trigger;
  readonly requestedBy: string;
  readonly target:
    /** The newest revision, or the one named, from the repository. */
    | {readonly kind: 'revision'; readonly wanted: string | undefined}
    /** A release that is there already: it gets fresh workers, without update and build. */
    | {readonly kind: 'release'; readonly release: Release;
      /** Only these of the release that serves; the other workers go on. */
      readonly slots?: readonly number[]};
  /** Deploy even what would be `unchanged`. */
  readonly force: boolean;
  /** What lay in the spool and is answered by this deploy, oldest first. */
  readonly filed: readonly FiledRequest[];
}

/** How a deploy ended; the shape of the contract's `result` event. */
export interface DeployResult {
  readonly outcome: Outcome;
  readonly exit: number;
  readonly code: 'OK' | FailureCode;
  readonly release: string | null;
  readonly revision: string | null;
  readonly previous: string | null;
  readonly phases: PhaseTimes;
  readonly error: string | null;
  /** What to do about it; for people. */
  readonly hint: string | null;
}
