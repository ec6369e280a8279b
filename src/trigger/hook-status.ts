import {accessSync, constants, existsSync, statSync, statfsSync} from 'node:fs';
import {dirname, join} from 'node:path';
import {errnoOf} from '../errors.ts';
import {readHistory} from '../state/history.ts';
import {accountOf, type Identity} from '../support/accounts.ts';
import {groupName, membersOf} from '../support/groups.ts';
import {lstatIfThere} from '../support/lstat-if-there.ts';
import {octal} from '../support/octal.ts';
import {runCommand, type Command} from '../support/run-command.ts';
import {SYSTEM_PATH} from '../support/system-path.ts';
import type {HookedRepository} from './find-repository.ts';
import {differences, sameApplication, startCommand, type HookedApplication} from './hook-script.ts';
import {isOtherName, lookAtHooks, type HookFile} from './install-hook.ts';
import {readSpool, spoolPath} from './request-spool.ts';
import {canAnswer, nameOf, SPOOL_MODES} from './spool-rights.ts';

/** `changed`: by hand; `replaced`: somebody put another hook over ours; `outdated`: of another version, or with other settings than now. */
export type HookState = 'installed' | 'not_installed' | 'changed' | 'replaced' | 'outdated';

export interface HookStatus {
  readonly app: string;
  readonly repository: {readonly kind: HookedRepository['kind']; readonly path: string};
  /** `before`: the hook of before that runs first. */
  readonly hooks: readonly {readonly file: string; readonly state: HookState; readonly before: string | null}[];
  /** `mode` in octal, as chmod takes it; `waiting` null when this account may not look. */
  readonly spool: {readonly path: string; readonly mode: string; readonly owner: string; readonly group: string; readonly waiting: number | null} | null;
  /** Who would run the hook: whether it could file a request, and whether it may start the deploy. */
  readonly accounts: readonly {readonly account: string; readonly files: boolean; readonly starts: boolean}[];
  /** The newest request; `outcome` null while it waits. */
  readonly last: {readonly at: string; readonly by: string; readonly revision: string | null; readonly outcome: string | null} | null;
  readonly problems: readonly string[];
}

const COMMAND_MS = 10_000;
/** Of a large group so many are tried. */
const MOST_ACCOUNTS = 20;

/**
 * What is installed, and whether it would work; changes nothing. As root it is tried as each account, else judged by the modes.
 * `wanted`: the line that an install would write now, but for its umask. Errors: the system's, when the repository cannot be read.
 */
export async function hookStatus(repository: HookedRepository, template: string, wanted: HookedApplication, signal: AbortSignal): Promise<HookStatus> {
  const problems: string[] = [];
  const hooks = lookAtHooks(repository, template).map(hook => stateOf(hook, wanted, problems));
  const installed = hooks.find(({line}) => line !== undefined)?.line;
  const spool = spoolNow(wanted, installed, problems);
  const accounts = installed === undefined ? [] : await judge(repository, installed, {signal, problems});
  return {
    app: wanted.app,
    repository: {kind: repository.kind, path: repository.path},
    hooks: hooks.map(({file, state, before}) => ({file, state, before})),
    spool,
    accounts,
    last: lastRequest(wanted),
    problems,
  };
}

/** As much as is known without trying anything; `another`: the hook serves other applications, and not this one. */
export function hookAtAGlance(repository: HookedRepository, template: string, wanted: HookedApplication): {readonly state: HookState | 'another'; readonly problems: readonly string[]} {
  const problems: string[] = [];
  const looks = lookAtHooks(repository, template);
  const states = looks.map(hook => stateOf(hook, wanted, problems).state);
  const serves = looks.some(({text}) => text.kind === 'ours' && !text.applications.some(one => sameApplication(one, wanted)));
  const worst = states.find(state => state !== 'installed') ?? 'installed';
  return {state: worst === 'not_installed' && serves ? 'another' : worst, problems};
}

