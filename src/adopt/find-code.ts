import {accessSync, constants, existsSync, lstatSync, readdirSync, realpathSync, statSync} from 'node:fs';
import {basename, delimiter, dirname, isAbsolute, join, relative, resolve} from 'node:path';
import {findSource} from '../config/look-around.ts';
import type {SourceFinding} from '../config/propose-config.ts';
import {DeployError} from '../errors.ts';
import {runCommand} from '../support/run-command.ts';
import {SYSTEM_PATH} from '../support/system-path.ts';
import {lastWords, shownText} from '../working-copy/shown-text.ts';
import {parseGitStatus} from '../working-copy/git-status.ts';
import {childOf, parseSvnXml} from '../working-copy/svn-xml.ts';
import type {FoundWorker} from './find-workers.ts';

/** The working copy that the workers' code lies in. */
export interface FoundCode {
  readonly source: SourceFinding;
  /** As its system writes it. */
  readonly revision: string;
  /** svn: parts of the working copy were updated or committed by themselves, so `revision` is that of the newest. */
  readonly mixed: boolean;
  /** How it was found. */
  readonly because: string;
  /** Paths relative to the top. */
  readonly versioned: ReadonlySet<string>;
  /** Names at the top that are not versioned, and in no release. */
  readonly unversioned: readonly string[];
  /** Versioned files that were written after the first of the workers had started, relative to the top. */
  readonly newer: readonly string[];
  /** Versioned files that are edited: a deploy refuses them. */
  readonly edited: readonly string[];
}

const COMMAND_MS = 20_000;
/** Files carry the time of the kernel's last tick, and a checkout is not always the last thing before a start. */
const CLOCK_MS = 1000;

/**
 * Where the code of these workers is and which revision that is: by their directories, by absolute paths in their command lines, then
 * by the directory that they were started from. `given`: a directory in the working copy, where it is known.
 * Errors: USAGE where there is no working copy, or several.
 */
export async function findCode(workers: readonly FoundWorker[], given: string | undefined): Promise<FoundCode> {
  const {source, because} = given === undefined ? await placeOf(workers) : {source: await givenSource(given), because: '--working-copy says so'};
  const firstStart = Math.min(...workers.map(({startedAt}) => Date.parse(startedAt)));
  const {revision, mixed, versioned, edited} = source.vcs === 'svn' ? await askSvn(source.workingCopy) : await askGit(source.workingCopy);
  const newer = versioned.filter(path => {
    const stat = lstatSync(join(source.workingCopy, path), {throwIfNoEntry: false});
    return stat?.isFile() === true && stat.mtimeMs > firstStart + CLOCK_MS;
  });
  return {source, revision, mixed, because, versioned: new Set(versioned), unversioned: unversionedAt(source.workingCopy, versioned), newer, edited};
}

function unversionedAt(top: string, versioned: readonly string[]): string[] {
  const known = new Set(['.svn', '.git', '__pycache__', ...versioned.map(path => path.split('/')[0] ?? '')]);
  return readdirSync(top).filter(name => !known.has(name)).toSorted();
}

async function givenSource(directory: string): Promise<SourceFinding> {
  const source = await findSource(directory);
  if (source === undefined) throw new DeployError('USAGE', `--working-copy: ${shownText(directory)} is in no Subversion or git working copy`, {hint: 'Name the directory that `svn info` or `git status` knows.'});
  return source;
}

async function placeOf(workers: readonly FoundWorker[]): Promise<{source: SourceFinding; because: string}> {
  const known = new Map<string, SourceFinding | undefined>();
  const sourceAt = async (directory: string) => {
    if (!known.has(directory)) known.set(directory, await findSource(directory));
    return known.get(directory);
  };
  let first: {source: SourceFinding; because: string; port: number} | undefined;
  const looked = new Set<string>();
  for (const worker of workers) {
    let found: typeof first;
    for (const {directory, because} of placesToLook(worker)) {
      looked.add(directory);
      const source = await sourceAt(directory);
      if (source === undefined) continue;
      found = {source, because, port: worker.port};
      break;
    }
    if (found === undefined) {
      throw new DeployError('USAGE', `the code of the worker on port ${worker.port} is in no Subversion or git working copy; looked at ${[...looked].map(shownText).join(', ') || 'nothing that we may see'}`,
        {hint: 'Name its working copy with --working-copy DIR. Code that is under no version control has no revisions to deploy.'});
    }
    if (first !== undefined && first.source.workingCopy !== found.source.workingCopy) {
      throw new DeployError('USAGE', `the worker on port ${first.port} runs from ${shownText(first.source.workingCopy)}, the one on port ${found.port} from ${shownText(found.source.workingCopy)}`,
        {hint: 'Workers of one upstream must run the same code; where both hold it, name one with --working-copy DIR.'});
    }
    first ??= found;
  }
  if (first === undefined) throw new DeployError('USAGE', 'there is no worker');
  return first;
}

