import {closeSync, constants, existsSync, openSync} from 'node:fs';
import {join} from 'node:path';
import type {Outcome, PhaseTimes, Trigger} from '../deploy/deployment.ts';
import {appendDurably, readRegularFile} from './atomic-file.ts';

/** One ended deploy or request; the shape is the contract's. */
export interface HistoryLine {
  readonly id: string;
  readonly trigger: Trigger;
  readonly requested_by: string;
  readonly revision: string | null;
  readonly release: string | null;
  readonly outcome: Outcome;
  readonly exit: number;
  readonly code: string;
  readonly error: string | null;
  readonly phases: PhaseTimes;
  readonly started_at: string;
  readonly ended_at: string;
}

/** Oldest first. A torn last line, left by a full disk or a power cut, is skipped. */
export function readHistory(stateDir: string): HistoryLine[] {
  return decodeHistory(readRegularFile(historyPath(stateDir)) ?? Buffer.alloc(0));
}

export function decodeHistory(bytes: Buffer): HistoryLine[] {
  return bytes.toString('utf8').split('\n').flatMap(decodeLine);
}

/** The last deploys, newest first, without the requests that came to no deploy. Only as much is decoded as is needed: a history grows for years. */
export function lastDeploys(stateDir: string, count: number): HistoryLine[] {
  const bytes = readRegularFile(historyPath(stateDir)) ?? Buffer.alloc(0);
  const found: HistoryLine[] = [];
  for (let end = bytes.length; end > 0 && found.length < count;) {
    const start = bytes.lastIndexOf(0x0a, end - 1) + 1;
    found.push(...decodeLine(bytes.toString('utf8', start, end)).filter(({outcome}) => outcome !== 'unchanged' && outcome !== 'superseded'));
    end = start - 1;
  }
  return found;
}

function decodeLine(line: string): HistoryLine[] {
  if (line === '') return [];
  try {
    return [JSON.parse(line) as HistoryLine];
  } catch {
    return []; // A line that was cut off tells nothing that could be relied on.
  }
}

/** Adds lines, but for deploys that have one. May run twice. */
export function addToHistory(stateDir: string, ...lines: readonly HistoryLine[]): void {
  const path = historyPath(stateDir);
  const before = existsSync(path) ? (readRegularFile(path) ?? Buffer.alloc(0)) : Buffer.alloc(0);
  // A line that was cut off does not count: this one may be the second try.
  const whole = before.subarray(0, before.lastIndexOf('\n') + 1);
  const added = lines.filter(({id}) => !whole.includes(`"id":${JSON.stringify(id)}`)).map(line => `${JSON.stringify(line)}\n`).join('');
  if (added === '') return;
  const fd = openSync(path, constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
  try {
    const torn = before.length > 0 && before.at(-1) !== 0x0a;
    appendDurably(fd, Buffer.from(`${torn ? '\n' : ''}${added}`));
  } finally {
    closeSync(fd);
  }
}

export function historyPath(stateDir: string): string {
  return join(stateDir, 'history.ndjson');
}
