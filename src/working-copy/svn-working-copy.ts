import {existsSync, readFileSync, readdirSync, mkdirSync, renameSync, rmSync, statSync, writeFileSync} from 'node:fs';
import {dirname, join, relative} from 'node:path';
import {pathToFileURL} from 'node:url';
import type {Config} from '../config/config.ts';
import type {WorkingCopy} from '../deploy/tools.ts';
import {DeployError} from '../errors.ts';
import {lstatIfThere} from '../support/lstat-if-there.ts';
import {splitEdits} from '../support/edited-revision.ts';
import {copyEdits, editedName, editedPaths, openKnownEdits, refuseEditedName, refuseOtherCopies, refuseOtherEdits, type Edit} from './edits.ts';
import {refuseForeignDirectory} from './foreign-directory.ts';
import type {WorkingCopyUse} from './open-working-copy.ts';
import {namesAny} from './path-globs.ts';
import {namedFiles, lastWords, shownText} from './shown-text.ts';
import {openSvn, type SvnRun} from './svn-command.ts';
import {parseCopied, parseSvnIncoming, parseSvnStatus, type SvnIncoming, type SvnStatus} from './svn-status.ts';
import {childOf, parseSvnXml} from './svn-xml.ts';

/** No such revision; no such path in it (three ways to say so). */
const NOT_THERE = ['E160006', 'E160013', 'E160005', 'E170000', 'E200009', 'E195012'];
const REMEMBERED_TREES = 20;
/** No status of a copy that a command died in, or is at work in. */
const UNFINISHED = ['E155004', 'E155037'];
/** Longer ago, and somebody may have edited since. */
const LOOK_IS_FRESH_MS = 3000;

interface Info {
  readonly url: string;
  readonly uuid: string;
  readonly revision: number;
  readonly lastChanged: number;
}

/** The working copy as it was verified; `info` names its place, its numbers may be older. */
interface Verified {
  readonly stamp: string;
  readonly version: string;
  readonly info: Info;
}

/** One path of a difference, relative to its top, which is the empty path. `item` is `none` when only properties changed. */
interface SvnChange {
  readonly path: string;
  readonly kind: 'file' | 'dir';
  readonly item: string | undefined;
}

/** What the working copy looked like before anything was done to it. */
interface Look {
  readonly at: number;
  /** Undefined: there is no working copy yet. */
  readonly found: {readonly info: Info; readonly status: SvnStatus; readonly version: string} | undefined;
}

