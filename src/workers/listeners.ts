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

/** Those that would answer a connection to `host:port`: the address itself, or a wildcard. */
export function listenersOn(host: string, port: number): Listener[] {
  const found = host.includes(':') ? [] : firstRun(readListening('/proc/net/tcp'), host, port);
  // A socket of the older family on this address keeps those of the newer from the port.
  return found.length > 0 ? found : firstRun(readListening('/proc/net/tcp6'), host, port);
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

/** Sockets of one address and port stand beside each other, so the reading ends behind the first such run. */
function firstRun(all: Iterable<Listener>, host: string, port: number): Listener[] {
  const wanted = host === 'localhost' ? ['127.0.0.1', '::1'] : [host];
  const found: Listener[] = [];
  for (const listener of all) {
    const fits = listener.port === port && (wanted.includes(listener.address) || listener.address === '0.0.0.0' || listener.address === '::');
    if (fits) found.push(listener);
    else if (found.length > 0) break;
  }
  return found;
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
 * Reads the table a line at a time and stops as early as it can. The kernel makes as much of it as a read asks for, listening
 * sockets first, and walks its whole hash of connections (5 ms when nearly empty, half a second with 60,000 in TIME_WAIT) for the rest.
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
