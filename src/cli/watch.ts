import {mkdirSync} from 'node:fs';
import {join} from 'node:path';
import {setTimeout as delay} from 'node:timers/promises';
import {isDeepStrictEqual} from 'node:util';
import type {Config} from '../config/config.ts';
import type {DeployEvent, DeployResult} from '../deploy/events.ts';
import {asFailure} from '../deploy/run.ts';
import {DeployError} from '../errors.ts';
import {openLog} from '../log.ts';
import {deployLockPath, isLock, tryLock, waitForLock} from '../state/deploy-lock.ts';
import {readDrains} from '../state/drains.ts';
import {makeStateDir, refuseForeignState} from '../state/state-file.ts';
import {plainText} from '../support/plain-text.ts';
import {fileLook, spoolPath} from '../trigger/request-spool.ts';
import {takeWaitingPlace} from '../trigger/waiting-place.ts';
import {watchSpool} from '../trigger/watch-spool.ts';
import {A_SECOND, startBeat} from '../watch/beat.ts';
import {openControl} from '../watch/control-server.ts';
import {followWorkingCopy} from '../watch/follow-working-copy.ts';
import {giveBackMemory} from '../watch/give-back-memory.ts';
import {openNotify} from '../watch/notify.ts';
import {startPoller} from '../watch/poller.ts';
import {openReviving} from '../watch/reviving.ts';
import {supervise} from '../watch/supervisor.ts';
import {openWake} from '../watch/wake.ts';
import {resolveAside} from '../working-copy/resolve-aside.ts';
import type {Context} from './context.ts';
import {onlySettled} from './recover.ts';
import {drainInBackground, failedResult, takeTurn} from './turn.ts';
import {until} from './until.ts';
import {answerClients} from './watch-clients.ts';
import {watchWork} from './watch-work.ts';
import {watchedConfig} from './watched-config.ts';

const PLACE_POLL_MS = 100;
const LONGEST_PLACE_POLL_MS = 2000;
/** A request that stands, for not even a revision was found, is not tried again at once. */
const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 60_000;

/**
 * `osyw-deploy watch`: deploys whatever is asked for, by hooks, by the working copy, by the repository, by clients of its control
 * socket, and keeps the workers of what serves alive. They live on when it ends; the next one takes them over.
 */