/** A Subversion working copy. `svn update` exits 0 on conflicts and obstructions, so everything here is judged by looking. */
export function openSvnWorkingCopy(config: Config, {onlyAsks}: WorkingCopyUse): WorkingCopy {
  const {workingCopy, url, paths} = config.source;
  const withEdits = config.watch.edits;
  const svn = openSvn(config);
  const configuredUrl = url === undefined ? undefined : asUrl(url);
  const treesFile = join(config.stateDir, 'svn', 'osyw-trees.json');
  const verifiedFile = join(config.stateDir, 'svn', 'osyw-verified');
  const checkingOutFile = join(config.stateDir, 'svn', 'osyw-checking-out');
  const knownEdits = openKnownEdits(join(config.stateDir, 'svn', 'osyw-edits.json'));
  let lookBegun: Promise<Look> | undefined;
  let firstLook: Promise<Look> | undefined;
  let place: Info | undefined;
  /** The name that the copy had last, and what of it was edited. */
  let met: {readonly name: string; readonly edits: readonly Edit[]} | undefined;
  /** What the repository said last of the place to deploy from. */
  let origin: Info | undefined;
  let lookedEarly = onlyAsks;
  let diffBegun: {readonly from: string; readonly to: string; readonly url: string; readonly result: Promise<SvnRun>} | undefined;
  /** The tree of rN can live at a path that N itself did not have yet: after a move of a parent directory. Then this one has it. */
  const revisionsWithTree = new Map<number, number>();

  const localUrl = async (signal: AbortSignal): Promise<string> => {
    if (!existsSync(join(workingCopy, '.svn'))) throw nothingToDeployFrom(workingCopy);
    return (await localInfo(signal)).url;
  };

  const localInfo = async (signal: AbortSignal): Promise<Info> =>
    parseInfo((await svn.stubborn('info', ['--xml', '--', `${workingCopy}@`], {signal})).stdout);

  const look = async (signal: AbortSignal): Promise<Look> => {
    const at = performance.now();
    if (!isWorkingCopy(workingCopy)) return {at, found: undefined};
    const known = readVerified();
    const reading = known !== undefined && known.stamp === databaseStamp()
      ? localStatus(signal).then(status => [known.info, status, known.version] as const)
      : Promise.all([localInfo(signal), localStatus(signal), svn.version(signal)]);
    // A checkout that died before it had a database is begun anew.
    if (existsSync(checkingOutFile) && await reading.then(() => false, () => true)) return {at, found: undefined};
    const [info, status, version] = await reading;
    place = info;
    return {at, found: {info, status, version}};
  };

  const localStatus = async (signal: AbortSignal): Promise<SvnStatus> =>
    parseSvnStatus((await svn.stubborn('status', ['--xml', '--ignore-externals', '--', `${workingCopy}@`], {signal})).stdout, workingCopy);

  /** What somebody edited in here. */
  const editsIn = async (status: SvnStatus, signal: AbortSignal): Promise<readonly Edit[]> => {
    const copied = status.copied.filter(path => lstatIfThere(join(workingCopy, path))?.isDirectory() === true);
    if (copied.length === 0) return status.edits;
    const {stdout} = await svn.stubborn('status', ['--verbose', '--xml', '--ignore-externals', '--', ...copied.map(path => `${join(workingCopy, path)}@`)], {signal});
    return [...new Map([...parseCopied(stdout, workingCopy), ...status.edits].map(edit => [edit.path, edit])).values()];
  };

  /** The revision with what somebody edited in here. */
  const nameWithEdits = async (revision: string, status: SvnStatus, signal: AbortSignal): Promise<string> => {
    const edits = await editsIn(status, signal);
    const name = await editedName(revision, edits, workingCopy);
    met = {name, edits};
    return name;
  };

  /** As it is now; without edits where nobody can tell them before what broke off is healed. */
  const nameNow = async (revision: string, begun: Promise<Look> | undefined, signal: AbortSignal): Promise<string> => {
    if (!withEdits || !isWorkingCopy(workingCopy)) return revision;
    if (begun !== undefined) {
      const {found} = await begun;
      return found === undefined ? revision : nameWithEdits(revision, found.status, signal);
    }
    const args = ['--xml', '--ignore-externals', '--', `${workingCopy}@`];
    const {ok, stdout} = await (onlyAsks ? svn.stubborn('status', args, {signal, expected: UNFINISHED}) : svn.stubborn('status', args, {signal}));
    return ok ? nameWithEdits(revision, parseSvnStatus(stdout, workingCopy), signal) : revision;
  };

  const resolve: WorkingCopy['resolve'] = async (wanted, signal) => {
    if (wanted !== undefined) refuseEditedName(wanted);
    const number = wanted === undefined ? undefined : parseRevision(wanted);
    const from = configuredUrl ?? await localUrl(signal);
    const target = number === undefined ? `${from}@` : `${from}@${number}`;
    // The repository first, it takes longest.
    const asked = svn.stubborn('info', ['--xml', '-r', number === undefined ? 'HEAD' : String(number), '--', target], {
      signal, network: true, expected: NOT_THERE,
    });
    // Only for the first question: what is asked again and again is asked by polling, and without `watch.edits` a poll reads no tree.
    let begun: Promise<Look> | undefined;
    if (!lookedEarly) {
      lookedEarly = true;
      firstLook = lookBegun = look(signal);
      lookBegun.catch(() => {}); // Told by `update`, which awaits it.
      begun = lookBegun;
    }
    try {
      const revision = await revisionIn(asked, number, from);
      return number === undefined ? await nameNow(revision, begun, signal) : revision;
    } catch (error) {
      // Nothing of ours runs on after a failure.
      await firstLook?.catch(() => {});
      throw error;
    }
  };

  const revisionIn = async (asked: Promise<SvnRun>, number: number | undefined, from: string): Promise<string> => {
    const result = await asked;
    if (!result.ok) {
      const what = number === undefined ? `${shownText(from)} is not in the repository` : `r${number} is not a revision of ${shownText(from)}`;
      throw new DeployError('UPDATE_FAILED', `${what}: ${lastWords(result.stderr)}`, {hint: 'See `svn log` of source.url for the revisions there are.'});
    }
    const info = parseInfo(result.stdout);
    origin = info;
    revisionsWithTree.set(info.lastChanged, info.revision);
    return `r${info.lastChanged}`;
  };

  const editsOf = (name: string): readonly Edit[] | undefined => met?.name === name ? met.edits : knownEdits.of(name);

  const update: WorkingCopy['update'] = async (name, signal) => {
    const {revision, edits} = splitEdits(name);
    const number = parseRevision(revision);
    svn.prepare();
    let before = lookBegun === undefined ? await look(signal) : await lookBegun;
    lookBegun = undefined;
    if (performance.now() - before.at > LOOK_IS_FRESH_MS) before = await look(signal);

    if (before.found === undefined) {
      refuseOtherEdits(name, revision, workingCopy);
      await checkOut(number, signal);
    } else {
      if (before.found.status.unfinished.length > 0) {
        await svn.unlock(signal);
        before = await look(signal);
      }
      if (before.found === undefined) throw new DeployError('UPDATE_FAILED', `The working copy ${workingCopy} vanished during the update.`);
      refuseOtherUrl(before.found.info, configuredUrl, workingCopy);
      refuseSparseOrSwitched(before.found.version, before.found.status, workingCopy);
      const {found} = before;
      const status = edits === undefined ? await dropGoneObstacles(found.status, signal) : found.status;
      refuseUnsettled(status, workingCopy);
      if (edits === undefined) refuseEdits(status, workingCopy);
      else refuseOtherEdits(name, await nameWithEdits(revision, status, signal), workingCopy);
      const isThere = isAt(String(number), found.version, status, edits !== undefined);
      if (isThere && databaseStamp() === readVerified()?.stamp) return remembered(name);
      if (edits !== undefined) {
        // An update would bring back what was removed by hand, so only for what it brings besides.
        const incoming = await incomingOf(number, signal);
        if (isThere && incoming.length === 0) {
          remember(String(number));
          return remembered(name);
        }
        await refuseClashes(incoming, status, number, found.info.url, signal);
      }
      await updateTo(number, found.info.url, signal);
    }
    const status = await verify(number, edits !== undefined, signal);
    return remembered(edits === undefined ? name : await nameWithEdits(revision, status, signal));
  };

  /** So that the next release can be made out of one of this name. */
  const remembered = (name: string): string => {
    if (met?.name === name) knownEdits.remember(name, met.edits);
    return name;
  };

  /** What an update to this revision would change. */
  const incomingOf = async (number: number, signal: AbortSignal): Promise<SvnIncoming[]> => {
    const args = ['--show-updates', '--xml', '--ignore-externals', '-r', String(revisionsWithTree.get(number) ?? number), '--', `${workingCopy}@`];
    const {stdout} = await svn.stubborn('status', args, {signal, network: true});
    const isDirectory = (path: string) => lstatIfThere(join(workingCopy, path))?.isDirectory() === true;
    return parseSvnIncoming(stdout, workingCopy).filter(({path, change, props}) => props || (change !== 'none' && !(change === 'modified' && isDirectory(path))));
  };

  /** Two edits of one file that svn can merge are merged; what would be a conflict is refused before anything is touched. */
  const refuseClashes = async (incoming: readonly SvnIncoming[], status: SvnStatus, number: number, from: string, signal: AbortSignal): Promise<void> => {
    const edits = (await editsIn(status, signal)).filter(({path}) => !status.missing.includes(path));
    const clashing: string[] = [];
    for (const {path, change, item, base} of incoming) {
      const obstructed = change === 'added' && item !== 'none' && item !== 'missing';
      const over = edits.find(edit => edit.path === path);
      const around = edits.some(edit => (isBelow(edit.path, path) && change !== 'modified' && change !== 'none') || (isBelow(path, edit.path) && (edit.gone || edit.replaced)));
      if (obstructed || around) clashing.push(path);
      else if (over !== undefined && !(base !== undefined && await merges(path, base, number, change, over, from, signal))) clashing.push(path);
    }
    if (clashing.length === 0) return;
    throw new DeployError('UPDATE_FAILED', `r${number} changes what is edited, or stands in its way, in ${workingCopy}: ${namedFiles(clashing)}. Nothing was touched.`, {
      hint: 'Update by hand (`svn update`) and settle the conflicts, or give the edit up with `svn revert FILE`; then deploy again.',
    });
  };

  const merges = async (path: string, base: string, number: number, change: string, {gone, added, replaced}: Edit, from: string, signal: AbortSignal): Promise<boolean> => {
    const at = join(workingCopy, path);
    if (gone || added || replaced || !['modified', 'none'].includes(change) || lstatIfThere(at)?.isFile() !== true) return false;
    const source = `${from}/${path.split('/').map(encodeURIComponent).join('/')}@${revisionsWithTree.get(number) ?? number}`;
    const {ok, stdout} = await svn.stubborn('merge', ['--dry-run', '--ignore-ancestry', '--accept', 'postpone', '-r', `${base}:${revisionsWithTree.get(number) ?? number}`, '--', source, at], {signal, network: true, expected: NOT_THERE});
    return ok && !/^.{0,3}C/m.test(stdout);
  };

  const updateTo = async (number: number, from: string, signal: AbortSignal): Promise<void> => {
    const args = (n: number) => ['-q', '--ignore-externals', '-r', String(n), '--', `${workingCopy}@`];
    const result = await svn.stubborn('update', args(number), {signal, network: true, expected: NOT_THERE});
    if (result.ok) {
      revisionsWithTree.delete(number);
      return;
    }
    const other = revisionsWithTree.get(number);
    if (other === undefined || other === number) {
      throw new DeployError('UPDATE_FAILED', `The working copy could not be brought to r${number} of ${shownText(from)}: ${lastWords(result.stderr)}`);
    }
    await svn.stubborn('update', args(other), {signal, network: true});
  };

  const checkOut = async (number: number, signal: AbortSignal): Promise<void> => {
    if (configuredUrl === undefined) throw nothingToDeployFrom(workingCopy);
    if (existsSync(checkingOutFile)) putStumpAside(workingCopy);
    refuseForeignDirectory(workingCopy, 'Subversion working copy');
    writeFileSync(checkingOutFile, '', {mode: 0o600});
    mkdirSync(dirname(workingCopy), {recursive: true});
    // The peg is the revision, not HEAD: a URL that was deleted later still has its old revisions.
    const peg = revisionsWithTree.get(number) ?? number;
    const checkout = (n: number) => svn.stubborn('checkout', ['-q', '--ignore-externals', '-r', String(n), '--', `${configuredUrl}@${n}`, workingCopy], {
      signal, network: true, expected: NOT_THERE,
    });
    let result = await checkout(number);
    if (!result.ok && peg !== number) result = await checkout(peg);
    else revisionsWithTree.delete(number);
    if (!result.ok) throw new DeployError('UPDATE_FAILED', `r${number} of ${shownText(configuredUrl)} could not be checked out: ${lastWords(result.stderr)}`);
  };

  /** Exit codes do not tell, so: nothing edited, nothing in the way, and one plain revision number. */
  const verify = async (number: number, edited: boolean, signal: AbortSignal): Promise<SvnStatus> => {
    const expected = String(revisionsWithTree.get(number) ?? number);
    const [status, version, info] = await Promise.all([localStatus(signal), svn.version(signal), place === undefined ? localInfo(signal) : Promise.resolve(place)]);
    place = info;
    const inTheWay = status.treeConflicted;
    if (inTheWay.length > 0) {
      throw new DeployError('UPDATE_FAILED', `Files stand in the way of files that r${number} brings, in ${workingCopy}: ${namedFiles(inTheWay)}. They are untouched.`, {
        hint: `Move each away (\`mv\`), or settle it with \`svn resolve\`; then deploy again.`,
      });
    }
    refuseUnsettled(status, workingCopy);
    if (!edited) refuseEdits(status, workingCopy);
    if (!isAt(expected, version, status, edited)) {
      throw new DeployError('UPDATE_FAILED', `The working copy ${workingCopy} is at "${version}" instead of ${expected} after the update.`, {
        hint: `Look with \`svn status ${workingCopy}\` and \`svnversion ${workingCopy}\`.`,
      });
    }
    rmSync(checkingOutFile, {force: true});
    remember(expected);
    return status;
  };

  /** A file that was in the way of an incoming one left a tree conflict behind; once it is moved away there is nothing of the user's in it. */
  const dropGoneObstacles = async (status: SvnStatus, signal: AbortSignal): Promise<SvnStatus> => {
    const gone = status.treeConflicted.filter(path => lstatIfThere(join(workingCopy, path)) === undefined);
    if (gone.length === 0) return status;
    await svn.stubborn('revert', ['-q', '--', ...gone.map(path => `${join(workingCopy, path)}@`)], {signal});
    return localStatus(signal);
  };

  /** Changes when anything but us touched svn's records since: then a file set to "not present" is not to be ruled out. */
  const databaseStamp = (): string | undefined => {
    const stat = statSync(join(workingCopy, '.svn', 'wc.db'), {bigint: true, throwIfNoEntry: false});
    return stat === undefined ? undefined : `${stat.dev} ${stat.ino} ${stat.size} ${stat.mtimeNs} ${stat.ctimeNs}`;
  };
  /** What was seen when all was well; it holds as long as the records have the same stamp, and saves asking for it again. */
  const readVerified = (): Verified | undefined => {
    try {
      const verified: unknown = JSON.parse(readFileSync(verifiedFile, 'utf8'));
      return isVerified(verified) ? verified : undefined;
    } catch {
      return undefined; // Not there, or torn by a power cut.
    }
  };
  const remember = (version: string): void => {
    const stamp = databaseStamp();
    if (place !== undefined && stamp !== undefined) writeFileSync(verifiedFile, JSON.stringify({stamp, version, info: place}), {mode: 0o600});
  };

  const exportTo: WorkingCopy['exportTo'] = async (dir, name, signal) => {
    const [, info] = await Promise.all([
      svn.stubborn('export', ['-q', '--ignore-externals', '--force', '-r', 'BASE', '--', `${workingCopy}@`, `${dir}@`], {signal}),
      localInfo(signal),
    ]);
    rememberTree(splitEdits(name).revision, info);
    await copyEdits(editsOf(name) ?? [], workingCopy, dir, {keepsEmpty: true});
  };

  const verifyExport: WorkingCopy['verifyExport'] = async (dir, name, signal) => {
    if (!withEdits) return;
    const {revision} = splitEdits(name);
    refuseOtherEdits(name, await nameWithEdits(revision, await localStatus(signal), signal), workingCopy);
    await refuseOtherCopies(name, editsOf(name) ?? [], dir, workingCopy);
  };

  const diff = (from: string, to: string, url: string, signal: AbortSignal): Promise<SvnRun> => {
    const [old, now] = [parseRevision(from), parseRevision(to)];
    return svn.stubborn('diff', ['--summarize', '--xml', `--old=${url}@${old}`, `--new=${url}@${revisionsWithTree.get(now) ?? now}`], {signal, network: true, expected: NOT_THERE});
  };

  const lookAhead: WorkingCopy['lookAhead'] = (fromName, toName, signal) => {
    const [from, to] = [splitEdits(fromName).revision, splitEdits(toName).revision];
    const begin = () => {
      if (place === undefined || from === to || signal.aborted || readTrees()[from] !== treeOf(place)) return;
      const result = diff(from, to, place.url, signal);
      result.catch(() => {}); // Told by `changedPaths`.
      diffBegun = {from, to, url: place.url, result};
    };
    // Only the look tells the place; one that failed is told by `update`.
    void firstLook?.then(begin, () => {});
  };

  const changedPaths: WorkingCopy['changedPaths'] = async (fromName, toName, signal) => {
    const [from, to] = [splitEdits(fromName).revision, splitEdits(toName).revision];
    const [edited, edits] = [knownEdits.of(fromName), editsOf(toName)];
    // An update does not move the copy to another place, so the first look holds.
    const info = place ?? await localInfo(signal);
    // A number says nothing about the place: after a switch of the copy r41 is another tree.
    const known = readTrees()[from] === treeOf(info);
    rememberTree(to, info);
    if (!known || edited === undefined || edits === undefined) return undefined;
    if (from === to) return editedPaths(edited, edits, [], workingCopy);
    const begun = diffBegun?.from === from && diffBegun.to === to && diffBegun.url === info.url ? diffBegun.result : undefined;
    diffBegun = undefined;
    const changes = changesIn(await (begun ?? diff(from, to, info.url, signal)), info);
    const differing = changes === undefined ? undefined : shownPaths(changes, new Set(edits.map(({path}) => path)), workingCopy);
    const more = differing === undefined ? undefined : editedPaths(edited, edits, differing, workingCopy);
    return differing === undefined || more === undefined ? undefined : [...new Set([...differing, ...more])];
  };

  const touches: WorkingCopy['touches'] = async (fromName, toName, signal) => {
    const [from, to] = [splitEdits(fromName).revision, splitEdits(toName).revision];
    const [edited, edits] = [knownEdits.of(fromName), editsOf(toName)];
    if (paths.length === 0 || edited === undefined || edits === undefined) return true;
    try {
      if (await namesAny(paths, [...edited, ...edits].map(({path}) => path))) return true;
      const info = origin ?? await originInfo(signal);
      // The release may be of another place, whose numbers mean other trees. One that was never exported is not known: then the number has to do.
      const known = readTrees()[from];
      if (known !== undefined && !isTreeOf(known, info)) return true;
      const changes = changesIn(await diff(from, to, info.url, signal), info);
      // The top itself came, went, or is a file: these are two things, and not one that changed.
      if (changes === undefined || changes.some(({path, kind, item}) => path === '' && (item !== 'none' || kind !== 'dir'))) return true;
      return await namesAny(paths, changes.map(({path}) => path));
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof DeployError) return true; // The update that follows meets it again, and tells it.
      throw error;
    }
  };

  const originInfo = async (signal: AbortSignal): Promise<Info> => {
    if (configuredUrl === undefined) return localInfo(signal);
    return parseInfo((await svn.stubborn('info', ['--xml', '--', `${configuredUrl}@`], {signal, network: true})).stdout);
  };

  /** Undefined when the place is in neither of the revisions, or one of them is not in the repository. */
  const changesIn = ({ok, stdout}: SvnRun, {url: top}: Info): SvnChange[] | undefined => ok ? parseSummary(stdout, top) : undefined;

  const readTrees = (): Record<string, string> => {
    try {
      const trees: unknown = JSON.parse(readFileSync(treesFile, 'utf8'));
      return typeof trees === 'object' && trees !== null ? Object.fromEntries(Object.entries(trees).map(([key, value]) => [key, String(value)])) : {};
    } catch {
      return {}; // Not there, or torn by a power cut: then the next release is exported whole.
    }
  };
  const rememberTree = (revision: string, info: Info): void => {
    const {[revision]: known, ...others} = readTrees();
    if (known === treeOf(info)) return;
    const entries = [...Object.entries(others).slice(1 - REMEMBERED_TREES), [revision, treeOf(info)]];
    writeFileSync(treesFile, JSON.stringify(Object.fromEntries(entries)), {mode: 0o600});
  };

  return {vcs: 'svn', resolve, update, exportTo, verifyExport, lookAhead, changedPaths, touches};
}

