import {isDeepStrictEqual} from 'node:util';
import type {Config} from '../config/config.ts';
import {isUnchanged, takenPorts} from '../deploy/deploy.ts';
import type {Worker} from '../deploy/deployment.ts';
import {portsOf, type DeployTools} from '../deploy/tools.ts';
import {DeployError} from '../errors.ts';
import {readDrains} from '../state/drains.ts';
import {readState, type State} from '../state/state-file.ts';
import {findMaster} from '../upstream/nginx-master.ts';
import {testInShadow, type ShadowTest} from '../upstream/test-in-shadow.ts';
import {unifiedDiff} from '../upstream/unified-diff.ts';
import {readUpstream} from '../upstream/upstream-file.ts';
import {upstreamText} from '../upstream/upstream-text.ts';
import {wire} from '../wire.ts';
import {countChanges} from '../working-copy/count-changes.ts';
import {resolveAside} from '../working-copy/resolve-aside.ts';
import type {Context} from './context.ts';
import {glanceAtHook} from './hook.ts';
import {planText, type ShownPlan} from './plan-lines.ts';
import {openDeploy} from './status-look.ts';

/** A deploy that ends while we look leaves a plan of nothing that was ever true at once. */
const MOST_LOOKS = 5;

/** `osyw-deploy plan`: what `now` would do, beside whatever runs; changes nothing, in the state either. Exit code: 0, whatever `now` would end with. */
export async function plan(context: Context, {revision: wanted}: {revision?: string}): Promise<number> {
  const config = context.loadConfig();
  const {stateDir} = config;
  let state = readState(stateDir);
  let shown = await look(context, config, state, wanted);
  for (let looks = 1; looks < MOST_LOOKS && !isDeepStrictEqual(readState(stateDir), state); looks++) {
    state = readState(stateDir);
    shown = await look(context, config, state, wanted);
  }
  if (context.json) context.output.out(`${JSON.stringify(shown)}\n`);
  else if (!context.quiet) context.output.out(planText(shown));
  return 0;
}

async function look(context: Context, config: Config, state: State, wanted: string | undefined): Promise<ShownPlan> {
  const {deploy, interrupted} = openDeploy(config.stateDir);
  const tools = wire(config, () => undefined);
  const [revision, hook] = await Promise.all([resolveAside(config, wanted, context.signal), glanceAtHook(context, config)]);
  const {serving} = state;
  const draining = readDrains(config.stateDir).flatMap(({generation: {release, workers}}) => living(workers, tools).map(worker => ({release: release.id, revision: release.revision, ...worker})));
  const common = {revision, from: serving === null ? null : {release: serving.release.id, revision: serving.release.revision}, draining, hook, deploy, interrupted};
  if (serving !== null && await isUnchanged(revision, state, tools)) {
    return {...common, outcome: 'unchanged', release: null, build: [], changed: null, ports: portsOf(serving), nginx: {file: upstreamText(config).file(), diff: '', test: null, untested: 'nothing would be switched'}, stops: []};
  }
  const ports = await leasePorts(config, state, tools);
  const [changed, nginx] = await Promise.all([changedSince(config, state, revision, context.signal), planSwitch(config, ports)]);
  return {...common, outcome: 'deployed', ...planRelease(config, state, tools), changed, ports, nginx, stops: serving === null ? [] : living(serving.workers, tools)};
}

/** Errors: START_FAILED, also where `now` would wait until what drains gives its ports back. */
async function leasePorts(config: Config, state: State, tools: DeployTools): Promise<number[]> {
  try {
    return await tools.workers.leasePorts(config.workers.count, takenPorts(state, tools), state.lastPort);
  } catch (error) {
    if (!(error instanceof DeployError) || tools.records.drains().length === 0) throw error;
    throw new DeployError(error.code, error.message, {hint: 'What drains has ports of the range: `now` waits for it, and a plan can only be made after it. Or widen `workers.ports`.', cause: error});
  }
}

function planRelease({release: {build}}: Config, {nextRelease}: State, {releases}: DeployTools): Pick<ShownPlan, 'release' | 'build'> {
  const id = String(nextRelease).padStart(6, '0');
  return {release: {id, dir: releases.dirOf(id)}, build};
}

async function changedSince(config: Config, {serving}: State, revision: string, signal: AbortSignal): Promise<ShownPlan['changed']> {
  if (serving === null) return null;
  return await countChanges(config, serving.release.revision, revision, signal) ?? null;
}

/** The file as it would be, and what nginx would say of it. */
async function planSwitch(config: Config, ports: readonly number[]): Promise<ShownPlan['nginx']> {
  const {nginx} = config;
  const text = upstreamText(config);
  let shown = {file: nginx.file, diff: ''};
  try {
    text.examine();
    const file = text.file();
    shown = {file, diff: ''};
    const before = readUpstream(file);
    const bytes = text.render(before, ports);
    shown = {file, diff: unifiedDiff(before?.toString('utf8') ?? '', bytes.toString('utf8'), file)};
    return {...shown, ...asShown(await testInShadow(await findMaster(nginx), nginx, file, bytes))};
  } catch (error) {
    if (!(error instanceof DeployError)) throw error;
    return {...shown, test: {ok: false, output: `${error.message}\n${error.hint}`}, untested: null};
  }
}

function asShown(tested: ShadowTest): Pick<ShownPlan['nginx'], 'test' | 'untested'> {
  return 'untested' in tested ? {test: null, untested: tested.untested} : {test: {ok: tested.ok, output: tested.output}, untested: null};
}

/** What there is to stop of them. */
function living(workers: readonly Worker[], tools: DeployTools): {port: number; pid: number}[] {
  return workers.filter(worker => tools.workers.isAlive(worker)).map(({port, process: {pid}}) => ({port, pid}));
}
