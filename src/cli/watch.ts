import {mkdirSync, statSync} from 'node:fs';
import {join} from 'node:path';
import {setTimeout as delay} from 'node:timers/promises';
import {isDeepStrictEqual} from 'node:util';
import type {Config} from '../config/config.ts';
import type {Deployed} from '../deploy/deploy.ts';
import type {Worker} from '../deploy/deployment.ts';
import type {DeployEvent, DeployResult, Request} from '../deploy/events.ts';
import {unfinished} from '../deploy/recover.ts';
import {onTrialSince, rollbackTarget} from '../deploy/retention.ts';
import {asFailure} from '../deploy/run.ts';
import type {DeployTools} from '../deploy/tools.ts';
import {DeployError} from '../errors.ts';
import {openLog} from '../log.ts';
import {deployLockPath, isLock, tryLock, waitForLock} from '../state/deploy-lock.ts';
import {readDrains} from '../state/drains.ts';
import {readJournal} from '../state/journal.ts';
import {makeStateDir, refuseForeignState, type State} from '../state/state-file.ts';
import {fileLook, isEmpty, spoolPath} from '../trigger/request-spool.ts';
import {takeWaitingPlace} from '../trigger/waiting-place.ts';
import {watchSpool} from '../trigger/watch-spool.ts';
import {A_SECOND, startBeat} from '../watch/beat.ts';
import {openControl, type ControlAnswer, type ControlLine, type ControlRequest} from '../watch/control-server.ts';
import {followWorkingCopy} from '../watch/follow-working-copy.ts';
import {giveBackMemory} from '../watch/give-back-memory.ts';
import {openNotify} from '../watch/notify.ts';
import {openReviving} from '../watch/reviving.ts';
import {startPoller} from '../watch/poller.ts';
import {supervise} from '../watch/supervisor.ts';
import {openWake} from '../watch/wake.ts';
import {wire} from '../wire.ts';
import {plainText} from '../support/plain-text.ts';
import {resolveAside} from '../working-copy/resolve-aside.ts';
import type {Context} from './context.ts';
import {deployForFiled} from './deploy-filed.ts';
import {onlySettled} from './recover.ts';
import type {Renderer} from './renderer.ts';
import {configStamp} from './through-watch.ts';
import {drainInBackground, failedResult, takeTurn, type Change} from './turn.ts';

const PLACE_POLL_MS = 100;
const LONGEST_PLACE_POLL_MS = 2000;
/** Whose workers may still run. */
const MOST_CONFIGURATIONS = 5;
/** A request that stands, for not even a revision was found, is not tried again at once. */
const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 60_000;

/** What supervision asks for, until a turn under the lock answers it. */
interface Asked {
  readonly replace: Map<string, Worker>;
  rollBack: {readonly release: string; readonly reason: string} | undefined;
}

/**
 * `osyw-deploy watch`: deploys whatever is asked for, by hooks, by the working copy, by the repository, by clients of its control
 * socket, and keeps the workers of what serves alive. They live on when it ends; the next one takes them over.
 */
