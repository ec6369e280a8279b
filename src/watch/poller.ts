import {setTimeout as delay} from 'node:timers/promises';
import type {Config} from '../config/config.ts';
import type {LookTrigger} from '../deploy/events.ts';
import {mayBeNews} from '../deploy/filed-requests.ts';
import {unfinished} from '../deploy/recover.ts';
import {asFailure} from '../deploy/run.ts';
import {readJournal} from '../state/journal.ts';
import {readState} from '../state/state-file.ts';
import {nextPoll} from '../supervise/judge.ts';
import {fileLook} from '../trigger/request-spool.ts';
import {resolveAside} from '../working-copy/resolve-aside.ts';
import {openWake} from './wake.ts';

export interface Poller {
  /** Asks at once; a second call while one is asked makes it ask once more. */
  look(trigger: LookTrigger): void;
  close(): Promise<void>;
}

/** Asks the repository which revision is the newest, at `watch.poll` and when told to; files a request where that may be news. */
export function startPoller(config: () => Config, say: (text: string) => void, signal: AbortSignal): Poller {
  let asked: LookTrigger | undefined;
  const woken = openWake();
  let failed = 0;
  let told: string | undefined;
  const ask = async (trigger: LookTrigger): Promise<void> => {
    try {
      const {app, stateDir} = config();
      // What is being deployed may be the very thing that would be found.
      while (unfinished(readJournal(stateDir)) !== undefined) await delay(DEPLOY_POLL_MS, undefined, {signal});
      const revision = await resolveAside(config(), undefined, signal);
      if (mayBeNews(revision, readState(stateDir))) fileLook(stateDir, app, {trigger, requestedBy: 'watch', revision});
      [failed, told] = [0, undefined];
    } catch (error) {
      if (signal.aborted) return;
      failed++;
      const {message} = asFailure(error);
      // Once: the repository may be away for days.
      if (message !== told) say(`the repository was asked in vain: ${message}`);
      told = message;
    }
  };
  const run = async (): Promise<void> => {
    while (!signal.aborted) {
      const trigger = asked;
      asked = undefined;
      if (trigger !== undefined) await ask(trigger);
      const {pollMs} = config().watch;
      if (asked === undefined) {
        // What was asked in vain is asked again, be the repository never asked by itself.
        await woken.until(pollMs > 0 ? nextPoll(pollMs, failed, Math.random()) : failed > 0 ? nextPoll(ASKED_AGAIN_MS, failed - 1, Math.random()) : undefined, signal);
        asked ??= pollMs > 0 ? 'poll' : trigger ?? 'poll';
      }
    }
  };
  const running = run();
  return {
    look: trigger => {
      asked = trigger;
      woken.wake();
    },
    close: () => running,
  };
}

const DEPLOY_POLL_MS = 200;
const ASKED_AGAIN_MS = 10_000;
