import {existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, unlinkSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {dirname, join} from 'node:path';
import {setTimeout as wait} from 'node:timers/promises';
import type {Config} from '../config/config.ts';
import type {WorkingCopy} from '../deploy/tools.ts';
import {DeployError} from '../errors.ts';
import {ignoreMissing} from '../state/atomic-file.ts';
import {splitEdits} from '../support/edited-revision.ts';
import {lstatIfThere} from '../support/lstat-if-there.ts';
import {copyEdits, editedName, editedPaths, openKnownEdits, refuseEditedName, refuseOtherCopies, refuseOtherEdits, type Edit} from './edits.ts';
import {gitFailure, isUnreachable, openGit, type GitRun} from './git-command.ts';
import {parseRawDiff, type GitChange} from './git-diff.ts';
import {checkedOutBranch, gitDirectories, isUntidy, presentLocks, unfinishedCommand, type GitDirectories} from './git-files.ts';
import {findObstructions} from './git-obstructions.ts';
import {parseGitStatus, type GitStatus} from './git-status.ts';
import {refuseUnsupported} from './git-tree-check.ts';
import {gitRemote, sameRemote, type GitRemote} from './git-url.ts';
import {refuseForeignDirectory} from './foreign-directory.ts';
import {liveCommands} from './live-commands.ts';
import type {WorkingCopyUse} from './open-working-copy.ts';
import {namesAny} from './path-globs.ts';
import {lastWords, namedFiles, shownText} from './shown-text.ts';

/** One fixed name: a ref named after the branch cannot be written when `topic` became `topic/a`. */
const TARGET = 'refs/osyw/deploy';
const EMPTY_TREES: Readonly<Record<number, string>> = {
  40: '4b825dc642cb6eb9a060e54bf8d69288fbee4904',
  64: '6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321',
};
const RECONNECT_AFTER_MS = [250, 750, 1500];
const LOCK_WAITS_MS = [100, 300, 600, 1200, 2500, 5000];
/** Longer ago, and somebody may have edited since. */
const LOOK_IS_FRESH_MS = 3000;

interface Look {
  readonly at: number;
  readonly status: GitStatus;
  readonly settings: ReadonlyMap<string, string>;
}

interface Source {
  readonly remote: GitRemote;
  readonly branch: string;
}

/** A git work tree that follows one branch of one repository. */
export function openGitWorkingCopy(config: Config, {onlyAsks}: WorkingCopyUse): WorkingCopy {
  const {workingCopy, url, timeoutMs, paths} = config.source;
  const withEdits = config.watch.edits;
  const git = openGit(config);
  const knownEdits = openKnownEdits(join(config.stateDir, 'git', 'osyw-edits.json'));
  const checkedFile = join(config.stateDir, 'git', 'osyw-checked');
  /** There until the first files of our own clone are complete: what stands in the work tree then is nobody's work. */
  const cloningFile = join(config.stateDir, 'git', 'osyw-cloning');
  let lookBegun: Promise<Look> | undefined;
  let lookedEarly = onlyAsks;
  let source: Source | undefined;
  /** The revision that `touches` fetched since the last `resolve`; the update to it need not fetch it again. */
  let fetchedForQuestion: string | undefined;
  /** The name that the work tree had last, and what of it was edited. */
  let met: {readonly name: string; readonly edits: readonly Edit[]} | undefined;
  let ahead: {readonly from: string; readonly to: string; readonly result: Promise<GitRun> | undefined} | undefined;

  const local = (args: readonly string[], signal: AbortSignal) => git.must(args, {cwd: workingCopy, signal});

  const look = async (signal: AbortSignal): Promise<Look> => {
    const at = performance.now();
    const [status, settings] = await Promise.all([readStatus(signal), readSettings(signal)]);
    return {at, status, settings};
  };

  const readStatus = async (signal: AbortSignal): Promise<GitStatus> => {
    // fileMode: a work tree that ignores the executable bit would hide an edit of it.
    const args = ['status', '--porcelain=v2', '--branch', '-z', '--untracked-files=no', '--ignore-submodules=all', '--no-renames'];
    // Who only asks writes nothing, the index neither.
    return parseGitStatus((await git.must(args, {cwd: workingCopy, signal, ...(onlyAsks ? {env: {GIT_OPTIONAL_LOCKS: '0'}} : {})})).stdout);
  };

  /** The revision with what somebody edited in here. */
  const nameWithEdits = async (sha: string, {head, edits}: GitStatus): Promise<string> => {
    // Without a commit nothing is edited: a clone is not complete yet.
    const own = head === undefined ? [] : edits;
    const unknown = own.filter(({path}) => path.includes('\ufffd'));
    if (unknown.length > 0) throw new DeployError('UPDATE_FAILED', `Files were edited in ${workingCopy} whose names are not UTF-8: ${namedFiles(unknown.map(({path}) => path))}.`, {hint: 'Commit them, or give the edits up.'});
    const name = await editedName(sha, own, workingCopy);
    met = {name, edits: own};
    return name;
  };

  const editsOf = (name: string): readonly Edit[] | undefined => met?.name === name ? met.edits : knownEdits.of(name);

  /** So that the next release can be made out of one of this name. */
  const remembered = (name: string): string => {
    if (met?.name === name) knownEdits.remember(name, met.edits);
    return name;
  };

  const readSettings = async (signal: AbortSignal): Promise<ReadonlyMap<string, string>> => {
    const {stdout} = await git.run(['config', '--null', '--get-regexp', '^(remote\\.origin\\.url|core\\.(filemode|symlinks|sparsecheckout|repositoryformatversion))$'], {cwd: workingCopy, signal});
    return new Map(stdout.split('\0').flatMap(record => {
      const [key, value] = record.split('\n', 2);
      return key === undefined || value === undefined ? [] : [[key.toLowerCase(), value] as const];
    }));
  };

  const settingsNow = async (signal: AbortSignal): Promise<ReadonlyMap<string, string>> =>
    lookBegun === undefined ? readSettings(signal) : (await lookBegun).settings;

  /** Which repository, and which branch of it. */
  const findSource = async (signal: AbortSignal): Promise<Source & {readonly tip: string}> => {
    const directories = gitDirectories(workingCopy);
    const remote = url !== undefined ? gitRemote(url, workingCopy) : await originOf(directories, signal);
    const branch = config.source.branch ?? (directories === undefined ? undefined : checkedOutBranch(directories));
    if (branch === undefined && directories !== undefined) throw detached(workingCopy);
    const {stdout} = await ask(['ls-remote', ...(branch === undefined ? ['--symref'] : []), '--end-of-options', remote.url, branch === undefined ? 'HEAD' : `refs/heads/${branch}`], remote, signal);
    const found = branch ?? /^ref: refs\/heads\/(.+)\tHEAD$/m.exec(stdout)?.[1];
    const name = branch === undefined ? 'HEAD' : `refs/heads/${branch}`;
    const tip = stdout.split('\n').map(line => line.split('\t')).find(([sha, ref]) => ref === name && /^[0-9a-f]{40,64}$/.test(sha ?? ''))?.[0];
    if (tip === undefined || found === undefined) {
      throw new DeployError('UPDATE_FAILED', `${shownText(remote.url)} has no ${branch === undefined ? 'branch to deploy: it is empty' : `branch "${branch}"`}.`, {
        hint: `See \`git ls-remote --heads ${shownText(remote.url)}\`, and set source.branch.`,
      });
    }
    return {remote, branch: found, tip};
  };

  const knownSource = async (signal: AbortSignal): Promise<Source> => {
    if (source !== undefined) return source;
    const {remote, branch} = await findSource(signal);
    source = {remote, branch};
    return source;
  };

  const originOf = async (directories: GitDirectories | undefined, signal: AbortSignal): Promise<GitRemote> => {
    if (directories === undefined) {
      throw new DeployError('UPDATE_FAILED', `${workingCopy} is not a git work tree, and source.url is not set.`, {
        hint: 'Set source.url, then the first deploy clones it; or clone it yourself.',
      });
    }
    const origin = (await settingsNow(signal)).get('remote.origin.url');
    if (origin === undefined) {
      throw new DeployError('UPDATE_FAILED', `${workingCopy} has no remote "origin", and source.url is not set.`, {hint: 'Set source.url, or `git remote add origin URL`.'});
    }
    if (/^[a-z+]+:\/\/[^/@]*:[^/@]*@/i.test(origin)) {
      throw new DeployError('UPDATE_FAILED', `The remote "origin" of ${workingCopy} has a password in its URL, which would stand in git's arguments for everybody to read.`, {
        hint: 'Set source.url without it, and source.username and source.password_file.',
      });
    }
    return gitRemote(origin, workingCopy);
  };

  /** A command that talks to the repository: a server that does not answer is asked again, a few times. */
  const ask = async (args: readonly string[], remote: GitRemote, signal: AbortSignal, cwd = gitDirectories(workingCopy) === undefined ? '/' : workingCopy): Promise<GitRun> => {
    const deadline = performance.now() + timeoutMs;
    for (let tries = 0; ; tries++) {
      const result = await git.run(args, {cwd, remote, signal});
      if (result.exitCode === 0) return result;
      const pause = RECONNECT_AFTER_MS[tries];
      if (!isUnreachable(result.stderr) || pause === undefined || performance.now() + pause > deadline) throw gitFailure(args, result, remote, config);
      await wait(pause, undefined, {signal});
    }
  };

  const resolve: WorkingCopy['resolve'] = async (wanted, signal) => {
    if (wanted !== undefined) refuseEditedName(wanted);
    const prefix = wanted === undefined ? undefined : parseHash(wanted);
    fetchedForQuestion = undefined;
    // Only for the first question: what is asked again and again is asked by polling, and without `watch.edits` a poll reads no tree.
    let begun: Promise<Look> | undefined;
    if (!lookedEarly && gitDirectories(workingCopy) !== undefined) {
      lookedEarly = true;
      begun = lookBegun = look(signal);
      lookBegun.catch(() => {}); // Told by `update`, which awaits it.
    }
    try {
      const {tip, ...found} = await findSource(signal);
      source = found;
      if (prefix !== undefined) return prefix === tip ? tip : await findCommit(prefix, found, tip, signal);
      if (!withEdits || gitDirectories(workingCopy) === undefined) return tip;
      return await nameWithEdits(tip, begun === undefined ? await readStatus(signal) : (await begun).status);
    } catch (error) {
      // Nothing of ours runs on after a failure.
      await lookBegun?.catch(() => {});
      throw error;
    } finally {
      // The look may still read its configuration from there.
      void Promise.allSettled([lookBegun]).then(() => git.dispose());
    }
  };

  /** The commit of these digits, if the branch reaches it. */
  const findCommit = async (prefix: string, {remote, branch}: Source, tip: string, signal: AbortSignal): Promise<string> => {
    const scratch = onlyAsks || gitDirectories(workingCopy) === undefined ? mkdtempSync(join(tmpdir(), 'osyw-deploy-')) : undefined;
    const cwd = scratch ?? workingCopy;
    try {
      if (scratch !== undefined) await git.must(['init', '--bare', scratch], {cwd, signal});
      const has = await git.run(['cat-file', '-t', tip], {cwd, signal});
      // No ref is written: this only asks.
      if (has.exitCode !== 0) await ask(['fetch', '--no-tags', '--no-recurse-submodules', '--no-write-fetch-head', '--end-of-options', remote.url, `refs/heads/${branch}`], remote, signal, cwd);
      const named = await git.run(['rev-parse', '--verify', '--end-of-options', `${prefix}^{commit}`], {cwd, signal});
      const sha = named.stdout.trim();
      if (/ambiguous/.test(named.stderr)) {
        throw new DeployError('UPDATE_FAILED', `"${prefix}" is ambiguous: several commits begin like that.`, {hint: 'Give more digits.'});
      }
      // A branch or tag may be named like the digits; what it points at is not what was asked for.
      if (named.exitCode !== 0 || !sha.startsWith(prefix)) throw unknownRevision(prefix, branch);
      const base = await git.run(['merge-base', sha, tip], {cwd, signal});
      if (base.stdout.trim() !== sha) {
        throw new DeployError('UPDATE_FAILED', `${sha.slice(0, 12)} is not on branch "${branch}".`, {hint: `See \`git log ${branch}\` for the revisions there are.`});
      }
      return sha;
    } finally {
      if (scratch !== undefined) rmSync(scratch, {recursive: true, force: true});
    }
  };

  const update: WorkingCopy['update'] = async (name, signal) => {
    const {revision, edits} = splitEdits(name);
    const sha = parseHash(revision);
    git.prepare();
    let directories = gitDirectories(workingCopy);
    if (directories !== undefined) await waitForLocks(directories, config.source.branch ?? checkedOutBranch(directories) ?? 'HEAD', signal);
    const {remote, branch} = await knownSource(signal);
    if (directories !== undefined && existsSync(cloningFile)) {
      const head = await git.run(['rev-parse', '--verify', 'HEAD'], {cwd: workingCopy, signal});
      // A branch with a commit is a finished clone, be it that somebody else finished it.
      if (head.exitCode === 0) unlinkSync(cloningFile);
      else directories = undefined;
    }
    if (directories === undefined) {
      refuseOtherEdits(name, revision, workingCopy);
      lookBegun = undefined;
      await initialise(remote, branch, signal);
      await fetch(remote, branch, sha, signal);
      await refuseUnsupported(git, workingCopy, sha, undefined, signal);
      await local(['reset', '--hard', sha], signal);
      unlinkSync(cloningFile);
      writeFileSync(checkedFile, sha, {mode: 0o600});
      return name;
    }

    let before = lookBegun === undefined ? await look(signal) : await lookBegun;
    lookBegun = undefined;
    if (performance.now() - before.at > LOOK_IS_FRESH_MS) before = await look(signal);
    refuseSwitched(before.settings, directories, remote, branch);
    refuseUnsettled(before.status, directories);
    const {head} = before.status;
    if (edits !== undefined) refuseOtherEdits(name, await nameWithEdits(sha, before.status), workingCopy);
    else refuseEdits(before.status);
    refuseBlocked(before.status);
    if (edits === undefined && before.status.missing.length > 0) await restoreMissing(before.status.missing, signal);

    const headChecked = head !== undefined && readIfThere(checkedFile) === head;
    if (head === sha && headChecked) return remembered(name);
    if (head === sha) {
      await refuseUnsupported(git, workingCopy, sha, undefined, signal);
    } else {
      if (fetchedForQuestion !== sha) await fetch(remote, branch, sha, signal);
      beginDiff(sha, signal);
      await moveTo(sha, head, headChecked, branch, signal);
    }
    writeFileSync(checkedFile, sha, {mode: 0o600});
    // A missing file that the commit changed is back.
    return remembered(edits === undefined || head === sha ? name : await nameWithEdits(sha, await readStatus(signal)));
  };

  const fetch = async (remote: GitRemote, branch: string, sha: string, signal: AbortSignal): Promise<void> => {
    const from = `+refs/heads/${branch}`;
    const directories = gitDirectories(workingCopy);
    // Else git looks after each fetch, by a process of its own, whether it has become time to pack.
    const asYouThink = directories === undefined || isUntidy(directories) ? [] : ['--no-auto-maintenance'];
    const args = (...refs: string[]) => ['fetch', ...asYouThink, '--no-tags', '--no-recurse-submodules', '--no-write-fetch-head', '--end-of-options', remote.url, ...refs];
    const both = await git.run(args(`${from}:${TARGET}`, `${from}:refs/remotes/origin/${branch}`), {cwd: workingCopy, remote, signal});
    // The remote-tracking branch is only for people who look; `topic` in the way of `topic/a` must not stop a deploy.
    if (both.exitCode !== 0) await ask(args(`${from}:${TARGET}`), remote, signal, workingCopy);
    // The tip itself needs no search for a way to it.
    const isTip = directories !== undefined && readIfThere(join(directories.common, TARGET))?.trim() === sha;
    const base = isTip ? sha : (await git.run(['merge-base', sha, TARGET], {cwd: workingCopy, signal})).stdout.trim();
    if (base !== sha) {
      throw new DeployError('UPDATE_FAILED', `${sha.slice(0, 12)} is not on branch "${branch}" of ${shownText(remote.url)} any more.`, {hint: 'The branch was rewritten meanwhile; deploy again.'});
    }
  };

  /** Moves the branch and its files. git refuses by itself what would lose an edit that came up since we looked. */
  const moveTo = async (sha: string, head: string | undefined, headChecked: boolean, branch: string, signal: AbortSignal): Promise<void> => {
    const [diff, unsent] = await Promise.all([
      local(['diff-tree', '-r', '-z', '--raw', '--no-renames', '--full-index', head ?? emptyTree(sha), sha], signal),
      head === undefined ? undefined : local(['rev-list', '--count', head, '--not', sha, TARGET], signal),
    ]);
    const changes = parseRawDiff(diff.stdout);
    await refuseUnsupported(git, workingCopy, sha, headChecked ? changes : undefined, signal);
    const inTheWay = findObstructions(workingCopy, changes ?? []);
    if (inTheWay.length > 0) {
      throw new DeployError('UPDATE_FAILED', `Untracked files stand in the way of files that ${sha.slice(0, 12)} brings, in ${workingCopy}: ${namedFiles(inTheWay)}. They are untouched.`, {
        hint: 'Move each away (`mv`), then deploy again.',
      });
    }
    // Commits that were made here and never sent, or a rewritten history: nobody else may have them, so they keep a name.
    if (head !== undefined && unsent !== undefined && unsent.stdout.trim() !== '0') {
      await local(['update-ref', `refs/osyw/saved/${head.slice(0, 12)}`, head], signal);
    }
    // `reset --keep` would do the same and say nothing: simple-git then waits 50 ms for a word.
    const args = head === undefined ? ['reset', '--hard', sha] : ['checkout', '-B', branch, sha];
    const moved = await git.run(args, {cwd: workingCopy, signal});
    if (moved.exitCode !== 0) {
      if (/not uptodate|would be (?:overwritten|removed)|untracked/i.test(moved.stderr)) {
        throw new DeployError('UPDATE_FAILED', `Local edits in ${workingCopy} (${lastWords(moved.stderr)}); they are untouched.`, {hint: 'Look with `git status`, then deploy again.'});
      }
      throw gitFailure(args, moved, undefined, config);
    }
  };

  /** An empty repository that follows the branch; its files come with the first update. */
  const initialise = async (remote: GitRemote, branch: string, signal: AbortSignal): Promise<void> => {
    if (!existsSync(cloningFile)) refuseForeignDirectory(workingCopy, 'git work tree');
    mkdirSync(workingCopy, {recursive: true});
    writeFileSync(cloningFile, '', {mode: 0o600});
    await local(['init', '--quiet', `--initial-branch=${branch}`, '.'], signal);
    for (const [key, value] of [
      ['remote.origin.url', remote.url], ['remote.origin.fetch', '+refs/heads/*:refs/remotes/origin/*'],
      [`branch.${branch}.remote`, 'origin'], [`branch.${branch}.merge`, `refs/heads/${branch}`],
    ] as const) {
      await local(['config', key, value], signal);
    }
  };

  /** Removes the locks of dead commands; waits for those of living ones. */
  const waitForLocks = async (directories: GitDirectories, branch: string, signal: AbortSignal): Promise<void> => {
    const deadline = performance.now() + timeoutMs;
    for (let waits = 0; ; waits++) {
      const locks = presentLocks(directories, branch);
      if (locks.length === 0) return;
      const alive = [...new Set([workingCopy, directories.common].flatMap(path => liveCommands('git', path)))];
      const pause = LOCK_WAITS_MS[Math.min(waits, LOCK_WAITS_MS.length - 1)] ?? 0;
      // Not at the first sight: a lock may be just about to be renamed by a git that has ended since.
      if (alive.length === 0 && waits > 0) {
        for (const lock of locks) ignoreMissing(() => unlinkSync(lock));
        lookBegun = undefined;
        continue;
      }
      if (performance.now() + pause > deadline) {
        throw new DeployError('UPDATE_FAILED', `${workingCopy} is locked by a running git, process ${alive.join(', ')}: ${namedFiles(locks)}.`, {
          hint: 'Wait for it to end, or end it; then deploy again.',
        });
      }
      await wait(pause, undefined, {signal});
    }
  };

  const refuseSwitched = (settings: ReadonlyMap<string, string>, directories: GitDirectories, remote: GitRemote, branch: string): void => {
    const origin = settings.get('remote.origin.url');
    if (url !== undefined && origin !== undefined && !sameRemote(gitRemote(origin, workingCopy), remote)) {
      throw new DeployError('UPDATE_FAILED', `The work tree ${workingCopy} is of ${shownText(origin)}, but source.url is ${shownText(remote.url)}.`, {
        hint: `Either \`git -C ${workingCopy} remote set-url origin ${shownText(remote.url)}\`, or mend source.url.`,
      });
    }
    const checkedOut = checkedOutBranch(directories);
    if (checkedOut === branch) return;
    if (checkedOut === undefined) {
      const doing = unfinishedCommand(directories);
      throw doing === undefined ? detached(workingCopy) : unfinished(doing, workingCopy);
    }
    throw new DeployError('UPDATE_FAILED', `The work tree ${workingCopy} is on branch "${checkedOut}", but "${branch}" is to be deployed.`, {
      hint: `Either \`git -C ${workingCopy} checkout ${branch}\`, or set source.branch to ${checkedOut}.`,
    });
  };

  const refuseUnsettled = (status: GitStatus, directories: GitDirectories): void => {
    if (status.conflicted.length > 0) {
      throw new DeployError('UPDATE_FAILED', `Conflicts in ${workingCopy}: ${namedFiles(status.conflicted)}.`, {
        hint: 'Settle them, or give the merge up (`git merge --abort`, `git rebase --abort`); then deploy again.',
      });
    }
    const doing = unfinishedCommand(directories);
    if (doing !== undefined) throw unfinished(doing, workingCopy);
  };

  const refuseEdits = (status: GitStatus): void => {
    if (status.edited.length > 0) {
      throw new DeployError('UPDATE_FAILED', `Local edits in ${workingCopy}: ${namedFiles(status.edited)}. They are untouched.`, {
        hint: 'Look with `git diff HEAD`; commit and push them, or give them up with `git checkout HEAD -- FILE`; then deploy again.',
      });
    }
  };

  const refuseBlocked = (status: GitStatus): void => {
    const blocked = status.edits.filter(({path, gone}) => !gone && (status.missing.includes(path) ? !mayComeBack(workingCopy, path) : isStrange(join(workingCopy, path)))).map(({path}) => path);
    if (blocked.length > 0) {
      throw new DeployError('UPDATE_FAILED', `Something else stands where versioned files belong in ${workingCopy}: ${namedFiles(blocked)}. It is untouched.`, {
        hint: 'Move it away, then deploy again.',
      });
    }
  };

  const restoreMissing = async (paths: readonly string[], signal: AbortSignal): Promise<void> => {
    await git.must(['checkout-index', '-u', '-z', '--stdin'], {cwd: workingCopy, signal, input: paths.map(path => `${path}\0`).join('')});
  };

  const exportTo: WorkingCopy['exportTo'] = async (dir, name, signal) => {
    const {revision} = splitEdits(name);
    const directories = gitDirectories(workingCopy);
    if (directories === undefined) throw new DeployError('UPDATE_FAILED', `${workingCopy} is not a git work tree any more.`);
    git.prepare();
    const scratch = mkdtempSync(join(config.stateDir, 'git', 'export-'));
    try {
      // An index of its own, so that exactly this commit comes out and the copy's own index is left alone.
      await git.must(['-c', 'checkout.workers=0', 'read-tree', '--reset', '-u', parseHash(revision)], {
        cwd: dir, signal, env: {GIT_DIR: directories.own, GIT_WORK_TREE: dir, GIT_INDEX_FILE: join(scratch, 'index')},
      });
    } finally {
      rmSync(scratch, {recursive: true, force: true});
    }
    await copyEdits(editsOf(name) ?? [], workingCopy, dir, {keepsEmpty: false});
  };

  const verifyExport: WorkingCopy['verifyExport'] = async (dir, name, signal) => {
    if (!withEdits) return;
    refuseOtherEdits(name, await nameWithEdits(splitEdits(name).revision, await readStatus(signal)), workingCopy);
    await refuseOtherCopies(name, editsOf(name) ?? [], dir, workingCopy);
  };

  const diff = (from: string, to: string, signal: AbortSignal): Promise<GitRun> =>
    git.run(['diff-tree', '-r', '-z', '--raw', '--no-renames', '--full-index', from, to], {cwd: workingCopy, signal});

  const lookAhead: WorkingCopy['lookAhead'] = (fromName, toName) => {
    const [from, to] = [splitEdits(fromName).revision, splitEdits(toName).revision];
    if (isWholeHash(from)) ahead = {from, to: parseHash(to), result: undefined};
  };

  /** Not before the fetch, for until then the objects are not here. */
  const beginDiff = (sha: string, signal: AbortSignal): void => {
    if (ahead?.to !== sha) return;
    const result = diff(ahead.from, sha, signal);
    result.catch(() => {}); // Told by `changedPaths`.
    ahead = {...ahead, result};
  };

  const changedPaths: WorkingCopy['changedPaths'] = async (fromName, toName, signal) => {
    const [from, to] = [splitEdits(fromName).revision, splitEdits(toName).revision];
    const [edited, edits] = [knownEdits.of(fromName), editsOf(toName)];
    if (!isWholeHash(from) || edited === undefined || edits === undefined) return undefined;
    const sha = parseHash(to);
    const begun = ahead?.from === from && ahead.to === sha ? ahead.result : undefined;
    ahead = undefined;
    const {stdout, exitCode} = await (begun ?? diff(from, sha, signal));
    const changes = exitCode === 0 ? parseRawDiff(stdout) : undefined;
    const own = new Set(edits.map(({path}) => path));
    if (changes?.every(change => own.has(change.path) || showsAs(workingCopy, change)) !== true) return undefined;
    const differing = changes.map(change => change.path);
    const more = editedPaths(edited, edits, differing, workingCopy);
    return more === undefined ? undefined : [...new Set([...differing, ...more])];
  };

  const touches: WorkingCopy['touches'] = async (fromName, toName, signal) => {
    const [from, to] = [splitEdits(fromName).revision, splitEdits(toName).revision];
    const [edited, edits] = [knownEdits.of(fromName), editsOf(toName)];
    const directories = gitDirectories(workingCopy);
    if (paths.length === 0 || directories === undefined || !isWholeHash(from) || edited === undefined || edits === undefined) return true;
    try {
      if (await namesAny(paths, [...edited, ...edits].map(({path}) => path))) return true;
      const sha = parseHash(to);
      git.prepare();
      const names = () => git.run(['diff-tree', '-r', '-z', '--name-only', '--no-renames', from, sha, '--'], {cwd: workingCopy, signal});
      const {remote, branch} = await knownSource(signal);
      // Before the fetch, which writes refs: not into a work tree that is of something else.
      refuseSwitched(await settingsNow(signal), directories, remote, branch);
      let diff = await names();
      if (diff.exitCode !== 0) {
        await waitForLocks(directories, branch, signal);
        await fetch(remote, branch, sha, signal);
        fetchedForQuestion = sha;
        diff = await names();
      }
      // What was deployed is gone from here: a rewritten history. Or a name is not UTF-8 and could not be told exactly.
      if (diff.exitCode !== 0 || diff.stdout.includes('\ufffd')) return true;
      return await namesAny(paths, diff.stdout.split('\0').filter(path => path !== ''));
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof DeployError) return true; // The update that follows meets it again, and tells it.
      throw error;
    }
  };

  return {vcs: 'git', resolve, update, exportTo, verifyExport, lookAhead, changedPaths, touches};
}

