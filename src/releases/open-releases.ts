import {existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import type {Config} from '../config/config.ts';
import type {Release} from '../deploy/deployment.ts';
import type {Releases, WorkingCopy} from '../deploy/tools.ts';
import {DeployError, errnoOf, messageOf} from '../errors.ts';
import {entriesOf} from '../support/entries-of.ts';
import {ignoreMissing, readRegularFile, replaceFile, syncDirectory} from '../state/atomic-file.ts';
import {findAccount, type Account} from '../support/accounts.ts';
import {lstatIfThere} from '../support/lstat-if-there.ts';
import {runCommand} from '../support/run-command.ts';
import {refuseLinksOut, refuseSpecialFiles, stripPrivileges} from './check-tree.ts';
import {mountOf, requireSpace} from './free-space.ts';
import {liveDirectories} from './live-directories.ts';
import type {Recycled} from './recycle-tree.ts';
import {runBuild} from './run-build.ts';
import {linkSharedPaths} from './shared-paths.ts';
import {syncTree} from './sync-tree.ts';
import {parseLine, parseManifest, renderManifest, scanTree, type Manifest, type ScannedTree, type Tree} from './tree-manifest.ts';

const ID = /^\d{6,}$/;
const KEPT_LOGS = 20;
const CHMOD_TIMEOUT_MS = 60_000;
/** About as long as a line of a manifest is. */
const MANIFEST_LINE_BYTES = 100;
const COMMAND_ENVIRONMENT = {PATH: '/usr/local/bin:/usr/bin:/bin', LC_ALL: 'C'};

interface Spare {
  readonly manifest: Manifest;
  readonly found: Tree;
}

interface Marker {
  readonly version: 1;
  readonly release: string;
  readonly revision: string;
  readonly bytes: number;
  readonly entries: number;
}

/**
 * releases/ID         the trees that workers run in
 * manifests/ID.json   says that the release is complete; written last, removed first
 * manifests/ID.tree   what its tree looked like before shared links and build
 * manifests/ID.building   which process makes it right now
 * spare/tree, spare/manifest   a retired release, out of which the next one is made
 * spare/work          the tree that is being made; moved to releases/ before its build commands run
 * shared/             what all releases have in common
 *
 * A manifest names inode and ctime of every file, so one beside the wrong tree, or one that a crash left behind, makes work and
 * no mistakes.
 */
export function openReleases(config: Config): Releases {
  const {stateDir, release: settings} = config;
  const inPlace = settings.tree === 'in_place';
  const releasesDir = join(stateDir, 'releases');
  const manifestsDir = join(stateDir, 'manifests');
  const spareDir = join(stateDir, 'spare');
  const spareTree = join(spareDir, 'tree');
  const spareManifest = join(spareDir, 'manifest');
  /** Where a tree is made: nobody else can get in here, so no link can lead us astray before it is where workers see it. */
  const workshop = join(spareDir, 'work');
  const markerOf = (id: string) => join(manifestsDir, `${id}.json`);
  const manifestOf = (id: string) => join(manifestsDir, `${id}.tree`);
  const buildingOf = (id: string) => join(manifestsDir, `${id}.building`);
  const treeOf = (id: string) => join(releasesDir, id);
  let warmed: Promise<Spare | undefined> | undefined;

  const prepareDirectories = (): void => {
    mkdirSync(stateDir, {recursive: true, mode: 0o711});
    mkdirSync(releasesDir, {recursive: true, mode: 0o755});
    mkdirSync(manifestsDir, {recursive: true, mode: 0o700});
    mkdirSync(spareDir, {recursive: true, mode: 0o700});
  };

  const readSpare = async (): Promise<Spare | undefined> => {
    const bytes = readRegularFile(spareManifest);
    if (bytes === undefined || lstatIfThere(spareTree)?.isDirectory() !== true) return undefined;
    // `find` reads the tree while we read the manifest.
    const found = scanTree(spareTree, Math.floor(bytes.length / MANIFEST_LINE_BYTES));
    const manifest = parseManifest(bytes);
    const {tree} = await found;
    return manifest === undefined ? undefined : {manifest, found: tree};
  };

  const warm = (): void => {
    if (inPlace) return;
    warmed ??= readSpare().catch(() => undefined); // Whatever is wrong with it, `build` then makes a full export.
  };

  const lookAhead: Releases['lookAhead'] = (workingCopy, revision, signal) => {
    // The update's own commands go first.
    setImmediate(() => {
      if (signal.aborted) return;
      warm();
      void warmed?.then(spare => {
        if (spare !== undefined && spare.manifest.vcs === workingCopy.vcs && !signal.aborted) workingCopy.lookAhead(spare.manifest.revision, revision, signal);
      });
    });
  };

  const build: Releases['build'] = async (release, workingCopy, onOutput, signal) => {
    prepareDirectories();
    writeFileSync(buildingOf(release.id), `${process.pid} ${startTimeOf(process.pid) ?? ''}\n`, {mode: 0o600});
    try {
      if (inPlace) await buildInPlace(release, onOutput, signal);
      else await buildSnapshot(release, workingCopy, onOutput, signal);
    } catch (error) {
      throw told(error, release.dir);
    } finally {
      ignoreMissing(() => rmSync(buildingOf(release.id), {force: true}));
      warmed = undefined;
    }
  };

  const buildInPlace = async (release: Release, onOutput: (line: string) => void, signal: AbortSignal): Promise<void> => {
    await runCommands(release, buildAccount(), onOutput, signal);
    mark({version: 1, release: release.id, revision: release.revision, bytes: 0, entries: 0});
  };

  const buildSnapshot = async (release: Release, workingCopy: WorkingCopy, onOutput: (line: string) => void, signal: AbortSignal): Promise<void> => {
    const dir = treeOf(release.id);
    const account = buildAccount();
    const owner = {uid: account?.uid ?? process.getuid?.() ?? 0, gid: account?.gid ?? process.getgid?.() ?? 0};
    await discardTree(release.id);
    await remove(dir);
    requireSpace(stateDir, newestMarker() ?? {bytes: 0, entries: 0});

    await remove(workshop);
    const recycled = await recycle(release, workingCopy, owner, signal);
    let scanned = recycled?.scanned;
    if (scanned === undefined) {
      await remove(workshop);
      scanned = await exportWhole(release, workingCopy, account, signal);
    }
    await workingCopy.verifyExport(workshop, release.revision, signal);
    if (await stripPrivileges(workshop, scanned.tree, account, signal) > 0) scanned = await scanTree(workshop);
    replaceFileLazily(manifestOf(release.id), renderManifest(scanned, {revision: release.revision, vcs: workingCopy.vcs, owner: `${owner.uid}:${owner.gid}`}));
    refuseLinksOut(workshop, scanned.tree);

    const sharedIsNew = settings.shared.some(path => lstatIfThere(join(stateDir, 'shared', path)) === undefined);
    await linkSharedPaths(workshop, dir, {paths: settings.shared, sharedDir: join(stateDir, 'shared'), workingCopy: config.source.workingCopy, owner: workerAccount()}, signal);
    renameSync(workshop, dir);
    let touched: readonly string[] | undefined = recycled === undefined || sharedIsNew ? undefined : [...recycled.touched, ...settings.shared];
    if (settings.build.length > 0) {
      await runCommands(release, account, onOutput, signal);
      const built = await scanTree(dir);
      refuseSpecialFiles(built.tree);
      await stripPrivileges(dir, built.tree, account, signal);
      const before = scanned.tree;
      touched = touched === undefined ? undefined : [...touched, ...[...built.tree].filter(([path, line]) => before.get(path) !== line).map(([path]) => path)];
    }
    await syncTree(dir, touched, signal);
    syncDirectory(releasesDir);
    signal.throwIfAborted();
    let bytes = 0;
    for (const line of scanned.tree.values()) bytes += parseLine(line).size ?? 4096;
    mark({version: 1, release: release.id, revision: release.revision, bytes, entries: scanned.tree.size});
  };

  /** The new tree out of the spare one; undefined, and no spare is left, when that cannot be done exactly. */
  const recycle = async (release: Release, workingCopy: WorkingCopy, owner: {uid: number; gid: number}, signal: AbortSignal): Promise<Recycled | undefined> => {
    warm();
    const spare = await warmed;
    if (spare === undefined || spare.manifest.vcs !== workingCopy.vcs || spare.manifest.owner !== `${owner.uid}:${owner.gid}`) {
      await dropSpare();
      return undefined;
    }
    const changed = await workingCopy.changedPaths(spare.manifest.revision, release.revision, signal);
    if (changed === undefined) {
      await dropSpare();
      return undefined;
    }
    try {
      // The manifest first: a spare tree without one is thrown away, a manifest without its tree harms nobody.
      renameSync(spareManifest, manifestOf(release.id));
      renameSync(spareTree, workshop);
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined; // Another command took it since.
      throw error;
    }
    const {recycleTree} = await import('./recycle-tree.ts');
    try {
      return await recycleTree({dir: workshop, manifest: spare.manifest, found: spare.found, workingCopy: config.source.workingCopy, changed, ...owner, signal});
    } catch (error) {
      signal.throwIfAborted();
      if (isDiskFault(error)) throw error;
      return undefined; // Something in there is not as it should be; a full export starts from nothing.
    }
  };

  const exportWhole = async (release: Release, workingCopy: WorkingCopy, account: Account | undefined, signal: AbortSignal): Promise<ScannedTree> => {
    const dir = workshop;
    mkdirSync(dir, {mode: 0o755});
    await workingCopy.exportTo(dir, release.revision, signal);
    if (account !== undefined) {
      const {exitCode, stderr} = await runCommand({file: 'chown', args: ['-hR', `${account.uid}:${account.gid}`, '--', dir]}, {env: COMMAND_ENVIRONMENT, timeoutMs: settings.buildTimeoutMs, signal});
      if (exitCode !== 0) throw new DeployError('BUILD_FAILED', `${dir} could not be given to ${account.name}: ${stderr.trim()}`);
    }
    return scanTree(dir);
  };

  const runCommands = async (release: Release, account: Account | undefined, onOutput: (line: string) => void, signal: AbortSignal): Promise<void> => {
    if (settings.build.length === 0) return;
    await runBuild({
      release, commands: settings.build, timeoutMs: settings.buildTimeoutMs, account, log: join(stateDir, 'log', `build-${release.id}.log`), onOutput, signal,
    });
  };

  /** The account that the build commands run as, when that is another one: then the tree is its own. */
  const buildAccount = (): Account | undefined => {
    if (settings.build.length === 0 || settings.buildUser === undefined || process.getuid?.() !== 0) return undefined;
    const account = findAccount(settings.buildUser);
    if (account === undefined) throw new DeployError('CONFIG_INVALID', `release.build_user: there is no account "${settings.buildUser}" on this machine.`);
    return account.uid === 0 ? undefined : account;
  };

  const workerAccount = (): Account | undefined =>
    config.workers.user === undefined || process.getuid?.() !== 0 ? undefined : findAccount(config.workers.user);

  const mark = (marker: Marker): void => replaceFile(markerOf(marker.release), `${JSON.stringify(marker)}\n`, {mode: 0o600});

  const readMarker = (id: string): Marker | undefined => {
    try {
      const marker: unknown = JSON.parse(readRegularFile(markerOf(id))?.toString('utf8') ?? 'null');
      return isMarker(marker) && marker.release === id ? marker : undefined;
    } catch {
      return undefined;
    }
  };

  const newestMarker = (): Marker | undefined => {
    for (const name of readdirSync(manifestsDir).filter(name => name.endsWith('.json')).sort(byNumber).reverse()) {
      const marker = readMarker(name.slice(0, -'.json'.length));
      if (marker !== undefined) return marker;
    }
    return undefined;
  };

  const isComplete: Releases['isComplete'] = async id =>
    ID.test(id) && readMarker(id) !== undefined && (inPlace || lstatIfThere(treeOf(id))?.isDirectory() === true);

  const discard: Releases['discard'] = async id => {
    if (!ID.test(id)) return;
    warmed = undefined;
    if (inPlace) unmark(id);
    else await discardTree(id);
  };

  /** Removes the marker so that it stays removed: half a tree must never pass for a release. */
  const unmark = (id: string): void => {
    if (lstatIfThere(markerOf(id)) === undefined) return;
    ignoreMissing(() => rmSync(markerOf(id)));
    syncDirectory(manifestsDir);
  };

  const discardTree = async (id: string): Promise<void> => {
    unmark(id);
    if (lstatIfThere(treeOf(id)) === undefined) {
      rmSync(manifestOf(id), {force: true});
      return;
    }
    if (liveDirectories(releasesDir).has(id)) return; // Left for `prune`, when its last process has ended.
    if (!retire(id)) await remove(treeOf(id));
    rmSync(manifestOf(id), {force: true});
  };

  /** Makes a release the spare tree; false when there is one already, or nothing is known about this one. */
  const retire = (id: string): boolean => {
    const stat = lstatIfThere(treeOf(id));
    if (stat?.isDirectory() !== true || lstatIfThere(spareTree) !== undefined || !existsSync(manifestOf(id))) return false;
    mkdirSync(spareDir, {recursive: true, mode: 0o700});
    renameSync(manifestOf(id), spareManifest);
    try {
      renameSync(treeOf(id), spareTree);
    } catch (error) {
      if (errnoOf(error) === 'ENOTEMPTY' || errnoOf(error) === 'EEXIST') return false; // Another command was faster.
      throw error;
    }
    return true;
  };

  const dropSpare = async (): Promise<void> => {
    rmSync(spareManifest, {force: true});
    await remove(spareTree);
  };

  const prune: Releases['prune'] = async keep => {
    if (!existsSync(stateDir)) return;
    const kept = new Set(keep);
    warmed = undefined;
    const goes = (id: string) => ID.test(id) && !kept.has(id) && !isBeingBuilt(id);
    if (!inPlace) {
      if (lstatIfThere(spareTree) !== undefined && parseIfThere(spareManifest) === undefined) await dropSpare();
      await remove(workshop);
      const live = liveDirectories(releasesDir);
      for (const id of entriesOf(releasesDir).filter(id => goes(id) && !live.has(id)).sort(byNumber).reverse()) await discardTree(id);
    }
    for (const name of entriesOf(manifestsDir)) {
      const id = name.split('.')[0] ?? '';
      if (goes(id) && (inPlace || lstatIfThere(treeOf(id)) === undefined)) rmSync(join(manifestsDir, name), {force: true});
    }
    for (const name of entriesOf(join(stateDir, 'git')).filter(name => name.startsWith('export-'))) {
      const path = join(stateDir, 'git', name);
      // An export that is under way has just begun; what is older was left by a crash.
      if ((statSync(path, {throwIfNoEntry: false})?.mtimeMs ?? Infinity) < Date.now() - 3_600_000) await remove(path);
    }
    const logs = entriesOf(join(stateDir, 'log')).filter(name => /^build-\d+\.log$/.test(name)).sort(byNumber);
    for (const name of logs.slice(0, -KEPT_LOGS)) if (goes(name.replace(/\D/g, ''))) rmSync(join(stateDir, 'log', name), {force: true});
  };

  const parseIfThere = (path: string): Manifest | undefined => {
    try {
      const bytes = readRegularFile(path);
      return bytes === undefined ? undefined : parseManifest(bytes);
    } catch {
      return undefined;
    }
  };

  const isBeingBuilt = (id: string): boolean => {
    try {
      const [pid, startTime] = readFileSync(buildingOf(id), 'utf8').trim().split(' ');
      return startTime !== undefined && startTime !== '' && startTimeOf(Number(pid)) === startTime;
    } catch {
      return false;
    }
  };

  const dirOf = (id: string): string => inPlace ? config.source.workingCopy : treeOf(id);

  return {lookAhead, dirOf, build, isComplete, discard, prune};
}

/** Removes a tree whatever modes its directories have; links are removed, never followed. */
async function remove(path: string): Promise<void> {
  if (lstatIfThere(path) === undefined) return;
  const {rm} = await import('node:fs/promises');
  try {
    await rm(path, {recursive: true, force: true});
  } catch (error) {
    if (errnoOf(error) !== 'EACCES' && errnoOf(error) !== 'EPERM') throw error;
    await runCommand({file: 'chmod', args: ['-R', 'u+rwx', '--', path]}, {env: COMMAND_ENVIRONMENT, timeoutMs: CHMOD_TIMEOUT_MS});
    await rm(path, {recursive: true, force: true});
  }
}

/** Whole or not at all for readers, but not synced: a torn manifest is found out by its checksum. */
function replaceFileLazily(path: string, bytes: Buffer): void {
  writeFileSync(`${path}.new`, bytes, {mode: 0o600});
  renameSync(`${path}.new`, path);
}

/** Field 22 of /proc/PID/stat: with it a pid is somebody, and not who came after. */
function startTimeOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  } catch {
    return undefined;
  }
}

