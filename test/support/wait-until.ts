import {setTimeout as pause} from 'node:timers/promises';
import {inspect} from 'node:util';

/**
 * Waits until `look` answers something true, and returns it.
 * Units:  `withinMs` milliseconds; `look` is asked at least once, and once more at the end.
 * Errors: a passed deadline throws, with what was waited for and the last answer (or what `look` threw).
 */
export async function waitUntil<T>(
  what: string,
  look: () => T | Promise<T>,
  {withinMs = 5000, everyMs = 10}: {withinMs?: number; everyMs?: number} = {},
): Promise<Exclude<T, undefined | null | false | 0 | ''>> {
  const deadline = performance.now() + withinMs;
  for (;;) {
    const late = performance.now() >= deadline;
    let last: unknown;
    try {
      const answer = await look();
      if (answer) return answer as Exclude<T, undefined | null | false | 0 | ''>;
      last = answer;
    } catch (error) {
      last = error;
    }
    if (late) throw new Error(`waited ${withinMs} ms for: ${what}; last seen: ${inspect(last, {depth: 4, breakLength: 160})}`);
    await pause(everyMs);
  }
}
