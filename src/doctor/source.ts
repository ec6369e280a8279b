import {mkdtempSync, rmSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import type {Config} from '../config/config.ts';
import {masked} from '../config/shown.ts';
import {DeployError} from '../errors.ts';
import {shellWord} from '../service/quoting.ts';
import type {Identity} from '../support/accounts.ts';
import {lstatIfThere} from '../support/lstat-if-there.ts';
import {runCommand} from '../support/run-command.ts';
import {SYSTEM_PATH} from '../support/system-path.ts';
import {nameOf} from '../trigger/spool-rights.ts';
import {gitDirectories, unfinishedCommand} from '../working-copy/git-files.ts';
import {openGit} from '../working-copy/git-command.ts';
import {parseGitStatus} from '../working-copy/git-status.ts';
import {findVcs} from '../working-copy/open-working-copy.ts';
import {resolveAside} from '../working-copy/resolve-aside.ts';
import {lastWords, namedFiles, shownText} from '../working-copy/shown-text.ts';
import {openSvn, type Svn} from '../working-copy/svn-command.ts';
import {parseSvnStatus} from '../working-copy/svn-status.ts';
import type {Moment} from './clock.ts';
import type {Finding} from './finding.ts';
import {atLeast} from './nginx.ts';
import {SECRET_NAME} from './secrets.ts';

const COMMAND_MS = 10_000;
/** git: `GIT_CONFIG_GLOBAL`; svn: `--password-from-stdin`. */
const OLDEST = {git: [2, 32], svn: [1, 10]} as const;

/** Whether the program is there, and new enough for what is asked of it. */
export async function vcsVersion(vcs: 'svn' | 'git', signal: AbortSignal): Promise<Finding> {
  const check = 'vcs-version';
  const {stdout, spawnError} = await runCommand({file: vcs, args: ['--version']}, {env: {PATH: SYSTEM_PATH, LC_ALL: 'C.UTF-8', HOME: '/'}, cwd: '/', timeoutMs: COMMAND_MS, signal});
  const [, major, minor, patch] = /version (\d+)\.(\d+)(?:\.(\d+))?/.exec(stdout) ?? [];
  const mend = `apt-get install --yes ${vcs === 'svn' ? 'subversion' : 'git'}`;
  if (major === undefined) return {check, level: 'problem', says: `${vcs} cannot be run (${spawnError ?? 'it says no version'})`, means: 'no revision can be fetched (UPDATE_FAILED)', mend};
  const version = [major, minor, patch ?? '0'].map(Number);
  if (!atLeast(version, OLDEST[vcs])) return {check, level: 'problem', says: `${vcs} is ${version.join('.')}; at least ${OLDEST[vcs].join('.')} is needed`, means: 'passwords and settings cannot be given to it without others reading them', mend};
  return {check, level: 'ok', says: `${vcs} is ${version.join('.')}`};
}

/** Whether the repository answers, lets us in, and has something to deploy: asked as a deploy would ask. */
export async function sourceReachable(config: Config, signal: AbortSignal): Promise<Finding> {
  const check = 'source-reachable';
  const place = 'source.url';
  try {
    const revision = await resolveAside(config, undefined, signal);
    return {check, level: 'ok', says: `the repository answers, and lets us in; ${revision} is the newest revision`, place};
  } catch (error) {
    if (!(error instanceof DeployError)) throw error;
    return {check, level: 'problem', says: error.message, means: `every deploy fails in update (${error.code}). ${error.hint}`, mend: triedAgain(config), place};
  }
}

/** The question as a person would ask it, to see the system's own words. */
function triedAgain({source: {url, username, workingCopy, branch}}: Config): string {
  const vcs = quietly(() => findVcs(workingCopy, url));
  const from = url === undefined ? workingCopy : masked(url);
  if (vcs === 'svn') return `svn info ${username === undefined ? '' : `--username ${shellWord(username)} `}${shellWord(from)}`;
  return `git ls-remote ${shellWord(url === undefined ? 'origin' : from)}${branch === undefined ? '' : ` ${shellWord(branch)}`}`;
}

function quietly<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch {
    return undefined; // What cannot be told is told by the finding itself.
  }
}

