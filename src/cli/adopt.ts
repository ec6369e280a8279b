import {resolve} from 'node:path';
import type {Config} from '../config/config.ts';
import type {Deployed} from '../deploy/deploy.ts';
import type {Generation, Release} from '../deploy/deployment.ts';
import type {DeployResult} from '../deploy/events.ts';
import {historyLine, newDeployId, resultOf, startRun} from '../deploy/run.ts';
import {portsOf, type DeployTools} from '../deploy/tools.ts';
import {DeployError} from '../errors.ts';
import {newAdoptedId} from '../adopt/adopted-id.ts';
import {proposeAdopted, survey, type AdoptOptions, type Survey} from '../adopt/survey.ts';
import {portOwner} from '../health/port-owner.ts';
import {plainText} from '../support/plain-text.ts';
import {isAlive} from '../workers/process-identity.ts';
import {readState} from '../state/state-file.ts';
import {shownProcess} from '../adopt/find-workers.ts';
import {upstreamText} from '../upstream/upstream-text.ts';
import {foundLines, nextLines, shownSurvey} from './adopt-lines.ts';
import {change, requester} from './change.ts';
import type {Context} from './context.ts';
import {findOldHooks} from './old-hooks.ts';
import {writeNew} from './write-new.ts';

/** Equal to the hash of no configuration: what was set up by hand is replaced by the next deploy, also at the same revision. */
const ADOPTED_HASH = 'adopted';

/**
 * `osyw-deploy adopt`: the processes behind a running nginx's upstream become the release that serves. Writes the configuration,
 * where there is none, and the state; nothing is started, stopped or reloaded.
 */
export async function adopt(context: Context, options: AdoptOptions): Promise<number> {
  try {
    return await lookAndAdopt(context, options);
  } catch (error) {
    if (!(error instanceof DeployError)) throw error;
    // Names of upstreams, files and directories, and command lines, are text of others.
    throw new DeployError(error.code, plainText(error.message), {hint: plainText(error.hint), cause: error});
  }
}

async function lookAndAdopt(context: Context, options: AdoptOptions): Promise<number> {
  const {cwd, env, output, json, quiet, signal, app} = context;
  const say = (lines: readonly string[]) => {
    if (!json && !quiet) output.out(`${lines.map(plainText).join('\n')}\n`);
  };
  const {file, there} = context.configFile();
  const existing = there ? context.loadConfig() : undefined;
  if (existing !== undefined) {
    refuseOtherState(existing, options.stateDir, cwd);
    refuseDeployed(existing, readState(existing.stateDir).serving);
  }
  const found = await survey(options, existing, cwd);
  const proposal = existing === undefined ? await proposeAdopted(found, {app, stateDir: options.stateDir, file, env, signal}) : undefined;
  const config = existing ?? proposal?.config;
  if (config === undefined) throw new DeployError('CONFIG_INVALID', 'there is no configuration');
  // What a switch could not change is better told now.
  upstreamText(config).examine();
  const hooks = await findOldHooks(config, context);
  say(foundLines(found));
  if (options.dryRun === true) {
    say(['', proposal === undefined ? `${file} is there and fits; nothing was changed` : `${file} would be written; nothing was changed:`, ...(proposal === undefined ? [] : ['', ...proposal.text.trimEnd().split('\n')])]);
    if (json) output.out(`${JSON.stringify({...shownSurvey(found, hooks), config: {file, written: false, text: proposal?.text ?? null}, outcome: null, release: null, exit: 0, code: 'OK', error: null})}\n`);
    return 0;
  }
  if (proposal !== undefined) writeNew(file, proposal.text, {there: 'Run it again: it goes by that file.', denied: 'Name another place with --config FILE.'});
  say(['', proposal === undefined ? `goes by ${file}` : `wrote ${file}`]);
  const result = await takeOver(context, found);
  say([
    result.outcome === 'unchanged' ? `unchanged: release ${result.release ?? '?'} is these workers already`
      : `adopted: release ${result.release ?? '?'} (${result.revision ?? '?'}) serves, with ${found.workers.length} workers that were set up by hand`,
    '', ...nextLines(found, hooks, config),
  ]);
  if (json) output.out(`${JSON.stringify({...shownSurvey(found, hooks), config: {file, written: proposal !== undefined}, outcome: result.outcome, release: result.release, exit: 0, code: 'OK', error: null})}\n`);
  return 0;
}

