import {accessSync, constants} from 'node:fs';
import {join} from 'node:path';
import type {Config} from '../config/config.ts';
import {unfinished} from '../deploy/recover.ts';
import {DeployError, errnoOf} from '../errors.ts';
import {shellWord} from '../service/quoting.ts';
import {deployLockPath, readHolder} from '../state/deploy-lock.ts';
import {readDrains, type Drain} from '../state/drains.ts';
import {readJournal} from '../state/journal.ts';
import {readState, type State} from '../state/state-file.ts';
import {lstatIfThere} from '../support/lstat-if-there.ts';
import {isAlive} from '../workers/process-identity.ts';
import {isWorkerAlive} from '../workers/worker-tree.ts';
import {counted, type Finding} from './finding.ts';

/** What is on record of an application, as far as it can be read. */
export interface Records {
  readonly state: State | undefined;
  readonly drains: readonly Drain[];
  /** Ports of workers that a deploy is starting now. */
  readonly starting: readonly number[];
  readonly findings: readonly Finding[];
}

/** Reads the state and the journal, and takes no lock. */
export function readRecords({stateDir, file}: Config): Records {
  const check = 'state';
  const place = stateDir;
  const none = {state: undefined, drains: [], starting: []};
  const hidden = ['state.json', 'journal.ndjson', 'drains'].map(name => join(stateDir, name)).find(path => !isReadable(path));
  if (hidden !== undefined) return {...none, findings: [{check, level: 'note', place, says: `${hidden} is not ours to read`, means: 'what serves is not known here; look as the account that deploys, or as root'}]};
  const mend = `osyw-deploy recover --config ${shellWord(file)}`;
  try {
    const state = readState(stateDir);
    const open = unfinished(readJournal(stateDir));
    const drains = readDrains(stateDir);
    const holder = readHolder(deployLockPath(stateDir))?.process;
    const starting = open?.workers.map(({port}) => port) ?? [];
    if (open !== undefined && (holder === undefined || !isAlive(holder))) {
      return {state, drains, starting, findings: [{check, level: 'problem', place, mend, says: `deploy ${open.id} was killed in ${open.phase} and is not settled`, means: 'what it left runs on; whatever deploys next settles it first'}]};
    }
    const serving = state.serving === null ? 'nothing serves' : `release ${state.serving.release.id} (${state.serving.release.revision}) serves on ${counted(state.serving.workers.length, 'worker')}`;
    const dead = state.serving?.workers.filter(worker => !isWorkerAlive(worker)).map(({port}) => port) ?? [];
    if (dead.length > 0) {
      const all = dead.length === state.serving?.workers.length;
      return {state, drains, starting, findings: [{check, level: 'problem', place, says: `${serving}, and ${all ? 'all are' : dead.length === 1 ? 'one is' : `${dead.length} are`} dead: port${dead.length === 1 ? '' : 's'} ${dead.join(', ')}`,
        means: all ? 'nobody answers requests' : 'nginx tries the others first after a failure, and requests that it may not repeat fail; a running `watch` replaces dead workers by itself',
        mend: `osyw-deploy ${all ? 'start' : 'restart'} --config ${shellWord(file)}`}]};
    }
    return {state, drains, starting, findings: [{check, level: 'ok', says: `${serving}; nothing is left to settle`, place}]};
  } catch (error) {
    if (!(error instanceof DeployError)) throw error;
    return {...none, findings: [{check, level: 'problem', place, says: error.message, means: `no deploy begins (${error.code}). ${error.hint}`, mend: `${mend} --dry-run`}]};
  }
}

/** Or not there, which is as good. */
export function isReadable(path: string): boolean {
  try {
    if (lstatIfThere(path) === undefined) return true;
    accessSync(path, constants.R_OK);
    return true;
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
    return false;
  }
}
