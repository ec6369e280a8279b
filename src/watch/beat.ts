/** The death of a process that is not our child is seen by looking. */
const BEAT_MS = 250;
/** Beats. */
export const A_SECOND = 1000 / BEAT_MS;

/** What is looked at again and again, all at one beat: to be woken costs an idle process more than the looks do. */
export interface Beat {
  /** Looks at every so many beats, until the returned function is called. `look` does not throw. */
  every(beats: number, look: () => void): () => void;
  /** Returns at the first second at which `isDue`, or when aborted. */
  until(isDue: () => boolean, signal: AbortSignal): Promise<void>;
  close(): void;
}

export function startBeat(): Beat {
  const looks = new Set<{readonly beats: number; readonly look: () => void}>();
  let beaten = 0;
  const timer = setInterval(() => {
    beaten++;
    for (const {beats, look} of looks) if (beaten % beats === 0) look();
  }, BEAT_MS);
  const every: Beat['every'] = (beats, look) => {
    const one = {beats, look};
    looks.add(one);
    return () => void looks.delete(one);
  };
  return {
    every,
    until: (isDue, signal) => new Promise(resolve => {
      const over = () => {
        stop();
        signal.removeEventListener('abort', over);
        resolve();
      };
      const stop = every(A_SECOND, () => {
        if (isDue()) over();
      });
      signal.addEventListener('abort', over, {once: true});
      if (signal.aborted) over();
    }),
    close: () => clearInterval(timer),
  };
}
