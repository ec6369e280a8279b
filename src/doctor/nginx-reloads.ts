import {formatDuration} from '../support/durations.ts';
import {counted, type Finding} from './finding.ts';
import {atLeast} from './nginx.ts';
import {nginxTime, placeOf, settingIn, valuesIn, type Scope, type Setting} from './nginx-scopes.ts';
import type {NginxSettings} from './nginx-settings.ts';

/** 1.27.4: before it nginx closes whatever is idle at a reload, a request that is just being sent or not. */
const KEEPALIVE_MIN_TIMEOUT = [1, 27, 4];
/** Lost a reload of the connections that were busy: 13 of 50 and 45 of 200, measured with nginx 1.22.1. */
const LOST_SHARE = 0.25;

/** Whether clients on kept-alive connections see a reset at each reload. `open`: connections to nginx now. */
export function keepAliveResets({scopes, passing, version}: NginxSettings, open: number): Finding {
  const check = 'nginx-keepalive-reset';
  const http = scopes.find(({name}) => name === 'http');
  const places = passing.length === 0 ? [http] : passing.map(({scope}) => scope);
  const exposed = places.filter(scope => !isZero(valuesIn(scope, 'keepalive_timeout')?.[0]) && isZero(valuesIn(scope, 'keepalive_min_timeout')?.[0] ?? '0'));
  const known = version?.join('.') ?? 'of an unknown version';
  if (exposed.length === 0) return {check, level: 'ok', says: `nginx ${known} ${places.every(scope => isZero(valuesIn(scope, 'keepalive_timeout')?.[0])) ? 'keeps no client connection' : 'waits keepalive_min_timeout for clients before a reload closes their connections'}`};
  const estimate = `a reload resets about a quarter of those that are busy (measured: 13 requests on 50 busy connections, 45 on 200, none with keepalive_min_timeout 1s), so about ${Math.ceil(open * LOST_SHARE)} if all of the ${counted(open, 'connection')} of this moment were`;
  const has = version !== undefined && atLeast(version, KEEPALIVE_MIN_TIMEOUT);
  const file = exposed[0]?.opened;
  return {
    check, level: 'warning', ...(file === undefined ? {} : {place: placeOf(file)}),
    says: `nginx ${known} closes idle client connections at each reload${has ? ', for keepalive_min_timeout is not set' : `; keepalive_min_timeout is of 1.27.4`}`,
    means: `a client that sends its next request at that moment sees a reset, whoever asks for the reload: ${estimate}. New connections lose nothing${has ? '' : '. The line below costs a connection for each request; nginx 1.27.4 or newer with `keepalive_min_timeout 1s;` costs nothing'}`,
    mend: has ? 'keepalive_min_timeout 1s;' : 'keepalive_timeout 0;',
  };
}

function isZero(value: string | undefined): boolean {
  return value !== undefined && nginxTime(value) === 0;
}

/** Whether nginx cuts what a drain would wait for, or holds on to what nobody waits for. */
export function shutdownTimeout({scopes}: NginxSettings, drain: {readonly deadlineMs: number}): Finding {
  const check = 'nginx-worker-shutdown';
  const setting = settingIn(scopes[0], 'worker_shutdown_timeout');
  const ms = nginxTime(setting?.directive.args[0]?.text ?? '0') ?? 0;
  const mend = `worker_shutdown_timeout ${Math.ceil(drain.deadlineMs / 1000)}s;`;
  const deadline = `drain.deadline is ${formatDuration(drain.deadlineMs)}`;
  if (setting === undefined || ms === 0) {
    return {
      check, level: 'note', says: `worker_shutdown_timeout is not set; ${deadline}`, mend, place: mainFile(scopes),
      means: 'at its deadline a drain stops the old workers of the application, but nginx workers with other connections that do not end (WebSockets, streams) stay, one set a reload, and keep their memory',
    };
  }
  const says = `worker_shutdown_timeout is ${formatDuration(ms)}; ${deadline}`;
  if (ms >= drain.deadlineMs) return {check, level: 'ok', says, place: placeOf(setting)};
  return {check, level: 'warning', says, place: placeOf(setting), mend, means: `nginx cuts whatever takes longer than ${formatDuration(ms)} at every reload: a download, a WebSocket, a slow answer`};
}

function mainFile(scopes: readonly Scope[]): string {
  return scopes[0]?.settings[0]?.file ?? 'nginx.conf';
}

/** Sockets of which a reload can drop what waits in them. */
export function reusePort({scopes}: NginxSettings): Finding[] {
  const listens = scopes.filter(({name}) => name === 'server').flatMap(({settings}) => settings.filter(({directive: {name, args}}) => name.text === 'listen' && args.some(({text}) => text === 'reuseport')));
  return listens.map(setting => ({
    check: 'nginx-reuseport', level: 'note' as const, place: placeOf(setting), says: `listen ${wordsOf(setting).join(' ')}`,
    means: 'each nginx worker has a queue of its own: where a reload brings fewer workers than before, whoever waits in a queue that goes is reset. It does not help against resets of kept connections either',
    mend: `listen ${wordsOf(setting).filter(word => word !== 'reuseport').join(' ')};`,
  }));
}

function wordsOf({directive}: Setting): string[] {
  return directive.args.map(({text}) => text);
}
