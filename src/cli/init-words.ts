import type {Release} from '../deploy/deployment.ts';
import type {Deployed} from '../deploy/deploy.ts';
import {portsOf} from '../deploy/tools.ts';
import {DeployError} from '../errors.ts';
import {change, requester} from './change.ts';
import type {Context} from './context.ts';
import type {Change} from './turn.ts';

/** `restart`, `reload`: fresh workers of the release that serves; no request is lost. */
export function restart(context: Context, command: string): Promise<number> {
  return change(context, command, {wait: true}, work => {
    const {serving} = work.tools.records.state();
    if (serving === null) throw new DeployError('USAGE', 'nothing serves, so there is nothing to restart', {hint: '`osyw-deploy start` starts the release that served last, `osyw-deploy now` deploys.'});
    return freshWorkers(context, work, serving.release);
  });
}

/** `start`: the release that served last serves again; unchanged when it does. */
export function start(context: Context): Promise<number> {
  return change(context, 'start', {wait: true}, async work => {
    const {serving, served} = work.tools.records.state();
    if (serving !== null) {
      const checks = await Promise.all(serving.workers.map(worker => work.tools.health.check(serving.release, worker)));
      if (checks.every(({good}) => good) && portsOf(serving).join() === work.tools.upstream.filePorts().join()) return ended('unchanged', serving.release, serving.release.id);
    }
    const release = serving?.release ?? [...served].sort((a, b) => a.servedAt.localeCompare(b.servedAt)).at(-1);
    if (release === undefined) throw new DeployError('USAGE', 'no release ever served, so there is nothing to start', {hint: '`osyw-deploy now` deploys the newest revision.'});
    return freshWorkers(context, work, release);
  });
}

/** `stop`: nginx answers 502 from a valid upstream file, and the workers end when their last request does. */
export function stop(context: Context): Promise<number> {
  return change(context, 'stop', {wait: true}, async ({tools}) => {
    const {records, upstream} = tools;
    const state = records.state();
    if (state.serving === null) return ended('unchanged', undefined, null);
    const {serving} = state;
    const steps = {intend: () => undefined, reloading: () => undefined};
    if (!await upstream.isRunning()) upstream.writeAhead([], steps);
    // One that was started meanwhile may have read the file before.
    const {oldNginxWorkers} = await upstream.isRunning() ? await upstream.switchTo([], steps) : {oldNginxWorkers: []};
    const id = `stop-${serving.deploy}-${Date.now()}`;
    records.writeDrain({version: 1, deploy: id, since: new Date().toISOString(), generation: serving, oldNginxWorkers, history: null});
    records.save({...state, serving: null, lastPort: Math.max(...portsOf(serving))});
    return {...ended('deployed', undefined, serving.release.id), drain: id};
  });
}

function freshWorkers(context: Context, {deploy}: Change, release: Release): Promise<Deployed> {
  return deploy({trigger: 'manual', requestedBy: requester(context), target: {kind: 'release', release}, force: true, filed: []});
}

function ended(outcome: 'deployed' | 'unchanged', release: Release | undefined, previous: string | null): Deployed {
  return {
    result: {outcome, exit: 0, code: 'OK', release: release?.id ?? null, revision: release?.revision ?? null, previous, phases: {}, error: null, hint: null},
    drain: undefined,
  };
}
