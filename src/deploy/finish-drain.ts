import {asFailure, type Failure, type Run} from './run.ts';
import {portsOf, type DeployTools} from './tools.ts';
import {DeployError, FAILURES} from '../errors.ts';
import {formatDuration} from '../support/durations.ts';
import type {HeldDrain} from '../state/drains.ts';
import type {DrainProgress} from '../upstream/wait-drained.ts';

/**
 * Ends what a deploy left after its switch: waits until nothing reaches the old workers, stops them, writes the history.
 * Holds the drain, not the deploy's lock. May run twice, from the beginning.
 * Returns the failure when something would not die or must not be stopped; the drain then stays for the next recovery.
 * While it waits `letGo` ends it: nothing is stopped, and the drain is free to be taken up by another process.
 */
export async function finishDrain(held: HeldDrain, tools: DeployTools, run: Pick<Run, 'phase' | 'phases'>, letGo?: AbortSignal): Promise<Failure | undefined> {
  const {drain} = held;
  const {generation} = drain;
  let failure: Failure | undefined;
  let waited = false;
  await run.phase('drain', async () => {
    try {
      const cut = await tools.upstream.waitDrained(drain.oldNginxWorkers, portsOf(generation), progress => tools.report({event: 'note', text: waitingFor(drain.generation.release.id, progress)}), letGo);
      waited = true;
      if (cut.connections > 0 || cut.nginxWorkers > 0) tools.report({event: 'note', text: `drain deadline passed after ${formatDuration(cut.waitedMs)}: cutting ${cut.connections} connections to release ${generation.release.id}`});
      refuseIfNamed(portsOf(generation), tools);
      const stopped = await Promise.all(generation.workers.map(worker => tools.workers.stop(worker)));
      for (const {end, port, pid} of stopped) if (end === 'killed') tools.report({event: 'note', text: `worker on port ${port} (pid ${pid ?? '?'}) did not end on its stop signal and was killed`});
      const left = stopped.flatMap(result => result.left);
      if (left.length > 0) throw new DeployError('CLEANUP_INCOMPLETE', `processes of release ${generation.release.id} do not die: pids ${left.join(', ')}`);
    } catch (error) {
      failure = asFailure(error);
    }
  });
  if (letGo?.aborted === true && !waited) {
    held.release();
    return undefined;
  }
  await run.phase('record', async () => {
    try {
      recordEnd(held, failure, tools, run);
    } catch (error) {
      failure ??= asFailure(error, 'record');
      held.release();
    }
  });
  return failure;
}

function recordEnd(held: HeldDrain, failure: Failure | undefined, tools: DeployTools, run: Pick<Run, 'phases'>): void {
  const {drain} = held;
  if (drain.history !== null) {
    const worse = failure !== undefined && drain.history.exit === 0;
    tools.records.addToHistory({
      ...drain.history,
      phases: {...drain.history.phases, ...run.phases},
      ended_at: new Date().toISOString(),
      ...(worse ? {exit: FAILURES.CLEANUP_INCOMPLETE.exit, code: 'CLEANUP_INCOMPLETE', error: failure.message} : {}),
    });
  }
  if (failure === undefined) {
    held.finish();
  } else {
    // Its line is written; what is left is taken up again by the next recovery.
    tools.records.writeDrain({...drain, history: null});
    held.release();
  }
}

/** No worker is stopped while the upstream file names its port: a reload by anybody would send requests there. */
function refuseIfNamed(ports: readonly number[], tools: DeployTools): void {
  const named = tools.upstream.filePorts().filter(port => ports.includes(port));
  if (named.length > 0) throw new DeployError('CLEANUP_INCOMPLETE', `the upstream file names ports ${named.join(', ')} of workers that should be stopped; somebody changed it`,
    {hint: 'Nothing was stopped. Put the file right, or deploy again, then run `osyw-deploy recover`.'});
}

function waitingFor(release: string, {nginxWorkers, connections}: DrainProgress): string {
  return `release ${release} drains: ${nginxWorkers} old nginx workers, ${connections} connections`;
}
