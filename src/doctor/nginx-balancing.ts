import type {Config} from '../config/config.ts';
import {findUpstreams, type ConfigFile} from '../nginx/effective-config.ts';
import {serverLines} from '../nginx/server-lines.ts';
import {formatDuration} from '../support/durations.ts';
import type {KeepAlive} from './app-keepalive.ts';
import type {Finding} from './finding.ts';
import {atLeast} from './nginx.ts';
import {nginxTime, placeOf, settingIn, valuesIn, type Scope} from './nginx-scopes.ts';
import {writesBlock, type NginxSettings} from './nginx-settings.ts';

/** What is tried again on another worker when one dies, for each block that sends requests to us. */
export function nextUpstream({passing}: NginxSettings, count: number): Finding[] {
  const check = 'nginx-next-upstream';
  if (passing.length === 0) return [];
  const found = new Map<string, Finding>();
  for (const {scope, by, setting} of passing) {
    const name = `${by}_next_upstream`;
    const own = settingIn(scope, name);
    const values = own?.directive.args.map(({text}) => text) ?? ['error', 'timeout'];
    const place = placeOf(own ?? setting);
    if (values.includes('off') || !values.includes('error')) {
      found.set(place, {
        check, level: count > 1 ? 'warning' : 'note', place, says: `${name} ${values.join(' ')}: a request to a worker that is dead is not tried on another one`,
        means: 'when a worker dies, every request that nginx gives it is a 502, until it is started again', mend: `${name} error timeout;`,
      });
    } else if (values.includes('non_idempotent')) {
      found.set(place, {
        check, level: 'warning', place, says: `${name} ${values.join(' ')}: a POST to a worker that dies is sent to another one`,
        means: 'what the first had done already is done twice: an order, a payment', mend: `${name} ${values.filter(value => value !== 'non_idempotent').join(' ')};`,
      });
    } else {
      found.set(place, {check, level: 'ok', place, says: `${name} ${values.join(' ')}${own === undefined ? ' (nginx\'s own)' : ''}: a GET to a worker that dies is tried on another one, a POST that was sent is not (502)`});
    }
  }
  return [...found.values()];
}

/** Whether one dead worker, or one after the other, makes nginx refuse on its own account. */
export function maxFails({servers, place, directives}: NginxSettings, {nginx, workers}: Pick<Config, 'nginx' | 'workers'>): Finding[] {
  const values = servers.map(({parameters}) => parameters.find(word => word.startsWith('max_fails='))?.slice('max_fails='.length) ?? '1');
  const timeout = servers.flatMap(({parameters}) => parameters).find(word => word.startsWith('fail_timeout='))?.slice('fail_timeout='.length) ?? '10s';
  const counting = values.find(value => value !== '0');
  const single: Finding[] = workers.count > 1 ? [] : [{
    check: 'single-worker', level: 'note', place: 'workers.count', says: 'workers.count is 1',
    means: 'a deploy loses nothing, but a worker that dies has none beside it: until it is started again each request is a 502', mend: 'count: 2',
  }];
  const check = 'nginx-max-fails';
  if (counting === undefined) return [{check, level: 'ok', says: 'max_fails is 0: no worker is taken out for a failure, and the next one is tried at once', place: writesBlock(nginx) ? 'nginx.server' : place}, ...single];
  const zero = writesBlock(nginx) ? `server: {${Object.entries({...nginx.server, max_fails: '0'}).map(([key, value]) => ` ${key}: ${value}`).join(',')} }`
    : servers.map(({address, parameters}) => `server ${[address, ...parameters.filter(word => !word.startsWith('max_fails=')), 'max_fails=0'].join(' ')};`).join('\n');
  const at = writesBlock(nginx) ? 'nginx.server' : place;
  if (workers.count === 1 && servers.length <= 1) {
    return [{
      check, level: 'warning', place: at, says: `max_fails is ${counting}, and there is one server`,
      means: 'it has no effect: nginx never takes the only server out, and has no other to try', mend: `${zero}\ncount: 2`,
    }];
  }
  const sticky = directives.some(({name}) => name.text === 'ip_hash' || name.text === 'hash');
  return [{
    check, level: 'warning', place: at, says: `max_fails is ${counting}, fail_timeout ${timeout}`,
    means: `on the same host a refused connection costs nothing and the next worker is tried at once; with this nginx takes a worker out for ${timeout} though it is back after a second, and once all have failed it refuses every request for as long ("no live upstreams": measured, 10 s without an answer instead of 2)${sticky ? '; its clients go to another worker meanwhile' : ''}`,
    mend: zero,
  }, ...single];
}

/** Whether clients keep their worker when its port changes, as it does with each deploy. */
export function hashing({directives, place, write}: NginxSettings): Finding[] {
  const check = 'nginx-hash-consistent';
  return directives.filter(({name}) => name.text === 'hash').map(({args}): Finding => {
    const key = args[0]?.text ?? '';
    if (args[1]?.text !== 'consistent') return {check, level: 'ok', says: `hash ${key} goes by the place in the list, which a deploy keeps`, place};
    return {
      check, level: 'warning', place, says: `hash ${key} consistent`,
      means: 'it goes by the ports, which change with each deploy: measured, 70 of 240 clients came to the worker of their place again, without `consistent` all 240', mend: write(`hash ${key}`),
    };
  });
}

