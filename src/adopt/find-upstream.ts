import {networkInterfaces} from 'node:os';
import {realpathSync} from 'node:fs';
import {resolve} from 'node:path';
import {DeployError} from '../errors.ts';
import {effectiveConfig, findUpstreams, type ConfigFile, type FoundUpstream} from '../nginx/effective-config.ts';
import type {Directive} from '../nginx/parse-config.ts';
import {serverLines, type ServerLine} from '../nginx/server-lines.ts';
import {runningMasters, type NginxMaster} from '../upstream/nginx-master.ts';
import {accountIdOf} from '../workers/process-identity.ts';

/** An upstream block of a running nginx whose servers are all on this machine. */
export interface LocalUpstream {
  readonly master: NginxMaster;
  readonly mainFile: string;
  /** Several nginx run here: the main file tells which one is meant. */
  readonly oneOfSeveral: boolean;
  readonly name: string;
  /** As nginx names it: links are not followed. */
  readonly file: string;
  /** Of all its servers. */
  readonly host: string;
  /** In the order of the lines; those marked `down` are left out. */
  readonly ports: readonly number[];
}

interface Candidate extends FoundUpstream {
  readonly master: NginxMaster;
  readonly mainFile: string;
  readonly name: string;
}

/**
 * The upstream to take over: the one that is named, or the only one with a server on this machine.
 * `nginx`: the main file of the nginx that is meant; without it any that runs under root's account or ours.
 * Errors: USAGE with what was seen, where it cannot be told or could not be taken over whole; SWITCH_REFUSED when nginx refuses its own configuration.
 */
export async function findLocalUpstream({upstream, nginx, cwd}: {upstream: string | undefined; nginx: string | undefined; cwd: string}): Promise<LocalUpstream> {
  const all = await runningMasters();
  const wanted = nginx === undefined ? undefined : realPath(resolve(cwd, nginx));
  const running = wanted === undefined ? all : all.filter(({mainFile}) => realPath(mainFile) === wanted);
  if (running.length === 0) {
    const others = all.map(({master, mainFile}) => `\n  pid ${master.process.pid}, ${mainFile}`).join('');
    throw new DeployError('USAGE', `no nginx runs${wanted === undefined ? '' : ` with the main file ${nginx ?? ''}`}, so nothing can be adopted behind it${others === '' ? '' : `; these run:${others}`}`,
      {hint: 'Start nginx, or name the main file of the one that is meant with --nginx FILE. An nginx of another account than root or yours is not looked at.'});
  }
  const looks = await Promise.allSettled(running.map(async one => candidatesIn(await filesOf(one), one)));
  const candidates = looks.flatMap(look => look.status === 'fulfilled' ? look.value : []).filter(({name}) => upstream === undefined || name === upstream);
  const [found, second] = candidates;
  if (found === undefined) {
    // Another site's nginx that cannot be read is no obstacle, as long as one that can has the upstream.
    for (const look of looks) if (look.status === 'rejected') throw look.reason;
    throw new DeployError('USAGE', upstream === undefined ? 'no upstream of the running nginx has a server on this machine' : `the running nginx has no upstream ${upstream} with a server on this machine`,
      {hint: 'Name the upstream with --upstream NAME, as `proxy_pass http://NAME` has it. A `proxy_pass` to an address needs an upstream of its own first; `osyw-deploy init` begins with one.'});
  }
  if (second !== undefined) {
    const shown = candidates.map(({name, file, directive, mainFile}) => `\n  ${name}: ports ${localPorts(directive).join(', ')} in ${file.path}, nginx of ${mainFile}`).join('');
    throw new DeployError('USAGE', `it cannot be told which upstream is meant:${shown}`,
      {hint: candidates.some(({name}) => name !== found.name) ? 'Name it with --upstream NAME.' : 'Name the main file of the nginx that is meant with --nginx FILE.'});
  }
  return {master: found.master, mainFile: found.mainFile, oneOfSeveral: all.length > 1, name: found.name, file: found.file.path, ...serversOf(found)};
}