function isVerified(value: unknown): value is Verified {
  return typeof value === 'object' && value !== null && 'stamp' in value && typeof value.stamp === 'string'
    && 'version' in value && typeof value.version === 'string'
    && 'info' in value && typeof value.info === 'object' && value.info !== null
    && 'url' in value.info && typeof value.info.url === 'string' && 'uuid' in value.info && typeof value.info.uuid === 'string';
}

function treeOf(info: Info): string {
  return `${info.uuid} ${info.url}`;
}

function isTreeOf(tree: string, info: Info): boolean {
  const [uuid, url = ''] = tree.split(' ');
  return uuid === info.uuid && sameUrl(url, info.url);
}

function isWorkingCopy(path: string): boolean {
  return existsSync(join(path, '.svn'));
}

/** `r41` or `41`. Errors: USAGE. */
function parseRevision(text: string): number {
  const digits = /^r?(\d{1,10})$/.exec(text)?.[1];
  if (digits === undefined) {
    throw new DeployError('USAGE', `"${shownText(text)}" is not a revision; expected a number like 41 or r41.`, {hint: 'Subversion\'s revisions are numbers; see `svn log`.'});
  }
  return Number(digits);
}

function parseInfo(xml: string): Info {
  const entry = childOf(parseSvnXml(xml), 'entry');
  const url = childOf(entry, 'url')?.text;
  const uuid = childOf(childOf(entry, 'repository'), 'uuid')?.text;
  const revision = Number(entry?.attributes['revision']);
  const lastChanged = Number(childOf(entry, 'commit')?.attributes['revision']);
  if (url === undefined || uuid === undefined || !Number.isInteger(revision) || !Number.isInteger(lastChanged)) {
    throw new DeployError('UPDATE_FAILED', '`svn info` did not tell URL and revision.', {hint: 'See that `svn info --xml` works for the working copy and for source.url.'});
  }
  return {url, uuid, revision, lastChanged};
}

