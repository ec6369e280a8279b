import {createHash} from 'node:crypto';
import {closeSync, constants, fstatSync, lstatSync, mkdirSync, openSync, opendirSync, readSync, readdirSync, renameSync, rmdirSync, unlinkSync, type BigIntStats} from 'node:fs';
import {join} from 'node:path';
import {LOOK_TRIGGERS, type FiledRequest, type LookTrigger} from '../deploy/events.ts';
import {idAt} from '../deploy/run.ts';
import {errnoOf, messageOf} from '../errors.ts';
import {ignoreMissing, replaceFile, syncDirectory} from '../state/atomic-file.ts';
import {accountOf} from '../support/accounts.ts';
import {splitEdits} from '../support/edited-revision.ts';

/** More is no request. */
const MOST_BYTES = 4096;
/** Taken at once; the rest is there for the next look. */
const MOST_REQUESTS = 1000;
const MOST_SET_ASIDE = 100;
/** What a killed hook left unfinished is rubbish after so long. */
const UNFINISHED_MS = 3_600_000;
const NAME = /^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}\.json$/;
const REVISION = /^(?:r\d{1,10}|[0-9a-f]{40}|[0-9a-f]{64})$/;
/** Of what others put there, so much is looked at at once. */
const MOST_NAMES = 10_000;
const DOT = '.'.charCodeAt(0);
/** The pipe of a hook that waits is there as long as `hook.wait_timeout` may be. */
const LONGEST_WAIT_MS = 25 * 86_400_000;

/** An entry of the spool that is no request, and why. */
export interface Junk {
  readonly name: Buffer;
  readonly fault: string;
}

export interface Spool {
  /** Oldest first. */
  readonly requests: readonly FiledRequest[];
  readonly junk: readonly Junk[];
}

export function spoolPath(stateDir: string): string {
  return join(stateDir, 'spool');
}

/**
 * What lies in the spool, which others write: nothing there is followed, waited for or believed but its being there.
 * Errors: none for an entry; the system's when the spool itself cannot be read. No spool is an empty one.
 */
export function readSpool(stateDir: string, app: string): Spool {
  const spool = spoolPath(stateDir);
  const requests: FiledRequest[] = [];
  const junk: Junk[] = [];
  const directory = lstatSync(spool, {throwIfNoEntry: false});
  if (directory === undefined) return {requests, junk};
  const reader: Reader = {spool, app, onlyOurs: (directory.mode & 0o022) === 0, accounts: new Map()};
  for (const name of namesIn(spool)) {
    if (requests.length === MOST_REQUESTS) break;
    const read = readOne(name, reader);
    if (typeof read === 'string') junk.push({name, fault: read});
    else if (read !== undefined) requests.push(read);
  }
  return {requests: requests.toSorted((a, b) => a.filedAt.localeCompare(b.filedAt) || Number(filedNs(a) - filedNs(b))), junk};
}

/** Whether anything but what is unfinished lies there. */
export function isEmpty(stateDir: string): boolean {
  return namesIn(spoolPath(stateDir), 1).length === 0;
}

/** Removes requests that the journal has; a later file of the same name stays. Durable on return. */
export function unfile(stateDir: string, requests: readonly FiledRequest[]): void {
  const spool = spoolPath(stateDir);
  let removed = false;
  for (const {file, stamp} of requests) {
    const path = join(spool, file);
    const stat = lstatSync(path, {throwIfNoEntry: false, bigint: true});
    if (stat === undefined || stampOf(stat) !== stamp) continue;
    ignoreMissing(() => unlinkSync(path));
    removed = true;
  }
  if (removed) syncDirectory(spool);
}

/**
 * Files a request of ours, for one whose deploy did not come to its end. Under a name that nobody can have taken before: the id of
 * a deploy is known to nobody else. Durable on return. May run twice for one deploy.
 */
export function fileAgain(stateDir: string, app: string, {trigger, requestedBy, revision, filedAt, killed}: FiledRequest, deploy: string): void {
  const spool = spoolPath(stateDir);
  mkdirSync(spool, {recursive: true, mode: 0o700});
  replaceFile(join(spool, `again-${deploy}.json`), JSON.stringify({version: 1, app, trigger, by: requestedBy, revision, filed: filedAt, killed}), {mode: 0o600});
}

/** Files a request of ours, for a trigger other than a hook. One that is not taken yet says as much, and is replaced. Durable on return. */
export function fileLook(stateDir: string, app: string, {trigger, requestedBy, revision}: {trigger: LookTrigger; requestedBy: string; revision: string | null}): void {
  const spool = spoolPath(stateDir);
  mkdirSync(spool, {recursive: true, mode: 0o700});
  replaceFile(join(spool, `${trigger}.json`), JSON.stringify({version: 1, app, trigger, by: requestedBy, revision}), {mode: 0o600});
}

/** Puts what is no request where nobody falls over it again, and removes what killed hooks left. Returns a sentence for each piece of junk. */
export function clearSpool(stateDir: string, app: string): string[] {
  const spool = spoolPath(stateDir);
  removeUnfinished(spool);
  const {junk} = readSpool(stateDir, app);
  if (junk.length === 0) return [];
  const aside = join(stateDir, 'set-aside');
  mkdirSync(aside, {recursive: true, mode: 0o700});
  let room = MOST_SET_ASIDE - readdirSync(aside).length;
  return junk.map(({name, fault}, number) => {
    const told = `${JSON.stringify(name.toString('utf8'))} in the spool ${fault}`;
    try {
      if (room-- <= 0) {
        removeEntry(within(spool, name));
        return `${told}; it was removed, for ${aside} is full`;
      }
      // Under a name of ours: theirs may be too long, or of bytes that are no text.
      renameSync(within(spool, name), join(aside, `${new Date().toISOString()}-${number}`));
      return `${told}; it was set aside in ${aside}`;
    } catch (error) {
      return `${told}, and it cannot be moved away: ${messageOf(error)}`;
    }
  });
}

