/** What supervision decides, without a clock or a process of its own: times are milliseconds of one monotonic clock. */

/** Deaths further back do not count. */
const MEMORY_MS = 60_000;
const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 30_000;
const MOST_DEATHS = 4;
const MOST_FAILED_CHECKS = 3;
/** A release that has served so long is not what makes its workers die. */
const FRESH_MS = 600_000;

/** The deaths that still count, the one at `now` among them. */
export function recentDeaths(deaths: readonly number[], now: number): number[] {
  return deaths.filter(at => now - at < MEMORY_MS);
}

/** How long to wait before a worker with these recent deaths is started again: the first time not at all. */
export function pauseBeforeRestart(recent: number): number {
  return recent <= 1 ? 0 : Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** (recent - 2));
}

/** Whether its release is to blame, so that the last good one is to serve again. */
export function isCrashLoop(recent: number, servedForMs: number): boolean {
  return recent >= MOST_DEATHS && servedForMs < FRESH_MS;
}

/** Whether a worker that lives, and fails its checks, is to be replaced. */
export function isHung(failedInARow: number): boolean {
  return failedInARow >= MOST_FAILED_CHECKS;
}

/** With jitter, so that many that were started together do not ask together; further apart while the repository does not answer. */
export function nextPoll(pollMs: number, failedInARow: number, random: number): number {
  return Math.min(Math.max(pollMs, LONGEST_POLL_MS), pollMs * 2 ** Math.min(failedInARow, 20)) * (0.9 + 0.2 * random);
}

const LONGEST_POLL_MS = 600_000;
