export interface Rate {
  readonly count: number;
  readonly perMs: number;
}

/**
 * `count` at once, and as many again in each `perMs`, evenly.
 * Shape: `take` answers 0 when there was one, else the milliseconds until there is, and takes none.
 */
export function openBucket({count, perMs}: Rate): {take(): number} {
  const eachMs = perMs / count;
  // In time instead of tokens: when the bucket is full again.
  let fullAt = 0;
  return {
    take: () => {
      const now = performance.now();
      const wait = Math.max(fullAt, now) + eachMs - now - perMs;
      // Counted in fractions, a full bucket can lack a billionth of its last one.
      if (wait > 1e-6) return wait;
      fullAt = Math.max(fullAt, now) + eachMs;
      return 0;
    },
  };
}
