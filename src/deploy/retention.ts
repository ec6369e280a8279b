import type {Drain} from '../state/drains.ts';
import type {ServedRelease, State} from '../state/state-file.ts';

/**
 * The releases to keep, pure: what serves, the way back, what drains, then the newest that served, `keep` in all.
 * Releases that never served are not among them.
 */
export function releasesToKeep(state: State, drains: readonly Drain[], keep: number): string[] {
  const needed = [state.serving?.release.id, rollbackTarget(state)?.id, ...drains.map(({generation}) => generation.release.id)];
  const wanted = [...needed, ...state.served.map(({id}) => id).reverse()].filter(id => id !== undefined);
  const unique = [...new Set(wanted)];
  return unique.slice(0, Math.max(keep, new Set(needed.filter(id => id !== undefined)).size));
}

/**
 * Since when the release that serves has served, ISO 8601, where it is the newest that ever did: then it may be to blame for what its
 * workers do. Undefined for one that was gone back to, or that is not alone to judge: an outage would lead further and further back.
 */
export function onTrialSince({serving, served}: State): string | undefined {
  const newest = served.at(-1);
  return newest === undefined || newest.id !== serving?.release.id ? undefined : newest.firstServedAt ?? newest.servedAt;
}

/** Where a rollback goes: the last good release that served before the one that serves; one further back each time, never forth. */
export function rollbackTarget({serving, served}: State): ServedRelease | undefined {
  const index = serving === null ? served.length : served.findIndex(({id}) => id === serving.release.id);
  return served.slice(0, Math.max(0, index)).findLast(({good}) => good);
}
