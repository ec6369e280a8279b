import {closeSync, openSync, readSync, readdirSync} from 'node:fs';
import {errnoOf} from '../errors.ts';
import type {ProcessIdentity} from '../deploy/deployment.ts';
import {allPids, identify, readProcLink} from './process-identity.ts';

export interface Listener {
  /** As an IP literal, e.g. `127.0.0.1`, `0.0.0.0`, `::`. */
  readonly address: string;
  readonly port: number;
  readonly inode: number;
  readonly uid: number;
}

const LISTEN = '0A';
/** One line of the table. */
const RECORD_BYTES = 150;

/** All TCP sockets that listen in this network namespace. */
export function listeners(): Listener[] {
  return [...readListening('/proc/net/tcp'), ...readListening('/proc/net/tcp6')];
}

/**
 * All that do answer connections to `host:port`. A socket that is bound to the very address gets them, whatever wildcards there are; several
 * of them, by SO_REUSEPORT, stand together, for the kernel hashes address and port. So the look ends behind these. Source: inet_lhash2_lookup, compute_score.
 */
export function listenersOn(host: string, port: number): Listener[] {
  const exact: Listener[] = [];
  for (const listener of host === 'localhost' ? [] : readListening(host.includes(':') ? '/proc/net/tcp6' : '/proc/net/tcp')) {
    if (listener.port === port && listener.address === host) exact.push(listener);
    else if (exact.length > 0) break;
  }
  return exact.length > 0 ? exact : allListenersOn(host, port);
}

/** All that are bound to `host:port`, on the address itself or on a wildcard of either family, wherever they stand in the tables. */
export function allListenersOn(host: string, port: number): Listener[] {
  const wanted = new Set([...(host === 'localhost' ? ['127.0.0.1', '::1'] : [host]), '0.0.0.0', '::']);
  const fitting = (path: string) => [...readListening(path)].filter(listener => listener.port === port && wanted.has(listener.address));
  const six = fitting('/proc/net/tcp6');
  if (host.includes(':')) return six;
  const four = fitting('/proc/net/tcp');
  // Only sockets of one account can share a port: beside those of IPv4, somebody else's `::` is for IPv6 alone. Source: inet_csk_bind_conflict.
  return [...four, ...six.filter(({uid}) => host === 'localhost' || four.length === 0 || four.some(one => one.uid === uid))];
}

/** Which of these processes has the socket open. */
export function ownerAmong(processes: readonly ProcessIdentity[], inode: number): ProcessIdentity | undefined {
  const link = `socket:[${inode}]`;
  return processes.find(({pid}) => openFiles(pid).some(fd => readProcLink(`/proc/${pid}/fd/${fd}`) === link));
}

/** For each of these sockets the living processes that have it open, as far as we may see; reads the whole of /proc. */
export function ownersOf(inodes: readonly number[]): Map<number, ProcessIdentity[]> {
  const owners = new Map(inodes.map(inode => [inode, [] as ProcessIdentity[]]));
  for (const pid of allPids()) {
    const links = new Set(openFiles(pid).map(fd => readProcLink(`/proc/${pid}/fd/${fd}`)));
    const owner = [...owners].some(([inode]) => links.has(`socket:[${inode}]`)) ? identify(pid) : undefined;
    if (owner === undefined) continue;
    for (const [inode, of] of owners) if (links.has(`socket:[${inode}]`)) of.push(owner);
  }
  return owners;
}

function openFiles(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/fd`);
  } catch (error) {
    const code = errnoOf(error);
    if (code === 'ENOENT' || code === 'ESRCH' || code === 'EACCES' || code === 'EPERM') return [];
    throw error;
  }
}

/**
 * Reads the table a line at a time and stops behind the last socket that listens: the kernel lists these first. It makes as much of the
 * table as a read asks for, and for the rest walks its whole hash of connections (5 ms when nearly empty, half a second with 60,000 in TIME_WAIT).
 */
function* readListening(path: string): Generator<Listener> {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return;
    throw error;
  }
  try {
    const chunk = Buffer.alloc(RECORD_BYTES);
    let rest = '';
    for (let header = true; ;) {
      const n = readSync(fd, chunk, 0, RECORD_BYTES, null);
      if (n === 0) return;
      const lines = (rest + chunk.toString('latin1', 0, n)).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) {
        if (header) {
          header = false;
          continue;
        }
        const fields = line.trim().split(/\s+/);
        if (fields[3] !== LISTEN) return;
        const [hex, port] = (fields[1] ?? '').split(':');
        yield {address: addressOf(hex ?? ''), port: Number.parseInt(port ?? '', 16), uid: Number(fields[7]), inode: Number(fields[9])};
      }
    }
  } finally {
    closeSync(fd);
  }
}

/** The kernel prints each 32-bit word of an address in the machine's byte order. Source: net/ipv4/tcp_ipv4.c. */
function addressOf(hex: string): string {
  const bytes = Buffer.from(hex, 'hex');
  for (let i = 0; i + 4 <= bytes.length; i += 4) bytes.subarray(i, i + 4).reverse();
  if (bytes.length === 4) return [...bytes].join('.');
  const groups = Array.from({length: 8}, (_, i) => bytes.readUInt16BE(i * 2).toString(16));
  return new URL(`http://[${groups.join(':')}]/`).hostname.slice(1, -1);
}
