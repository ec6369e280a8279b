/** Choices that a seed decides: the same seed makes the same choices in the same order. */
export interface Choices {
  /** From 0 up to, not with, 1. */
  fraction(): number;
  chance(probability: number): boolean;
  /** A whole number, both ends included. */
  whole(least: number, most: number): number;
  pick<T>(from: readonly T[]): T;
  /** By weight: `weighed({a: 3, b: 1})` is `a` three times out of four. */
  weighed<Name extends string>(weights: Readonly<Record<Name, number>>): Name;
}

/**
 * mulberry32, by Tommy Ettinger. pure-rand lies in node_modules, but only as a dependency of fast-check's, and may go with it;
 * fast-check's own `sample` prefers small values and changes with its versions, and a seed has to mean the same next year.
 */
export function choices(seed: number): Choices {
  let state = seed >>> 0;
  const fraction = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const pick = <T>(from: readonly T[]): T => {
    const index = Math.floor(fraction() * from.length);
    const picked = from.find((_, at) => at === index);
    if (picked === undefined) throw new Error('nothing to pick from');
    return picked;
  };
  return {
    fraction,
    chance: (probability) => fraction() < probability,
    whole: (least, most) => least + Math.floor(fraction() * (most - least + 1)),
    pick,
    weighed<Name extends string>(weights: Readonly<Record<Name, number>>): Name {
      const entries = Object.entries(weights) as [Name, number][];
      let left = fraction() * entries.reduce((sum, [, weight]) => sum + weight, 0);
      return entries.find(([, weight]) => (left -= weight) < 0)?.[0] ?? pick(entries)[0];
    },
  };
}

/** A seed of its own for step `number`, so that what one step chooses does not depend on how many choices another made. */
export function seedOf(seed: number, number: number): number {
  return Math.floor(choices((seed ^ Math.imul(number + 1, 0x9e3779b1)) >>> 0).fraction() * 2 ** 32);
}
