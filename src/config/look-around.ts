import {readFileSync, readdirSync, readlinkSync, statSync} from 'node:fs';
import {basename, dirname, isAbsolute, normalize, resolve} from 'node:path';
import {findAccount} from '../support/accounts.ts';
import {runCommand} from '../support/run-command.ts';
import {defaultStateDir} from './places.ts';
import type {Findings, NginxFinding, SourceFinding} from './propose-config.ts';
import {recogniseProgram} from './recognise-program.ts';
import {sourceUrlFault} from './source-url.ts';

const FIRST_PORT = 8811;
const RANGE = 20;

/** Looks at the directory, at nginx and at what listens; changes nothing and follows no network. */
export async function lookAround(directory: string, env: Readonly<Record<string, string | undefined>> = process.env): Promise<Findings> {
  const uid = process.getuid?.() ?? 0;
  const root = uid === 0;
  return {
    directory,
    source: await findSource(directory),
    program: recogniseProgram(directory),
    nginx: findNginx(),
    ports: freePorts(listeningPorts()),
    root,
    home: env['HOME']?.startsWith('/') === true ? env['HOME'] : '/srv',
    stateDirOf: app => defaultStateDir(app, {uid, env}),
    workerUser: root ? findAccount('www-data')?.name : undefined,
  };
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

/** The URL as a configuration may hold it: without a password. */
function storable(url: string | undefined): {url: string | undefined; passwordLeftOut: boolean} {
  if (url === undefined) return {url: undefined, passwordLeftOut: false};
  if (sourceUrlFault(url) === undefined) return {url, passwordLeftOut: false};
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

function findNginx(): NginxFinding {
  const master = readdirSync('/proc').filter(name => /^\d+$/.test(name)).map(masterOf).find(found => found !== undefined);
  const prefix = master?.prefix;
  const conf = master?.conf;
  return {
    running: master !== undefined,
    binary: master?.binary,
    conf,
    prefix,
    includedDirectory: includedDirectory(conf ?? '/etc/nginx/nginx.conf'),
  };
}

/** nginx writes its title over its command line: `nginx: master process /usr/sbin/nginx -c /etc/nginx/nginx.conf`. */
function masterOf(pid: string): {binary: string | undefined; conf: string | undefined; prefix: string | undefined} | undefined {
  const title = readOrEmpty(`/proc/${pid}/cmdline`).replaceAll('\0', ' ').trim();
  const [, command] = /^nginx: master process (.*)$/s.exec(title) ?? [];
  if (command === undefined) return undefined;
  const option = (letter: string) => {
    const [, value] = new RegExp(`(?:^| )-${letter} ?(/[^ ]*)`).exec(command) ?? [];
    return value === undefined ? undefined : normalize(value).replace(/(?<=.)\/$/, '');
  };
  const [program = ''] = command.split(' ');
  return {binary: isAbsolute(program) ? program : executableOf(pid), conf: option('c'), prefix: option('p')};
}

function executableOf(pid: string): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/exe`).replace(/ \(deleted\)$/, '');
  } catch {
    // Another account's process: /proc shows its command line, not its program.
    return undefined;
  }
}

/** Only the main file is read: a directory that a further file includes is beside the point of a proposal. */
function includedDirectory(conf: string): string | undefined {
  const text = readOrEmpty(conf).replaceAll(/^\s*#.*$/gm, '');
  const included = [...text.matchAll(/\binclude\s+([^\s;{}"'$*]+)\/\*(?:\.conf)?\s*;/g)]
    .map(([, directory = '']) => resolve(dirname(conf), directory))
    .filter(directory => statSync(directory, {throwIfNoEntry: false})?.isDirectory() === true);
  return included.find(directory => basename(directory) === 'conf.d');
}

/** Ports on which anybody listens. */
export function listeningPorts(): Set<number> {
  const LISTEN = '0A';
  return new Set(['/proc/net/tcp', '/proc/net/tcp6'].flatMap(table => readOrEmpty(table).split('\n').flatMap(row => {
    const [, local = '', , state] = row.trim().split(/\s+/);
    return state === LISTEN ? [Number.parseInt(local.slice(local.lastIndexOf(':') + 1), 16)] : [];
  })));
}

/** The first range of 20 of which none is taken. */
export function freePorts(taken: ReadonlySet<number>): {first: number; last: number} {
  let first = FIRST_PORT;
  for (let port = first; port < first + RANGE && port <= 65_535; port++) {
    if (taken.has(port)) first = port + 1;
  }
  return first + RANGE - 1 <= 65_535 ? {first, last: first + RANGE - 1} : {first: FIRST_PORT, last: FIRST_PORT + RANGE - 1};
}

function readOrEmpty(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    // A process that ended meanwhile, or a file that is not ours to read: nothing is known about it.
    return '';
  }
}
