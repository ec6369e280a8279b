import {accessSync, constants, readFileSync, readdirSync, readlinkSync, statSync} from 'node:fs';
import {basename, dirname, isAbsolute, join, normalize, resolve} from 'node:path';
import {findUpstreams, type ConfigFile} from '../nginx/effective-config.ts';
import {filesFrom} from '../nginx/file-with-upstream.ts';
import type {Directive} from '../nginx/parse-config.ts';
import {serverLines} from '../nginx/server-lines.ts';
import type {NginxFinding, UpstreamFinding} from './propose-config.ts';

/** The nginx that runs, or the system's where none does, and what its configuration says of upstreams. `main`: the one with this main file. */
export function findNginx(main?: string): NginxFinding {
  const masters = readdirSync('/proc').filter(name => /^\d+$/.test(name)).flatMap(masterOf).filter(master => main === undefined || mainFileOf(master) === main);
  // An nginx of our own account, and of these the system's, which is started without a word about its main file.
  const fits = ({own, conf}: Master) => (own ? 2 : 0) + (conf === undefined || conf.startsWith('/etc/') ? 1 : 0);
  const [master] = masters.toSorted((a, b) => fits(b) - fits(a));
  return {
    running: master !== undefined,
    pid: master?.pid,
    others: Math.max(0, masters.length - 1),
    binary: master?.binary,
    conf: master === undefined ? main : master.conf,
    prefix: master?.prefix,
    ...readNginx(main ?? mainFileOf(master)),
  };
}

function mainFileOf(master: Pick<Master, 'conf' | 'prefix'> | undefined): string {
  return master?.conf ?? join(master?.prefix ?? '/etc/nginx', 'nginx.conf');
}

/** What the files say, from the main one on; they are read as text, for `nginx -T` would open nginx's logs. */
export function readNginx(main: string): Pick<NginxFinding, 'includedDirectory' | 'upstreams'> {
  const files = filesFrom(main);
  return {includedDirectory: includedDirectory(files), upstreams: upstreamsIn(files)};
}

interface Master {
  readonly pid: number;
  /** It runs under our account. */
  readonly own: boolean;
  readonly binary: string | undefined;
  readonly conf: string | undefined;
  readonly prefix: string | undefined;
}

/** nginx writes its title over its command line: `nginx: master process /usr/sbin/nginx -c /etc/nginx/nginx.conf`. */
function masterOf(pid: string): Master[] {
  const title = readOrEmpty(`/proc/${pid}/cmdline`).replaceAll('\0', ' ').trim();
  const [, command] = /^nginx: master process (.*)$/s.exec(title) ?? [];
  if (command === undefined) return [];
  const option = (letter: string) => new RegExp(`(?:^| )-${letter} ?([^ ]+)`).exec(command)?.[1];
  const [given, place] = [option('c'), option('p')];
  const prefix = place === undefined || !isAbsolute(place) ? undefined : normalize(place).replace(/(?<=.)\/$/, '');
  // A relative one begins at the prefix; where that is not told, at the one that the binary was built with.
  const conf = given === undefined ? undefined : isAbsolute(given) ? normalize(given) : prefix === undefined ? undefined : join(prefix, given);
  const [program = ''] = command.split(' ');
  const own = statSync(`/proc/${pid}`, {throwIfNoEntry: false})?.uid === process.getuid?.();
  return [{pid: Number(pid), own, binary: isAbsolute(program) ? program : executableOf(pid), conf, prefix}];
}

function executableOf(pid: string): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/exe`).replace(/ \(deleted\)$/, '');
  } catch {
    // Another account's process: /proc shows its command line, not its program.
    return undefined;
  }
}

/** A directory whose *.conf the main file includes in its `http`, and in which this account may write: a further file's directory is beside the point of a proposal. */
function includedDirectory([main]: readonly ConfigFile[]): string | undefined {
  const included = (main?.directives ?? []).filter(({name}) => name.text === 'http').flatMap(({block = []}) => block)
    .flatMap(({name, args: [first]}) => name.text === 'include' ? /^(.+)\/\*(?:\.conf)?$/.exec(first?.text ?? '')?.[1] ?? [] : [])
    .map(directory => resolve(dirname(main?.path ?? '/'), directory))
    .filter(directory => /^[^*?[\]\s"';{}$]+$/.test(directory) && mayWrite(directory));
  return included.find(directory => basename(directory) === 'conf.d');
}

function mayWrite(directory: string): boolean {
  try {
    accessSync(directory, constants.W_OK);
    return statSync(directory).isDirectory();
  } catch {
    return false;
  }
}

/** Every upstream of `http`, with its servers on this machine. */
function upstreamsIn(files: readonly ConfigFile[]): UpstreamFinding[] {
  const names = new Set(files.flatMap(({directives}) => upstreamNames(directives)));
  return [...names].flatMap(name => findUpstreams(files, name).map(({file, directive}) => ({
    name, file: file.path,
    ports: serverLines(directive).flatMap(({target}) => target !== undefined && 'port' in target && /^(?:127\.[\d.]+|localhost|::1)$/i.test(target.host) ? [target.port] : []),
  })));
}

function upstreamNames(directives: readonly Directive[]): string[] {
  return directives.flatMap(({name, args: [first], block}) => [...(name.text === 'upstream' && first !== undefined ? [first.text] : []), ...upstreamNames(block ?? [])]);
}

function readOrEmpty(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    // A process that ended meanwhile, or a file that is not ours to read: nothing is known about it.
    return '';
  }
}
