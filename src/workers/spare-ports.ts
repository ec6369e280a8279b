import {createServer} from 'node:net';
import {DeployError, errnoOf} from '../errors.ts';

export interface PortRange {
  readonly first: number;
  readonly last: number;
}

/**
 * Spare ports of a range, each proved free by binding it.
 * The search begins behind `after`, the port leased last, so that a port rests as long as the range allows:
 * an old nginx worker that still names it then meets nobody rather than somebody else.
 */
export async function leasePorts(wanted: {
  range: PortRange;
  host: string;
  count: number;
  /** Ports of workers that serve or drain, and those found taken a moment ago. */
  taken: ReadonlySet<number>;
  after: number | undefined;
}): Promise<number[]> {
  const candidates = inTurn(wanted.range, wanted.after).filter(port => !wanted.taken.has(port));
  const leased: number[] = [];
  while (leased.length < wanted.count && candidates.length > 0) {
    const batch = candidates.splice(0, wanted.count - leased.length);
    const free = await Promise.all(batch.map(port => isFree(wanted.host, port)));
    leased.push(...batch.filter((_, i) => free[i] === true));
  }
  if (leased.length < wanted.count) {
    const {first, last} = wanted.range;
    throw new DeployError('START_FAILED',
      `no spare port: ${wanted.count} needed in ${first}-${last}, ${leased.length} free (${wanted.taken.size} serve, drain or were found taken)`,
      {hint: 'Widen `workers.ports`, or see who listens there: `ss -ltnp`.'});
  }
  return leased;
}

/** Whether all of these are in the range, and free. */
export async function areSpare({first, last}: PortRange, host: string, ports: readonly number[]): Promise<boolean> {
  if (ports.some(port => port < first || port > last)) return false;
  return (await Promise.all(ports.map(port => isFree(host, port)))).every(free => free);
}

function inTurn({first, last}: PortRange, after: number | undefined): number[] {
  const size = last - first + 1;
  const start = after === undefined || after < first || after >= last ? 0 : after - first + 1;
  return Array.from({length: size}, (_, i) => first + ((start + i) % size));
}

/** Binds and lets go. Errors: START_FAILED when the address is not of this machine. */
function isFree(host: string, port: number): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', error => {
      const code = errnoOf(error);
      if (code === 'EADDRINUSE' || code === 'EACCES') resolve(false);
      else reject(new DeployError('START_FAILED', `cannot listen on ${host}:${port}: ${error.message}`, {hint: 'Is `workers.host` an address of this machine?'}));
    });
    server.listen({host, port, exclusive: true}, () => server.close(() => resolve(true)));
  });
}
