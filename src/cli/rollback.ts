import type {Release} from '../deploy/deployment.ts';
import {rollbackTarget} from '../deploy/retention.ts';
import {DeployError} from '../errors.ts';
import type {State} from '../state/state-file.ts';
import {change, requester} from './change.ts';
import type {Context} from './context.ts';

/** `osyw-deploy rollback`: the release that served well before serves again, with fresh workers. */
export function rollback(context: Context, options: {to?: string; wait: boolean}): Promise<number> {
  return change(context, 'rollback', {wait: options.wait}, ({tools, deploy}) => deploy({
    trigger: 'rollback',
    requestedBy: requester(context),
    target: {kind: 'release', release: chooseRelease(tools.records.state(), options.to)},
    force: true,
    filed: [],
  }));
}

/** Errors: USAGE when there is nothing to roll back to, or no such release that served. */
export function chooseRelease(state: State, to: string | undefined): Release {
  const offered = state.served.filter(({id, adopted}) => adopted !== true && id !== state.serving?.release.id).map(({id, revision}) => `${id} (${revision})`).join(', ') || 'none';
  if (to === undefined) {
    const target = rollbackTarget(state);
    if (target === undefined) throw new DeployError('USAGE', 'there is no release to roll back to: none served well before the one that serves', {hint: `Releases to go back to: ${offered}.`});
    return target;
  }
  const wanted = /^\d{1,6}$/.test(to) ? to.padStart(6, '0') : undefined;
  const found = state.served.find(({id}) => id === wanted);
  if (found === undefined) throw new DeployError('USAGE', `there is no release ${JSON.stringify(to)} that served`, {hint: `Releases to go back to: ${offered}.`});
  if (found.adopted === true) {
    throw new DeployError('USAGE', `release ${found.id} was set up by hand and adopted: it ran in the working copy and has no tree of its own to go back to`,
      {hint: `\`osyw-deploy now --revision ${found.revision}\` makes a release of its revision.`});
  }
  if (found.id === state.serving?.release.id) throw new DeployError('USAGE', `release ${found.id} serves already`, {hint: '`osyw-deploy restart` gives it fresh workers.'});
  return found;
}