export async function watch(context: Context): Promise<number> {
  // Stamped before it is read, so that an edit in between is seen as one.
  let stamp = configStamp(context.loadConfig().file);
  let config = context.loadConfigAgain();
  refuseForeignState(config.stateDir);
  makeStateDir(config.stateDir);
  const only = tryLock(join(config.stateDir, 'watching'), 'watch');
  if (!isLock(only)) throw new DeployError('BUSY', `a watch of ${config.app} runs already: pid ${only.heldBy?.process?.pid ?? '?'}, since ${only.heldBy?.since ?? '?'}`);
  // It need not be there for a watch that polls; one that a hook's installation makes later is found by the look a second later.
  mkdirSync(spoolPath(config.stateDir), {recursive: true, mode: 0o700});

  const over = new AbortController();
  const {signal} = over;
  const renderer = context.renderer();
  const log = openLog(config.stateDir);
  const report = (event: DeployEvent): void => {
    log.info(event);
    renderer.event(event);
  };
  /** What a watch does by itself everybody sees, not only who asks for every word. */
  const say = (text: string): void => {
    log.info({event: 'note', text});
    if (!context.json && !context.quiet) context.output.out(`${plainText(text)}\n`);
  };
  const notify = openNotify(context.env, say);
  const asked: Asked = {replace: new Map(), rollBack: undefined};
  const finishing = new Set<Promise<void>>();
  const isInterrupted = journalLook();
  const wired = [wire(config, report)];
  let webhook: ReturnType<typeof listenForForges> = Promise.resolve(undefined);
  const reviving = openReviving();
  const woken = openWake();
  const {wake} = woken;
  const beat = startBeat();
  let tellSettled = (): void => undefined;
  const settledAtStart = new Promise<void>(resolve => {
    tellSettled = resolve;
  });

  const reload = (): void => {
    try {
      const seen = configStamp(config.file);
      const fresh = context.loadConfigAgain();
      const moved = (['app', 'stateDir', 'runDir'] as const).filter(key => fresh[key] !== config[key]);
      if (moved.length > 0) throw new DeployError('CONFIG_INVALID', `${moved.map(key => ({app: 'app', stateDir: 'state_dir', runDir: 'run_dir'})[key]).join(' and ')} changed; that needs a new \`osyw-deploy watch\``);
      if (!isDeepStrictEqual(fresh.watch.webhook, config.watch.webhook)) {
        webhook = webhook.then(async open => {
          await open?.close();
          return listenForForges(fresh, say);
        }).catch((error: unknown) => {
          say(asFailure(error).message);
          return undefined;
        });
      }
      config = fresh;
      wired.push(wire(config, report));
      if (wired.length > MOST_CONFIGURATIONS) wired.shift();
      stamp = seen;
      say(`read ${config.file} again`);
    } catch (error) {
      const {code, message} = asFailure(error);
      context.output.err(`${code}: ${message}\nThe configuration of before stays in force.\n`);
      log.info({event: 'note', text: `${code}: ${message}; the configuration of before stays in force`});
    }
  };
  const keep = (work: Promise<void>): void => {
    const end = work.catch((error: unknown) => say(asFailure(error).message)).finally(() => {
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
      config: () => config, reviving, beat, say, signal,
      tools: hash => wired.find(({config: {hash: other}}) => other === hash) ?? present(wired),
      replace: worker => {
        asked.replace.set(worker.id, worker);
        wake();
      },
      rollBack: (release, reason) => {
        asked.rollBack = {release, reason};
        wake();
      },
    });
    tellSettled();
    // Also when something could not be brought back: nginx, which may wait for us, has other sites.
    notify.ready();
  };

  /** One turn under the lock. Returns how it ended; undefined when there was nothing to do after all. */
  const turn = async (first: boolean): Promise<DeployResult | undefined> => {
    const path = deployLockPath(config.stateDir);
    const free = tryLock(path, 'watch');
    // Who deploys there settles what there is to settle, and may take long.
    if (!isLock(free)) begin();
    const lock = isLock(free) ? free : await waitForLock(path, 'watch', signal);
    const own = until(signal);
    let idle = false;
    try {
      const done = await takeTurn(lock, {context: {output: context.output, signal: own.signal, letGo: signal, reviving}, config, renderer: {event: renderer.event, result: () => undefined}, wait: true, answers: true}, change => {
        const work = workFor(change, asked, first, own.signal);
        idle = work === undefined && change.recovered === undefined;
        return work ?? Promise.resolve(onlySettled(change));
      });
      if (idle) keep(done.finish().then(() => undefined));
      else settled(done);
      return idle ? undefined : done.result;
    } finally {
      own.close();
    }
  };

  const answer = ({command, options, requestedBy, config: theirs}: ControlRequest): ControlAnswer => {
    if (theirs.file === config.file && theirs.changed !== stamp.changed) reload();
    const kind = theirs.file === config.file && theirs.changed === stamp.changed && Object.hasOwn(COMMANDS, command) ? 'run' : 'other';
    return {kind, run: async tell => {
      // What the start settles is over in a moment, and no reason to be told of another deploy.
      await settledAtStart;
      const own = until(signal);
      try {
        await COMMANDS[command as keyof typeof COMMANDS]({...clientContext(context, config, requestedBy, own.signal, renderer.event, tell), reviving}, options);
      } finally {
        own.close();
        giveBackMemory();
      }
    }};
  };

  context.onHangup(() => {
    log.reopen();
    notify.reloading(reload);
  });
  const control = await openControl(config, answer);
  const stop = (): void => {
    notify.stopping();
    over.abort(context.signal.reason);
  };
  context.signal.addEventListener('abort', stop, {once: true});
  if (context.signal.aborted) stop();
  const place = takePlace(config.stateDir, signal).catch((error: unknown) => {
    say(`hooks start deployers of their own: ${asFailure(error).message}`);
    return undefined;
  });
  // Who files a request from the end on must not find that somebody waits for it.
  signal.addEventListener('abort', () => void place.then(taken => taken?.leave()), {once: true});
  const poller = startPoller(() => config, say, signal);
  const spool = watchSpool(config.stateDir, wake);
  let copy: Promise<void> | undefined;
  try {
    webhook = Promise.resolve(await listenForForges(config, say));
    copy = followWorkingCopy({config: () => config, look: trigger => poller.look(trigger), say, beat, signal}).catch((error: unknown) => {
      say(`the working copy is not watched, the repository is still polled: ${asFailure(error).message}`);
    });
    say(`watch of ${config.app} runs, pid ${process.pid}`);
    // What no event told of.
    beat.every(A_SECOND, () => {
      try {
        if (isAsked(config.stateDir, asked, isInterrupted)) wake();
      } catch {
        wake(); // The loop meets it, too, and tells.
      }
    });
    let failed = 0;
    let told: string | undefined;
    for (let first = true; !signal.aborted; first = false) {
      let idle = false;
      try {
        // What a crash left is settled, and what served is brought back, before anything else.
        const due = first || isAsked(config.stateDir, asked, isInterrupted);
        // A repository that was away is asked aside before it is asked under the lock once more.
        if (failed > 0 && !first && !isSupervisionAsked(asked) && !isInterrupted(config.stateDir)) await resolveAside(config, undefined, signal);
        const result = due ? await turn(first) : undefined;
        idle = result === undefined;
        const stands = result !== undefined && ((result.exit !== 0 && result.revision === null) || isInterrupted(config.stateDir));
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
      if (first && config.watch.pollMs > 0) poller.look('poll');
      if (failed > 0) await woken.until(Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** (failed - 1)), signal);
      else if (idle) await woken.until(undefined, signal);
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
    if (stillDrains(config.stateDir, say)) drainInBackground(config);
  }
  say('watch ends; the workers run on');
  only.release();
  return 0;
}

function present<T>(list: readonly T[]): T {
  const last = list.at(-1);
  if (last === undefined) throw new Error('no configuration was read');
  return last;
}

function stillDrains(stateDir: string, say: (text: string) => void): boolean {
  try {
    return readDrains(stateDir).length > 0;
  } catch (error) {
    say(asFailure(error).message);
    return false;
  }
}

/** What there is to do, under the lock; undefined when there is nothing. */
function workFor(change: Change, asked: Asked, first: boolean, signal: AbortSignal): Promise<Deployed> | undefined {
  const {tools} = change;
  const state = tools.records.state();
  const request = supervisedWork(state, asked, first, tools);
  asked.rollBack = undefined;
  asked.replace.clear();
  if (request !== undefined) return change.deploy(request, signal);
  // A build may take long, and nothing is supervised yet.
  return !first && change.filed().length > 0 ? deployForFiled(change, signal) : undefined;
}

function supervisedWork(state: State, asked: Asked, first: boolean, tools: DeployTools): Request | undefined {
  const {serving} = state;
  if (serving === null) return undefined;
  const own = {requestedBy: 'watch', force: true, filed: []} as const;
  const target = asked.rollBack?.release === serving.release.id && onTrialSince(state) !== undefined ? rollbackTarget(state) : undefined;
  if (target !== undefined) {
    tools.report({event: 'note', text: `${asked.rollBack?.reason ?? ''}; back to release ${target.id} (${target.revision})`});
    return {...own, trigger: 'rollback', target: {kind: 'release', release: target}};
  }
  const slots = serving.workers.filter(({id}) => asked.replace.has(id)).map(({slot}) => slot);
  if (slots.length > 0) return {...own, trigger: 'watch', target: {kind: 'release', release: serving.release, slots}};
  // Later on each of them is started again by itself.
  const dead = first && serving.workers.every(worker => !tools.workers.isAlive(worker));
  return dead ? {...own, trigger: 'boot', target: {kind: 'release', release: serving.release}} : undefined;
}

function isSupervisionAsked({replace, rollBack}: Asked): boolean {
  return replace.size > 0 || rollBack !== undefined;
}

function isAsked(stateDir: string, asked: Asked, isInterrupted: (stateDir: string) => boolean): boolean {
  return isSupervisionAsked(asked) || !isEmpty(stateDir) || isInterrupted(stateDir);
}

/** Whether the journal tells of a deploy that has not ended; the file is read when it is another one than at the last look. */
function journalLook(): (stateDir: string) => boolean {
  let [seen, interrupted] = ['', false];
  return stateDir => {
    const stat = statSync(join(stateDir, 'journal.ndjson'), {throwIfNoEntry: false, bigint: true});
    const now = `${stat?.ino} ${stat?.size} ${stat?.mtimeNs}`;
    if (now !== seen) interrupted = unfinished(readJournal(stateDir)) !== undefined;
    seen = now;
    return interrupted;
  };
}

/** The commands that a client may leave to a running watch: the same code, told to the client. */
const COMMANDS = {
  now: async (context: Context, options: Record<string, unknown>) => (await import('./now.ts')).now(context, {wait: options['wait'] !== false, force: options['force'] === true, ...textOf('revision', options)}),
  rollback: async (context: Context, options: Record<string, unknown>) => (await import('./rollback.ts')).rollback(context, {wait: options['wait'] !== false, ...textOf('to', options)}),
  start: async (context: Context) => (await import('./init-words.ts')).start(context),
  stop: async (context: Context) => (await import('./init-words.ts')).stop(context),
  restart: async (context: Context) => (await import('./init-words.ts')).restart(context, 'restart'),
  reload: async (context: Context) => (await import('./init-words.ts')).restart(context, 'reload'),
} as const;

function textOf<Name extends string>(name: Name, options: Record<string, unknown>): {[key in Name]?: string} {
  const value = options[name];
  return typeof value === 'string' ? {[name]: value} as {[key in Name]: string} : {};
}

function clientContext(context: Context, config: Config, requestedBy: string, signal: AbortSignal, follow: (event: DeployEvent) => void, tell: (line: ControlLine) => void): Context {
  const renderer: Renderer = {
    event: event => {
      follow(event);
      tell(event);
    },
    result: result => tell({event: 'result', ...result}),
  };
  return {
    ...context, signal, letGo: signal, requestedBy,
    output: {out: () => undefined, err: text => tell({event: 'said', text}), terminal: false, colour: false},
    loadConfig: () => config,
    renderer: () => renderer,
  };
}

/** A signal that follows another and lets go of it when it is closed: the other one lives for months. */
function until(signal: AbortSignal): {readonly signal: AbortSignal; close(): void} {
  const own = new AbortController();
  const abort = () => own.abort(signal.reason);
  signal.addEventListener('abort', abort, {once: true});
  if (signal.aborted) abort();
  return {signal: own.signal, close: () => signal.removeEventListener('abort', abort)};
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