/** Whether an update would be refused: edits, conflicts, obstructions, an unfinished merge. Nothing is changed, the index neither. */
export async function workingCopyState(config: Config, vcs: 'svn' | 'git', signal: AbortSignal): Promise<{findings: Finding[]; moments: Moment[]}> {
  const {workingCopy, url} = config.source;
  const check = 'working-copy';
  const place = workingCopy;
  if (lstatIfThere(join(workingCopy, vcs === 'svn' ? '.svn' : '.git')) === undefined) {
    const findings: Finding[] = [url === undefined
      ? {check, level: 'problem', place, says: `${workingCopy} is no working copy, and source.url is not set`, means: 'there is nothing to deploy; with source.url set, to where the repository is, the first deploy makes the working copy', mend: vcs === 'svn' ? 'url: svn://HOST/PATH' : 'url: ssh://HOST/PATH'}
      : {check, level: 'note', place, says: `there is no working copy in ${workingCopy} yet: the first deploy makes it`}];
    return {findings, moments: []};
  }
  const aside = mkdtempSync(join(tmpdir(), 'osyw-deploy-look-'));
  try {
    const found = await (vcs === 'svn' ? lookAtSvn : lookAtGit)({...config, stateDir: aside}, signal);
    const faults = found.faults.filter(({kind}) => kind !== 'edits' || !config.watch.edits);
    const findings = faults.map(({says, mend}): Finding => ({check, level: 'problem', place, says, means: 'every deploy is refused in update (UPDATE_FAILED), and nothing of it touched', mend}));
    return {findings: findings.length > 0 ? findings : [{check, level: 'ok', place, says: `nothing in ${workingCopy} is in the way of an update`}], moments: found.moments};
  } finally {
    rmSync(aside, {recursive: true, force: true});
  }
}

interface Look {
  readonly faults: readonly {readonly kind: 'edits' | 'other'; readonly says: string; readonly mend: string}[];
  readonly moments: Moment[];
}

async function lookAtSvn(config: Config, signal: AbortSignal): Promise<Look> {
  const {workingCopy} = config.source;
  const svn = openSvn(config);
  const at = shellWord(workingCopy);
  const saved = savedEdits(config);
  const [status, info] = await Promise.all([
    svn.once('status', ['--xml', '--ignore-externals', '--', `${workingCopy}@`], {signal}),
    svn.once('info', ['--show-item', 'last-changed-date', '--no-newline', '--', `${workingCopy}@`], {signal}),
  ]);
  if (!status.ok) return {faults: [{kind: 'other', says: `svn cannot look at ${workingCopy}: ${lastWords(status.stderr)}`, mend: `svn cleanup ${at}`}], moments: []};
  const {edited, conflicted, obstructed, switched} = parseSvnStatus(status.stdout, workingCopy);
  const faults: Look['faults'] = [
    ...listed(conflicted, 'other', `conflicts in ${workingCopy}`, files => `svn resolve ${files}`, workingCopy),
    ...listed(obstructed, 'other', `something else stands where versioned files belong in ${workingCopy}`, files => `mv ${files} /var/tmp/`, workingCopy),
    ...listed(edited, 'edits', `local edits in ${workingCopy}`, files => `svn diff --git --force ${files} ${saved} && svn revert ${files}`, workingCopy),
    ...(switched.length === 0 ? [] : [{kind: 'other' as const, says: `parts of ${workingCopy} are switched to another URL: ${namedFiles(switched)}`, mend: await switchedBack(svn, workingCopy, switched, signal)}]),
  ];
  return {faults, moments: momentOf('the newest commit in the working copy', info.stdout)};
}

/** Where a mend saves what it takes away: appended, so that nothing saved before is replaced; in the home of who types it. */
function savedEdits({app}: Config): string {
  return `>>~/${app}-edits.diff`;
}

/** The lines that bring parts back to where they belong: below the URL of the whole. */
async function switchedBack(svn: Svn, workingCopy: string, switched: readonly string[], signal: AbortSignal): Promise<string> {
  const {stdout: top} = await svn.once('info', ['--show-item', 'relative-url', '--no-newline', '--', `${workingCopy}@`], {signal});
  return switched.slice(0, MOST_FILES).map(path => `svn switch ${shellWord(`${top}/${path.split('/').map(encodeURIComponent).join('/')}`)} ${shellWord(join(workingCopy, path))}`).join('\n');
}

