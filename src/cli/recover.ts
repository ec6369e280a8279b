import {unfinished} from '../deploy/recover.ts';
import {readDrains} from '../state/drains.ts';
import {readJournal} from '../state/journal.ts';
import {change} from './change.ts';
import type {Context} from './context.ts';
import {wire} from '../wire.ts';
import type {Deployed} from '../deploy/deploy.ts';
import {finishDrains, pruneReleases, type Change} from './turn.ts';

/** `osyw-deploy recover`: settles whatever a crash left, the drains included. */
export async function recover(context: Context, {dryRun}: {dryRun: boolean}): Promise<number> {
  if (dryRun) return showUnfinished(context);
  return change(context, 'recover', {wait: true}, work => Promise.resolve(onlySettled(work)));
}

/** A turn in which nothing was done but what the recovery did. */
export function onlySettled({tools, recovered}: Change): Deployed {
  const {serving} = tools.records.state();
  const {outcome, release, revision} = recovered?.result ?? {outcome: 'unchanged' as const, release: serving?.release.id ?? null, revision: serving?.release.revision ?? null};
  return {
    drain: recovered?.drain,
    result: {outcome, exit: 0, code: 'OK', error: null, hint: null, phases: {}, release, revision, previous: outcome === 'aborted' ? serving?.release.id ?? null : recovered?.result.previous ?? null},
  };
}

/** `osyw-deploy drain`, left behind by `now --no-wait`: finishes the drains that nobody holds, without the lock. */
export async function drain(context: Context): Promise<number> {
  const config = context.loadConfig();
  const renderer = context.renderer();
  const tools = wire(config, renderer.event);
  const failures = await finishDrains(tools, renderer);
  await pruneReleases(config, tools);
  return failures.some(failure => failure !== undefined) ? 10 : 0;
}

function showUnfinished({output, json, loadConfig}: Context): number {
  const {stateDir} = loadConfig();
  const deploy = unfinished(readJournal(stateDir));
  const drains = readDrains(stateDir);
  if (json) {
    output.out(`${JSON.stringify({deploy: deploy ?? null, drains: drains.map(({deploy: id, generation}) => ({deploy: id, release: generation.release.id}))})}\n`);
    return 0;
  }
  if (deploy === undefined && drains.length === 0) output.out('nothing to recover\n');
  if (deploy !== undefined) {
    output.out(`deploy ${deploy.id} (${deploy.revision ?? 'no revision yet'}) was interrupted in ${deploy.phase}: ${deploy.switched !== undefined ? 'it would go forward' : deploy.intent === undefined ? 'it would be taken back' : 'nginx would be asked which way'}\n`);
    for (const {port, worker} of deploy.workers) output.out(`  worker on port ${port}, pid ${worker?.process.pid ?? 'not recorded'}\n`);
  }
  for (const {deploy: id, generation} of drains) output.out(`release ${generation.release.id} is still to be drained after deploy ${id}\n`);
  return 0;
}
