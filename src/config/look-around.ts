import {readFileSync, realpathSync} from 'node:fs';
import {join} from 'node:path';
import {findAccount} from '../support/accounts.ts';
import {runCommand} from '../support/run-command.ts';
import {listeners, ownerAmong} from '../workers/listeners.ts';
import {allPids, commandLine, identify, readProcLink} from '../workers/process-identity.ts';
import {findNginx} from './look-at-nginx.ts';
import {defaultStateDir} from './places.ts';
import {namesIn} from './project-files.ts';
import type {Findings, ProgramFinding, RunningFinding, SourceFinding} from './propose-config.ts';
import {recogniseProgram} from './recognise-program.ts';
import {sourceUrlFault} from './source-url.ts';

const FIRST_PORT = 8811;
const RANGE = 20;
const LEAST_PORT = 1025;
const LAST_PORT = 65_535;

/** Looks at the directory, at nginx and at what listens; changes nothing and follows no network. */
export async function lookAround(directory: string, env: Readonly<Record<string, string | undefined>> = process.env, nginxMain?: string): Promise<Findings> {
  const uid = process.getuid?.() ?? 0;
  const root = uid === 0;
  const source = await findSource(directory);
  const nginx = findNginx(nginxMain);
  return {
    directory,
    source,
    program: recogniseProgram(source?.workingCopy ?? directory) ?? (source === undefined || source.workingCopy === directory ? undefined : below(source.workingCopy, directory)),
    running: findRunning(source?.workingCopy ?? directory),
    nginx,
    ports: freePorts(new Set([...listeningPorts(), ...nginx.upstreams.flatMap(({ports}) => ports), ...reservedPorts()])),
    root,
    home: env['HOME']?.startsWith('/') === true ? env['HOME'] : '/srv',
    stateDirOf: app => defaultStateDir(app, {uid, env}),
    workerUser: root ? findAccount('www-data')?.name : undefined,
  };
}

/** Workers start at the top of a release, not in the directory that `init` was run in. */
function below(workingCopy: string, directory: string): ProgramFinding | undefined {
  const found = recogniseProgram(directory);
  const path = directory.slice(workingCopy.length + 1);
  return found === undefined ? undefined : {...found, changes: [...(found.changes ?? []), `workers.command and release.build run at the top of the working copy, and what was recognised is in ${path}: name its files as ${path}/…`]};
}

/** The working copy that a directory belongs to; undefined when to none. Changes nothing. */
export async function findSource(directory: string): Promise<SourceFinding | undefined> {
  // root looks at directories of others; none of these three commands runs anything that a repository names.
  const git = (...args: string[]) => output('git', ['-c', 'safe.directory=*', '-C', directory, '--no-pager', ...args]);
  const gitRoot = await git('rev-parse', '--show-toplevel');
  const svn = (item: string) => output('svn', ['info', '--non-interactive', '--show-item', item, '--no-newline', '--', `${directory}@`]);
  const svnRoot = await svn('wc-root');
  // The inner one of the two is what the directory belongs to.
  if (svnRoot !== undefined && svnRoot.length >= (gitRoot?.length ?? 0)) {
    return {vcs: 'svn', workingCopy: svnRoot, ...storable(await output('svn', ['info', '--non-interactive', '--show-item', 'url', '--no-newline', '--', `${svnRoot}@`])), branch: undefined};
  }
  if (gitRoot === undefined) return undefined;
  const branch = await git('symbolic-ref', '--quiet', '--short', 'HEAD');
  return {vcs: 'git', workingCopy: gitRoot, ...storable(await git('remote', 'get-url', 'origin')), branch};
}

/** The URL as a configuration may hold it: without a password, and of http(s) without a name, which may be a token. */
function storable(url: string | undefined): {url: string | undefined; passwordLeftOut: boolean} {
  if (url === undefined) return {url: undefined, passwordLeftOut: false};
  if (sourceUrlFault(url) === undefined) {
    const nameless = url.replace(/^(https?:\/\/)[^/]*@/i, '$1');
    return {url: nameless, passwordLeftOut: nameless !== url};
  }
  const bare = url.replace(/(:\/\/).*@/s, '$1');
  return bare !== url && sourceUrlFault(bare) === undefined ? {url: bare, passwordLeftOut: true} : {url: undefined, passwordLeftOut: false};
}

async function output(file: string, args: string[]): Promise<string | undefined> {
  const result = await runCommand({file, args}, {
    env: {PATH: '/usr/bin:/bin', LC_ALL: 'C.UTF-8', GIT_TERMINAL_PROMPT: '0', GIT_CONFIG_NOSYSTEM: '1'},
    timeoutMs: 10_000,
  });
  const text = result.stdout.trim();
  return result.exitCode === 0 && text !== '' ? text : undefined;
}

/** What listens and runs in the working copy: as far as this account may see, whoever started it. */
function findRunning(workingCopy: string): RunningFinding[] {
  const top = realPath(workingCopy);
  const listening = listeners();
  return allPids().flatMap(pid => {
    const directory = readProcLink(`/proc/${pid}/cwd`);
    const self = directory === top || directory?.startsWith(`${top}/`) === true ? identify(pid) : undefined;
    if (self === undefined) return [];
    const ports = listening.filter(({inode}) => ownerAmong([self], inode) !== undefined).map(({port}) => port);
    return [...new Set(ports)].map(port => ({pid, port, command: commandLine(pid).join(' ')}));
  });
}

function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path; // Not there any more: then nothing runs in it.
  }
}

/** Ports on which anybody listens. */
export function listeningPorts(): Set<number> {
  return new Set(listeners().map(({port}) => port));
}

/** What other applications have for their workers, whether these run at the moment or not. */
export function reservedPorts(): number[] {
  return namesIn('/etc/osyw-deploy').filter(name => name.endsWith('.yaml')).flatMap(name => {
    const [, first, last] = /^\s*(?:workers:.*)?\bports:\s*["']?(\d+)-(\d+)/m.exec(readOrEmpty(join('/etc/osyw-deploy', name))) ?? [];
    return first === undefined ? [] : Array.from({length: Math.min(Number(last) - Number(first) + 1, 65_535)}, (_, i) => Number(first) + i);
  });
}

/** The first range of 20 of which none is taken; where the system picks the ports of outgoing connections only if there is no other. */
export function freePorts(taken: ReadonlySet<number>): {first: number; last: number} {
  const [, low = '32768', high = '60999'] = /(\d+)\s+(\d+)/.exec(readOrEmpty('/proc/sys/net/ipv4/ip_local_port_range')) ?? [];
  const among = (from: number, to: number) => {
    let first = from;
    for (let port = first; port < first + RANGE && port <= to; port++) {
      if (taken.has(port)) first = port + 1;
    }
    return first + RANGE - 1 <= to ? {first, last: first + RANGE - 1} : undefined;
  };
  return among(FIRST_PORT, Number(low) - 1) ?? among(Math.max(FIRST_PORT, Number(high) + 1), LAST_PORT) ?? among(LEAST_PORT, Math.min(FIRST_PORT, Number(low)) - 1)
    ?? among(FIRST_PORT, LAST_PORT) ?? {first: FIRST_PORT, last: FIRST_PORT + RANGE - 1};
}

function readOrEmpty(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    // A process that ended meanwhile, or a file that is not ours to read: nothing is known about it.
    return '';
  }
}
