/** The catalogue of ways a command can end. The exit code answers "what is serving now?". */
export const FAILURES = {
  INTERNAL: {exit: 1, serving: 'as the journal says', hint: 'This is a bug in osyw-deploy; please report it with the lines above.'},
  USAGE: {exit: 2, serving: 'old', hint: 'See `osyw-deploy --help`.'},
  CONFIG_INVALID: {exit: 3, serving: 'old', hint: 'Mend the configuration; `osyw-deploy config check` looks at it without touching anything.'},
  BUSY: {exit: 4, serving: 'old', hint: 'Wait for the other deploy to end, then try again.'},
  UPDATE_FAILED: {exit: 5, serving: 'old', hint: 'The code could not be brought to the revision.'},
  BUILD_FAILED: {exit: 6, serving: 'old', hint: 'The release could not be built.'},
  START_FAILED: {exit: 7, serving: 'old', hint: 'A worker could not be started; see its output above.'},
  NEVER_HEALTHY: {exit: 8, serving: 'old', hint: 'The workers ran but did not pass the check in time (`check.deadline`).'},
  SWITCH_REFUSED: {exit: 9, serving: 'old', hint: 'nginx did not take the new upstream; the old file is back.'},
  CLEANUP_INCOMPLETE: {exit: 10, serving: 'new', hint: 'Run `osyw-deploy recover` when the cause is gone.'},
  ROLLED_BACK: {exit: 11, serving: 'old', hint: 'The new release failed after the switch, so the old one serves again.'},
  STATE_UNCERTAIN: {exit: 12, serving: 'unknown', hint: 'Nothing was stopped. Look at `osyw-deploy status` and at nginx, then run `osyw-deploy recover`.'},
  INTERRUPTED: {exit: 13, serving: 'old', hint: 'Stopped by a signal before the switch.'},
} as const satisfies Record<string, {exit: number; serving: string; hint: string}>;

export type FailureCode = keyof typeof FAILURES;

/**
 * A failure that the operator can act on. Any other throw is a bug (INTERNAL).
 * `message` says what happened, where, and the value seen; `hint`, when given, replaces the catalogue's remedy.
 */
export class DeployError extends Error {
  override readonly name = 'DeployError';
  readonly code: FailureCode;
  readonly hint: string;
  /** The cause goes by itself: the same may be tried again as if it had never been. */
  readonly passing: boolean;

  constructor(code: FailureCode, message: string, options: {hint?: string; cause?: unknown; passing?: boolean} = {}) {
    super(message, options.cause === undefined ? undefined : {cause: options.cause});
    this.code = code;
    this.hint = options.hint ?? FAILURES[code].hint;
    this.passing = options.passing ?? false;
  }

  get exit(): number {
    return FAILURES[this.code].exit;
  }
}

/** What a thrown value says, whatever was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Node has no word for a quota that is used up, and says UNKNOWN. Source: errno(3), EDQUOT on Linux. */
const EDQUOT = -122;

/** The `code` of a Node system error, else undefined. */
export function errnoOf(error: unknown): string | undefined {
  if (!(error instanceof Error && 'code' in error && typeof error.code === 'string')) return undefined;
  return 'errno' in error && error.errno === EDQUOT ? 'EDQUOT' : error.code;
}
