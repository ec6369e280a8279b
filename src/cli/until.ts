/** A signal that follows another and lets go of it when it is closed: the other one lives for months. */
export function until(signal: AbortSignal): {readonly signal: AbortSignal; close(): void} {
  const own = new AbortController();
  const abort = () => own.abort(signal.reason);
  signal.addEventListener('abort', abort, {once: true});
  if (signal.aborted) abort();
  return {signal: own.signal, close: () => signal.removeEventListener('abort', abort)};
}