/** The most certain first. */
function placesToLook({directory, words, environment}: FoundWorker): {directory: string; because: string}[] {
  const [program, ...others] = words;
  const named = [...others, program ?? ''].filter(word => isAbsolute(word) && isFile(word))
    .map(word => ({directory: dirname(realpathSync(word)), because: `the command line names ${word}`}));
  const startedFrom = environment.get('PWD');
  const hasScript = startedFrom !== undefined && isAbsolute(startedFrom) && words.some(word => !isAbsolute(word) && word !== '' && isFile(resolve(startedFrom, word)));
  return [
    ...(directory === undefined || directory === '/' || !existsSync(directory) ? [] : [{directory, because: 'the workers run in it'}]),
    ...named,
    ...(hasScript ? [{directory: startedFrom, because: 'the workers were started from it'}] : []),
  ];
}

interface Asked {
  readonly revision: string;
  readonly mixed: boolean;
  readonly versioned: string[];
  readonly edited: string[];
}

async function askSvn(top: string): Promise<Asked> {
  const status = await ask('svn', ['status', '--non-interactive', '--config-dir', '/proc/none/svn', '--verbose', '--xml', '--ignore-externals', '--', `${top}@`]);
  const [versioned, edited]: [string[], string[]] = [[], []];
  // After `svn commit` in the working copy the new revision is that of the committed files alone, not of the directories above them.
  const updatedTo = new Set<string>();
  let newest = 0;
  for (const {attributes, children} of childOf(parseSvnXml(status), 'target')?.children ?? []) {
    const entry = children.find(({name}) => name === 'wc-status');
    const is = entry?.attributes ?? {};
    const [item = '', props] = [is['item'], is['props']];
    const path = relative(top, attributes['path'] ?? '') || '.';
    if (['unversioned', 'ignored', 'external', 'none', ''].includes(item)) continue;
    versioned.push(path);
    if (item !== 'normal' || (props !== 'none' && props !== 'normal')) edited.push(path);
    // What was added or copied here has no revision of its own yet.
    if (item === 'added' || is['copied'] === 'true') continue;
    if (is['revision'] !== undefined) updatedTo.add(is['revision']);
    newest = Math.max(newest, Number(entry === undefined ? 0 : childOf(entry, 'commit')?.attributes['revision'] ?? 0));
  }
  if (!Number.isSafeInteger(newest) || newest === 0) throw new DeployError('USAGE', `svn does not say which revision ${shownText(top)} has`, {hint: `See \`svn info ${shownText(top)}\`.`});
  return {revision: `r${newest}`, mixed: updatedTo.size > 1, versioned, edited};
}

async function askGit(top: string): Promise<Asked> {
  // root looks at the work trees of others; what a repository's own configuration names would be run.
  const git = (...args: string[]) => ask('git', ['-c', 'safe.directory=*', '-c', 'core.fsmonitor=false', '-c', 'core.hooksPath=/dev/null', '-C', top, '--no-optional-locks', '--no-pager', ...args]);
  const revision = (await git('rev-parse', '--verify', 'HEAD')).trim();
  const versioned = namesIn(await git('ls-files', '-z'));
  const isOwn = lstatSync(join(top, '.git')).uid === process.getuid?.();
  const filters = isOwn ? [] : withoutFilters(namesIn(await git('config', '--list', '--name-only', '-z')), top);
  // By content, unlike diff-index, for which a file that was only touched is edited.
  const {edits} = parseGitStatus(await git(...filters, 'status', '--porcelain=v2', '-z', '--untracked-files=no', '--ignore-submodules=all', '--no-renames'));
  return {revision, mixed: false, versioned, edited: edits.map(({path}) => path)};
}

function namesIn(text: string): string[] {
  return text.split('\0').filter(name => name !== '');
}

/** Clean filters are commands of somebody else's choice. Without them a filtered file that was touched may pass for edited. */
function withoutFilters(keys: readonly string[], top: string): string[] {
  const filters = new Set(keys.flatMap(key => /^(filter\..*)\.\w+$/s.exec(key)?.[1] ?? []));
  const odd = [...filters].find(name => name.includes('='));
  if (odd !== undefined) throw new DeployError('USAGE', `the configuration of ${shownText(top)} has a filter that cannot be turned off: ${shownText(odd)}`, {hint: 'Give it a name without "=", then adopt.'});
  return [...filters].flatMap(name => ['-c', `${name}.clean=`, '-c', `${name}.process=`, '-c', `${name}.required=false`]);
}

