import {existsSync} from 'node:fs';
import {dirname, join} from 'node:path';
import {fileURLToPath} from 'node:url';
import type {Config} from '../config/config.ts';
import type {WorkingCopy} from '../deploy/tools.ts';
import {DeployError} from '../errors.ts';
import {openGitWorkingCopy} from './git-working-copy.ts';
import {shownText} from './shown-text.ts';
import {openSvnWorkingCopy} from './svn-working-copy.ts';

export interface WorkingCopyUse {
  /** Only `resolve` is going to be called, and the working copy must not be touched at all: for a plan. */
  readonly onlyAsks: boolean;
}

/** The working copy of an application. Errors: CONFIG_INVALID when neither the copy nor the URL tells its system. */
export function openWorkingCopy(config: Config, use: WorkingCopyUse = {onlyAsks: false}): WorkingCopy {
  const vcs = config.source.vcs ?? findVcs(config.source.workingCopy, config.source.url);
  return vcs === 'svn' ? openSvnWorkingCopy(config, use) : openGitWorkingCopy(config, use);
}

/** svn or git, by looking at the working copy, then at the form of the URL, then at the repository when it is on this machine. */
export function findVcs(workingCopy: string, url: string | undefined): 'svn' | 'git' {
  if (existsSync(join(workingCopy, '.svn'))) return 'svn';
  if (existsSync(join(workingCopy, '.git'))) return 'git';
  if (url === undefined) {
    throw new DeployError('CONFIG_INVALID', `${workingCopy} is neither a Subversion nor a git working copy, and source.url is not set.`, {
      hint: 'Set source.url, then the first deploy checks it out; or mend source.working_copy.',
    });
  }
  if (/^svn(?:\+ssh)?:\/\//i.test(url)) return 'svn';
  if (/^(?:git|ssh):\/\//i.test(url) || /^[^/:]+:(?!\/\/)/.test(url)) return 'git';
  const path = url.startsWith('/') ? url : /^file:\/\//i.test(url) ? fileURLToPath(url) : undefined;
  const found = path === undefined ? undefined : repositoryAt(path);
  if (found !== undefined) return found;
  if (/\.git\/?$/i.test(url)) return 'git';
  throw new DeployError('CONFIG_INVALID', `Neither ${workingCopy} nor "${shownText(url)}" tells whether it is Subversion or git.`, {hint: 'Set source.vcs to svn or git.'});
}

/** A Subversion URL may name a directory inside the repository, so the parents are looked at too. */
export function repositoryAt(path: string): 'svn' | 'git' | undefined {
  if (existsSync(join(path, '.git')) || (existsSync(join(path, 'HEAD')) && existsSync(join(path, 'objects')))) return 'git';
  for (let directory = path; ; directory = dirname(directory)) {
    if (existsSync(join(directory, 'format')) && existsSync(join(directory, 'db'))) return 'svn';
    if (directory === dirname(directory)) return undefined;
  }
}
