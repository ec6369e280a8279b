import {readdirSync, readFileSync, readlinkSync} from 'node:fs';

export interface Seen {
  readonly pid: number;
  readonly command: string;
  /** Why it counts as this site's. */
  readonly because: string;
  readonly environ: string;
}

/** Every live process that has to do with `dir`: by its environment, its working directory or its arguments. */
export function processesOf(dir: string): Seen[] {
  const found: Seen[] = [];
  for (const name of readdirSync('/proc')) {
    const pid = Number(name);
    if (!Number.isInteger(pid) || pid === process.pid) continue;
    const command = read(`/proc/${pid}/cmdline`).replaceAll('\0', ' ').trim();
    // A zombie has neither arguments nor a directory: it is dead, and its parent's business.
    if (command === '' || /^State:\s+Z/m.test(read(`/proc/${pid}/status`))) continue;
    const environ = read(`/proc/${pid}/environ`);
    const cwd = link(`/proc/${pid}/cwd`);
    const because = environ.includes(dir) ? 'its environment' : cwd.startsWith(dir) ? `its directory ${cwd}` : command.includes(dir) ? 'its arguments' : undefined;
    if (because) found.push({pid, command, because, environ});
  }
  return found;
}

/** Ports in the range that somebody listens on, on any address. */
export function listeningPorts(first: number, last: number): number[] {
  const ports = new Set<number>();
  for (const table of ['/proc/net/tcp', '/proc/net/tcp6']) {
    for (const line of read(table).split('\n').slice(1)) {
      const [, local, , state] = line.trim().split(/\s+/);
      const port = Number.parseInt(local?.split(':').at(-1) ?? '', 16);
      if (state === '0A' && port >= first && port <= last) ports.add(port);
    }
  }
  return [...ports].sort((a, b) => a - b);
}

/** Connections to these ports that are open now. */
export function establishedTo(ports: readonly number[]): number {
  return read('/proc/net/tcp').split('\n').filter((line) => {
    const [, , remote, state] = line.trim().split(/\s+/);
    return state === '01' && ports.includes(Number.parseInt(remote?.split(':').at(-1) ?? '', 16));
  }).length;
}

/** The live children of a process. */
export function childrenOf(parent: number): {pid: number; command: string}[] {
  return readdirSync('/proc').map(Number).filter((pid) => Number.isInteger(pid) && parentOf(pid) === parent && isAlive(pid))
    .map((pid) => ({pid, command: read(`/proc/${pid}/cmdline`).replaceAll('\0', ' ').trim()}));
}

/** The parent's pid, or 0 when the process is gone. */
export function parentOf(pid: number): number {
  return Number(/^PPid:\s+(\d+)/m.exec(read(`/proc/${pid}/status`))?.[1] ?? 0);
}

export function isAlive(pid: number): boolean {
  const status = read(`/proc/${pid}/status`);
  return status !== '' && !/^State:\s+[ZX]/m.test(status);
}

function read(file: string): string {
  try {
    return readFileSync(file, 'latin1');
  } catch {
    return ''; // gone meanwhile, or not ours to read
  }
}

function link(file: string): string {
  try {
    return readlinkSync(file);
  } catch {
    return '';
  }
}
