import {existsSync, realpathSync} from 'node:fs';
import {basename, dirname, join, resolve} from 'node:path';
import type {Config, NginxConfig} from '../config/config.ts';
import {findUpstreams, type ConfigFile} from '../nginx/effective-config.ts';
import {globToRegExp} from '../nginx/include-glob.ts';
import {parseConfig, type Directive} from '../nginx/parse-config.ts';
import {serverLines} from '../nginx/server-lines.ts';
import {formatDuration} from '../support/durations.ts';
import {candidateFor} from '../upstream/upstream-file.ts';
import type {KeepAlive} from './app-keepalive.ts';
import {counted, type Finding} from './finding.ts';
import {atLeast} from './nginx.ts';
import {nginxTime, passingTo, placeOf, settingIn, valuesIn, type Passing, type Scope, type Setting} from './nginx-scopes.ts';

/** What the checks of nginx's settings look at. */
export interface NginxSettings {
  /** As nginx reads them, the main file first. */
  readonly files: readonly ConfigFile[];
  readonly scopes: readonly Scope[];
  /** The blocks that send requests to our upstream. */
  readonly passing: readonly Passing[];
  /** The upstream's directives but for its servers, and those servers' parameters: as the next deploy writes them, or leaves them. */
  readonly directives: readonly Directive[];
  readonly servers: readonly (readonly string[])[];
  /** Where they are written down. */
  readonly place: string;
  /** A line of the block as it is to be written there. */
  write(line: string): string;
  /** Undefined where it is not known. */
  readonly version: readonly number[] | undefined;
}

export function nginxSettings(files: readonly ConfigFile[], scopes: readonly Scope[], version: readonly number[] | undefined, {nginx, count}: {nginx: NginxConfig; count: number}): NginxSettings {
  const common = {files, scopes, version, passing: passingTo(scopes, nginx.upstream)};
  if (!writesBlock(nginx)) {
    const [found] = findUpstreams(files, nginx.upstream);
    const lines = found === undefined ? [] : serverLines(found.directive);
    const place = found === undefined ? 'nginx.edit' : placeOf({file: found.file.path, directive: found.directive});
    return {...common, place, directives: found?.directive.block ?? [], servers: lines.map(({parameters}) => parameters.map(({text}) => text)), write: line => `${line};`};
  }
  const servers = Array.from({length: count}, () => Object.entries(nginx.server).map(([key, value]) => `${key}=${value}`));
  const directives = parseConfig(Buffer.from(nginx.directives.map(line => `${line};\n`).join('')));
  const others = (line: string) => nginx.directives.filter(one => one.split(/\s/)[0] !== line.split(/\s/)[0]);
  return {...common, place: 'nginx.directives', directives, servers, write: line => `directives: [${[...others(line), line].map(word => JSON.stringify(word)).join(', ')}]`};
}

/** Whether a deploy writes the whole block, from the configuration alone. */
function writesBlock(nginx: NginxConfig): boolean {
  return !('edit' in nginx) || nginx.edit === undefined;
}

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
  const values = servers.map(parameters => parameters.find(word => word.startsWith('max_fails='))?.slice('max_fails='.length) ?? '1');
  const timeout = servers.flat().find(word => word.startsWith('fail_timeout='))?.slice('fail_timeout='.length) ?? '10s';
  const counting = values.find(value => value !== '0');
  const single: Finding[] = workers.count > 1 ? [] : [{
    check: 'single-worker', level: 'note', place: 'workers.count', says: 'workers.count is 1',
    means: 'a deploy loses nothing, but a worker that dies has none beside it: until it is started again each request is a 502', mend: 'count: 2',
  }];
  const check = 'nginx-max-fails';
  if (counting === undefined) return [{check, level: 'ok', says: 'max_fails is 0: no worker is taken out for a failure, and the next one is tried at once', place: writesBlock(nginx) ? 'nginx.server' : place}, ...single];
  const zero = writesBlock(nginx) ? `server: {${Object.entries({...nginx.server, max_fails: '0'}).map(([key, value]) => ` ${key}: ${value}`).join(',')} }` : 'max_fails=0';
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

