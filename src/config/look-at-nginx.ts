import {accessSync, constants, readFileSync, readdirSync, readlinkSync, statSync} from 'node:fs';
import {basename, dirname, isAbsolute, join, normalize, resolve} from 'node:path';
import {entriesOf} from '../support/entries-of.ts';
import type {NginxFinding, UpstreamFinding} from './propose-config.ts';

const MOST_FILES = 500;

/** The nginx that runs, or the system's where none does, and what its configuration says of upstreams. */
export function findNginx(): NginxFinding {
  const masters = readdirSync('/proc').filter(name => /^\d+$/.test(name)).flatMap(masterOf);
  // An nginx of our own account, and of these the system's, which is started without a word about its main file.
  const fits = ({own, conf}: Master) => (own ? 2 : 0) + (conf === undefined || conf.startsWith('/etc/') ? 1 : 0);
  const [master] = masters.toSorted((a, b) => fits(b) - fits(a));
  const main = master?.conf ?? join(master?.prefix ?? '/etc/nginx', 'nginx.conf');
  return {
    running: master !== undefined,
    pid: master?.pid,
    others: Math.max(0, masters.length - 1),
    binary: master?.binary,
    conf: master?.conf,
    prefix: master?.prefix,
    includedDirectory: includedDirectory(main),
    upstreams: upstreamsIn(main),
  };
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
  const option = (letter: string) => {
    const [, value] = new RegExp(`(?:^| )-${letter} ?(/[^ ]*)`).exec(command) ?? [];
    return value === undefined ? undefined : normalize(value).replace(/(?<=.)\/$/, '');
  };
  const [program = ''] = command.split(' ');
  const own = statSync(`/proc/${pid}`, {throwIfNoEntry: false})?.uid === process.getuid?.();
  return [{pid: Number(pid), own, binary: isAbsolute(program) ? program : executableOf(pid), conf: option('c'), prefix: option('p')}];
}

function executableOf(pid: string): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/exe`).replace(/ \(deleted\)$/, '');
  } catch {
    // Another account's process: /proc shows its command line, not its program.
    return undefined;
  }
}

/** A directory whose *.conf the main file includes, and in which this account may write: a further file's directory is beside the point of a proposal. */
function includedDirectory(conf: string): string | undefined {
  const text = bare(readOrEmpty(conf));
  const included = [...text.matchAll(/\binclude\s+([^\s;{}"'$*]+)\/\*(?:\.conf)?\s*;/g)]
    .map(([, directory = '']) => resolve(dirname(conf), directory))
    .filter(mayWrite);
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

/** Every upstream with servers of this machine; read as text, for `nginx -T` would open nginx's logs. */
function upstreamsIn(main: string): UpstreamFinding[] {
  return filesOf(main).flatMap(file => [...bare(readOrEmpty(file)).matchAll(/\bupstream\s+["']?([\w.-]+)["']?\s*\{([^{}]*)\}/g)].map(([, name = '', block = '']) => ({
    name, file,
    ports: [...block.matchAll(/\bserver\s+(?:127\.\d+\.\d+\.\d+|localhost|\[::1\]):(\d+)/g)].map(([, port]) => Number(port)),
  })));
}

/** The main file and what it includes, as far as this account may read it; only names have wildcards, as people write them. */
function filesOf(main: string): string[] {
  const files = [main];
  for (let i = 0; i < files.length && files.length < MOST_FILES; i++) {
    for (const [, pattern = ''] of bare(readOrEmpty(files[i] ?? '')).matchAll(/\binclude\s+["']?([^\s;{}"'$]+)["']?\s*;/g)) {
      const path = resolve(dirname(main), pattern);
      const fits = new RegExp(`^${basename(path).split('*').map(part => part.replaceAll(/[.+?^${}()|[\]\\]/g, '\\$&')).join('[^/]*')}$`);
      for (const name of readableEntries(dirname(path))) {
        const file = join(dirname(path), name);
        if (fits.test(name) && !files.includes(file)) files.push(file);
      }
    }
  }
  return files;
}

function readableEntries(directory: string): string[] {
  try {
    return entriesOf(directory).filter(name => !name.startsWith('.')).sort();
  } catch {
    return []; // Not ours to read: then nothing is known of what it includes.
  }
}

function bare(text: string): string {
  return text.replaceAll(/(?<=^|[\s;{}])#.*$/gm, '');
}

function readOrEmpty(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    // A process that ended meanwhile, or a file that is not ours to read: nothing is known about it.
    return '';
  }
}
