import {accessSync, constants, lchownSync, linkSync, lstatSync, lutimesSync, mkdirSync, readFileSync, readdirSync, readlinkSync, realpathSync, renameSync, rmdirSync, statSync, symlinkSync, unlinkSync, type Stats} from 'node:fs';
import {basename, dirname, join, resolve} from 'node:path';
import type {Config} from '../config/config.ts';
import {DeployError, errnoOf, messageOf} from '../errors.ts';
import {ignoreMissing, renameDurably, replaceFile, syncDirectory, unfinishedName} from '../state/atomic-file.ts';
import type {Identity} from '../support/accounts.ts';
import {groupName} from '../support/groups.ts';
import {lstatIfThere} from '../support/lstat-if-there.ts';
import type {HookedRepository} from './find-repository.ts';
import {parseHook, renderHook, sameApplication, type HookedApplication, type HookText} from './hook-script.ts';
import {spoolPath} from './request-spool.ts';
import {canAnswer, nameOf} from './spool-rights.ts';

/** One file that git or svn runs, and the name beside it under which a hook of before goes on. */
export interface HookFile {
  readonly file: string;
  readonly before: string;
  readonly text: HookText | {readonly kind: 'none'};
  /** All may execute it, as the mode says. */
  readonly executable: boolean;
}

export interface ChangedHook {
  readonly file: string;
  readonly changed: boolean;
  /** For people. */
  readonly did: string;
}

const LARGEST_HOOK = 1 << 20;
/** File systems without hard links say it in many ways; `protected_hardlinks` says EPERM. */
const NO_LINKS = ['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK', 'EXDEV'];

/** What the hooks are told about an application. `umask` belongs to the spool's rights. */
export function hookedApplication(config: Config, deployer: Identity, {umask, node, script}: {umask: string; node: string; script: string}): HookedApplication {
  const {app, stateDir, hook, file} = config;
  return {
    app, spool: spoolPath(stateDir), umask, waitSeconds: hook.wait ? Math.max(1, Math.ceil(hook.waitTimeoutMs / 1000)) : 0,
    uid: deployer.uid, gid: deployer.gid, stateDir, node, script, config: file,
  };
}

/** What stands in the places of the hooks. */
export function lookAtHooks({hooks, hooksDir}: HookedRepository, template: string): HookFile[] {
  return hooks.map(name => {
    const file = join(hooksDir, name);
    const stat = lstatIfThere(file);
    return {file, before: `${file}.before-osyw-deploy`, text: stat === undefined ? {kind: 'none'} : textOf(file, stat, template), executable: stat !== undefined && (stat.mode & 0o111) === 0o111};
  });
}

/**
 * Puts the hooks in place, or the application's line into those that are ours. Killed anywhere, it can be run again; a commit
 * meanwhile finds the hook of before or ours. Errors: USAGE, before anything is touched.
 */
export function installHooks(repository: HookedRepository, template: string, application: HookedApplication): ChangedHook[] {
  mayInstall(repository, template, application);
  const found = lookAtHooks(repository, template);
  return withFiles(repository, () => {
    makeHooksDir(repository);
    const owner = ownerOf(repository.hooksDir);
    return found.map(hook => {
      const {file, before, text} = hook;
      if (text.kind === 'foreign') keepBeside(file, before);
      const applications = text.kind === 'ours' ? withLine(text.applications, application) : [application];
      const rendered = renderHook(template, applications);
      if (text.kind === 'ours' && hook.executable && readFileSync(file, 'utf8') === rendered) return {file, changed: false, did: `is there already${first(before)}`};
      replaceFile(file, rendered, {mode: 0o755, ...(owner === undefined ? {} : {owner})});
      return {file, changed: true, did: `${text.kind === 'ours' ? 'brought up to date' : 'written'}${first(before)}`};
    });
  });
}

/** Touches nothing. Errors: USAGE for what an install would refuse. */
export function mayInstall(repository: HookedRepository, template: string, application: HookedApplication): void {
  renderHook(template, [application]);
  if (application.waitSeconds > 0 && !canAnswer(application)) {
    throw new DeployError('USAGE', `hook.wait cannot work: ${nameOf(application.uid)}, who deploys, may not answer an account that is in no group with it`, {
      hint: 'Name a group that holds both (`osyw-deploy hook install --group GROUP`), or take hook.wait out of the configuration.',
    });
  }
  for (const hook of lookAtHooks(repository, template)) refuseToInstall(hook);
  mayWriteHooks(repository, application);
}