/** The state of one file, and the application's line in it. */
function stateOf({file, before, text, executable}: HookFile, wanted: HookedApplication, problems: string[]): {file: string; state: HookState; before: string | null; line?: HookedApplication} {
  const kept = lstatIfThere(before) !== undefined;
  const shown = {file, before: kept ? before : null};
  if (text.kind === 'none') {
    problems.push(kept ? `${file} is gone, and with it ${before} runs no more: run \`osyw-deploy hook install\`` : `${file} is not there: run \`osyw-deploy hook install\``);
    return {...shown, state: 'not_installed'};
  }
  if (text.kind === 'changed') {
    problems.push(`${file} was changed by hand: \`osyw-deploy hook install\` says what to do`);
    return {...shown, state: 'changed'};
  }
  if (text.kind === 'foreign') {
    const replaced = kept && !isOtherName(file, before);
    problems.push(replaced ? `${file} is not ours any more: somebody replaced it` : `${file} is somebody else's hook: \`osyw-deploy hook install\` keeps it and runs it first`);
    return {file, before: null, state: replaced ? 'replaced' : 'not_installed'};
  }
  const line = text.applications.find(one => sameApplication(one, wanted));
  if (line === undefined) {
    problems.push(`${file} serves ${text.applications.map(({app}) => app).join(', ')}, not this application: run \`osyw-deploy hook install\``);
    return {...shown, state: 'not_installed'};
  }
  if (!executable) problems.push(`${file} is not executable, so it never runs: run \`osyw-deploy hook install\``);
  const differs = differences(line, {...wanted, umask: line.umask});
  if (differs.length > 0) problems.push(`${file} has another ${differs.join(', ')} than the configuration and this command have now: run \`osyw-deploy hook install\``);
  else if (!text.current) problems.push(`${file} was written by another version: run \`osyw-deploy hook install\``);
  return {...shown, state: differs.length > 0 || !text.current ? 'outdated' : 'installed', line};
}

function spoolNow({app, stateDir, waitSeconds}: HookedApplication, installed: HookedApplication | undefined, problems: string[]): HookStatus['spool'] {
  const path = spoolPath(stateDir);
  const stat = lstatIfThere(path);
  if (stat === undefined) {
    if (installed !== undefined) problems.push(`the spool ${path} is not there, so no request can be filed: run \`osyw-deploy hook install\``);
    return null;
  }
  const mode = stat.mode & 0o7777;
  if (!stat.isDirectory()) problems.push(`${path} is not a directory`);
  else if (installed !== undefined) {
    const expected: readonly number[] | undefined = SPOOL_MODES[installed.umask as keyof typeof SPOOL_MODES];
    // A umask that is not ours any more is that of an earlier version's hook, which is a problem of its own.
    if (expected?.includes(mode) === false) problems.push(`the spool ${path} has mode ${octal(mode)}, not ${expected.map(octal).join(' or ')}: run \`osyw-deploy hook install\``);
    if (waitSeconds > 0 && !canAnswer(installed)) problems.push(`hook.wait cannot work: ${nameOf(installed.uid)} may not answer an account that is in no group with it; name a group that holds both (\`osyw-deploy hook install --group GROUP\`)`);
    if (isFull(path)) problems.push(`the disk of the spool ${path} is full, so no request can be filed: make room`);
    if (stat.uid !== installed.uid) problems.push(`the spool ${path} belongs to ${nameOf(stat.uid)}, not to ${nameOf(installed.uid)}, who deploys: run \`osyw-deploy hook install\``);
  }
  return {path, mode: octal(mode), owner: nameOf(stat.uid), group: groupName(stat.gid), waiting: allowed(() => readSpool(stateDir, app).requests.length) ?? null};
}

/** Not even a request, which is one block, finds room. */
function isFull(path: string): boolean {
  const {bavail, ffree, files} = statfsSync(path);
  return bavail < 1 || (files > 0 && ffree < 1);
}

