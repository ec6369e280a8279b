/** Something that never rests, such as a log in the tree, must not keep everything else waiting. */
const LEAST_PATIENCE_MS = 5000;
const PATIENCE_IN_SETTLES = 10;

/** Calls back when there was no change for a while, or when changes have gone on for long. `settleMs` is asked at each change. */
export function startSettling(settleMs: () => number, onSettled: () => void): {changed(): void; close(): void} {
  let timer: NodeJS.Timeout | undefined;
  let since: number | undefined;
  const settled = () => {
    since = undefined;
    onSettled();
  };
  return {
    changed: () => {
      const ms = settleMs();
      const now = performance.now();
      since ??= now;
      clearTimeout(timer);
      timer = setTimeout(settled, Math.max(0, Math.min(ms, since + Math.max(LEAST_PATIENCE_MS, PATIENCE_IN_SETTLES * ms) - now)));
    },
    close: () => clearTimeout(timer),
  };
}
