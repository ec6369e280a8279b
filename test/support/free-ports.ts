import {randomInt} from 'node:crypto';
import {createServer, type Server} from 'node:net';

// Below the ephemeral range (32768 and up), where the kernel gives ports to any outgoing connection.
const FIRST = 12_000;
const LAST = 32_700;
const BLOCK = 10;

export interface PortLease {
  readonly first: number;
  readonly last: number;
  release(): Promise<void>;
}

/**
 * A run of `count` consecutive ports on 127.0.0.1 that nobody listens on, and that no other test file gets meanwhile:
 * each block of ten is leased by an abstract socket, which the kernel frees with the process that holds it.
 */
export async function leasePorts(count: number): Promise<PortLease> {
  const blocks = Math.ceil(count / BLOCK);
  const places = Math.floor((LAST - FIRST) / BLOCK) - blocks;
  for (let attempt = 0; attempt < 400; attempt++) {
    const first = FIRST + BLOCK * randomInt(places);
    const leases: Server[] = [];
    for (let block = 0; block < blocks; block++) {
      const lease = await listening({path: `\0osyw-test-ports-${first + BLOCK * block}`});
      if (lease) leases.push(lease);
    }
    const release = async (): Promise<void> => void (await Promise.all(leases.map(close)));
    if (leases.length === blocks && (await allFree(first, count))) return {first, last: first + count - 1, release};
    await release();
  }
  throw new Error(`no ${count} consecutive free ports between ${FIRST} and ${LAST}`);
}

async function allFree(first: number, count: number): Promise<boolean> {
  for (let port = first; port < first + count; port++) {
    const server = await listening({port, host: '127.0.0.1'});
    if (!server) return false;
    await close(server);
  }
  return true;
}

/** A listening server that keeps no process alive, or undefined when the name or port is taken. */
function listening(where: {path: string} | {port: number; host: string}): Promise<Server | undefined> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(undefined));
    server.listen(where, () => resolve(server.unref()));
  });
}

function close(server: Server): Promise<void> {
  return new Promise((resolve) => server.close(() => resolve()));
}
