import {realpathSync} from 'node:fs';
import {basename, resolve} from 'node:path';
import type {Config} from '../config/config.ts';
import {DeployError, errnoOf, messageOf} from '../errors.ts';
import {octal} from '../support/octal.ts';
import {plainText} from '../support/plain-text.ts';
import {findRepository, type HookedRepository} from '../trigger/find-repository.ts';
import type {HookedApplication} from '../trigger/hook-script.ts';
import {hookAtAGlance, hookStatus as lookAtHook, type HookState, type HookStatus} from '../trigger/hook-status.ts';
import {hookedApplication, installHooks, mayInstall, removeSpool, uninstallHooks} from '../trigger/install-hook.ts';
import {forgetOptions, rememberedOptions, rememberOptions, type InstallOptions} from '../trigger/install-options.ts';
import {spoolPath} from '../trigger/request-spool.ts';
import {deployerOf, makeSpool, spoolRights, type SpoolRights} from '../trigger/spool-rights.ts';
import type {Context} from './context.ts';

export interface HookOptions {
  readonly repository?: string;
  readonly group?: string;
  readonly anyone?: boolean;
}

const NOT_INSTALLED = 3;
const SYSTEM = {'svn': 'svn', 'git-bare': 'git, bare', 'git-work-tree': 'git, work tree'} as const;

/** `osyw-deploy hook install`: from now on a commit files a request. Run again, it brings everything up to date. */
export async function hookInstall(context: Context, given: HookOptions): Promise<number> {
  const config = context.loadConfig();
  const options = withRemembered(config, context, given);
  const repository = await find(config, context, options);
  const deployer = deployerOf(config.stateDir);
  const rights = spoolRights(repository, deployer, {group: options.group, anyone: options.anyone === true});
  const application = lineOf(config, rights.umask);
  // Refused before anything is made; and the spool before the hook, which the next commit may run already.
  mayInstall(repository, context.hookScript, application);
  const made = makeSpool(config.stateDir, deployer, rights);
  if (Object.keys(given).length > 0) rememberOptions(config.stateDir, options);
  const hooks = installHooks(repository, context.hookScript, application);
  if (context.json) context.output.out(`${JSON.stringify({repository: shownRepository(repository), hooks: hooks.map(({file, changed}) => ({file, changed})), spool: {path: application.spool, mode: octal(rights.mode)}})}\n`);
  else if (!context.quiet) {
    context.output.out([
      `${config.app}: commits to ${repository.path} (${SYSTEM[repository.kind]}) now ask for a deploy`,
      ...hooks.map(({file, did}) => `  ${file} ${did}`),
      `  ${application.spool}, mode ${octal(rights.mode)}${made ? '' : ', is there already'}; ${rights.why}`,
      ...(application.waitSeconds > 0 ? [`  a committer waits at most ${application.waitSeconds} s to hear how the deploy went (hook.wait)`] : []),
      'Try it with a commit; `osyw-deploy hook status` says whether every account that commits can do it.',
      '',
    ].map(plainText).join('\n'));
  }
  return 0;
}

/** `osyw-deploy hook uninstall`: what was there before the install is there again. */
export async function hookUninstall(context: Context, given: HookOptions): Promise<number> {
  const config = context.loadConfig();
  const options = withRemembered(config, context, given);
  const repository = await find(config, context, options);
  const hooks = uninstallHooks(repository, context.hookScript, lineOf(config, '077'));
  forgetOptions(config.stateDir);
  const left = removeSpool(config.stateDir);
  const spool = spoolPath(config.stateDir);
  if (context.json) context.output.out(`${JSON.stringify({repository: shownRepository(repository), hooks: hooks.map(({file, changed}) => ({file, changed})), spool: left === 0 ? null : {path: spool, left}})}\n`);
  else if (!context.quiet) {
    context.output.out([
      `${config.app}: commits to ${repository.path} (${SYSTEM[repository.kind]}) ask for no deploy any more`,
      ...hooks.map(({file, did}) => `  ${file} ${did}`),
      left === 0 ? `  ${spool} is gone` : `  ${spool} stays, for ${left === 1 ? 'a file is' : `${left} files are`} still in it: \`osyw-deploy now\` takes the requests, then uninstall again`,
      '',
    ].map(plainText).join('\n'));
  }
  return 0;
}