async function lookAtGit(config: Config, signal: AbortSignal): Promise<Look> {
  const {workingCopy} = config.source;
  const git = openGit(config);
  const env = {GIT_OPTIONAL_LOCKS: '0'};
  try {
    const [status, log] = await Promise.all([
      git.run(['status', '--porcelain=v2', '--branch', '-z', '--untracked-files=no', '--ignore-submodules=all', '--no-renames'], {cwd: workingCopy, signal, env}),
      git.run(['log', '-1', '--format=%cI'], {cwd: workingCopy, signal, env}),
    ]);
    if (status.exitCode !== 0) return {faults: [{kind: 'other', says: `git cannot look at ${workingCopy}: ${lastWords(status.stderr)}`, mend: `git -C ${shellWord(workingCopy)} status`}], moments: []};
    const {edited, conflicted} = parseGitStatus(status.stdout);
    const directories = gitDirectories(workingCopy);
    const begun = directories === undefined ? undefined : unfinishedCommand(directories);
    const at = shellWord(workingCopy);
    const faults: Look['faults'] = [
      ...listed(conflicted, 'other', `conflicts in ${workingCopy}`, files => `git -C ${at} diff --binary HEAD -- ${files} ${savedEdits(config)} && git -C ${at} checkout HEAD -- ${files}`, ''),
      ...listed(edited, 'edits', `local edits in ${workingCopy}`, files => `git -C ${at} stash push -- ${files}`, ''),
      ...(begun === undefined ? [] : [{kind: 'other' as const, says: `a ${begun} was begun in ${workingCopy} and not ended`, mend: begun === 'bisect' ? `git -C ${at} bisect reset` : `git -C ${at} ${begun} --abort`}]),
    ];
    return {faults, moments: momentOf('the newest commit in the working copy', log.stdout)};
  } finally {
    git.dispose();
  }
}

const MOST_FILES = 10;

function listed(paths: readonly string[], kind: 'edits' | 'other', says: string, mend: (files: string) => string, below: string): Look['faults'] {
  if (paths.length === 0) return [];
  return [{kind, says: `${says}: ${namedFiles(paths)}`, mend: mend(paths.slice(0, MOST_FILES).map(path => shellWord(below === '' ? path : join(below, path))).join(' '))}];
}

function momentOf(what: string, text: string): Moment[] {
  const at = Date.parse(text.trim());
  return Number.isNaN(at) ? [] : [{what, at}];
}

/**
 * Whether the working copy's own records hold a password, which others can read there and git puts into arguments: in a URL, in one that others
 * are replaced by, in a header. What stands before the `@` of an http URL may be a token, alone or with a colon behind it: it is never shown.
 */
export async function passwordInRemote(workingCopy: string, signal: AbortSignal): Promise<Finding[]> {
  const check = 'password-in-remote';
  const directories = gitDirectories(workingCopy);
  if (directories === undefined) return [];
  const file = join(directories.common, 'config');
  const {exitCode, stdout} = await runCommand({file: 'git', args: ['config', '--file', file, '--includes', '--null', '--show-origin', '--list']}, {env: {PATH: SYSTEM_PATH, LC_ALL: 'C.UTF-8', HOME: '/'}, cwd: '/', timeoutMs: COMMAND_MS, signal});
  if (exitCode !== 0) return [{check, level: 'note', place: file, says: `git cannot read ${file}`, means: 'whether it holds a password is not looked at; look as the account that deploys, or as root'}];
  const findings = settingsIn(stdout).flatMap(setting => passwordIn(setting, workingCopy));
  return findings.length > 0 ? findings : [{check, level: 'ok', says: `no remote of ${workingCopy} has a password in its URL`, place: file}];
}

/** `remote.origin.url` is the name `url` in the section `remote`, of `origin`. */
interface GitSetting {
  readonly file: string;
  readonly section: string;
  readonly of: string | undefined;
  readonly name: string;
  readonly value: string;
}