/** Whether the work tree has at this path what the commit has: an untracked file under a deleted name must not pass for the tracked one. */
function showsAs(workingCopy: string, {path, newMode}: GitChange): boolean {
  const stat = lstatIfThere(join(workingCopy, path));
  switch (newMode) {
    case '000000': return stat === undefined || stat.isDirectory();
    case '100644': return stat?.isFile() === true && (stat.mode & 0o100) === 0;
    case '100755': return stat?.isFile() === true && (stat.mode & 0o100) !== 0;
    case '120000': return stat?.isSymbolicLink() === true;
    default: return false;
  }
}

function isWholeHash(text: string): boolean {
  return /^[0-9a-f]{40,64}$/.test(text);
}

/** A full hash, or at least 7 digits of one. Errors: USAGE. */
function parseHash(text: string): string {
  if (/^[0-9a-f]{7,64}$/i.test(text)) return text.toLowerCase();
  throw new DeployError('USAGE', `"${shownText(text)}" is not a revision; expected a commit's hash, or at least 7 digits of one.`, {hint: 'See `git log`.'});
}

function emptyTree(sha: string): string {
  const tree = EMPTY_TREES[sha.length];
  if (tree === undefined) throw new DeployError('UPDATE_FAILED', `"${sha}" is not a full hash.`);
  return tree;
}