async function filesOf({master, mainFile}: Pick<Candidate, 'master' | 'mainFile'>): Promise<ConfigFile[]> {
  try {
    return await effectiveConfig({binary: master.binary, conf: mainFile, prefix: undefined}, master);
  } catch (error) {
    const theirs = accountIdOf(master.process.pid) !== process.getuid?.() && process.getuid?.() !== 0;
    if (!theirs || !(error instanceof DeployError)) throw error;
    throw new DeployError('USAGE', `nginx (pid ${master.process.pid}) runs as another account, and its configuration is not ours to read: ${error.message}`, {hint: 'Run it as root, or as the account of nginx; where another nginx is meant, name its main file with --nginx FILE.', cause: error});
  }
}

function candidatesIn(files: readonly ConfigFile[], nginx: Pick<Candidate, 'master' | 'mainFile'>): Candidate[] {
  const names = new Set(files.flatMap(({directives}) => namesIn(directives)));
  return [...names].flatMap(name => findUpstreams(files, name).filter(({directive}) => localPorts(directive).length > 0).map(found => ({...found, ...nginx, name})));
}

/** Of every block `upstream`, wherever it stands. */
function namesIn(directives: readonly Directive[]): string[] {
  return directives.flatMap(({name, args, block}) => [...(name.text === 'upstream' && args[0] !== undefined ? [args[0].text] : []), ...namesIn(block ?? [])]);
}

function localPorts(directive: Directive): number[] {
  return serverLines(directive).flatMap(({target, down}) => !down && target !== undefined && 'port' in target && isLocal(target.host) ? [target.port] : []);
}

/** Errors: USAGE for whatever a switch to fresh workers would lose. */
function serversOf({name, file, directive}: Candidate): {host: string; ports: number[]} {
  const refuse = (line: number, what: string, hint: string) => new DeployError('USAGE', `${file.path}:${line}: ${what}, so upstream ${name} cannot be adopted as it stands`, {hint});
  const included = directive.block?.find(({name: {text}}) => text === 'include');
  if (included !== undefined) throw refuse(included.line, 'an `include` stands in the block', 'Write its `server` lines into the block itself, reload nginx, then adopt.');
  const hosts = new Set<string>();
  const ports: number[] = [];
  for (const line of serverLines(directive)) {
    // A backup elsewhere, a page of excuses for one, stays what it is.
    if (line.down || (line.backup && (line.target === undefined || !('port' in line.target) || !isLocal(line.target.host)))) continue;
    const {host, port} = localTarget(line, refuse);
    hosts.add(host);
    if (ports.includes(port)) throw refuse(line.directive.line, `port ${port} is named twice`, 'Let each worker have one `server` line (`weight=2` counts twice), reload nginx, then adopt.');
    ports.push(port);
  }
  const [host = ''] = hosts;
  if (hosts.size > 1) throw refuse(directive.line, `its servers have several addresses: ${[...hosts].join(', ')}`, 'Write one address for all of them, reload nginx, then adopt.');
  return {host, ports};
}

function localTarget({target, backup, directive: {line}, address}: ServerLine, refuse: (line: number, what: string, hint: string) => DeployError): {host: string; port: number} {
  if (backup) throw refuse(line, `${address.text} is a \`backup\` on this machine, which would go on to run what it runs`, 'Take the line out or let it be one of the others, reload nginx, then adopt.');
  if (target === undefined || !('port' in target)) throw refuse(line, `${address.text} is no address with a port`, 'Workers listen on a port of their own, e.g. 127.0.0.1:8811.');
  if (!isLocal(target.host)) throw refuse(line, `${address.text} is not on this machine`, 'Only processes of this machine can be adopted; each machine deploys behind an upstream of its own.');
  return target;
}

function isLocal(host: string): boolean {
  if (host === 'localhost' || host === '::1' || /^127\.\d+\.\d+\.\d+$/.test(host)) return true;
  return Object.values(networkInterfaces()).some(addresses => addresses?.some(({address}) => address === host) === true);
}

function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path; // Not there, or not ours to follow: it is then only equal to itself.
  }
}