/** Source: git-config(1), `--null`: pairs of origin and `key LF value`. */
function settingsIn(listed: string): GitSetting[] {
  return [...listed.matchAll(/file:([^\0]*)\0([^.\0]*)\.(?:([^\n\0]*)\.)?([^.\n\0]*)(?:\n([^\0]*))?\0/g)].map(([, file = '', section = '', of, name = '', value = '']) => ({file, section, of, name, value}));
}

function passwordIn({file, section, of, name, value}: GitSetting, workingCopy: string): Finding[] {
  const common = {check: 'password-in-remote', place: file};
  const readable = 'whoever can read that file has it, and so has everybody who sees git\'s arguments';
  const remedy = 'Put it into source.password_file, with source.username';
  if (section === 'remote' && of !== undefined && (name === 'url' || name === 'pushurl')) {
    const found = credentialsIn(value);
    if (found === undefined) return [];
    const mend = `git -C ${shellWord(workingCopy)} remote set-url ${name === 'pushurl' ? '--push ' : ''}${shellWord(of)} ${shellWord(found.bare)}\nusername: NAME`;
    return [found.password
      ? {...common, level: 'problem', says: `the remote "${shownText(of)}" of ${workingCopy} has a password in its URL`, means: `${readable}; a deploy refuses such a URL. ${remedy}`, mend}
      : {...common, level: 'warning', says: `the remote "${shownText(of)}" of ${workingCopy} has a name in its URL, which may be a token`, means: `${readable}. ${remedy}`, mend}];
  }
  if (section === 'url' && of !== undefined && (name === 'insteadof' || name === 'pushinsteadof')) {
    const found = credentialsIn(of);
    if (found === undefined) return [];
    return [{
      ...common, level: found.password ? 'problem' : 'warning', says: `git puts ${found.password ? 'a password' : 'a name, which may be a token,'} into each URL that begins with ${shownText(masked(value))} (url.${shownText(masked(of))}.${name === 'insteadof' ? 'insteadOf' : 'pushInsteadOf'})`,
      means: `${readable}. ${remedy}`, mend: `git config --file ${shellWord(file)} --edit\n[url "${found.bare}"]\nusername: NAME`,
    }];
  }
  const header = value.split(':')[0]?.trim() ?? '';
  if (section === 'http' && name === 'extraheader' && (SECRET_NAME.test(header) || /cookie/i.test(header))) {
    const key = `http.${of === undefined ? '' : `${of}.`}extraHeader`;
    return [{
      ...common, level: 'problem', says: `git sends a secret with each request, in the header ${shownText(header)} (${shownText(masked(key))})`, means: `whoever can read that file has it. ${remedy}`,
      mend: `git config --file ${shellWord(file)} ${masked(key) === key ? `--unset-all ${shellWord(key)}` : '--edit'}\nusername: NAME`,
    }];
  }
  return [];
}

/** The URL without what stands before its `@`; undefined where nothing secret can stand there. A password may hold a slash. */
function credentialsIn(url: string): {bare: string; password: boolean} | undefined {
  const [, scheme = '', usual, slashed, rest = ''] = /^([a-z][a-z0-9+.-]*:\/\/)(?:([^/]*)|([^/\s:@]*:(?!\d+\/).*))@(.*)$/is.exec(url) ?? [];
  const userinfo = usual ?? slashed ?? '';
  const password = userinfo.includes(':');
  return password || (userinfo !== '' && /^https?:/i.test(scheme)) ? {bare: `${scheme}${rest}`, password} : undefined;
}

/** Whether git refuses the work tree to the one who deploys, because it is another account's. */
export function safeDirectory(workingCopy: string, deployer: Identity): Finding[] {
  const owner = lstatIfThere(join(workingCopy, '.git'))?.uid;
  if (owner === undefined) return [];
  const check = 'git-safe-directory';
  if (owner === deployer.uid) return [{check, level: 'ok', says: `${workingCopy} belongs to ${deployer.name}, who deploys`, place: workingCopy}];
  return [{
    check, level: 'note', place: workingCopy, says: `${workingCopy} belongs to ${nameOf(owner)}, and ${deployer.name} deploys`,
    means: `git refuses it to ${deployer.name} ("dubious ownership"): osyw-deploy tells git by a file of its own that this one is meant, but commands by hand and build commands fail`, mend: `git config --global --add safe.directory ${shellWord(workingCopy)}`,
  }];
}
