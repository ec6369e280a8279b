import type {Generation, ProcessIdentity, Release, Worker} from './deployment.ts';
import type {FiledRequest, Report} from './events.ts';
import type {CheckResult} from '../health/check-worker.ts';
import type {HeldDrain, Drain} from '../state/drains.ts';
import type {HistoryLine} from '../state/history.ts';
import type {Journal, JournalEntry, JournalLine} from '../state/journal.ts';
import type {State} from '../state/state-file.ts';
import type {SwitchIntent, SwitchSteps, Switched} from '../upstream/switch-upstream.ts';
import type {DrainProgress} from '../upstream/wait-drained.ts';
import type {LaunchedWorker, WorkerPlan} from '../workers/launch-worker.ts';
import type {StopResult, StoppableWorker} from '../workers/stop-workers.ts';

/** The code under svn or git, and the repository that it comes from. */
export interface WorkingCopy {
  readonly vcs: 'svn' | 'git';
  /**
   * Asks the repository which revision to deploy; changes nothing.
   * `wanted`: `r41`, `41`, a full hash or at least 7 digits of one; undefined is the newest, with `watch.edits` as somebody edited
   * it in the working copy: `r41+edits:1f0c9a7be2d4`, where equal edits have equal digits. Only the deployer itself uses such a name.
   * Errors: USAGE (malformed), UPDATE_FAILED (unknown, not on the branch, network, authentication, no repository).
   */
  resolve(wanted: string | undefined, signal: AbortSignal): Promise<string>;
  /**
   * Brings the working copy to exactly `revision`; checks it out from the URL when it is missing.
   * Heals dead locks, interrupted updates, missing files, mixed revisions.
   * Edits that the revision names stay, and a missing file is one of them. Returns the name of what the copy is then, which is another
   * one where svn merged a commit into them.
   * Errors: UPDATE_FAILED with the names of the files for other local edits, conflicts, also those that a commit would make with the
   * edits, obstructions, a switched copy; nothing of the user's is lost.
   */
  update(revision: string, signal: AbortSignal): Promise<string>;
  /** Writes every versioned file, as of the copy that `update` left at `revision`, into `dir`, which exists and is empty. */
  exportTo(dir: string, revision: string, signal: AbortSignal): Promise<void>;
  /** With `watch.edits`, after `dir` was made of the copy: refuses it when somebody edited meanwhile. Errors: UPDATE_FAILED. */
  verifyExport(dir: string, revision: string, signal: AbortSignal): Promise<void>;
  /** Says that `changedPaths` is going to be asked for, so that what takes long can be begun; also before `update(to)`. Changes nothing. */
  lookAhead(from: string, to: string, signal: AbortSignal): void;
  /** Relative paths (files, links, directories) that differ between two revisions; undefined when that cannot be told. Call after `update(to)`. */
  changedPaths(from: string, to: string, signal: AbortSignal): Promise<readonly string[] | undefined>;
  /** Whether between two revisions anything changed that `source.paths` names; asks the repository, and leaves the working copy's files as they are. True when that cannot be told. */
  touches(from: string, to: string, signal: AbortSignal): Promise<boolean>;
}

/** The directories that releases are built into. */
export interface Releases {
  /** Says that the working copy is going to be updated to this revision, so that what `build` has to know is read meanwhile. Changes nothing. */
  lookAhead(workingCopy: WorkingCopy, revision: string, signal: AbortSignal): void;
  /** Where the release of this id lives: `releases/000012`, or the working copy with `tree: in_place`. */
  dirOf(id: string): string;
  /**
   * Makes `release.dir` from the working copy at `release.revision`, links the shared paths in, runs the build commands,
   * and marks it complete, durably, last. Output of the build goes to `onOutput` line by line and is kept in a log.
   * Errors: BUILD_FAILED with the command, how it ended, its last lines and the log's path.
   */
  build(release: Release, workingCopy: WorkingCopy, onOutput: (line: string) => void, signal: AbortSignal): Promise<void>;
  /** Errors: none; a release that was never marked complete, or is gone, is false. */
  isComplete(id: string): Promise<boolean>;
  /** Takes back what `build` made of it, finished or not. May run twice. */
  discard(id: string): Promise<void>;
  /** Removes every release but these, and what a crash left half made. */
  prune(keep: readonly string[]): Promise<void>;
}

/** Processes: started, stopped, known. */
export interface Workers {
  /** Spare ports, proved free. Errors: START_FAILED. */
  leasePorts(count: number, taken: ReadonlySet<number>, after: number | null): Promise<number[]>;
  /** Whether all of these may be had by fresh workers: in the range, and proved free. */
  areSpare(ports: readonly number[]): Promise<boolean>;
  /** Those of these ports on which somebody listens. */
  answering(ports: readonly number[]): number[];
  newId(deploy: string, slot: number): string;
  /** Errors: START_FAILED. */
  launch(release: Release, plan: WorkerPlan): Promise<LaunchedWorker>;
  /** The whole tree, with the grace. May run twice. */
  stop(worker: StoppableWorker): Promise<StopResult>;
  isAlive(worker: Worker): boolean;
}

