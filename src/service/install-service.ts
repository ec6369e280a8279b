import {accessSync, constants, existsSync, lstatSync, mkdirSync, readFileSync, unlinkSync} from 'node:fs';
import {dirname, join} from 'node:path';
import {DeployError, errnoOf} from '../errors.ts';
import {ignoreMissing, replaceFile, syncDirectory, unfinishedName} from '../state/atomic-file.ts';
import {lstatIfThere} from '../support/lstat-if-there.ts';
import {servicePlaces, type ServiceFile} from './service-files.ts';
import {readStamp} from './stamp.ts';

/** `outdated`: ours, as an install of another time wrote it. */
export type FileState = 'installed' | 'outdated' | 'changed' | 'foreign' | 'not_installed';

export interface ChangedFile {
  readonly file: string;
  readonly changed: boolean;
  /** For people. */
  readonly did: string;
}

const LARGEST = 1 << 20;

/** What stands in the place of a file; `text` as an install would write it. */
export function lookAtFile(root: string, path: string, text?: string): FileState {
  const file = join(root, path);
  const stat = lstatIfThere(file);
  if (stat === undefined) return 'not_installed';
  if (!stat.isFile() || stat.size > LARGEST) return 'foreign';
  const found = readFileSync(file, 'utf8');
  const {kind} = readStamp(found);
  if (kind === 'ours') return found === text ? 'installed' : 'outdated';
  return kind;
}

/** Writes what is not there as it should be. Killed anywhere, it can be run again. Errors: USAGE, before anything is touched. */
export function installFiles(root: string, app: string, files: readonly ServiceFile[]): ChangedFile[] {
  mayInstall(root, app, files);
  const written = files.map(({path, mode, text}): ChangedFile => {
    const file = join(root, path);
    const state = lookAtFile(root, path, text);
    if (state === 'installed' && (lstatSync(file).mode & 0o777) === mode) return {file, changed: false, did: 'is there already'};
    mkdirSync(dirname(file), {recursive: true, mode: 0o755});
    replaceFile(file, text, {mode});
    return {file, changed: true, did: state === 'not_installed' ? 'written' : 'brought up to date'};
  });
  // One that a configuration of before had need of.
  const stale = Object.values(servicePlaces(app)).filter(path => !files.some(file => file.path === path) && lookAtFile(root, path) === 'outdated');
  return [...written, ...stale.map(path => remove(join(root, path)))];
}

/** Touches nothing. Errors: USAGE for what an uninstall would refuse. */
export function mayUninstall(root: string, app: string): void {
  for (const path of Object.values(servicePlaces(app))) if (lookAtFile(root, path) === 'changed') throw changedByHand(join(root, path), 'uninstall');
}

/** Removes what an install wrote, and nothing else. May run twice. Errors: USAGE, before anything is touched. */
export function uninstallFiles(root: string, app: string): ChangedFile[] {
  mayUninstall(root, app);
  return Object.values(servicePlaces(app)).map((path): ChangedFile => {
    const file = join(root, path);
    const state = lookAtFile(root, path);
    if (existsSync(dirname(file))) ignoreMissing(() => unlinkSync(unfinishedName(file))); // An install was killed.
    if (state === 'not_installed') return {file, changed: false, did: 'is not there'};
    return state === 'foreign' ? {file, changed: false, did: 'is not ours and stays'} : remove(file);
  });
}

/** Whether this account may write there; the directories need not be there yet. */
export function mayWrite(root: string, paths: readonly string[]): boolean {
  return paths.every(path => {
    try {
      accessSync(existing(dirname(join(root, path))), constants.W_OK | constants.X_OK);
      return true;
    } catch (error) {
      if (errnoOf(error) === undefined) throw error;
      return false;
    }
  });
}

function mayInstall(root: string, app: string, files: readonly ServiceFile[]): void {
  for (const {path, text} of files) {
    const state = lookAtFile(root, path, text);
    if (state === 'changed') throw changedByHand(join(root, path), 'install');
    if (state === 'foreign') throw new DeployError('USAGE', `${join(root, path)} is there, and not of \`osyw-deploy service install\``, {hint: `Look what it is and move it away, then run it again; nothing was written. \`osyw-deploy service install --print\` shows what would stand there.`});
  }
  const places = servicePlaces(app);
  const other = files[0]?.kind === 'unit' ? places.script : places.unit;
  if (lookAtFile(root, other) !== 'not_installed') {
    throw new DeployError('USAGE', `${join(root, other)} is there: systemd would see only one of a unit and an init script of the same name`, {hint: 'Run `osyw-deploy service uninstall` first; nothing was written.'});
  }
}

function changedByHand(file: string, word: 'install' | 'uninstall'): DeployError {
  return new DeployError('USAGE', `${file} was written by \`osyw-deploy service install\` and changed by hand since`, {
    hint: `${file.endsWith('.service') ? `Put what you changed into \`systemctl edit\`, which leaves the unit itself alone. ` : ''}Move it away, then run \`osyw-deploy service ${word}\` again; nothing was touched.`,
  });
}

function remove(file: string): ChangedFile {
  ignoreMissing(() => unlinkSync(file));
  syncDirectory(dirname(file));
  return {file, changed: true, did: 'removed'};
}

function existing(directory: string): string {
  return lstatIfThere(directory) === undefined ? existing(dirname(directory)) : directory;
}
