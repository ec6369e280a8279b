import {setTimeout as delay} from 'node:timers/promises';
import type {Config} from '../config/config.ts';
import type {Deployed} from '../deploy/deploy.ts';
import {unfinished} from '../deploy/recover.ts';
import {Superseded} from '../deploy/run.ts';
import type {DeployTools} from '../deploy/tools.ts';
import {watchSpool} from '../trigger/watch-spool.ts';
import {resolveAside} from '../working-copy/resolve-aside.ts';
import type {Change} from './turn.ts';

/** With a commit every second nothing would ever go live: then one deploy runs to its end. */
const MOST_SUPERSEDED_IN_A_ROW = 5;
const REVISION_POLL_MS = 20;

/** Deploys the newest revision; once more when something newer took the place of that deploy. */
export async function deployForFiled({config, tools, filed: look, deploy}: Change, signal: AbortSignal): Promise<Deployed> {
  for (let superseded = 0; ; superseded++) {
    const filed = look();
    const newer = config.hook.supersede && superseded < MOST_SUPERSEDED_IN_A_ROW ? watchForNewer(config, tools) : undefined;
    try {
      const deployed = await deploy({
        trigger: filed.at(-1)?.trigger ?? 'hook',
        requestedBy: filed.at(-1)?.requestedBy ?? 'unknown',
        target: {kind: 'revision', wanted: undefined},
        force: false,
        filed,
      }, newer === undefined ? signal : AbortSignal.any([signal, newer.signal]));
      if (deployed.result.outcome !== 'superseded') return deployed;
    } finally {
      newer?.close();
    }
  }
}

/** Aborts a deploy that has not switched when a request comes and the repository has a newer revision than the one at hand. */
function watchForNewer(config: Config, tools: DeployTools): {readonly signal: AbortSignal; close(): void} {
  const newer = new AbortController();
  const over = new AbortController();
  let changed = false;
  let looking = false;
  const ask = async (): Promise<void> => {
    if (tools.records.filed().length === 0) return;
    const revision = await revisionAtHand(tools, over.signal);
    const newest = await resolveAside(config, undefined, over.signal);
    if (newest !== revision) newer.abort(new Superseded(`${newest} took its place`));
  };
  const look = async (): Promise<void> => {
    changed = true;
    if (looking) return;
    looking = true;
    try {
      while (changed && !over.signal.aborted) {
        changed = false;
        await ask();
      }
    } catch {
      // The deploy is over, or the repository does not answer: the request is answered in its turn.
    } finally {
      looking = false;
    }
  };
  const watcher = watchSpool(config.stateDir, () => void look());
  void look();
  return {
    signal: newer.signal,
    close: () => {
      over.abort();
      watcher.close();
    },
  };
}

/** What is being deployed, as soon as the repository has said it. */
async function revisionAtHand(tools: DeployTools, signal: AbortSignal): Promise<string> {
  for (;;) {
    const revision = unfinished(tools.records.readJournal())?.revision;
    if (typeof revision === 'string') return revision;
    await delay(REVISION_POLL_MS, undefined, {signal});
  }
}
