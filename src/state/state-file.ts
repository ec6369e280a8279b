import {chmodSync, existsSync, linkSync, mkdirSync, unlinkSync} from 'node:fs';
import {join} from 'node:path';
import {crc32} from 'node:zlib';
import type {Generation, Release} from '../deploy/deployment.ts';
import {DeployError, messageOf} from '../errors.ts';
import {accountOf} from '../support/accounts.ts';
import {lstatIfThere} from '../support/lstat-if-there.ts';
import {ignoreMissing, readRegularFile, replaceFile} from './atomic-file.ts';
import {readHistory} from './history.ts';
import {generationAsRestarted} from './restarts.ts';

/** A release that served, newest last. */
export interface ServedRelease extends Release {
  /** ISO 8601, of the last time that it began to serve. */
  readonly servedAt: string;
  /** ISO 8601, of the first time; absent in a state of before there was a watch. */
  readonly firstServedAt?: string;
  /** False once it was rolled back from: no rollback goes there by itself. */
  readonly good: boolean;
}

/** What is true between deploys. */
export interface State {
  readonly version: 1;
  readonly serving: Generation | null;
  /** The number of the next release. */
  readonly nextRelease: number;
  /** The port leased last: the next search begins behind it. */
  readonly lastPort: number | null;
  /** Releases that served and are still there to go back to, in the order in which they first served. */
  readonly served: readonly ServedRelease[];
  /** A revision that was rolled back from or failed after its switch: only a person takes it again. */
  readonly leftAlone: string | null;
  /** The newest revision that a deploy was made of, however that ended: a request of a hook does not try it again. */
  readonly tried: string | null;
}

export const EMPTY_STATE: State = {version: 1, serving: null, nextRelease: 1, lastPort: null, served: [], leftAlone: null, tried: null};

/**
 * Errors: STATE_UNCERTAIN when the file is damaged, of another version, or gone though something was deployed. The file before
 * it is there for people: what it says was true once, and a guess about processes is worse than a question.
 */
export function readState(stateDir: string): State {
  const path = statePath(stateDir);
  const found = readOne(path);
  if (found !== undefined && !(found instanceof Error)) return found.serving === null ? found : {...found, serving: generationAsRestarted(stateDir, found.serving)};
  if (found === undefined && !everDeployed(stateDir)) return EMPTY_STATE;
  throw new DeployError('STATE_UNCERTAIN', `the state cannot be read: ${found?.message ?? `${path} is gone, though the history says that something was deployed`}`,
    {hint: `Nothing was touched. See which workers run (\`ss -ltnp\`) and what nginx's upstream names. ${path}.prev holds the state before; to begin anew, move ${stateDir} away.`});
}

function everDeployed(stateDir: string): boolean {
  return existsSync(`${statePath(stateDir)}.prev`) || readHistory(stateDir).some(({outcome}) => outcome === 'deployed');
}

/** Durable on return; the state before it stays as `state.json.prev`. */
export function writeState(stateDir: string, state: State): void {
  const path = statePath(stateDir);
  ignoreMissing(() => unlinkSync(`${path}.prev`));
  ignoreMissing(() => linkSync(path, `${path}.prev`));
  const json = JSON.stringify(state);
  replaceFile(path, `${JSON.stringify({crc: crc32(json), state})}\n`, {mode: 0o600});
}

/**
 * Errors: USAGE when the state is another account's: what we wrote there it could not read, and its workers would be started as us,
 * be it root.
 */
export function refuseForeignState(stateDir: string): void {
  const uid = lstatIfThere(stateDir)?.uid;
  if (uid === undefined || uid === process.geteuid?.()) return;
  const owner = accountOf(uid)?.name ?? `#${uid}`;
  throw new DeployError('USAGE', `the state in ${stateDir} belongs to ${owner}, who deploys this application`, {hint: `Run it as that account: \`sudo -u '${owner}' osyw-deploy …\`.`});
}

/** Makes the directories of an application. Others may pass through to the releases, not look around. */
export function makeStateDir(stateDir: string): void {
  try {
    mkdirSync(stateDir, {recursive: true, mode: 0o711});
    chmodSync(stateDir, 0o711);
    for (const name of ['drains', 'restarts']) mkdirSync(join(stateDir, name), {recursive: true, mode: 0o700});
  } catch (error) {
    throw new DeployError('CONFIG_INVALID', `cannot make the state directory ${stateDir}: ${messageOf(error)}`, {hint: 'Set `state_dir` to a place that this account may write.', cause: error});
  }
}

function readOne(path: string): State | Error | undefined {
  try {
    const text = readRegularFile(path)?.toString('utf8');
    if (text === undefined) return undefined;
    const value: unknown = JSON.parse(text);
    if (typeof value !== 'object' || value === null || !('state' in value) || !('crc' in value)) return new Error(`${path}: not a state of osyw-deploy`);
    if (crc32(JSON.stringify(value.state)) !== value.crc) return new Error(`${path}: damaged, or changed by hand`);
    const state = value.state as State;
    return Number(state.version) === 1 ? state : new Error(`${path}: of version ${String(state.version)}, this is version 1`);
  } catch (error) {
    return new Error(`${path}: ${messageOf(error)}`);
  }
}

function statePath(stateDir: string): string {
  return join(stateDir, 'state.json');
}
