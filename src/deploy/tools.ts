import type {Release} from './deployment.ts';

/** The code under svn or git, and the repository that it comes from. */
export interface WorkingCopy {
  readonly vcs: 'svn' | 'git';
  /**
   * Asks the repository which revision to deploy; changes nothing.
   * `wanted`: `r41`, `41`, a full hash or at least 7 digits of one; undefined is the newest.
   * Errors: USAGE (malformed), UPDATE_FAILED (unknown, not on the branch, network, authentication, no repository).
   */
  resolve(wanted: string | undefined, signal: AbortSignal): Promise<string>;
  /**
   * Brings the working copy to exactly `revision`; checks it out from the URL when it is missing.
   * Heals dead locks, interrupted updates, missing files, mixed revisions.
   * Errors: UPDATE_FAILED with the names of the files for local edits, conflicts, obstructions, a switched copy; nothing of the user's is lost.
   */
  update(revision: string, signal: AbortSignal): Promise<void>;
  /** Writes every versioned file, as of the copy that `update` left at `revision`, into `dir`, which exists and is empty. */
  exportTo(dir: string, revision: string, signal: AbortSignal): Promise<void>;
  /** Relative paths (files, links, directories) that differ between two revisions; undefined when that cannot be told. Call after `update(to)`. */
  changedPaths(from: string, to: string, signal: AbortSignal): Promise<readonly string[] | undefined>;
}

/** The directories that releases are built into. */
export interface Releases {
  /** Begins to read the spare tree, so that `build` finds it read. Changes nothing. */
  warm(): void;
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