/** `000999` before `1000000`. */
function byNumber(a: string, b: string): number {
  return a.length - b.length || (a < b ? -1 : a > b ? 1 : 0);
}

function isMarker(value: unknown): value is Marker {
  return typeof value === 'object' && value !== null && 'version' in value && value.version === 1
    && 'release' in value && typeof value.release === 'string' && 'revision' in value && typeof value.revision === 'string'
    && 'bytes' in value && typeof value.bytes === 'number' && 'entries' in value && typeof value.entries === 'number';
}

function isDiskFault(error: unknown): boolean {
  return ['ENOSPC', 'EDQUOT', 'EROFS', 'EIO'].includes(errnoOf(error) ?? '');
}

/** A full or broken disk as the failure that it is. */
function told(error: unknown, dir: string): unknown {
  if (isDiskFault(error)) {
    return new DeployError('BUILD_FAILED', `The release could not be written to ${dir}, on ${mountOf(dir)}: ${messageOf(error)}`, {
      hint: 'Make room on that file system, or mend it.', cause: error,
    });
  }
  if (error instanceof DeployError && error.code === 'UPDATE_FAILED' && /no space left/i.test(error.message)) {
    return new DeployError('BUILD_FAILED', `The release could not be exported to ${dir}, on ${mountOf(dir)}: ${error.message}`, {hint: 'Make room on that file system.', cause: error});
  }
  return error;
}
