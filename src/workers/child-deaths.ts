const listeners = new Set<() => void>();

/** Calls whenever a process ends that this process started for a worker: who looks after workers need not wait for his next look. Returns what ends it. */
export function onChildDeath(listener: () => void): () => void {
  listeners.add(listener);
  return () => void listeners.delete(listener);
}

export function tellChildDeath(): void {
  for (const listener of listeners) listener();
}