/** Neither a file nor a link, which is all that git knows; a directory in a file's place is another repository. */
function isStrange(path: string): boolean {
  const stat = lstatIfThere(path);
  return stat !== undefined && !stat.isFile() && !stat.isSymbolicLink();
}

/** Nothing stands at the path or in place of one of its directories. */
function mayComeBack(workingCopy: string, path: string): boolean {
  if (lstatIfThere(join(workingCopy, path)) !== undefined) return false;
  for (let parent = dirname(path); parent !== '.'; parent = dirname(parent)) {
    const stat = lstatIfThere(join(workingCopy, parent));
    if (stat !== undefined && !stat.isDirectory()) return false;
  }
  return true;
}

function unknownRevision(prefix: string, branch: string): DeployError {
  return new DeployError('UPDATE_FAILED', `There is no commit "${prefix}" on branch "${branch}".`, {hint: `See \`git log ${branch}\` for the revisions there are.`});
}

function detached(workingCopy: string): DeployError {
  return new DeployError('UPDATE_FAILED', `The work tree ${workingCopy} is on no branch (detached HEAD).`, {hint: `Check out the branch to deploy: \`git -C ${workingCopy} checkout BRANCH\`.`});
}

function unfinished(command: string, workingCopy: string): DeployError {
  return new DeployError('UPDATE_FAILED', `A ${command} is under way in ${workingCopy}.`, {hint: `End it, or give it up: \`git ${command} --abort\` (\`git bisect reset\`); then deploy again.`});
}

function readIfThere(path: string): string | undefined {
  return statSync(path, {throwIfNoEntry: false}) === undefined ? undefined : readFileSync(path, 'utf8');
}