/** Before the spool is made, which would stay. Errors: USAGE with all that has to be done, by whom. */
function mayWriteHooks({hooksDir, path}: HookedRepository, {stateDir, config, uid, gid}: HookedApplication): void {
  if (process.getuid?.() !== uid) return; // Root may; all others are told whose the state is.
  try {
    accessSync(existing(hooksDir), constants.W_OK | constants.X_OK);
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
    throw new DeployError('USAGE', `the hooks in ${hooksDir} cannot be changed: ${messageOf(error)}`, {
      hint: [
        `Nothing was made. As ${nameOf(statSync(path).uid)}, to whom the repository belongs: give ${nameOf(uid)} the right to write ${hooksDir}; then run it again.`,
        `Or as root, who believes only a configuration of its own (${nameOf(uid)} still deploys, for the state directory is its own):`,
        `  install -d -m 711 -o ${nameOf(uid)} -g ${groupName(gid)} ${stateDir}`,
        `  chown root:${groupName(gid)} ${config} && chmod 640 ${config}`,
        `  osyw-deploy hook install --config ${config} --repository ${path}`,
      ].join('\n'),
      cause: error,
    });
  }
}

/** The directory, or the nearest one above it that is there. */
function existing(directory: string): string {
  return lstatIfThere(directory) === undefined ? existing(dirname(directory)) : directory;
}

/** Takes the application's line out of the hooks; the last line takes the hook along, and the one of before is back. May run twice. */
export function uninstallHooks(repository: HookedRepository, template: string, application: HookedApplication): ChangedHook[] {
  const found = lookAtHooks(repository, template);
  for (const {file, before, text} of found) if (text.kind === 'changed') throw changedByHand(file, before);
  return withFiles(repository, () => {
    const owner = ownerOf(repository.hooksDir);
    return found.map(({file, before, text}): ChangedHook => {
      ignoreMissing(() => unlinkSync(unfinishedName(file))); // An install was killed.
      const hasBefore = lstatIfThere(before) !== undefined;
      if (text.kind === 'foreign') {
        if (!isOtherName(file, before)) return {file, changed: false, did: `is not ours and stays${hasBefore ? `; ${before} is left of a hook of before` : ''}`};
        ignoreMissing(() => unlinkSync(before)); // An install that was killed had come no further.
        return {file, changed: true, did: 'is what was there before'};
      }
      if (text.kind === 'ours') {
        const others = text.applications.filter(one => !sameApplication(one, application));
        if (others.length === text.applications.length) return {file, changed: false, did: 'knows nothing of this application and stays'};
        if (others.length > 0) {
          replaceFile(file, renderHook(template, others), {mode: 0o755, ...(owner === undefined ? {} : {owner})});
          return {file, changed: true, did: `goes on for ${others.map(({app}) => app).join(', ')}`};
        }
      }
      if (hasBefore) {
        renameDurably(before, file);
        return {file, changed: true, did: 'is what was there before'};
      }
      if (text.kind !== 'ours') return {file, changed: false, did: 'is not there'};
      ignoreMissing(() => unlinkSync(file));
      syncDirectory(repository.hooksDir);
      return {file, changed: true, did: 'removed'};
    });
  });
}

/** Removes the spool when it is empty. Returns how many files are left in it, 0 when it is gone. */
export function removeSpool(stateDir: string): number {
  const spool = spoolPath(stateDir);
  try {
    rmdirSync(spool);
    syncDirectory(stateDir);
    return 0;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return 0;
    if (errnoOf(error) !== 'ENOTEMPTY' && errnoOf(error) !== 'EEXIST') throw new DeployError('USAGE', `the spool ${spool} cannot be removed: ${messageOf(error)}`, {hint: 'The hooks are gone; run it again as root or as the account that deploys.', cause: error});
    return readdirSync(spool).length;
  }
}

/** Whether the file of before is only a second name of what stands in the hook's place: an install was killed in between. */
export function isOtherName(file: string, before: string): boolean {
  const [there, kept] = [lstatIfThere(file), lstatIfThere(before)];
  if (there === undefined || kept === undefined) return false;
  if (there.dev === kept.dev && there.ino === kept.ino) return true;
  return there.isSymbolicLink() && kept.isSymbolicLink() && readlinkSync(file) === readlinkSync(before);
}

function textOf(file: string, stat: Stats, template: string): HookText {
  if (stat.isSymbolicLink()) {
    // A link to one of ours, made by hand, is no hook of somebody else's: kept beside, it would run ours twice.
    const target = realPathOf(file);
    const text = target === undefined ? undefined : textOf(target, lstatSync(target), template);
    return text === undefined || text.kind === 'foreign' ? {kind: 'foreign'} : {kind: 'changed'};
  }
  return !stat.isFile() || stat.size > LARGEST_HOOK ? {kind: 'foreign'} : parseHook(readFileSync(file, 'utf8'), template);
}

