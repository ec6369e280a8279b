import {existsSync, mkdtempSync, rmSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import type {Config} from '../config/config.ts';
import {DeployError} from '../errors.ts';
import {splitEdits} from '../support/edited-revision.ts';
import {openGit} from './git-command.ts';
import {gitRemote} from './git-url.ts';
import {findVcs} from './open-working-copy.ts';
import {openSvn} from './svn-command.ts';
import {asUrl} from './svn-working-copy.ts';

export interface Changes {
  readonly commits: number;
  readonly files: number;
}

/**
 * How much lies between two revisions, for people; undefined where that is not at hand: a git server is asked for no objects, and what
 * a repository refuses is told by whoever needs it. Writes nothing, in the working copy either.
 */
export async function countChanges(config: Config, fromName: string, toName: string, signal: AbortSignal): Promise<Changes | undefined> {
  const [from, to] = [splitEdits(fromName).revision, splitEdits(toName).revision];
  const aside = mkdtempSync(join(tmpdir(), 'osyw-deploy-count-'));
  const there = {...config, stateDir: aside};
  try {
    return await (findVcs(config.source.workingCopy, config.source.url) === 'svn' ? countInSvn(there, from, to, signal) : countInGit(there, from, to, signal));
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof DeployError) return undefined;
    throw error;
  } finally {
    rmSync(aside, {recursive: true, force: true});
  }
}

async function countInSvn(config: Config, from: string, to: string, signal: AbortSignal): Promise<Changes | undefined> {
  const {workingCopy, url} = config.source;
  const svn = openSvn(config);
  const [old, now] = [from, to].map(revision => Number(/^r(\d+)$/.exec(revision)?.[1]));
  if (old === undefined || now === undefined || !Number.isInteger(old) || !Number.isInteger(now)) return undefined;
  const place = url === undefined ? (await svn.stubborn('info', ['--show-item', 'url', '--no-newline', '--', `${workingCopy}@`], {signal})).stdout : asUrl(url);
  const [log, diff] = await Promise.all([
    // Of two revisions the way back is as long as the way there; svn takes the first one in.
    svn.stubborn('log', ['--quiet', '--xml', '--revision', `${Math.min(old, now) + 1}:${Math.max(old, now)}`, '--', `${place}@${Math.max(old, now)}`], {signal, network: true}),
    svn.stubborn('diff', ['--summarize', '--xml', `--old=${place}@${old}`, `--new=${place}@${now}`], {signal, network: true}),
  ]);
  return {commits: countOf(log.stdout, /<logentry\s/g), files: countOf(diff.stdout, /<path\s/g)};
}

async function countInGit(config: Config, from: string, to: string, signal: AbortSignal): Promise<Changes | undefined> {
  const {workingCopy, url} = config.source;
  const git = openGit(config);
  const remote = url === undefined ? undefined : gitRemote(url, workingCopy);
  try {
    // The work tree has what was fetched into it; a repository on this machine has it all.
    for (const place of [...(existsSync(workingCopy) ? [{cwd: workingCopy}] : []), ...(remote?.path === undefined ? [] : [{cwd: remote.path, remote}])]) {
      const [commits, files] = await Promise.all([
        git.run(['rev-list', '--count', `${from}...${to}`, '--'], {...place, signal}),
        git.run(['diff-tree', '-r', '-z', '--name-only', '--no-renames', from, to, '--'], {...place, signal}),
      ]);
      if (commits.exitCode === 0 && files.exitCode === 0) return {commits: Number(commits.stdout.trim()), files: countOf(files.stdout, /\0/g)};
    }
    return undefined;
  } finally {
    git.dispose();
  }
}

function countOf(text: string, part: RegExp): number {
  return text.match(part)?.length ?? 0;
}
