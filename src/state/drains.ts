import {closeSync, constants, fstatSync, openSync, readdirSync, statSync, unlinkSync} from 'node:fs';
import {join} from 'node:path';
import type {Generation, ProcessIdentity} from '../deploy/deployment.ts';
import {DeployError, errnoOf} from '../errors.ts';
import {ignoreMissing, readRegularFile, replaceFile, syncDirectory} from './atomic-file.ts';
import {lockOpenFile} from './deploy-lock.ts';
import type {HistoryLine} from './history.ts';
import {generationAsRestarted} from './restarts.ts';

/**
 * What a deploy leaves to be done after its switch: workers to drain and stop, then its line in the history.
 * Written once, under the deploy's lock; from then on it belongs to whoever locks the file itself, so drains go on
 * beside later deploys and beside each other, and one whose process died is simply free to be taken up.
 */
export interface Drain {
  readonly version: 1;
  readonly deploy: string;
  /** ISO 8601. */
  readonly since: string;
  readonly generation: Generation;
  /** nginx workers that may still send requests to it. */
  readonly oldNginxWorkers: readonly ProcessIdentity[];
  /** The deploy's line, all but the times of drain and record; null when it is in the history already. */
  readonly history: HistoryLine | null;
}

export interface HeldDrain {
  readonly drain: Drain;
  /** Removes the file: everything is done. */
  finish(): void;
  /** Lets go of it undone. */
  release(): void;
}

/** Durable on return. May run twice for one deploy. */
export function writeDrain(stateDir: string, drain: Drain): void {
  replaceFile(pathOf(stateDir, drain.deploy), JSON.stringify(drain), {mode: 0o600});
}

/** All that is still to be drained, oldest first. Errors: STATE_UNCERTAIN for a damaged one, or one of another version. */
export function readDrains(stateDir: string): Drain[] {
  return deploysIn(stateDir).flatMap(deploy => {
    const bytes = readRegularFile(pathOf(stateDir, deploy));
    return bytes === undefined ? [] : [decodeDrain(stateDir, bytes, pathOf(stateDir, deploy))];
  });
}

/** Takes up one drain; undefined when another process has it, or when it is done. */
export function takeDrain(stateDir: string, deploy: string): HeldDrain | undefined {
  const path = pathOf(stateDir, deploy);
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDWR | constants.O_NOFOLLOW);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
  const bytes = lockOpenFile(fd) && statSync(path, {throwIfNoEntry: false})?.ino === fstatSync(fd).ino ? readRegularFile(path) : undefined;
  if (bytes === undefined) {
    closeSync(fd);
    return undefined;
  }
  let drain: Drain;
  try {
    drain = decodeDrain(stateDir, bytes, path);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  return {
    drain,
    finish: () => {
      // Written anew meanwhile, it is somebody else's to finish.
      if (statSync(path, {throwIfNoEntry: false})?.ino === fstatSync(fd).ino) ignoreMissing(() => unlinkSync(path));
      syncDirectory(join(stateDir, 'drains'));
      closeSync(fd);
    },
    release: () => closeSync(fd),
  };
}

function decodeDrain(stateDir: string, bytes: Buffer, path: string): Drain {
  const uncertain = (what: string) => new DeployError('STATE_UNCERTAIN', `${path}: ${what}`, {
    hint: 'It names workers that are still to be stopped. Nothing was touched. See which run (`osyw-deploy recover --dry-run`); when none of them is left over, move the file away.',
  });
  let drain: Partial<Drain> | null;
  try {
    drain = JSON.parse(bytes.toString('utf8')) as Partial<Drain> | null;
  } catch {
    throw uncertain('damaged');
  }
  if (Number(drain?.version) !== 1) throw uncertain(`of version ${String(drain?.version)}, this is version 1`);
  if (!Array.isArray(drain?.generation?.workers) || !Array.isArray(drain.oldNginxWorkers)) throw uncertain('not a drain of osyw-deploy');
  return {...drain as Drain, generation: generationAsRestarted(stateDir, drain.generation)};
}

function deploysIn(stateDir: string): string[] {
  try {
    return readdirSync(join(stateDir, 'drains')).filter(name => /^[^.].*\.json$/.test(name)).map(name => name.slice(0, -'.json'.length)).sort();
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw error;
  }
}

function pathOf(stateDir: string, deploy: string): string {
  return join(stateDir, 'drains', `${deploy}.json`);
}