export async function watch(context: Context): Promise<number> {
  const {app, stateDir} = context.loadConfig();
  refuseForeignState(stateDir);
  makeStateDir(stateDir);
  const only = tryLock(join(stateDir, 'watching'), 'watch');
  if (!isLock(only)) throw new DeployError('BUSY', `a watch of ${app} runs already: pid ${only.heldBy?.process?.pid ?? '?'}, since ${only.heldBy?.since ?? '?'}`);
  // It need not be there for a watch that polls; one that a hook's installation makes later is found by the look a second later.
  mkdirSync(spoolPath(stateDir), {recursive: true, mode: 0o700});

  const over = new AbortController();
  const {signal} = over;
  const renderer = context.renderer();
  const log = openLog(stateDir);
  const report = (event: DeployEvent): void => {
    log.info(event);
    renderer.event(event);
  };
  /** What a watch does by itself everybody sees, not only who asks for every word. */
  const say = (text: string): void => {
    log.info({event: 'note', text});
    if (!context.json && !context.quiet) context.output.out(`${plainText(text)}\n`);
  };
  let webhook: ReturnType<typeof listenForForges> = Promise.resolve(undefined);
  const config = watchedConfig(context, {report, say, onChange: (fresh, before) => {
    if (isDeepStrictEqual(fresh.watch.webhook, before.watch.webhook)) return;
    webhook = webhook.then(async open => {
      await open?.close();
      return listenForForges(fresh, say);
    }).catch((error: unknown) => {
      say(asFailure(error).message);
      return undefined;
    });
  }});
  const notify = openNotify(context.env, say);
  const work = watchWork(stateDir);
  const reviving = openReviving();
  const beat = startBeat();
  const {wake, until: untilWoken} = openWake();
  let tellSettled = (): void => undefined;
  const settledAtStart = new Promise<void>(resolve => {
    tellSettled = resolve;
  });

  const finishing = new Set<Promise<void>>();
  const keep = (last: Promise<void>): void => {
    const end = last.catch((error: unknown) => say(asFailure(error).message)).finally(() => {
      finishing.delete(end);
      giveBackMemory();
    });
    finishing.add(end);
  };
  const settled = (turn: {result: DeployResult; finish(): Promise<DeployResult>}): void => {
    renderer.result(turn.result);
    keep(turn.finish().then(result => {
      if (result.exit !== turn.result.exit) renderer.result(result);
    }));
  };

  let supervisor: ReturnType<typeof supervise> | undefined;
  /** From here on what serves is looked after, and clients are answered. */
  const begin = (): void => {
    supervisor ??= supervise({
      config: config.current, tools: config.toolsOf, reviving, beat, say, signal,
      replace: worker => {
        work.replace(worker);
        wake();
      },
      rollBack: (release, reason) => {
        work.rollBack(release, reason);
        wake();
      },
    });
    tellSettled();
    // Also when something could not be brought back: nginx, which may wait for us, has other sites.
    notify.ready();
  };

  /** One turn under the lock. Returns how it ended; undefined when there was nothing to do after all. */
  const turn = async (first: boolean): Promise<DeployResult | undefined> => {
    const path = deployLockPath(stateDir);
    const free = tryLock(path, 'watch');
    // Who deploys there settles what there is to settle, and may take long.
    if (!isLock(free)) begin();
    const lock = isLock(free) ? free : await waitForLock(path, 'watch', signal);
    const own = until(signal);
    let idle = false;
    try {
      const done = await takeTurn(lock, {context: {output: context.output, signal: own.signal, letGo: signal, reviving}, config: config.current(), renderer: {event: renderer.event, result: () => undefined}, wait: true, answers: true}, change => {
        const begun = work.begin(change, first, own.signal);
        idle = begun === undefined && change.recovered === undefined;
        return begun ?? Promise.resolve(onlySettled(change));
      });
      if (idle) keep(done.finish().then(() => undefined));
      else settled(done);
      return idle ? undefined : done.result;
    } finally {
      own.close();
    }
  };
  /** Until something is to be done; what no event told of is found within a second. */
  const rest = async (): Promise<void> => {
    const stopLooking = beat.every(A_SECOND, () => {
      try {
        if (work.isThere()) wake();
      } catch {
        wake(); // The loop meets it, too, and tells.
      }
    });
    await untilWoken(undefined, signal);
    stopLooking();
  };

  context.onHangup(() => {
    log.reopen();
    notify.reloading(config.reload);
  });
  const control = await openControl(config.current(), answerClients({context, config, reviving, settledAtStart, signal, follow: renderer.event}));
  const stop = (): void => {
    notify.stopping();
    over.abort(context.signal.reason);
  };
  context.signal.addEventListener('abort', stop, {once: true});
  if (context.signal.aborted) stop();
  const place = takePlace(stateDir, signal).catch((error: unknown) => {
    say(`hooks start deployers of their own: ${asFailure(error).message}`);
    return undefined;
  });
  // Who files a request from the end on must not find that somebody waits for it.
  signal.addEventListener('abort', () => void place.then(taken => taken?.leave()), {once: true});
  const poller = startPoller(config.current, say, signal);
  const spool = watchSpool(stateDir, wake);
  let copy: Promise<void> | undefined;
  try {
    webhook = Promise.resolve(await listenForForges(config.current(), say));
    copy = followWorkingCopy({config: config.current, look: poller.look, say, beat, signal}).catch((error: unknown) => {
      say(`the working copy is not watched, the repository is still polled: ${asFailure(error).message}`);
    });
    say(`watch of ${app} runs, pid ${process.pid}`);
    let failed = 0;
    let told: string | undefined;
    for (let first = true; !signal.aborted; first = false) {
      let idle = false;
      try {
        // What a crash left is settled, and what served is brought back, before anything else.
        const due = first || work.isThere();
        // A repository that was away is asked aside before it is asked under the lock once more.
        if (failed > 0 && !first && !work.isSupervision() && !work.isInterrupted()) await resolveAside(config.current(), undefined, signal);
        const result = due ? await turn(first) : undefined;
        idle = result === undefined;
        const stands = result !== undefined && ((result.exit !== 0 && result.revision === null) || work.isInterrupted());
        failed = stands ? failed + 1 : 0;
      } catch (error) {
        if (signal.aborted) break;
        failed++;
        const {code, message, hint} = asFailure(error);
        // Once: it may be the same for days.
        if (message !== told) renderer.result(failedResult({code, message, hint}));
        told = message;
      }
      if (failed === 0) told = undefined;
      begin();
      // What was committed while no watch ran.
      if (first && config.current().watch.pollMs > 0) poller.look('poll');
      if (failed > 0) await untilWoken(Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** (failed - 1)), signal);
      else if (idle) await rest();
    }
  } finally {
    over.abort();
    beat.close();
    tellSettled();
    context.signal.removeEventListener('abort', stop);
    spool.close();
    await Promise.all([control.close(), webhook.then(open => open?.close()), copy, poller.close(), supervisor?.close()]);
    await Promise.all(finishing);
    await notify.close();
    await place;
    // What still drains is taken up by a process of its own as soon as this one is gone.
    if (stillDrains(stateDir, say)) drainInBackground(config.current());
  }
  say('watch ends; the workers run on');
  only.release();
  return 0;
}

function stillDrains(stateDir: string, say: (text: string) => void): boolean {
  try {
    return readDrains(stateDir).length > 0;
  } catch (error) {
    say(asFailure(error).message);
    return false;
  }
}

/** While we have it, what a hook leaves behind ends at once: we look. */
async function takePlace(stateDir: string, signal: AbortSignal): Promise<ReturnType<typeof takeWaitingPlace>> {
  for (let pause = PLACE_POLL_MS; !signal.aborted; pause = Math.min(LONGEST_PLACE_POLL_MS, pause * 2)) {
    const place = takeWaitingPlace(stateDir);
    if (place !== undefined) return place;
    await delay(pause, undefined, {signal}).catch(() => undefined);
  }
  return undefined;
}

/** A delivery says "look", and that is filed as everything else is. */
async function listenForForges({app, stateDir, source, watch: {webhook}}: Config, say: (text: string) => void): Promise<{close(): Promise<void>} | undefined> {
  if (webhook === undefined) return undefined;
  const {openWebhook} = await import('../trigger/webhook.ts');
  return openWebhook({...webhook, stateDir, branch: source.branch}, from => fileLook(stateDir, app, {trigger: 'webhook', requestedBy: from, revision: null}), say);
}
