import {followHistory} from '../state/follow-history.ts';
import {readHistory, type HistoryLine} from '../state/history.ts';
import {formatDuration} from '../support/durations.ts';
import {plainText} from '../support/plain-text.ts';
import type {Context} from './context.ts';
import {isUnread} from './output.ts';

/** `osyw-deploy history`: what was deployed, by whom, how it went; newest first. With `--follow` newest last, as more comes, until it is interrupted. */
export async function history({loadConfig, output, json, signal}: Context, {limit, follow}: {limit: number | undefined; follow: boolean}): Promise<number> {
  const {stateDir} = loadConfig();
  const show = (line: HistoryLine) => output.out(`${json ? JSON.stringify(line) : tell(line)}\n`);
  if (follow) {
    const over = new AbortController();
    await followHistory(stateDir, {limit, signal: AbortSignal.any([signal, over.signal]), tell: line => {
      show(line);
      if (isUnread()) over.abort();
    }});
    return 0;
  }
  const lines = readHistory(stateDir).reverse().slice(0, limit);
  lines.forEach(show);
  if (lines.length === 0 && !json) output.out('nothing was deployed yet\n');
  return 0;
}

function tell(line: HistoryLine): string {
  const took = formatDuration(Object.values(line.phases).reduce((sum, ms) => sum + ms, 0));
  const revision = line.revision === null ? '-' : line.revision.slice(0, 12);
  const error = line.error === null ? '' : `  ${plainText(line.error.split('\n')[0] ?? '')}`;
  return `${line.started_at.slice(0, 19).replace('T', ' ')}  ${(line.release ?? '-').padEnd(6)}  ${revision.padEnd(12)}  ${line.outcome.padEnd(11)} ${line.code.padEnd(14)} ${took.padStart(8)}  ${line.trigger} by ${plainText(line.requested_by)}${error}`;
}