/** A path on this machine as svn wants it. */
export function asUrl(url: string): string {
  return (url.startsWith('/') ? pathToFileURL(url).href : url).replace(/(?<!\/)\/+$/, '');
}

function sameUrl(a: string, b: string): boolean {
  const canonical = (url: string) => {
    try {
      return decodeURIComponent(url).replace(/^([a-z+]+:\/\/)(?:[^/@]*@)?([^/]*)/i, (_, scheme: string, host: string) => (scheme + host).toLowerCase()).replace(/\/+$/, '');
    } catch {
      return url;
    }
  };
  return canonical(a) === canonical(b);
}

function refuseOtherUrl(info: Info, configuredUrl: string | undefined, workingCopy: string): void {
  if (configuredUrl === undefined || sameUrl(info.url, configuredUrl)) return;
  throw new DeployError('UPDATE_FAILED', `The working copy ${workingCopy} is of ${shownText(info.url)}, but source.url is ${shownText(configuredUrl)}.`, {
    hint: `Either \`svn switch ${shownText(configuredUrl)} ${workingCopy}\` (\`svn relocate\` when the same repository moved), or mend source.url.`,
  });
}

function refuseSparseOrSwitched(version: string, status: SvnStatus, workingCopy: string): void {
  if (status.switched.length > 0) {
    throw new DeployError('UPDATE_FAILED', `Parts of the working copy ${workingCopy} are switched to another URL: ${namedFiles(status.switched)}.`, {
      hint: 'Switch them back: `svn switch ^/PATH PART`, with the path they had.',
    });
  }
  if (/P/.test(version) && status.unfinished.length === 0) {
    throw new DeployError('UPDATE_FAILED', `The working copy ${workingCopy} is sparse ("${version}"): some directories are left out.`, {
      hint: `Fetch the rest with \`svn update --set-depth infinity ${workingCopy}\`.`,
    });
  }
}