/** `osyw-deploy hook status`. Exit code: 0 all of it would work, 1 something would not, 3 not installed. */
export async function hookStatus(context: Context, given: HookOptions): Promise<number> {
  const config = context.loadConfig();
  const options = withRemembered(config, context, given);
  const repository = await find(config, context, options);
  const status = await lookAtHook(repository, context.hookScript, lineOf(config, '077'), context.signal);
  if (context.json) context.output.out(`${JSON.stringify(status)}\n`);
  else if (!context.quiet) context.output.out(plainText(tell(status, repository)));
  if (status.hooks.every(({state}) => state === 'not_installed')) return NOT_INSTALLED;
  return status.problems.length === 0 ? 0 : 1;
}

/** The hook in a word, for a plan; `unknown` where the repository is not on this machine, or cannot be told. Changes nothing and tries nothing. */
export async function glanceAtHook(context: Context, config: Config): Promise<{readonly state: HookState | 'another' | 'unknown'; readonly repository: string | null; readonly problems: readonly string[]}> {
  try {
    const repository = await find(config, context, rememberedOptions(config.stateDir));
    return {repository: repository.path, ...hookAtAGlance(repository, context.hookScript, lineOf(config, '077'))};
  } catch (error) {
    context.signal.throwIfAborted();
    // What the system refuses us, or a repository elsewhere: a plan goes on without.
    if (!(error instanceof DeployError) && errnoOf(error) === undefined) throw error;
    return {state: 'unknown', repository: null, problems: [messageOf(error)]};
  }
}

/** `--group` and `--anyone` exclude each other, so one that is told now puts out the other. */
function withRemembered({stateDir}: Config, {cwd}: Context, {repository, group, anyone}: HookOptions): InstallOptions {
  const before = rememberedOptions(stateDir);
  const who = group === undefined && anyone !== true ? {group: before.group, anyone: before.anyone} : {group, anyone};
  return {repository: repository === undefined ? before.repository : resolve(cwd, repository), ...who};
}

function find(config: Config, {cwd, signal}: Context, {repository}: InstallOptions): Promise<HookedRepository> {
  return findRepository(config.source, {repository, cwd, signal});
}

function lineOf(config: Config, umask: SpoolRights['umask']): HookedApplication {
  // Where a package puts the command there may be a link, which the next version moves; what was tried is what it leads to.
  const script = realpathSync(process.argv[1] ?? '');
  return hookedApplication(config, deployerOf(config.stateDir), {umask, node: process.execPath, script});
}

function shownRepository({kind, path}: HookedRepository): {kind: string; path: string} {
  return {kind, path};
}

export const STATES: Readonly<Record<HookState, string>> = {
  installed: 'installed',
  not_installed: 'not installed',
  changed: 'changed by hand',
  replaced: 'replaced by somebody',
  outdated: 'installed, but outdated',
};

function tell({app, hooks, spool, accounts, last, problems}: HookStatus, {path, kind}: HookedRepository): string {
  return [
    `${app}: ${path} (${SYSTEM[kind]})`,
    ...hooks.map(({file, state, before}) => `  ${file}: ${STATES[state]}${before === null ? '' : `; ${basename(before)} runs first`}`),
    ...(spool === null ? [] : [`  ${spool.path}: mode ${spool.mode}, of ${spool.owner}, group ${spool.group}; ${waiting(spool.waiting)}`]),
    ...accounts.map(({account, files, starts}) => `  ${account} ${files ? 'can file requests' : 'cannot file requests'}, and ${starts ? 'starts the deploy at once' : 'does not start the deploy'}`),
    ...(accounts.length > 0 && process.getuid?.() !== 0 ? ['  (judged by the modes; as root it would be tried)'] : []),
    `  last request: ${last === null ? 'none' : `${last.at.slice(0, 19).replace('T', ' ')} by ${last.by}, ${last.revision ?? 'no revision named'}, ${last.outcome ?? 'waits'}`}`,
    ...problems.map(problem => `→ ${problem}`),
    '',
  ].join('\n');
}

function waiting(count: number | null): string {
  if (count === null) return 'only who deploys may see what waits';
  return count === 1 ? '1 request waits' : `${count} requests wait`;
}