/** Errors: those of any command that changes something, as they are. */
async function takeOver(context: Context, found: Survey): Promise<DeployResult> {
  let result: DeployResult | undefined;
  const silent = {...context, renderer: () => ({event: () => undefined, result: (one: DeployResult) => {
    result = one;
  }})};
  await change(silent, 'adopt', {wait: true}, ({tools, config}) => adoptUnderLock(context, found, tools, config));
  if (result === undefined) throw new DeployError('INTERNAL', 'adopt ended without a result');
  if (result.code !== 'OK') throw new DeployError(result.code, result.error ?? '', result.hint === null ? {} : {hint: result.hint});
  return result;
}

async function adoptUnderLock(context: Context, {workers, code}: Survey, tools: DeployTools, config: Config): Promise<Deployed> {
  const state = tools.records.state();
  const {serving} = state;
  const now = new Date();
  const who = {trigger: 'manual' as const, requestedBy: requester(context)};
  if (serving !== null && isSame(serving, workers)) {
    const run = startRun({id: serving.deploy, ...who, startedAt: serving.since}, tools.report);
    const {id: release, revision} = serving.release;
    return {result: {...resultOf(historyLine(run, {outcome: 'unchanged', failure: undefined, release, revision}), release, null)}, drain: undefined};
  }
  refuseDeployed(config, serving);
  if (serving?.workers.some(worker => tools.workers.isAlive(worker)) === true) {
    throw new DeployError('USAGE', `others were adopted before, and some of them live: ${serving.workers.map(({port, process: {pid}}) => `pid ${pid} for port ${port}`).join(', ')}`,
      {hint: '`osyw-deploy now` puts fresh workers in the place of all of them.'});
  }
  for (const {port, process} of workers) {
    const owner = isAlive(process) ? portOwner(config.workers.host, port, {id: '', process}) : undefined;
    if (owner?.kind !== 'worker') throw new DeployError('USAGE', `${shownProcess(process.pid)} does not serve on port ${port} any more`, {hint: 'Something restarts the workers at this moment; when it has ended, adopt again.'});
  }
  const run = startRun({id: newDeployId(now), ...who, startedAt: now.toISOString()}, tools.report);
  const release: Release = {id: String(state.nextRelease).padStart(6, '0'), revision: code.revision, dir: code.source.workingCopy, adopted: true};
  const since = now.toISOString();
  const generation: Generation = {
    deploy: run.id, release, configHash: ADOPTED_HASH, since,
    workers: workers.map(({port, process, startedAt}, slot) => ({slot, port, id: newAdoptedId(config.app, run.id, slot), process, startedAt})),
  };
  await tellUnhealthy(generation, tools, context);
  tools.records.save({
    ...state, serving: generation, nextRelease: state.nextRelease + 1, lastPort: Math.max(...portsOf(generation)),
    served: [...state.served.filter(({adopted}) => adopted !== true), {...release, servedAt: since, firstServedAt: since, good: false}],
  });
  const line = historyLine(run, {outcome: 'deployed', failure: undefined, release: release.id, revision: release.revision});
  tools.records.addToHistory(line);
  return {result: resultOf(line, null, null), drain: undefined};
}

function refuseOtherState({file, stateDir}: Config, given: string | undefined, cwd: string): void {
  if (given === undefined || resolve(cwd, given) === resolve(stateDir)) return;
  throw new DeployError('USAGE', `--state-dir is ${given}, but ${file} is there and says state_dir: ${stateDir}`, {hint: 'Leave --state-dir out, or change state_dir in the configuration.'});
}

function refuseDeployed({app}: Config, serving: Generation | null): void {
  if (serving === null || serving.release.adopted === true) return;
  throw new DeployError('USAGE', `release ${serving.release.id} (${serving.release.revision}) of ${app} serves already, on ports ${portsOf(serving).join(', ')}`,
    {hint: 'What is deployed needs no adoption: see `osyw-deploy status`. Processes of another application need a configuration of their own (--config FILE).'});
}

function isSame(serving: Generation, workers: Survey['workers']): boolean {
  return serving.release.adopted === true && serving.workers.length === workers.length
    && serving.workers.every(({port, process}, i) => workers[i]?.port === port && workers[i].process.pid === process.pid && workers[i].process.startTime === process.startTime);
}

/** They serve whatever the check says; but a deploy will go by that check. */
async function tellUnhealthy(generation: Generation, tools: DeployTools, {output}: Context): Promise<void> {
  const checks = await Promise.all(generation.workers.map(async worker => ({port: worker.port, result: await tools.health.check(generation.release, worker)})));
  for (const {port, result} of checks) if (!result.good) output.err(`the worker on port ${port} fails the check of the configuration: ${result.saw}; mend the check before the next deploy\n`);
}
