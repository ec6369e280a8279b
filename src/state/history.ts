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
  const text = readRegularFile(historyPath(stateDir))?.toString('utf8') ?? '';
  return text.split('\n').flatMap(line => {
    if (line === '') return [];
    try {
      return [JSON.parse(line) as HistoryLine];
    } catch {
      return []; // A line that was cut off tells nothing that could be relied on.
    }
  });
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

function historyPath(stateDir: string): string {
  return join(stateDir, 'history.ndjson');
}
