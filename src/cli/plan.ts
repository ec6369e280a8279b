import type {Config} from '../config/config.ts';
import {isUnchanged, takenPorts} from '../deploy/deploy.ts';
import type {Worker} from '../deploy/deployment.ts';
import {portsOf, type DeployTools} from '../deploy/tools.ts';
import {DeployError} from '../errors.ts';
import {readDrains} from '../state/drains.ts';
import {readState, type State} from '../state/state-file.ts';
import {renderUpstream} from '../upstream/render-upstream.ts';
import {findMaster} from '../upstream/nginx-master.ts';
import {readOurs} from '../upstream/switch-upstream.ts';
import {testInShadow, type ShadowTest} from '../upstream/test-in-shadow.ts';
import {unifiedDiff} from '../upstream/unified-diff.ts';
import {followLinks, readUpstream} from '../upstream/upstream-file.ts';
import {wire} from '../wire.ts';
import {countChanges} from '../working-copy/count-changes.ts';
import {resolveAside} from '../working-copy/resolve-aside.ts';
import type {Context} from './context.ts';
import {glanceAtHook} from './hook.ts';
import {planText, type ShownPlan} from './plan-lines.ts';
import {openDeploy} from './status-look.ts';

/** `osyw-deploy plan`: what `now` would do, beside whatever runs; changes nothing, in the state either. Exit code: 0, whatever `now` would end with. */
export async function plan(context: Context, {revision: wanted}: {revision?: string}): Promise<number> {
  const config = context.loadConfig();
  const {stateDir} = config;
  const state = readState(stateDir);
  const tools = wire(config, () => undefined);
  const [revision, hook] = await Promise.all([resolveAside(config, wanted, context.signal), glanceAtHook(context, config)]);
  const {serving} = state;
  const unchanged = serving !== null && await isUnchanged(revision, state, tools);
  const common = {revision, from: serving === null ? null : {release: serving.release.id, revision: serving.release.revision}};
  const {deploy, interrupted} = openDeploy(stateDir);
  const draining = readDrains(stateDir).flatMap(({generation: {release, workers}}) => living(workers, tools).map(worker => ({release: release.id, revision: release.revision, ...worker})));
  const beside = {draining, hook, deploy, interrupted};
  let shown: ShownPlan;
  if (unchanged) {
    shown = {...common, outcome: 'unchanged', release: null, build: [], changed: null, ports: portsOf(serving), nginx: {file: followLinks(config.nginx.file), diff: '', test: null, untested: 'nothing would be switched'}, stops: [], ...beside};
  } else {
    const ports = await tools.workers.leasePorts(config.workers.count, takenPorts(state, tools), state.lastPort);
    const [changed, nginx] = await Promise.all([changedSince(config, state, revision, context.signal), planSwitch(config, ports)]);
    shown = {...common, outcome: 'deployed', ...planRelease(config, state, tools), changed, ports, nginx, stops: serving === null ? [] : living(serving.workers, tools), ...beside};
  }
  if (context.json) context.output.out(`${JSON.stringify(shown)}\n`);
  else if (!context.quiet) context.output.out(planText(shown));
  return 0;
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
  const {nginx, app, workers} = config;
  const file = followLinks(nginx.file);
  const bytes = Buffer.from(renderUpstream(nginx, app, workers.host, ports));
  const shown = {file, diff: unifiedDiff(readUpstream(file)?.toString('utf8') ?? '', bytes.toString('utf8'), file)};
  try {
    readOurs(config);
    const tested = await testInShadow(await findMaster(nginx), nginx, file, bytes);
    return {...shown, ...asShown(tested)};
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