export interface Health {
  /** Errors: START_FAILED, NEVER_HEALTHY. */
  waitUntilHealthy(launched: readonly LaunchedWorker[], release: Release, relaunch: (worker: LaunchedWorker) => Promise<LaunchedWorker>, report: Report, signal: AbortSignal): Promise<Worker[]>;
  /** One check of one worker: alive, its own socket, a good answer. Errors: the signal's reason. */
  check(release: Release, worker: Worker, signal?: AbortSignal): Promise<CheckResult>;
}

/** nginx's upstream. */
export interface Upstream {
  isRunning(): Promise<boolean>;
  /** Errors: SWITCH_REFUSED when nginx does not run. */
  requireRunning(): Promise<void>;
  /** Begins to test the configuration that these ports will make, so that `switchTo` finds it tested. Changes nothing that nginx reads. */
  rehearse(ports: readonly number[]): void;
  /** On return nginx uses these ports, in this order. Errors: SWITCH_REFUSED (the old bytes are back), STATE_UNCERTAIN. */
  switchTo(ports: readonly number[], steps: SwitchSteps): Promise<Switched>;
  /** Names these ports in the file, for an nginx that does not run and reads it when it starts. Errors: SWITCH_REFUSED. */
  writeAhead(ports: readonly number[], steps: SwitchSteps): void;
  /** On return nginx uses what stood there before this switch. Errors: as switchTo; STATE_UNCERTAIN also where somebody changed in a file of the user's what the switch wrote. */
  restore(intent: Pick<SwitchIntent, 'oldBytes' | 'newHash'>, steps: SwitchSteps): Promise<Switched>;
  /** Puts the bytes into the file and tells nginx nothing. */
  putBack(oldBytes: string | null): void;
  /** Makes nginx use what stands in the file, and watches it. Errors: STATE_UNCERTAIN. */
  reload(): Promise<Switched>;
  /** The file behind links. Errors: SWITCH_REFUSED where its directory is missing. */
  file(): string;
  /** sha256 of what the file holds; null when there is none. */
  fileHash(): string | null;
  /** The file, where a deploy of this application wrote it: its first line says so, or marked workers listen on ports that it names. */
  ownFile(): {readonly file: string; readonly byHeader: boolean} | undefined;
  /** The ports that the file names. */
  filePorts(): number[];
  /** Whether nginx's workers that accept are exactly these and no reload is on its way; undefined when nginx does not run. */
  acceptsOnly(workers: readonly ProcessIdentity[]): Promise<boolean | undefined>;
  /** Undefined when the answer through nginx is good, when no probe is configured, or when nginx does not run. */
  probe(): Promise<string | undefined>;
  waitDrained(nginxWorkers: readonly ProcessIdentity[], ports: readonly number[], report: (progress: DrainProgress) => void, signal?: AbortSignal): Promise<DrainProgress>;
}

/** What is on disk about deploys. */
export interface Records {
  state(): State;
  save(state: State): void;
  readJournal(): JournalEntry[];
  beginJournal(first: JournalLine): Journal;
  continueJournal(): Journal;
  /** But for deploys that have a line already. */
  addToHistory(...lines: readonly HistoryLine[]): void;
  drains(): Drain[];
  writeDrain(drain: Drain): void;
  takeDrain(deploy: string): HeldDrain | undefined;
  /** What waits in the spool, oldest first. Changes nothing. */
  filed(): FiledRequest[];
  /** Removes these from the spool; a later file of the same name stays. May run twice. */
  unfile(requests: readonly FiledRequest[]): void;
  /** Files one that this deploy took anew, for the next who looks. May run twice. */
  fileAgain(request: FiledRequest, deploy: string): void;
}

/** All that the story of a deploy needs of the world; `wire.ts` makes the real one. */
export interface DeployTools {
  readonly config: {
    readonly app: string;
    readonly hash: string;
    readonly count: number;
    readonly keep: number;
    readonly bakeMs: number;
    readonly checkIntervalMs: number;
    /** After so long a drain that is still there has failed. */
    readonly longestDrainMs: number;
    readonly inPlace: boolean;
  };
  workingCopy(): WorkingCopy;
  readonly releases: Releases;
  readonly workers: Workers;
  readonly health: Health;
  readonly upstream: Upstream;
  readonly records: Records;
  readonly report: Report;
}

/** The ports of a generation, in slot order. */
export function portsOf(generation: Pick<Generation, 'workers'>): number[] {
  return generation.workers.map(({port}) => port);
}