function realPathOf(link: string): string | undefined {
  try {
    return realpathSync(link);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ELOOP') return undefined; // It leads nowhere.
    throw error;
  }
}

function refuseToInstall({file, before, text}: HookFile): void {
  if (text.kind === 'changed') throw changedByHand(file, before);
  if (text.kind !== 'foreign') return;
  refuseLinksTo(file);
  if (lstatSync(file).isDirectory()) throw new DeployError('USAGE', `${file} is a directory`, {hint: 'Move it away, then run `osyw-deploy hook install` again.'});
  if (lstatIfThere(before) !== undefined && !isOtherName(file, before)) {
    throw new DeployError('USAGE', `there are two hooks of somebody else's: ${file}, and ${before}, which an earlier install put aside`, {
      hint: `Only one can run before ours. Put what you need of both into ${before} and remove ${file} (or remove ${before}), then run \`osyw-deploy hook install\` again.`,
    });
  }
}

/** Links to a hook of before would lead to ours, and the old script would not run under their names any more. */
function refuseLinksTo(file: string): void {
  const directory = dirname(file);
  const leadsHere = (name: string) => {
    const link = join(directory, name);
    if (link === file || !lstatSync(link).isSymbolicLink()) return false;
    const target = resolve(directory, readlinkSync(link));
    return basename(target) === basename(file) && realPathOf(dirname(target)) === realPathOf(directory);
  };
  const links = readdirSync(directory).filter(leadsHere);
  if (links.length === 0) return;
  throw new DeployError('USAGE', `${links.join(', ')} in ${directory} ${links.length === 1 ? 'is a link' : 'are links'} to the hook ${basename(file)}, whose place ours takes`, {
    hint: `Give the script a name of its own and link to that: in ${directory}, mv ${basename(file)} our-hook && ln -s our-hook ${basename(file)}${links.map(link => ` && ln -sf our-hook ${link}`).join('')}. Then run \`osyw-deploy hook install\` again.`,
  });
}

function changedByHand(file: string, before: string): DeployError {
  return new DeployError('USAGE', `${file} was written by \`osyw-deploy hook install\` and changed by hand since`, {
    hint: `Put what you added into ${before} (executable; it runs first), remove ${file}, then run \`osyw-deploy hook install\` again. Other applications whose lines are in it must be installed again, too.`,
  });
}

/**
 * Gives what stands there its second name: inode, bytes, mode and times stay, and until ours is renamed over the first name a commit
 * finds it as ever. link(2) does not follow a symbolic link. Where there are no hard links a file has to be renamed, and a commit in
 * the next millisecond finds no hook.
 */
function keepBeside(file: string, before: string): void {
  if (isOtherName(file, before)) return;
  try {
    linkSync(file, before);
  } catch (error) {
    if (!NO_LINKS.includes(errnoOf(error) ?? '')) throw error;
    const stat = lstatSync(file);
    if (stat.isSymbolicLink()) {
      symlinkSync(readlinkSync(file), before);
      lutimesSync(before, stat.atime, stat.mtime);
    } else renameSync(file, before);
  }
  syncDirectory(dirname(file));
}

/** The line in its place: a hook that is written again says the same. A line of ours under an earlier name is the same application's. */
function withLine(applications: readonly HookedApplication[], application: HookedApplication): HookedApplication[] {
  const at = applications.findIndex(one => sameApplication(one, application));
  if (at === -1) return [...applications, application];
  return applications.flatMap((one, i) => i === at ? [application] : sameApplication(one, application) ? [] : [one]);
}

function first(before: string): string {
  return lstatIfThere(before) === undefined ? '' : `; what was there before runs first, as ${before}`;
}

/** As root we leave files to whoever has the directory; anybody else can only make their own. */
function ownerOf(directory: string): {uid: number; gid: number} | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const {uid, gid} = statSync(directory);
  return {uid, gid};
}

/** git makes no directory of hooks without a template for it. */
function makeHooksDir({hooksDir, data}: HookedRepository): void {
  if (lstatIfThere(hooksDir) !== undefined) return;
  const owner = ownerOf(data);
  mkdirSync(hooksDir, {recursive: true, mode: 0o755});
  if (owner !== undefined) lchownSync(hooksDir, owner.uid, owner.gid);
}

function withFiles<T>({hooksDir, path}: HookedRepository, effect: () => T): T {
  try {
    return effect();
  } catch (error) {
    if (error instanceof DeployError || errnoOf(error) === undefined) throw error;
    throw new DeployError('USAGE', `the hooks in ${hooksDir} cannot be changed: ${messageOf(error)}`, {hint: `Run it as root, or as the account that ${path} belongs to. It may be run again.`, cause: error});
  }
}
