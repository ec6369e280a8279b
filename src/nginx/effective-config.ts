import {readFileSync} from 'node:fs';
import {dirname, resolve} from 'node:path';
import {DeployError, messageOf} from '../errors.ts';
import {runCommand} from '../support/run-command.ts';
import {SYSTEM_PATH} from '../support/system-path.ts';
import {dumpInShadow} from '../upstream/test-in-shadow.ts';
import {findMasters, testCommand, type NginxMaster, type NginxPlace} from '../upstream/nginx-master.ts';
import {globToRegExp} from './include-glob.ts';
import {ConfigSyntaxError, parseConfig, type Directive} from './parse-config.ts';

const TEST_TIMEOUT_MS = 30_000;
/** Somebody may write one of the files between nginx's reading and ours. */
const TRIES = 3;

/** A file of nginx's configuration, as nginx reads it now. */
export interface ConfigFile {
  /** As nginx names it: links are not followed. */
  readonly path: string;
  readonly bytes: Buffer;
  /** Empty where `fault` is set. */
  readonly directives: readonly Directive[];
  /** Why its text cannot be read, though nginx takes it. */
  readonly fault: string | undefined;
}

export interface FoundUpstream {
  readonly file: ConfigFile;
  readonly directive: Directive;
}

/**
 * All files that nginx reads, its main file first: those of `master`, by its own binary and arguments; without one those of the nginx that
 * runs; where none runs, those that the configuration names.
 * Errors: SWITCH_REFUSED with nginx's words, when it refuses them.
 */
export async function effectiveConfig(nginx: NginxPlace, master?: NginxMaster): Promise<ConfigFile[]> {
  const command = testCommand(master ?? (await findMasters(nginx)).fitting[0], nginx);
  for (let tried = 1;; tried++) {
    // As it is it would make an empty pid file, logs and temporary paths where they are missing.
    const result = await dumpInShadow(command) ?? await runCommand(command, {env: {PATH: SYSTEM_PATH, LC_ALL: 'C.UTF-8'}, cwd: '/', timeoutMs: TEST_TIMEOUT_MS});
    if (result.exitCode !== 0) {
      const words = result.stderr.trim() || (result.timedOut ? `no answer within ${TEST_TIMEOUT_MS / 1000} s` : `could not be run: ${result.spawnError ?? result.endedBy ?? 'unknown'}`);
      throw new DeployError('SWITCH_REFUSED', `nginx -T refuses the configuration:\n${words}`, {hint: 'Mend the file that nginx names.'});
    }
    const files = splitDump(result.stdout, path => readFileSync(path));
    if (files !== undefined) return files.map(parsed);
    if (tried === TRIES) throw new DeployError('SWITCH_REFUSED', 'what nginx -T prints is not what the files hold', {hint: 'Does somebody write them at this moment? Then try again.'});
  }
}

/**
 * The files in what `nginx -T` prints: each begins with `# configuration file PATH:`, then come its bytes and a line feed.
 * A file may hold such a line, too: so each is read itself, and its end is where its own bytes end.
 * Undefined when that does not come out even.
 */
export function splitDump(dump: string, read: (path: string) => Buffer): {path: string; bytes: Buffer}[] | undefined {
  const files: {path: string; bytes: Buffer}[] = [];
  let at = 0;
  while (at < dump.length) {
    const file = fileAt(dump, at, read);
    if (file === undefined) return undefined;
    files.push({path: file.path, bytes: file.bytes});
    at = file.end;
  }
  return files;
}

const MARKER = '# configuration file ';

/** A name may itself end a line with a colon, so every end of it is tried. */
function fileAt(dump: string, at: number, read: (path: string) => Buffer): {path: string; bytes: Buffer; end: number} | undefined {
  if (!dump.startsWith(MARKER, at)) return undefined;
  for (let colon = dump.indexOf(':\n', at); colon !== -1 && colon - at < 8192; colon = dump.indexOf(':\n', colon + 1)) {
    const path = dump.slice(at + MARKER.length, colon);
    const bytes = readIfPossible(path, read);
    if (bytes === undefined) continue;
    // The dump was decoded as a whole; a text that is cut at a line feed decodes to the same by itself.
    const text = `${bytes.toString('utf8')}\n`;
    if (dump.startsWith(text, colon + 2)) return {path, bytes, end: colon + 2 + text.length};
  }
  return undefined;
}

function readIfPossible(path: string, read: (path: string) => Buffer): Buffer | undefined {
  try {
    return read(path);
  } catch {
    return undefined; // Then it is no name, or the file is gone: the dump does not come out even.
  }
}

/** A text that cannot be read has no directives and says why. */
export function parsed({path, bytes}: {path: string; bytes: Buffer}): ConfigFile {
  try {
    return {path, bytes, directives: parseConfig(bytes), fault: undefined};
  } catch (error) {
    if (!(error instanceof ConfigSyntaxError)) throw error;
    return {path, bytes, directives: [], fault: messageOf(error)};
  }
}

/**
 * The blocks `upstream NAME` of `http`, through all includes, each once. Those of `stream` are others.
 * `context` is where the first of the files stands: '' for a main file, `http` for one that is included there.
 * A file whose place cannot be told, because the one that includes it cannot be read, counts as included in `http`.
 */
export function findUpstreams(files: readonly ConfigFile[], name: string, context: '' | 'http' = ''): FoundUpstream[] {
  const found = new Map<Directive, FoundUpstream>();
  const reached = new Map<ConfigFile, Set<string>>();
  const look = (file: ConfigFile, within: string) => {
    const contexts = reached.get(file) ?? new Set();
    if (contexts.has(within)) return;
    reached.set(file, contexts.add(within));
    walk(file, file.directives, within);
  };
  const walk = (file: ConfigFile, directives: readonly Directive[], within: string) => {
    for (const directive of directives) {
      const {name: {text}, args: [first], block} = directive;
      if (text === 'include' && first !== undefined) includedFiles(files, first.text).forEach(included => look(included, within));
      else if (within === 'http' && text === 'upstream' && first?.text === name && block !== undefined) found.set(directive, {file, directive});
      else if (block !== undefined) walk(file, block, within === '' ? text : `${within} ${text}`);
    }
  };
  const [main] = files;
  if (main !== undefined) look(main, context);
  for (const file of files) if (!reached.has(file)) look(file, 'http');
  return [...found.values()];
}

/** Those of the files that an `include` in any of them names: its pattern goes by the directory of the main file. */
export function includedFiles(files: readonly ConfigFile[], pattern: string): ConfigFile[] {
  const [main] = files;
  if (main === undefined) return [];
  const full = pattern.startsWith('/') ? pattern : `${dirname(main.path)}/${pattern}`;
  const names = /[*?[]/.test(full) ? globToRegExp(full) : undefined;
  return files.filter(({path}) => names === undefined ? resolve(path) === resolve(full) : names.test(path));
}
