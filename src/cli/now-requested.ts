import {setTimeout as delay} from 'node:timers/promises';
import type {Config} from '../config/config.ts';
import type {Deployed} from '../deploy/deploy.ts';
import type {DeployEvent, DeployResult} from '../deploy/events.ts';
import {unfinished} from '../deploy/recover.ts';
import {asFailure, Superseded} from '../deploy/run.ts';
import type {DeployTools} from '../deploy/tools.ts';
import {deployLockPath, waitForLock} from '../state/deploy-lock.ts';
import {makeStateDir} from '../state/state-file.ts';
import {runCommand} from '../support/run-command.ts';
import {openCommitters, type Committers} from '../trigger/committers.ts';
import {clearSpool, isEmpty, readSpool} from '../trigger/request-spool.ts';
import {takeWaitingPlace} from '../trigger/waiting-place.ts';
import {watchSpool} from '../trigger/watch-spool.ts';
import {resolveAside} from '../working-copy/resolve-aside.ts';
import {failedResult, takeTurn, type Change, type Turn} from './change.ts';
import type {Context} from './context.ts';
import {openRenderer, type Renderer} from './renderer.ts';

/** With a commit every second nothing would ever go live: then one deploy runs to its end. */
const MOST_SUPERSEDED_IN_A_ROW = 5;
const REVISION_POLL_MS = 20;
const MOST_LOGGED = 900;
const LOGGER_TIMEOUT_MS = 2000;

const NOTHING: DeployResult = {outcome: 'unchanged', exit: 0, code: 'OK', release: null, revision: null, previous: null, phases: {}, error: null, hint: null};

/**
 * `osyw-deploy now --requested`: what a hook leaves behind. Waits for the deploy that runs, then deploys for what was filed meanwhile,
 * and looks again until the spool is empty. Does nothing when somebody else waits already, or nothing was filed.
 */
export async function nowRequested(context: Context): Promise<number> {
  const renderer = context.renderer();
  const ends: Promise<DeployResult>[] = [];
  let config: Config | undefined;
  try {
    config = context.loadConfig();
    makeStateDir(config.stateDir);
    while (!context.signal.aborted) {
      const turn = await nextTurn(config, context, renderer);
      if (turn === 'nothing') break;
      // What drains is no reason to let the next request wait.
      if (turn !== 'again') ends.push(turn.finish());
    }
  } catch (error) {
    const failure = asFailure(error);
    ends.push(Promise.resolve(failedResult(failure)));
    // There is no log of ours yet, and nobody reads what a hook leaves behind says.
    if (config === undefined) await toSystemLog(`${failure.code}: ${failure.message}`);
  }
  const results = await Promise.all(ends);
  for (const result of results) renderer.result(result);
  if (results.length === 0 && context.json) renderer.result(NOTHING);
  else if (results.length === 0 && !context.quiet) context.output.out('nothing was asked for, or another process waits to deploy it\n');
  return results.findLast(({exit}) => exit !== 0)?.exit ?? 0;
}

async function nextTurn(config: Config, context: Context, renderer: Renderer): Promise<Turn | 'again' | 'nothing'> {
  const {stateDir, app} = config;
  const place = takeWaitingPlace(stateDir);
  if (place === undefined) return 'nothing';
  if (isEmpty(stateDir)) {
    place.leave();
    // Filed while we had the place, so nobody else came to wait for it.
    return isEmpty(stateDir) ? 'nothing' : 'again';
  }
  const lock = await waitForLock(deployLockPath(stateDir), 'now --requested', context.signal);
  // In this order: who files from now on finds the place free, what was filed before is found below.
  place.leave();
  for (const text of clearSpool(stateDir, app)) renderer.event({event: 'note', text});
  if (readSpool(stateDir, app).requests.length === 0) {
    lock.release();
    return 'nothing';
  }
  const committers = openCommitters(stateDir);
  const told = tellBoth(renderer, committers);
  const end = (result: DeployResult): void => {
    told.result(result);
    committers.end(result.exit);
  };
  try {
    const turn = await takeTurn(lock, {context, config, renderer: told, wait: true}, change => deployForFiled(change, committers, context.signal));
    end(turn.result);
    return turn;
  } catch (error) {
    end(failedResult(asFailure(error)));
    throw error;
  }
}

/** Deploys the newest revision; once more when something newer took the place of that deploy. */
async function deployForFiled({config, tools, deploy}: Change, committers: Committers, signal: AbortSignal): Promise<Deployed> {
  for (let superseded = 0; ; superseded++) {
    const filed = tools.records.filed();
    // Others than committers could ask to hear it; so only where it is wanted at all.
    if (config.hook.wait) committers.join(filed);
    const newer = config.hook.supersede && superseded < MOST_SUPERSEDED_IN_A_ROW ? watchForNewer(config, tools) : undefined;
    try {
      const deployed = await deploy({
        trigger: 'hook',
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
  let looking = false;
  const look = async (): Promise<void> => {
    if (looking || over.signal.aborted || tools.records.filed().length === 0) return;
    looking = true;
    try {
      const revision = await revisionAtHand(tools, over.signal);
      const newest = await resolveAside(config, undefined, over.signal);
      if (newest !== revision) newer.abort(new Superseded(`${newest} took its place`));
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

/** Errors: none; a machine without a system log has none. */
async function toSystemLog(text: string): Promise<void> {
  await runCommand({file: 'logger', args: ['-t', 'osyw-deploy', '-p', 'user.err', '--', text.slice(0, MOST_LOGGED)]}, {env: {PATH: '/usr/bin:/bin'}, timeoutMs: LOGGER_TIMEOUT_MS});
}

/** To us, and in plain lines to those who wait for it. */
function tellBoth(renderer: Renderer, committers: Committers): Renderer {
  const plain = openRenderer({out: committers.say, err: committers.say, terminal: false, colour: false}, {json: false, quiet: false, verbose: false});
  return {
    event: (event: DeployEvent) => {
      renderer.event(event);
      plain.event(event);
    },
    // Ours is told at the very end, when what is old is gone.
    result: plain.result,
  };
}
