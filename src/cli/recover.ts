import {setTimeout as delay} from 'node:timers/promises';
import {refuseLostState, unfinished} from '../deploy/recover.ts';
import {asFailure, type Failure} from '../deploy/run.ts';
import {FAILURES} from '../errors.ts';
import {readDrains, takeDrain} from '../state/drains.ts';
import {readJournal} from '../state/journal.ts';
import {readState} from '../state/state-file.ts';
import {markedWorkers} from '../workers/worker-tree.ts';
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
  // What could not be put on record is not settled yet.
  if (recovered !== undefined && [FAILURES.CLEANUP_INCOMPLETE.exit, FAILURES.STATE_UNCERTAIN.exit].includes(recovered.result.exit as 10 | 12)) return recovered;
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
  const failures: (Failure | undefined)[] = [];
  // A process that is about to end may still hold one; what was tried and would not end is left.
  for (const tried = new Set<string>(); ; await delay(HELD_POLL_MS)) {
    const left = tools.records.drains().map(({deploy}) => deploy).filter(deploy => !tried.has(deploy));
    if (left.length === 0) break;
    failures.push(...await finishDrains(tools, renderer));
    for (const deploy of left) if (isFree(config.stateDir, deploy)) tried.add(deploy);
  }
  await pruneReleases(config, tools);
  return failures.some(failure => failure !== undefined) ? 10 : 0;
}

function isFree(stateDir: string, deploy: string): boolean {
  const held = takeDrain(stateDir, deploy);
  held?.release();
  return held !== undefined;
}

const HELD_POLL_MS = 200;

function showUnfinished({output, json, loadConfig}: Context): number {
  const config = loadConfig();
  const {stateDir} = config;
  const problems: Failure[] = [];
  const readable = <T>(read: () => T): T | undefined => {
    try {
      return read();
    } catch (error) {
      problems.push(asFailure(error));
      return undefined;
    }
  };
  const deploy = readable(() => unfinished(readJournal(stateDir)));
  const drains = readable(() => readDrains(stateDir)) ?? [];
  const serving = readable(() => readState(stateDir))?.serving ?? null;
  if (deploy === undefined) readable(() => refuseLostState(wire(config, () => undefined)));
  const known = new Set([...(serving?.workers ?? []), ...drains.flatMap(({generation}) => generation.workers), ...(deploy?.workers ?? [])].map(({id}) => id));
  const strays = markedWorkers(config.app).filter(({id}) => !known.has(id));
  const exit = problems.length > 0 ? FAILURES.STATE_UNCERTAIN.exit : 0;
  if (json) {
    output.out(`${JSON.stringify({deploy: deploy ?? null, drains: drains.map(({deploy: id, generation}) => ({deploy: id, release: generation.release.id})), problems: problems.map(({message}) => message), strays})}\n`);
    return exit;
  }
  for (const {message, hint} of problems) output.out(`${message}\n  ${hint}\n`);
  for (const {pid, id} of strays) output.out(`process ${pid} carries the mark ${id} of ${config.app}, and this state does not know it (that of another state directory may)\n`);
  if (deploy === undefined && drains.length === 0 && problems.length === 0) output.out('nothing to recover\n');
  if (deploy !== undefined) {
    output.out(`deploy ${deploy.id} (${deploy.revision ?? 'no revision yet'}) was interrupted in ${deploy.phase}: ${deploy.switched !== undefined ? 'it would go forward' : deploy.intent === undefined ? 'it would be taken back' : 'nginx would be asked which way'}\n`);
    for (const {port, worker} of deploy.workers) output.out(`  worker on port ${port}, pid ${worker?.process.pid ?? 'not recorded'}\n`);
  }
  for (const {deploy: id, generation} of drains) output.out(`release ${generation.release.id} is still to be drained after deploy ${id}\n`);
  return exit;
}
