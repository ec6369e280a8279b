import {accessSync, constants, readdirSync, statSync} from 'node:fs';
import {join} from 'node:path';
import {readRegularFile, utf8Of} from './regular-file.ts';

const MAX_BYTES = 200_000;
/** Lock files of large applications. */
const MAX_LOCK_BYTES = 5_000_000;
const MOST_NAMES = 500;

/** Text of a file of the project; empty for one that is not there, is no text, or is too large to be what it is taken for. */
export function contentOf(directory: string, name: string): string {
  const file = readRegularFile(join(directory, name), /lock/i.test(name) ? MAX_LOCK_BYTES : MAX_BYTES);
  return file.kind === 'read' ? (utf8Of(file.bytes) ?? '') : '';
}

export function isThere(directory: string, name: string): boolean {
  try {
    return statSync(join(directory, name)).isFile();
  } catch {
    return false; // Neither is what cannot be looked at of any use.
  }
}

export function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory).toSorted().slice(0, MOST_NAMES);
  } catch {
    return []; // Not there, or not ours to read: nothing is known of it.
  }
}

export function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

/** A JSON object; undefined for anything else. */
export function objectIn(text: string): Readonly<Record<string, unknown>> | undefined {
  try {
    return asObject(JSON.parse(text));
  } catch {
    return undefined;
  }
}

export function asObject(value: unknown): Readonly<Record<string, unknown>> | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? value as Readonly<Record<string, unknown>> : undefined;
}

/** A command line of plain words, as a list; undefined when only a shell could read it. Variables but `$PORT` need one. */
export function plainWords(line: string): string[] | undefined {
  const words = line.trim().replaceAll(/\$\{PORT(?::-\d+)?\}|\$PORT\b/g, '{port}').split(/\s+/);
  return words.length > 0 && words.every(word => /^[\w@%+=:,./{}-]+$/.test(word) && !/[{}]/.test(word.replaceAll('{port}', ''))) ? words : undefined;
}

/** How a program learns its port, by its text: a word of its command, `$PORT`, or not at all. */
export type PortWay = {readonly kind: 'words'; readonly words: readonly string[]} | {readonly kind: 'environment'} | {readonly kind: 'fixed'; readonly port: string} | {readonly kind: 'unknown'};

export function noteOfPort(way: PortWay, file: string): {note: string; changes: readonly string[]} {
  switch (way.kind) {
    case 'words': return {note: `${file} reads its command line; CHECK that it binds 127.0.0.1`, changes: []};
    case 'environment': return {note: `${file} listens on $PORT, which every worker has; CHECK that it binds 127.0.0.1`, changes: []};
    case 'fixed': return {note: `CHANGE ${file}, which listens on port ${way.port} whatever it is told: let it read $PORT`, changes: [`${file} listens on port ${way.port} whatever it is told; each worker needs a port of its own, so let it read $PORT`]};
    case 'unknown': return {note: `CHECK that ${file} listens on {port}, or on $PORT, and binds 127.0.0.1`, changes: []};
  }
}
