/** Ends a wait early. A wake that comes while nobody waits is not lost. */
export interface Wake {
  wake(): void;
  /** Returns when woken, aborted, or after so many milliseconds; undefined is never. */
  until(ms: number | undefined, signal: AbortSignal): Promise<void>;
}

export function openWake(): Wake {
  let pending = false;
  let end: (() => void) | undefined;
  return {
    wake: () => {
      pending = true;
      end?.();
    },
    until: (ms, signal) => new Promise(resolve => {
      const over = () => {
        clearTimeout(timer);
        signal.removeEventListener('abort', over);
        [end, pending] = [undefined, false];
        resolve();
      };
      const timer = ms === undefined ? undefined : setTimeout(over, ms);
      signal.addEventListener('abort', over, {once: true});
      end = over;
      if (pending || signal.aborted) over();
    }),
  };
}