/** Tries, for each account that commits, what the hook would do under it. */
async function judge(repository: HookedRepository, line: HookedApplication, {signal, problems}: {signal: AbortSignal; problems: string[]}): Promise<HookStatus['accounts']> {
  const able = (account: Identity, path: string, right: 'r' | 'w' | 'x') => mayUse(account, path, right, signal);
  const deployer: Identity = {uid: line.uid, gid: line.gid, name: nameOf(line.uid)};
  let runs = true;
  for (const [path, right, need] of [[line.node, 'x', 'execute'], [line.script, 'r', 'read'], [line.config, 'r', 'read'], [join(line.stateDir, 'waiting'), 'w', 'lock']] as const) {
    if (await able(deployer, path, right)) continue;
    runs = false;
    problems.push(`${deployer.name}, who deploys, cannot ${need} ${path}: ${existsSync(path) ? 'mend its rights, or those of the directories above it' : 'it is not there'}`);
  }
  const flock = SYSTEM_PATH.split(':').map(directory => join(directory, 'flock')).find(file => existsSync(file));
  if (flock === undefined) problems.push('there is no flock(1), by which the hook starts the deploy: install util-linux');
  const hook = repository.hooks.map(name => join(repository.hooksDir, name)).find(file => existsSync(file)) ?? repository.hooksDir;

  const accounts: HookStatus['accounts'][number][] = [];
  for (const account of committers(repository)) {
    const files = await able(account, line.spool, 'w') && await able(account, line.spool, 'x') && await able(account, hook, 'x');
    if (!files) problems.push(`${account.name} commits and cannot file a request in ${line.spool}: run \`osyw-deploy hook install\`, or give it a group that the account is in (\`--group\`); the directories above must let it through`);
    const command = flock === undefined ? undefined : startCommand(line, flock);
    const may = command !== undefined && await mayStart(account, deployer, command, signal);
    if (!may && command !== undefined) problems.push(whyNot(account, deployer, command));
    accounts.push({account: account.name, files, starts: may && runs});
  }
  return accounts;
}

/** Who may write the repository, and so runs its hooks: its owner; the members of its group, or everybody, where they may write. */
function committers({data}: HookedRepository): Identity[] {
  const {uid, gid, mode} = statSync(data);
  const nobody = accountOf(65_534);
  const uids = [uid, ...((mode & 0o020) === 0 ? [] : membersOf(gid).slice(0, MOST_ACCOUNTS)), ...((mode & 0o002) === 0 || nobody === undefined ? [] : [nobody.uid])];
  return [...new Set(uids)].map(one => ({uid: one, gid: accountOf(one)?.gid ?? gid, name: nameOf(one)}));
}

/** As the account itself where we can become it, else by the modes of all that leads there. */
export async function mayUse(account: Identity, path: string, right: 'r' | 'w' | 'x', signal: AbortSignal): Promise<boolean> {
  if (account.uid === process.getuid?.()) {
    return allowed(() => {
      accessSync(path, {r: constants.R_OK, w: constants.W_OK, x: constants.X_OK}[right]);
      return true;
    }) === true;
  }
  if (process.getuid?.() !== 0) return account.uid === 0 || modesAllow(account, path, right);
  return await exitOf(under(account, {file: '/usr/bin/test', args: [`-${right}`, path]}), signal) === 0;
}

/** The account itself, root, or whoever sudo lets: as `start` in hooks/hook.sh does it. */
async function mayStart(account: Identity, deployer: Identity, command: readonly string[], signal: AbortSignal): Promise<boolean> {
  if (account.uid === deployer.uid) return true;
  // Nobody but root can try what root can do.
  if (account.uid === 0) return process.getuid?.() !== 0 || await exitOf(under(deployer, {file: '/usr/bin/true', args: []}), signal) === 0;
  const sudo = {file: '/usr/bin/sudo', args: ['-n', '-l', '-u', `#${deployer.uid}`, ...command]};
  if (!existsSync(sudo.file)) return false;
  if (account.uid === process.getuid?.()) return await exitOf(sudo, signal) === 0;
  // Nobody but root may ask about somebody else.
  return process.getuid?.() === 0 && await exitOf(under(account, sudo), signal) === 0;
}

