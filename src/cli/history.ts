import {readHistory, type HistoryLine} from '../state/history.ts';
import {formatDuration} from '../support/durations.ts';
import {plainText} from '../support/plain-text.ts';
import type {Context} from './context.ts';

/** `osyw-deploy history`: what was deployed, by whom, how it went; newest first. */
export function history({loadConfig, output, json}: Context, {limit}: {limit: number | undefined}): number {
  const lines = readHistory(loadConfig().stateDir).reverse().slice(0, limit);
  for (const line of lines) output.out(`${json ? JSON.stringify(line) : tell(line)}\n`);
  if (lines.length === 0 && !json) output.out('nothing was deployed yet\n');
  return 0;
}

function tell(line: HistoryLine): string {
  const took = formatDuration(Object.values(line.phases).reduce((sum, ms) => sum + ms, 0));
  const revision = line.revision === null ? '-' : line.revision.slice(0, 12);
  const error = line.error === null ? '' : `  ${plainText(line.error.split('\n')[0] ?? '')}`;
  return `${line.started_at.slice(0, 19).replace('T', ' ')}  ${(line.release ?? '-').padEnd(6)}  ${revision.padEnd(12)}  ${line.outcome.padEnd(11)} ${line.code.padEnd(14)} ${took.padStart(8)}  ${line.trigger} by ${plainText(line.requested_by)}${error}`;
}
