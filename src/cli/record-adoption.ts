import {isAdoptedId} from '../adopt/adopted-id.ts';
import {historyLine, startRun} from '../deploy/run.ts';
import type {DeployTools} from '../deploy/tools.ts';

/**
 * An adoption has no journal, so one that was killed between the state and its line in the history gets the line from the next change;
 * who had asked for it is lost. May run twice.
 */
export function recordAdoption({records, report}: DeployTools): void {
  const {serving} = records.state();
  // A replaced worker makes a deploy of the same release, which has a line of its own.
  if (serving === null || !serving.workers.some(({id}) => isAdoptedId(id) && id.split('/')[1] === serving.deploy)) return;
  const {deploy, since, release: {id: release, revision}} = serving;
  const run = startRun({id: deploy, trigger: 'manual', requestedBy: 'unknown', startedAt: since}, report);
  records.addToHistory(historyLine(run, {outcome: 'deployed', failure: undefined, release, revision}));
}
