import {watch} from 'node:fs';
import {spoolPath} from './request-spool.ts';

/** Calls back when something in the spool may have changed. Where nothing can be watched it never does; whoever must not miss anything looks as well. */
export function watchSpool(stateDir: string, onChange: () => void): {close(): void} {
  try {
    const watcher = watch(spoolPath(stateDir), {persistent: false}, onChange);
    watcher.on('error', () => watcher.close());
    return watcher;
  } catch {
    return {close: () => undefined}; // The machine has no watches left.
  }
}