function refuseUnsettled(status: SvnStatus, workingCopy: string): void {
  if (status.conflicted.length > 0) {
    throw new DeployError('UPDATE_FAILED', `Conflicts in ${workingCopy}: ${namedFiles(status.conflicted)}.`, {
      hint: 'Look with `svn status`, settle each with `svn resolve FILE` or give it up with `svn revert FILE`, then deploy again.',
    });
  }
  if (status.obstructed.length > 0) {
    throw new DeployError('UPDATE_FAILED', `Something else stands where versioned files belong in ${workingCopy}: ${namedFiles(status.obstructed)}. It is untouched.`, {
      hint: 'Move it away, then deploy again.',
    });
  }
}

function refuseEdits(status: SvnStatus, workingCopy: string): void {
  if (status.edited.length > 0) {
    throw new DeployError('UPDATE_FAILED', `Local edits in ${workingCopy}: ${namedFiles(status.edited)}. They are untouched.`, {
      hint: 'Look with `svn diff`; commit them, or give them up with `svn revert FILE`; then deploy again.',
    });
  }
}

/** Nothing is the matter, but for edits where they may be; `41M` is 41 with some. */
function isAt(wanted: string, version: string, status: SvnStatus, edited: boolean): boolean {
  const edits = edited ? [] : [status.edited, status.missing];
  return (edited ? version.replace(/M$/, '') : version) === wanted
    && [...edits, status.conflicted, status.obstructed, status.switched, status.unfinished].every(list => list.length === 0);
}