interface Reader {
  readonly spool: string;
  readonly app: string;
  /** Nobody but the deployer and root may write there. */
  readonly onlyOurs: boolean;
  /** Names by uid, as far as they were asked for. */
  readonly accounts: Map<number, string>;
}

/** As the kernel has them: not every name is text. */
type Name = Buffer;

/** All but what is unfinished. */
function namesIn(spool: string, most = MOST_NAMES): Name[] {
  return names(spool, name => name[0] !== DOT, most);
}

function names(spool: string, wanted: (name: Name) => boolean, most: number): Name[] {
  const found: Name[] = [];
  try {
    const directory = opendirSync(spool, {encoding: 'buffer' as BufferEncoding});
    try {
      for (let entry = directory.readSync(); entry !== null && found.length < most; entry = directory.readSync()) {
        const name = entry.name as unknown as Name;
        if (wanted(name)) found.push(name);
      }
    } finally {
      directory.closeSync();
    }
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
  }
  return found;
}

function within(spool: string, name: Name): Buffer {
  return Buffer.concat([Buffer.from(`${spool}/`), name]);
}

/** Errors: the system's, as for a directory that is not empty. */
function removeEntry(path: Buffer): void {
  if (lstatSync(path, {throwIfNoEntry: false})?.isDirectory() === true) rmdirSync(path);
  else ignoreMissing(() => unlinkSync(path));
}

/** A request, or why it is none; undefined when it is gone. */
function readOne(name: Name, reader: Reader): FiledRequest | string | undefined {
  let fd: number;
  try {
    fd = openSync(within(reader.spool, name), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === 'ENOENT') return undefined;
    return errno === 'ELOOP' ? 'is a symbolic link' : `cannot be opened (${errno ?? messageOf(error)})`;
  }
  try {
    const stat = fstatSync(fd, {bigint: true});
    if (!stat.isFile()) return stat.isDirectory() ? 'is a directory' : 'is no regular file';
    if (stat.nlink !== 1n) return 'has several names (hard links)';
    if (stat.size > MOST_BYTES) return `is too large (${stat.size} bytes)`;
    const file = name.toString('utf8');
    if (!NAME.test(file)) return 'has not the name of a request';
    if (reader.onlyOurs && !isOurs(stat)) return `belongs to another account (uid ${stat.uid}), which may not write there`;
    const buffer = Buffer.alloc(Number(stat.size));
    return parse(buffer.subarray(0, readSync(fd, buffer)).toString('utf8'), file, stat, reader);
  } finally {
    closeSync(fd);
  }
}

function parse(text: string, file: string, stat: BigIntStats, {app, accounts}: Reader): FiledRequest | string {
  let said: unknown;
  try {
    said = JSON.parse(text);
  } catch {
    return 'is not JSON';
  }
  if (typeof said !== 'object' || said === null) return 'is not a request';
  const {version, app: asked, revision, trigger, by, filed, killed} = said as Readonly<Record<string, unknown>>;
  if (version !== 1) return 'is not a request of version 1';
  if (asked !== app) return 'is a request for another application';
  // Only what the deployer filed itself can say more than "look".
  const ours = isOurs(stat);
  const filedAt = ours && typeof filed === 'string' && !Number.isNaN(Date.parse(filed)) ? new Date(filed) : new Date(Number(stat.ctimeMs));
  const stamp = stampOf(stat);
  return {
    id: idAt(filedAt, createHash('sha256').update(`${file} ${stamp}`).digest('hex').slice(0, 6)),
    file,
    stamp,
    trigger: LOOK_TRIGGERS.find(known => ours && known === trigger) ?? 'hook',
    requestedBy: ours && typeof by === 'string' ? by : accountName(Number(stat.uid), accounts),
    uid: Number(stat.uid),
    revision: typeof revision === 'string' && REVISION.test(splitEdits(revision).revision) ? revision : null,
    filedAt: filedAt.toISOString(),
    killed: ours && typeof killed === 'number' ? killed : 0,
  };
}

function isOurs({uid}: BigIntStats): boolean {
  return uid === 0n || Number(uid) === process.getuid?.();
}

function accountName(uid: number, known: Map<number, string>): string {
  const name = known.get(uid) ?? accountOf(uid)?.name ?? `uid ${uid}`;
  known.set(uid, name);
  return name;
}

/** The change time, unlike the others, is nobody's to set: for a request it is when it got its name. */
function stampOf({dev, ino, ctimeNs}: BigIntStats): string {
  return `${dev}-${ino}-${ctimeNs}`;
}

function filedNs({stamp}: FiledRequest): bigint {
  return BigInt(stamp.slice(stamp.lastIndexOf('-') + 1));
}

function removeUnfinished(spool: string): void {
  for (const name of names(spool, one => one[0] === DOT, MOST_NAMES)) {
    const path = within(spool, name);
    const stat = lstatSync(path, {throwIfNoEntry: false});
    if (stat === undefined || Date.now() - stat.ctimeMs < (stat.isFIFO() ? LONGEST_WAIT_MS : UNFINISHED_MS)) continue;
    try {
      removeEntry(path);
    } catch (error) {
      // It is somebody's directory with something in it, and in nobody's way.
      if (errnoOf(error) === undefined) throw error;
    }
  }
}
