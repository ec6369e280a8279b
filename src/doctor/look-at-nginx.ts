import type {Config, NginxConfig} from '../config/config.ts';
import {DeployError} from '../errors.ts';
import {effectiveConfig, findUpstreams, parsed, type ConfigFile} from '../nginx/effective-config.ts';
import {serverLines} from '../nginx/server-lines.ts';
import type {Identity} from '../support/accounts.ts';
import {findMaster, findMasters, nginxChildren, type NginxMaster} from '../upstream/nginx-master.ts';
import {readUpstream} from '../upstream/upstream-file.ts';
import {upstreamText, type UpstreamText} from '../upstream/upstream-text.ts';
import {openConnections} from '../workers/connections.ts';
import {idleLife, type KeepAlive} from './app-keepalive.ts';
import type {Finding} from './finding.ts';
import {connectionLimits, isLoaded, masterUid, nginxLine, runningVersion, unreadFiles, USUAL_NGINX, versionOf, whichNginx} from './nginx.ts';
import {hashing, hashWithBackup, keepAliveRace, maxFails, nextUpstream, upstreamKeepAlive} from './nginx-balancing.ts';
import {includeGlobs, inclusion} from './nginx-includes.ts';
import {keepAliveResets, reusePort, shutdownTimeout} from './nginx-reloads.ts';
import {scopesOf, type Scope} from './nginx-scopes.ts';
import {nginxSettings, type NginxSettings} from './nginx-settings.ts';
import type {Records} from './records.ts';
import {reloadRights} from './rights.ts';

const PROC = '/proc';

/** All about nginx: the one that runs, and what its configuration says. */
export async function nginxFindings(config: Config, {records, deployer, signal}: {records: () => Records; deployer: Identity; signal: AbortSignal}): Promise<Finding[]> {
  const {nginx, drain, workers} = config;
  const text = upstreamText(config);
  const file = text.file();
  let master: NginxMaster;
  try {
    master = await findMaster(nginx);
  } catch (error) {
    if (!(error instanceof DeployError)) throw error;
    return [{check: 'nginx-running', level: 'problem', place: 'nginx.binary', says: error.message, means: `every deploy is refused before its switch (${error.code}). ${error.hint}`, mend: 'systemctl start nginx'}, ...hashWithBackup(aloneIn(file), nginx.upstream, 'http')];
  }
  const [version, rights, read] = await Promise.all([runningVersion(master, signal), reloadRights(nginx, deployer, masterUid(master), signal), readConfig(nginx, master)]);
  const children = nginxChildren(master);
  const running = [whichNginx(master, version, children), rights, isChangeable(text, file, workers)];
  if ('finding' in read) return [...running, read.finding, ...hashWithBackup(aloneIn(file), nginx.upstream, 'http')];
  const {files} = read;
  const scopes = scopesOf(files);
  const settings = nginxSettings(files, scopes, version, {nginx, count: workers.count});
  const seen = upstreamKeepAlive(settings) === undefined ? undefined : await askWorker(config, records(), files, signal);
  return [
    ...running,
    {check: 'nginx-config', level: 'ok', says: `nginx takes its configuration, ${files.length} files`, place: files[0]?.path ?? nginx.binary},
    ...unreadFiles(files),
    ...isLoaded(files, children, {master, file, namesServing: namesServing(text, file, records())}),
    ...inclusion(settings, {upstream: nginx.upstream, file}),
    ...includeGlobs(settings, {file, candidate: text.candidateFor(file)}),
    keepAliveResets(settings, await connectionsTo(settings)),
    shutdownTimeout(settings, drain),
    ...nextUpstream(settings, workers.count),
    ...maxFails(settings, config),
    ...hashing(settings),
    ...hashWithBackup(files, nginx.upstream),
    ...keepAliveRace(settings, seen),
    ...reusePort(settings),
    ...connectionLimits(scopes, children, PROC),
  ];
}

/** Without a configuration of ours: what can be said of the nginx of the distribution, if one runs. */
export async function usualNginx(signal: AbortSignal): Promise<Finding[]> {
  const [master] = (await findMasters(USUAL_NGINX)).fitting;
  if (master === undefined) {
    const version = await versionOf(USUAL_NGINX.binary, signal);
    return [{check: 'nginx-running', level: 'note', says: version === undefined ? `there is no ${USUAL_NGINX.binary}` : `nginx ${version.join('.')} is installed, and does not run`, mend: version === undefined ? 'apt-get install --yes nginx' : 'systemctl start nginx'}];
  }
  const [version, read] = await Promise.all([runningVersion(master, signal), readConfig(USUAL_NGINX, master)]);
  const children = nginxChildren(master);
  if ('finding' in read) return [whichNginx(master, version, children), read.finding];
  const scopes = scopesOf(read.files);
  const settings = {...nginxSettings(read.files, scopes, version, {nginx: USUAL_NGINX, count: 0}), passing: []};
  return [whichNginx(master, version, children), ...isLoaded(read.files, children, {master, file: '', namesServing: false}), keepAliveResets(settings, await connectionsTo(settings)), ...reusePort(settings), ...connectionLimits(scopes, children, PROC)];
}