/** With its groups, and otherwise free: `support/as-user.ts` would forbid sudo its rights. */
export function under({uid, gid}: Identity, {file, args}: Command): Command {
  const groups = accountOf(uid) === undefined ? '--clear-groups' : '--init-groups';
  return {file: '/usr/bin/setpriv', args: ['--reuid', String(uid), '--regid', String(gid), groups, '--', file, ...args]};
}

async function exitOf(command: Command, signal: AbortSignal): Promise<number | undefined> {
  return (await runCommand(command, {cwd: '/', env: {PATH: SYSTEM_PATH, LC_ALL: 'C.UTF-8'}, timeoutMs: COMMAND_MS, signal})).exitCode;
}

function modesAllow(account: Identity, path: string, right: 'r' | 'w' | 'x'): boolean {
  const stat = allowed(() => statSync(path));
  if (stat === null) return false;
  const bit = {r: 4, w: 2, x: 1}[right];
  const shift = stat.uid === account.uid ? 6 : stat.gid === account.gid || membersOf(stat.gid).includes(account.uid) ? 3 : 0;
  return ((stat.mode >> shift) & bit) !== 0 && (path === '/' || modesAllow(account, dirname(path), 'x'));
}

function whyNot(account: Identity, deployer: Identity, command: readonly string[]): string {
  if (account.uid === 0) return `root commits and cannot become ${deployer.name}: install util-linux, whose setpriv(1) does it`;
  const what = `${account.name} commits and may not start the deploy: its requests wait for the next \`osyw-deploy now\`, be it \`now --requested\` from cron`;
  // sudo puts the words together with blanks before it compares them: of such a line the account could make another command.
  const blank = command.find(word => /\s/.test(word));
  if (blank !== undefined) return `${what}. sudo cannot let it safely, for ${blank} has a blank, at which sudo does not tell one word from two: give it a path without blanks, run \`osyw-deploy hook install\`, and ask again`;
  return `${what}. To let it, put this line into a file in /etc/sudoers.d (with \`visudo -f\`):\n  ${sudoersLine(account, deployer, command)}`;
}

/** The line for /etc/sudoers that a problem ends with; undefined where it has none. */
export function sudoersIn(problem: string): string | undefined {
  return /\n {2}(\S.*)$/s.exec(problem)?.[1];
}

/** Whether a problem keeps nobody from filing a request: it is only deployed later than it could be. */
export function onlyDelays(problem: string): boolean {
  return problem.includes('commits and may not start the deploy');
}

/** Whether a problem is that the hook is not what an install would write now: it works all the same. */
export function isOutdated(problem: string): boolean {
  return /^\S.* (?:has another .* than the configuration and this command have now|was written by another version): /.test(problem);
}

/** A line for /etc/sudoers: in a command some characters have a meaning there. */
export function sudoersLine(account: Identity, deployer: Identity, command: readonly string[]): string {
  const name = ({uid}: Identity) => accountOf(uid)?.name ?? `\\#${uid}`;
  return `${name(account)} ALL=(${name(deployer)}) NOPASSWD: ${command.map(word => word.replace(/[,:=#\\*?[\]!"]/g, '\\$&')).join(' ')}`;
}

/** The newest of what waits in the spool and what the history has. */
function lastRequest({stateDir, app}: HookedApplication): HookStatus['last'] {
  const waiting = allowed(() => readSpool(stateDir, app).requests.at(-1));
  const ended = allowed(() => readHistory(stateDir).findLast(({trigger}) => trigger === 'hook'));
  if (waiting !== null && waiting !== undefined && (ended === null || ended === undefined || waiting.filedAt > ended.started_at)) {
    return {at: waiting.filedAt, by: waiting.requestedBy, revision: waiting.revision, outcome: null};
  }
  return ended === null || ended === undefined ? null : {at: ended.started_at, by: ended.requested_by, revision: ended.revision, outcome: ended.outcome};
}

/** What a look says; null where the system does not let us look, or there is nothing. */
function allowed<T>(look: () => T): T | null {
  try {
    return look();
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
    return null;
  }
}
