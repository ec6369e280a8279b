import {readFileSync, readdirSync} from 'node:fs';
import {join} from 'node:path';
import {loadConfig} from '../config/load-config.ts';
import type {Config} from '../config/config.ts';
import {DeployError, errnoOf} from '../errors.ts';
import type {Listener} from '../workers/listeners.ts';
import type {PortRange} from '../workers/spare-ports.ts';
import {counted, type Finding} from './finding.ts';

const PLACE = 'workers.ports';

/** Whether the kernel may give ports of the range to outgoing connections. `proc` is /proc. */
export function ephemeralPorts(ports: PortRange, app: string, proc: string): Finding {
  const check = 'ports-ephemeral';
  const [first = 0, last = 0] = readFileSync(join(proc, 'sys/net/ipv4/ip_local_port_range'), 'utf8').trim().split(/\s+/).map(Number);
  const reserved = reservedPorts(proc);
  const exposed = portsOf(ports).filter(port => port >= first && port <= last && !reserved.some(range => port >= range.first && port <= range.last));
  if (exposed.length === 0) return {check, level: 'ok', says: `ports ${shown(ports)} are not among those that the kernel gives to outgoing connections (${first}-${last})`, place: PLACE};
  const line = `net.ipv4.ip_local_reserved_ports=${[...reserved.map(shown), shown(ports)].join(',')}`;
  return {
    check, level: 'warning', place: PLACE,
    says: `${counted(exposed.length, 'port')} of ${shown(ports)} are among those that the kernel gives to outgoing connections (${first}-${last})`,
    means: 'an outgoing connection of any program may have a port at the moment when a worker is started on it: then it cannot listen, and the deploy fails (START_FAILED)',
    mend: `echo ${line} >/etc/sysctl.d/60-osyw-deploy-${app}.conf && sysctl -p /etc/sysctl.d/60-osyw-deploy-${app}.conf`,
  };
}

function reservedPorts(proc: string): PortRange[] {
  let text: string;
  try {
    text = readFileSync(join(proc, 'sys/net/ipv4/ip_local_reserved_ports'), 'utf8').trim();
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw error;
  }
  return text === '' ? [] : text.split(',').map(part => {
    const [first = 0, last = first] = part.split('-').map(Number);
    return {first, last};
  });
}

/** Whether somebody else listens in the range. `own`: ports of workers that serve or drain. `ownerOf` names a listener for people. */
export function portsInUse({ports, count, host}: {ports: PortRange; count: number; host: string}, listening: readonly Listener[], own: ReadonlySet<number>, ownerOf: (listener: Listener) => string): Finding {
  const check = 'ports-in-use';
  const strangers = listening.filter(({port, address}) => port >= ports.first && port <= ports.last && !own.has(port) && meets(address, host));
  const taken = new Set(strangers.map(({port}) => port));
  const spare = portsOf(ports).filter(port => !own.has(port) && !taken.has(port)).length;
  const who = [...taken].slice(0, MOST_NAMED).map(port => `${port} ${[...new Set(strangers.filter(one => one.port === port).map(ownerOf))].join(', ')}`).join('; ');
  if (taken.size === 0) return {check, level: 'ok', says: `nobody else listens in ${shown(ports)}; ${counted(spare, 'port')} spare, a deploy needs ${count}`, place: PLACE};
  return {
    check, level: spare < count ? 'problem' : 'warning', place: PLACE,
    says: `somebody else listens on ${counted(taken.size, 'port')} of ${shown(ports)} (${who}${taken.size > MOST_NAMED ? '; …' : ''}); ${spare} spare, a deploy needs ${count}`,
    means: spare < count ? 'no deploy finds enough spare ports (START_FAILED)' : 'a deploy passes over these ports; when more are taken it finds no spare ones',
    mend: `ports: ${freeRange(ports, listening)}`,
  };
}

/** Whether another application's configuration on this machine has ports of the range. */
export function portsShared({file, app, workers: {ports}}: Config, directory = '/etc/osyw-deploy'): Finding[] {
  const others = configurationsIn(directory).filter(other => other.file !== file && other.app !== app && other.workers.ports.first <= ports.last && ports.first <= other.workers.ports.last);
  return others.map(other => ({
    check: 'ports-shared', level: 'warning', place: other.file,
    says: `${other.app} has ${shown(other.workers.ports)}, which overlaps with ${shown(ports)}`,
    means: 'each takes ports that the other counts on; a deploy at the wrong moment finds one taken',
    mend: `ports: ${Math.max(ports.last, other.workers.ports.last) + 1}-${Math.max(ports.last, other.workers.ports.last) + 1 + ports.last - ports.first}`,
  }));
}

function configurationsIn(directory: string): Config[] {
  let names: string[];
  try {
    names = readdirSync(directory).filter(name => name.endsWith('.yaml'));
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
    return [];
  }
  return names.flatMap(name => {
    try {
      return [loadConfig({configFlag: join(directory, name), env: {}, cwd: '/'})];
    } catch (error) {
      if (!(error instanceof DeployError)) throw error;
      return []; // It is not ours to read, or of no use to anybody.
    }
  });
}

const MOST_NAMED = 5;

function meets(address: string, host: string): boolean {
  return address === '0.0.0.0' || address === '::' || address === host || (host === 'localhost' && (address === '127.0.0.1' || address === '::1'));
}

function portsOf({first, last}: PortRange): number[] {
  return Array.from({length: last - first + 1}, (_, i) => first + i);
}

/** As many ports, behind the range, on which nobody listens. */
function freeRange({first, last}: PortRange, listening: readonly Listener[]): string {
  const taken = new Set(listening.map(({port}) => port));
  const size = last - first + 1;
  for (let start = last + 1; start + size <= 65_536;) {
    const stranger = Array.from({length: size}, (_, i) => start + size - 1 - i).find(port => taken.has(port));
    if (stranger === undefined) return `${start}-${start + size - 1}`;
    start = stranger + 1;
  }
  return `${first}-${last}`;
}

function shown({first, last}: PortRange): string {
  return first === last ? String(first) : `${first}-${last}`;
}