async function ask(file: string, args: readonly string[]): Promise<string> {
  const result = await runCommand({file, args}, {cwd: '/', env: {PATH: SYSTEM_PATH, HOME: '/', LC_ALL: 'C.UTF-8', GIT_CONFIG_NOSYSTEM: '1', GIT_TERMINAL_PROMPT: '0'}, timeoutMs: COMMAND_MS});
  if (result.exitCode === 0) return result.stdout;
  throw new DeployError('USAGE', `${file} ${args.find(word => /^[a-z]/.test(word)) ?? ''} does not tell of the working copy: ${lastWords(result.stderr) || (result.timedOut ? 'it did not end' : 'it said nothing')}`, {hint: 'Mend the working copy, then adopt.'});
}

/**
 * The command as a release runs it, in the top of its own tree: words that name versioned files name those of the release, and what else
 * lies in the working copy (a virtual environment, a file of settings) is named where it is, for it is part of no release.
 * `words` has the placeholder already, which stands for the worker's own port.
 */
export function asOfRelease(words: readonly string[], worker: FoundWorker, {source: {workingCopy}, versioned}: FoundCode): string[] {
  const top = realpathSync(workingCopy);
  const base = baseOf(worker);
  const isVersioned = (path: string) => versioned.has(path) || [...versioned].some(one => one.startsWith(`${path}/`));
  /** Undefined for what is not in the working copy. */
  const placed = (path: string): string | undefined => {
    const own = path.replaceAll('{port}', String(worker.port));
    const there = nearestThere(own);
    // The directory's links are followed, not the file's own: python knows its virtual environment by the name of the link.
    const real = join(realpathSync(dirname(there)), basename(there));
    if (!real.startsWith(`${top}/`)) return undefined;
    const inRelease = isVersioned(relative(top, real));
    // What is not there yet belongs where its directory is, when that is in no release; otherwise it is not known to be a path.
    if (there !== own && inRelease) return undefined;
    const fixed = nearestThere(dirname(path.replace(/\{port\}.*/s, 'x')));
    const named = join(realpathSync(fixed), relative(fixed, path));
    return inRelease ? relative(top, named) : named;
  };
  const [program = '', ...others] = words;
  const args = others.map(word => {
    const [, option = '', path = ''] = /^(--?[\w-]+=)?(.*)$/s.exec(word) ?? [];
    const isPath = path !== '' && (option !== '' || !path.startsWith('-')) && /[/.]/.test(path);
    if (!isPath || (!isAbsolute(path) && base === undefined)) return word;
    if (path === top) return `${option}.`;
    return `${option}${placed(resolve(base ?? '/', path)) ?? path}`;
  });
  const named = program.includes('/') ? resolve(base ?? '/', program) : programPath(program, worker);
  const place = named === undefined ? program : placed(named) ?? named;
  return [isAbsolute(place) || !place.includes('/') && place === program ? place : `./${place}`, ...args];
}

function nearestThere(path: string): string {
  return path === '/' || existsSync(path) ? path : nearestThere(dirname(path));
}

/** What relative words start from: the directory it runs in, and for a daemon, which left for `/`, the one that it was started from. */
function baseOf({directory, environment}: FoundWorker): string | undefined {
  const base = directory === undefined || directory === '/' ? environment.get('PWD') : directory;
  return base !== undefined && isAbsolute(base) && existsSync(base) ? realpathSync(base) : undefined;
}

/** Below the top, where that is not where the workers ran. */
export function subdirectoryOf(worker: FoundWorker, {source: {workingCopy}}: FoundCode): string | undefined {
  const base = baseOf(worker);
  const top = realpathSync(workingCopy);
  return base?.startsWith(`${top}/`) === true ? relative(top, base) : undefined;
}

/** A name without a path, as the shell that started it found it: the one that is the running program. */
function programPath(name: string, {executable, environment}: FoundWorker): string | undefined {
  const directories = [...(environment.get('PATH') ?? '').split(delimiter), ...SYSTEM_PATH.split(delimiter)].filter(isAbsolute);
  const candidates = directories.map(directory => join(directory, name)).filter(isProgram);
  return candidates.find(path => executable === undefined || realpathSync(path) === executable) ?? executable ?? candidates[0];
}

function isFile(path: string): boolean {
  try {
    return statSync(path).isFile();
  } catch {
    return false; // A word that is no name of a file, or one that is not ours to see.
  }
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return isFile(path);
  } catch {
    return false;
  }
}
