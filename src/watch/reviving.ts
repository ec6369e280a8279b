/**
 * Lets workers of what serves be started again beside deploys of this process that fetch or build, which may take long. What is under
 * way when such a deploy comes to its start is waited for, so that no worker is started for a generation that is being replaced.
 */
export interface Reviving {
  /** The run may go on for long without touching a worker. */
  permit(run: object): void;
  /** On return nothing is under way that was permitted, and nothing begins because of this run. */
  forbid(run: object): Promise<void>;
  /** Undefined where it is not permitted. */
  begin<T>(work: () => Promise<T>): Promise<T> | undefined;
}

export function openReviving(): Reviving {
  const permitted = new Set<object>();
  const underWay = new Set<Promise<unknown>>();
  return {
    permit: run => void permitted.add(run),
    forbid: async run => {
      permitted.delete(run);
      await Promise.allSettled(underWay);
    },
    begin: work => {
      if (permitted.size === 0) return undefined;
      const done = work();
      const over = done.finally(() => underWay.delete(over)).catch(() => undefined);
      underWay.add(over);
      return done;
    },
  };
}