/** Whether the block on disk mixes what nginx refuses to mix. `files`: as nginx reads them, or the upstream file alone where it refuses them. */
export function hashWithBackup(files: readonly ConfigFile[], upstream: string): Finding[] {
  return findUpstreams(files, upstream).flatMap(({file, directive}) => {
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

/** Whether nginx reads the upstream file, or will once a deploy has written it; and whether any request is sent there. */
export function inclusion({files, scopes, passing}: NginxSettings, {upstream, file}: {upstream: string; file: string}): Finding[] {
  const read = files.some(({path}) => realPath(path) === realPath(file)) || (!existsSync(file) && includes(files, scopes).some(({pattern}) => fits(pattern, file)));
  const found: Finding[] = [read ? {check: 'nginx-includes-upstream', level: 'ok', says: `nginx reads ${file}`, place: file} : {
    check: 'nginx-includes-upstream', level: 'problem', place: files[0]?.path ?? file, says: `the running nginx does not read ${file}: no file of its configuration includes it`,
    means: 'the switch of every deploy is refused (SWITCH_REFUSED); the line belongs into `http { }`', mend: `include ${file};`,
  }];
  if (passing.length === 0) {
    found.push({
      check: 'nginx-passes-to-upstream', level: 'warning', place: files[0]?.path ?? file, says: `no location of nginx sends requests to upstream ${upstream} by its name`,
      means: 'a deploy changes nothing that a client would see', mend: `proxy_pass http://${upstream};`,
    });
  } else {
    found.push({check: 'nginx-passes-to-upstream', level: 'ok', says: `${counted(passing.length, 'location')} of nginx ${passing.length === 1 ? 'sends' : 'send'} requests to upstream ${upstream}`, place: passing.map(({setting}) => placeOf(setting)).join(', ')});
  }
  return found;
}

/** Names that editors, package managers and people give to what is not to be loaded. */
const STRAYS = (name: string) => [`${name}.tmp`, `${name}~`, `${name}.bak`, `${name}.dpkg-dist`, `${name}.rpmnew`];

/** Whether an `include` would load what is not meant to be: our candidate, or a copy that somebody left beside the upstream file. */
export function includeGlobs({files, scopes}: NginxSettings, file: string): Finding[] {
  const check = 'nginx-include-temporary';
  const [directory, name] = [dirname(file), basename(file)];
  const matching = includes(files, scopes).filter(({pattern}) => fits(pattern, file) || fits(pattern, candidateFor(file)));
  if (matching.length === 0) return [];
  const found = matching.flatMap(({pattern, setting}): Finding[] => {
    const mend = `include ${join(directory, '*.conf')};`;
    if (fits(pattern, candidateFor(file))) {
      return [{check, level: 'problem', place: placeOf(setting), says: `include ${pattern} fits ${candidateFor(file)}, which a deploy writes before it is renamed into place`, means: 'a reload at that moment finds the upstream twice and fails', mend}];
    }
    const stray = STRAYS(name).find(one => fits(pattern, join(directory, one)));
    if (stray === undefined) return [];
    return [{check, level: 'warning', place: placeOf(setting), says: `include ${pattern} fits ${stray}, too`, means: 'a copy that an editor or a package leaves there is loaded: nginx finds the upstream twice, and every reload fails until it is gone', mend}];
  });
  return found.length > 0 ? found : [{check, level: 'ok', says: `${matching.map(({pattern}) => `include ${pattern}`).join(', ')} loads no temporary file`}];
}

function includes(files: readonly ConfigFile[], scopes: readonly Scope[]): {pattern: string; setting: Setting}[] {
  const main = files[0]?.path ?? '/';
  const found = scopes.flatMap(({settings}) => settings).filter(({directive: {name, args}}) => name.text === 'include' && args[0] !== undefined)
    .map(setting => ({pattern: resolve(dirname(main), setting.directive.args[0]?.text ?? ''), setting}));
  return [...new Map(found.map(one => [one.setting.directive, one])).values()];
}

function fits(pattern: string, path: string): boolean {
  return /[*?[]/.test(pattern) ? globToRegExp(pattern).test(path) : pattern === path;
}

function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path; // Not there, or not ours to follow: it is then only equal to itself.
  }
}