/** Whether the block on disk mixes what nginx refuses to mix. `files`: as nginx reads them, or, in the context `http`, the upstream file alone where it refuses them. */
export function hashWithBackup(files: readonly ConfigFile[], upstream: string, context: '' | 'http' = ''): Finding[] {
  return findUpstreams(files, upstream, context).flatMap(({file, directive}) => {
    const method = directive.block?.find(({name}) => ['ip_hash', 'hash', 'random'].includes(name.text));
    const backup = serverLines(directive).find(line => line.backup);
    if (method === undefined || backup === undefined) return [];
    return [{
      check: 'nginx-ip-hash-backup', level: 'problem' as const, place: `${file.path}:${backup.directive.line}`,
      says: `${method.name.text} and a server with \`backup\` in upstream ${upstream}`, means: 'nginx refuses such a configuration, so it can neither be reloaded nor started again',
      mend: `server ${backup.address.text}${backup.parameters.filter(({text}) => text !== 'backup').map(({text}) => ` ${text}`).join('')};`,
    }];
  });
}

const DEFAULT_KEEPALIVE = [1, 29, 7];
const DEFAULT_KEEPALIVE_TIMEOUT_MS = 60_000;

/** Whether nginx keeps connections to the workers, and for how long at most; undefined when it keeps none. */
export function upstreamKeepAlive({directives, version}: Pick<NginxSettings, 'directives' | 'version'>): {readonly timeoutMs: number; readonly configured: boolean} | undefined {
  const keepalive = directives.find(({name}) => name.text === 'keepalive')?.args[0]?.text;
  const isDefault = keepalive === undefined && version !== undefined && atLeast(version, DEFAULT_KEEPALIVE);
  if ((keepalive === undefined && !isDefault) || keepalive === '0') return undefined;
  const timeout = directives.find(({name}) => name.text === 'keepalive_timeout')?.args[0]?.text;
  return {timeoutMs: timeout === undefined ? DEFAULT_KEEPALIVE_TIMEOUT_MS : nginxTime(timeout) ?? DEFAULT_KEEPALIVE_TIMEOUT_MS, configured: keepalive !== undefined};
}

/** Whether a worker closes a kept connection just as nginx sends the next request on it. `seen`: what one did; undefined: none could be asked. */
export function keepAliveRace(settings: NginxSettings, seen: KeepAlive | undefined): Finding[] {
  const kept = upstreamKeepAlive(settings);
  if (kept === undefined) return [];
  const check = 'nginx-upstream-keepalive';
  const {place, write} = settings;
  const nginxKeeps = `nginx keeps connections to the workers for ${formatDuration(kept.timeoutMs)}`;
  const race = 'the worker closes such a connection just as nginx sends the next request on it: a GET is tried again, a POST is a 502';
  const found: Finding[] = [];
  if (seen === undefined) {
    found.push({check, level: 'note', place, says: `${nginxKeeps}; no worker serves that could be asked how long it does`, means: `if it is less, ${race}`});
  } else if (seen.kind === 'stays') {
    const beyond = kept.timeoutMs > seen.forMs;
    found.push({check, level: beyond ? 'note' : 'ok', place, says: `${nginxKeeps}; a worker kept one for more than ${formatDuration(seen.forMs)}`, ...(beyond ? {means: `whether longer than nginx does was not waited for; if not, ${race}`} : {})});
  } else if (seen.afterMs >= kept.timeoutMs) {
    found.push({check, level: 'ok', place, says: `${nginxKeeps}; a worker closes idle ones after ${formatDuration(seen.afterMs)}, which is later`});
  } else if (seen.afterMs < AT_ONCE_MS) {
    found.push({check, level: 'ok', place, says: `${nginxKeeps}, but a worker closes each after its answer: none is ever kept`});
  } else {
    const seconds = Math.max(1, Math.floor(seen.afterMs / 1000) - 1);
    found.push({check, level: 'warning', place, says: `${nginxKeeps}; a worker closes idle connections after ~${formatDuration(Math.round(seen.afterMs / 100) * 100)}`, means: race, mend: write(`keepalive_timeout ${seconds}s`)});
  }
  const without = settings.passing.find(({scope, by}) => by === 'proxy' && (valuesIn(scope, 'proxy_http_version')?.[0] !== '1.1' || !emptiesConnection(scope)));
  if (kept.configured && without !== undefined && settings.version !== undefined && !atLeast(settings.version, DEFAULT_KEEPALIVE)) {
    found.push({
      check: 'nginx-upstream-keepalive-unused', level: 'note', place: placeOf(without.setting), says: 'the upstream has `keepalive`, but requests go there in HTTP/1.0 or with `Connection: close`',
      means: 'no connection is kept', mend: 'proxy_http_version 1.1;\nproxy_set_header Connection "";',
    });
  }
  return found;
}

/** Nobody keeps a connection to close it so soon. */
const AT_ONCE_MS = 500;

/** `proxy_set_header` is inherited all or none: one in a block hides all of those around it. */
function emptiesConnection(scope: Scope | undefined): boolean {
  if (scope === undefined) return false;
  const own = scope.settings.filter(({directive}) => directive.name.text === 'proxy_set_header');
  return own.length === 0 ? emptiesConnection(scope.outer) : own.some(({directive: {args: [name, value]}}) => name?.text.toLowerCase() === 'connection' && value?.text !== 'close');
}
