import type {Config} from '../config/config.ts';
import type {DeployResult} from '../deploy/events.ts';
import {unfinished} from '../deploy/recover.ts';
import {asFailure} from '../deploy/run.ts';
import {deployLockPath, waitForLock, type HeldLock} from '../state/deploy-lock.ts';
import {readDrains, takeDrain} from '../state/drains.ts';
import {readJournal} from '../state/journal.ts';
import {makeStateDir, refuseForeignState} from '../state/state-file.ts';
import {runCommand} from '../support/run-command.ts';
import {isEmpty} from '../trigger/request-spool.ts';
import {takeWaitingPlace} from '../trigger/waiting-place.ts';
import type {Context} from './context.ts';
import {deployForFiled} from './deploy-filed.ts';
import {onlySettled} from './recover.ts';
import type {Renderer} from './renderer.ts';
import {failedResult, takeTurn, type Turn} from './turn.ts';

const MOST_LOGGED = 900;
const LOGGER_TIMEOUT_MS = 2000;

const NOTHING: DeployResult = {outcome: 'unchanged', exit: 0, code: 'OK', release: null, revision: null, previous: null, phases: {}, error: null, hint: null};

/**
 * `osyw-deploy now --requested`: what a hook leaves behind. Waits for the deploy that runs, then deploys for what was filed meanwhile,
 * and looks again until the spool is empty. Settles what a killed deploy left, whose request stands. Does nothing when somebody else
 * waits already, or there is nothing to do. Exit code: of the last deploy.
 */
export async function nowRequested(context: Context): Promise<number> {
  const renderer = context.renderer();
  const ends: Promise<DeployResult>[] = [];
  let config: Config | undefined;
  try {
    config = context.loadConfig();
    refuseForeignState(config.stateDir);
    makeStateDir(config.stateDir);
    while (!context.signal.aborted) {
      const turn = await nextTurn(config, context, renderer);
      if (turn === 'nothing') break;
      if (turn === 'again') continue;
      // What drains is no reason to let the next request wait.
      ends.push(turn.finish());
      // The request stands: not even a revision was found. To try again at once would be no better.
      if (turn.result.exit !== 0 && turn.result.revision === null) break;
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
  return results.at(-1)?.exit ?? 0;
}

async function nextTurn(config: Config, context: Context, renderer: Renderer): Promise<Turn | 'again' | 'nothing'> {
  const {stateDir} = config;
  const place = takeWaitingPlace(stateDir);
  if (place === undefined) return 'nothing';
  let lock: HeldLock | undefined;
  try {
    if (isWork(stateDir)) lock = await waitForLock(deployLockPath(stateDir), 'now --requested', context.signal);
  } finally {
    // Whatever happened, nobody has the place who does not wait. Who files from now on finds it free; what was filed before is found below.
    place.leave();
  }
  // Filed while we had the place, so nobody else came to wait for it.
  if (lock === undefined) return isEmpty(stateDir) ? 'nothing' : 'again';
  let idle = false;
  const turn = await takeTurn(lock, {context, config, renderer: {event: renderer.event, result: () => undefined}, wait: true, answers: true}, async change => {
    if (change.recovered !== undefined || change.filed().length > 0) return change.filed().length > 0 ? deployForFiled(change, context.signal) : onlySettled(change);
    // Another one answered it while we waited, or there was only junk.
    idle = true;
    return onlySettled(change);
  });
  if (!idle) return turn;
  await turn.finish();
  return 'nothing';
}

/** Something was filed, or something died: a deploy before its end, or who was to finish a drain. */
export function isWork(stateDir: string): boolean {
  if (!isEmpty(stateDir) || unfinished(readJournal(stateDir)) !== undefined) return true;
  return readDrains(stateDir).some(({deploy}) => {
    const held = takeDrain(stateDir, deploy);
    held?.release();
    return held !== undefined;
  });
}

/** Errors: none; a machine without a system log has none. */
async function toSystemLog(text: string): Promise<void> {
  await runCommand({file: 'logger', args: ['-t', 'osyw-deploy', '-p', 'user.err', '--', text.slice(0, MOST_LOGGED)]}, {env: {PATH: '/usr/bin:/bin'}, timeoutMs: LOGGER_TIMEOUT_MS});
}
