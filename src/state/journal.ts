import {closeSync, constants, fstatSync, ftruncateSync, openSync} from 'node:fs';
import {join} from 'node:path';
import {crc32} from 'node:zlib';
import type {Phase, Release, Trigger, Worker} from '../deploy/deployment.ts';
import type {FiledRequest} from '../deploy/events.ts';
import {DeployError} from '../errors.ts';
import type {SwitchIntent} from '../upstream/switch-upstream.ts';
import type {ProcessIdentity} from '../deploy/deployment.ts';
import {appendDurably, readRegularFile, replaceFile} from './atomic-file.ts';

/** What the running deploy is about to do or has done. Each line is on disk before what follows it happens. */
export type JournalEntry = {readonly at: string} & (
  | {readonly type: 'deploy'; readonly version: 1; readonly id: string; readonly trigger: Trigger; readonly requestedBy: string; readonly configHash: string;
      /** They are removed from the spool once this entry is on disk. */
      readonly filed?: readonly FiledRequest[];}
  | {readonly type: 'phase'; readonly phase: Phase; readonly state: 'began'}
  /** There was nothing to deploy; only the record of that is missing. */
  | {readonly type: 'unchanged'; readonly revision: string | null}
  /** `newest`: the repository was asked for it, nobody named it. */
  | {readonly type: 'revision'; readonly revision: string; readonly newest: boolean}
  /** Before the directory is made; `existing`: it served before and is not ours to discard. */
  | {readonly type: 'release'; readonly release: Release; readonly existing: boolean}
  /** Before the process is started. */
  | {readonly type: 'starting'; readonly slot: number; readonly port: number; readonly worker: string}
  | {readonly type: 'started'; readonly worker: Worker}
  | {readonly type: 'switching'; readonly intent: SwitchIntent}
  | {readonly type: 'reloading'}
  /** The point of no return: nginx uses the new workers. */
  | {readonly type: 'switched'; readonly workers: readonly Worker[]; readonly oldNginxWorkers: readonly ProcessIdentity[]}
  | {readonly type: 'rolling_back'; readonly reason: string; readonly intent: SwitchIntent | null}
  | {readonly type: 'rolled_back'; readonly oldNginxWorkers: readonly ProcessIdentity[]}
  | {readonly type: 'aborting'; readonly code: string; readonly error: string}
  | {readonly type: 'closed'; readonly outcome: string}
);

export type JournalLine = JournalEntry extends infer E ? (E extends JournalEntry ? Omit<E, 'at'> : never) : never;

export interface Journal {
  /** One write and one sync, however many entries. */
  append(...entries: readonly JournalLine[]): void;
  /** May be called twice. */
  close(): void;
}

/** The journal of the last deploy that held the lock, entry by entry; empty when there was none. */
export function readJournal(stateDir: string): JournalEntry[] {
  const bytes = readRegularFile(journalPath(stateDir));
  return bytes === undefined ? [] : decodeJournal(bytes, journalPath(stateDir));
}

/** Errors: STATE_UNCERTAIN for a broken line that is not the last; a torn last line was never acted on and is dropped. */
export function decodeJournal(bytes: Buffer, path: string): JournalEntry[] {
  const lines = bytes.toString('utf8').split('\n');
  const torn = lines.pop() ?? '';
  return lines.flatMap((line, i) => {
    const entry = decodeLine(line);
    if (entry !== undefined) return [entry];
    if (i === lines.length - 1 && torn === '') return [];
    throw new DeployError('STATE_UNCERTAIN', `${path}:${i + 1}: the journal is damaged: ${JSON.stringify(line.slice(0, 80))}`,
      {hint: 'Nothing was touched. See `osyw-deploy status` for what runs; when that is as it should be, move the journal away and deploy again.'});
  });
}

export function encodeLine(entry: JournalEntry): Buffer {
  const json = JSON.stringify(entry);
  return Buffer.from(`${Buffer.byteLength(json)} ${crc32(json).toString(16)} ${json}\n`);
}

function decodeLine(line: string): JournalEntry | undefined {
  const match = /^(\d+) ([0-9a-f]+) (\{.*\})$/.exec(line);
  const [, length, crc, json] = match ?? [];
  if (json === undefined || Buffer.byteLength(json) !== Number(length) || crc32(json).toString(16) !== crc) return undefined;
  return JSON.parse(json) as JournalEntry;
}

/** Begins a fresh journal in place of that of an ended deploy; the first entry is durable on return. */
export function beginJournal(stateDir: string, first: JournalLine): Journal {
  replaceFile(journalPath(stateDir), encodeLine(stamped(first)), {mode: 0o600});
  return continueJournal(stateDir);
}

/** Goes on with the journal of a deploy that did not end. A torn last line is cut off first. */
export function continueJournal(stateDir: string): Journal {
  const path = journalPath(stateDir);
  const bytes = readRegularFile(path);
  if (bytes !== undefined && bytes.length > 0) {
    const whole = Buffer.concat(decodeJournal(bytes, path).map(encodeLine));
    if (!whole.equals(bytes)) replaceFile(path, whole, {mode: 0o600});
  }
  const open = () => openSync(path, constants.O_WRONLY | constants.O_APPEND | constants.O_NOFOLLOW);
  let fd: number | undefined = open();
  let length = fstatSync(fd).size;
  return {
    append: (...entries) => {
      const bytes = Buffer.concat(entries.map(entry => encodeLine(stamped(entry))));
      fd ??= open();
      try {
        appendDurably(fd, bytes);
        length += bytes.length;
      } catch (error) {
        // Half a line must not come to stand before a whole one; and a descriptor whose sync failed is not used again.
        const broken = fd;
        fd = undefined;
        try {
          ftruncateSync(broken, length);
        } finally {
          closeSync(broken);
        }
        throw error;
      }
    },
    close: () => {
      if (fd !== undefined) closeSync(fd);
      fd = undefined;
    },
  };
}

function stamped(entry: JournalLine): JournalEntry {
  return {at: new Date().toISOString(), ...entry};
}

function journalPath(stateDir: string): string {
  return join(stateDir, 'journal.ndjson');
}