function isBelow(path: string, directory: string): boolean {
  return directory === '.' ? path !== '.' : path.startsWith(`${directory}/`);
}

function nothingToDeployFrom(workingCopy: string): DeployError {
  return new DeployError('UPDATE_FAILED', `${workingCopy} is not a working copy, and source.url is not set.`, {
    hint: 'Set source.url, then the first deploy checks it out; or check it out yourself.',
  });
}

/** What a broken-off checkout of ours left. Should anybody have put files there since, they stay where they can be found. */
function putStumpAside(workingCopy: string): void {
  if (!isWorkingCopy(workingCopy)) return;
  if (readdirSync(workingCopy).length === 1) rmSync(join(workingCopy, '.svn'), {recursive: true});
  else renameSync(workingCopy, `${workingCopy}.broken-${Date.now()}`);
}

/** Reads `svn diff --summarize --xml` of two URLs. Of a directory that came or went, each path is named. */
function parseSummary(xml: string, url: string): SvnChange[] {
  return (childOf(parseSvnXml(xml), 'paths')?.children ?? []).map(({text, attributes}) => ({
    path: relative(decodeURIComponent(url), decodeURIComponent(text)),
    kind: attributes['kind'] === 'dir' ? 'dir' : 'file',
    item: attributes['item'],
  }));
}

/**
 * The paths of the changes; undefined when the working copy does not show each as it is in the new tree: an unversioned file
 * under a deleted name must not pass for the versioned one. What is `edited` shows as it was edited.
 */
function shownPaths(changes: readonly SvnChange[], edited: ReadonlySet<string>, workingCopy: string): string[] | undefined {
  const present = new Map<string, 'file' | 'dir' | undefined>();
  for (const {path, kind, item} of changes) {
    // Properties of a directory are nothing that an export shows.
    if (path === '' || (kind === 'dir' && item === 'none')) continue;
    if (item === 'deleted') {
      if (!present.has(path)) present.set(path, undefined);
    } else {
      present.set(path, kind);
    }
  }
  for (const [path, kind] of present) {
    if (edited.has(path)) continue;
    const stat = lstatIfThere(join(workingCopy, path));
    const shows = stat === undefined ? undefined : stat.isDirectory() ? 'dir' : 'file';
    if (shows !== kind) return undefined;
  }
  return [...present.keys()];
}
