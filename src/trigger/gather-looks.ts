export interface Looks {
  /** `waitMs` 0: as soon as may be; else not before, unless `mayLook` allows it then. */
  ask(from: string, waitMs: number): void;
  /** A look that is owed is made now, and one that is asked for later at once. */
  close(): void;
}

/**
 * Many that ask are one look: the first one at once, and those that ask within `gatherMs` after a look together at the end of that time.
 * Who asked too often is not forgotten either: his look waits for `mayLook`, which answers as a bucket does.
 */
export function gatherLooks(gatherMs: number, mayLook: () => number, look: (from: string) => void): Looks {
  let owed: {readonly from: string; readonly paid: boolean} | undefined;
  let timer: NodeJS.Timeout | undefined;
  let dueAt = Infinity;
  let notBefore = 0;
  let closed = false;

  function lookNow(): void {
    clearTimeout(timer);
    dueAt = Infinity;
    const asked = owed;
    if (asked === undefined) return;
    owed = undefined;
    notBefore = performance.now() + gatherMs;
    look(asked.from);
  }

  function wake(): void {
    dueAt = Infinity;
    const wait = owed?.paid === false ? mayLook() : 0;
    if (wait > 0) lookIn(wait);
    else lookNow();
  }

  function lookIn(waitMs: number): void {
    const now = performance.now();
    const at = Math.max(now + waitMs, notBefore);
    if (at >= dueAt) return;
    clearTimeout(timer);
    dueAt = at;
    timer = setTimeout(wake, Math.ceil(at - now)).unref();
  }

  return {
    ask: (from, waitMs) => {
      owed = {from, paid: owed?.paid === true || waitMs === 0};
      if (closed || (waitMs === 0 && performance.now() >= notBefore)) lookNow();
      else lookIn(waitMs);
    },
    close: () => {
      closed = true;
      lookNow();
    },
  };
}
