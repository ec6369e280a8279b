import type {Config} from '../config/config.ts';
import type {LookTrigger} from '../deploy/events.ts';
import {isWatchable, watchWorkingCopy} from '../trigger/watch-working-copy.ts';
import type {Beat} from './beat.ts';
import {startSettling} from './settling.ts';

interface Follower {
  config(): Config;
  look(trigger: LookTrigger): void;
  say(text: string): void;
  readonly beat: Beat;
  readonly signal: AbortSignal;
}

/** Looks when the working copy has been left alone for `watch.settle`; one that is not there yet is watched when it is. */
export async function followWorkingCopy({config, look, say, beat, signal}: Follower): Promise<void> {
  const settling = startSettling(() => config().watch.settleMs, () => look('watch'));
  while (!signal.aborted) {
    const {source: {workingCopy}, watch: {edits}} = config();
    const isSame = () => config().source.workingCopy === workingCopy && config().watch.edits === edits;
    const watcher = isWatchable(workingCopy) ? await watchWorkingCopy(workingCopy, {edits}, settling.changed, say) : undefined;
    await beat.until(() => watcher === undefined || !isSame(), signal);
    await watcher?.close();
  }
  settling.close();
}