/** As nginx reads it; or why it cannot be had. */
async function readConfig(nginx: NginxConfig, master: NginxMaster): Promise<{files: ConfigFile[]} | {finding: Finding}> {
  const check = 'nginx-config';
  try {
    return {files: await effectiveConfig(nginx, master)};
  } catch (error) {
    if (!(error instanceof DeployError)) throw error;
    const place = nginx.conf ?? nginx.binary;
    // What only nginx's own account may read is no fault of the configuration.
    if (/\(13: Permission denied\)/.test(error.message) && process.getuid?.() !== masterUid(master)) {
      return {finding: {check, level: 'note', place, says: `nginx's configuration is not ours to read: ${error.message}`, means: 'what it says is not looked at; look as the account that nginx runs as, or as root'}};
    }
    return {finding: {check, level: 'problem', place, says: error.message, means: 'nginx goes on with what it has loaded, and can neither be reloaded nor started again: every deploy is refused (SWITCH_REFUSED)', mend: nginxLine(master, '-t')}};
  }
}

/** The upstream file by itself: for when nginx refuses the whole. */
function aloneIn(path: string): ConfigFile[] {
  try {
    return [parsed({path, bytes: readUpstream(path) ?? Buffer.alloc(0)})];
  } catch (error) {
    if (error instanceof DeployError) return []; // Told by another check.
    throw error;
  }
}

/** Whether a switch could change the upstream file, as it looks before it does. */
function isChangeable(text: UpstreamText, place: string, {ports, count}: Config['workers']): Finding {
  const check = 'upstream-file';
  try {
    text.examine();
    text.render(readUpstream(place), Array.from({length: count}, (_, i) => ports.first + i));
    return {check, level: 'ok', says: `a deploy may change ${place}`, place};
  } catch (error) {
    if (!(error instanceof DeployError)) throw error;
    return {check, level: 'problem', place, says: error.message, means: `every deploy is refused (${error.code})`, mend: error.hint};
  }
}

/** Whether the upstream file names the ports that serve, and no other. */
function namesServing(text: UpstreamText, file: string, {state}: Records): boolean {
  const serving = state?.serving?.workers.map(({port}) => port);
  return serving !== undefined && text.ports(readUpstream(file)).join() === serving.join();
}

/** How many clients are connected to the servers that send requests to us; to all of them where none is known to. */
async function connectionsTo({scopes, passing}: NginxSettings): Promise<number> {
  const serverOf = (scope: Scope | undefined): Scope | undefined => scope === undefined || scope.name === 'server' ? scope : serverOf(scope.outer);
  const servers = passing.length === 0 ? scopes.filter(({name}) => name === 'server') : passing.map(({scope}) => serverOf(scope));
  const ports = servers.flatMap(server => server?.settings.filter(({directive: {name}}) => name.text === 'listen').flatMap(({directive: {args}}) => portOf(args[0]?.text ?? '') ?? []) ?? []);
  return [...(await openConnections([...new Set(ports)])).values()].reduce((sum, n) => sum + n, 0);
}

/** Of a `listen`; undefined for a socket in the file system. */
function portOf(address: string): number | undefined {
  if (address.startsWith('unix:')) return undefined;
  const digits = /^(\d+)$|:(\d+)$/.exec(address);
  return Number(digits?.[1] ?? digits?.[2] ?? 80);
}

/** Asks a worker that serves: one on record, else the first that nginx names. */
async function askWorker({nginx, workers, check}: Config, {state}: Records, files: readonly ConfigFile[], signal: AbortSignal): Promise<KeepAlive | undefined> {
  const port = state?.serving?.workers[0]?.port;
  if (port !== undefined) return idleLife(workers.host, port, check, signal);
  const targets = findUpstreams(files, nginx.upstream).flatMap(({directive}) => serverLines(directive)).flatMap(({target, down}) => target !== undefined && 'port' in target && !down ? [target] : []);
  const [first] = targets;
  return first === undefined ? undefined : idleLife(first.host, first.port, check, signal);
}
