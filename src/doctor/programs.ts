import {accessSync, constants} from 'node:fs';
import {join} from 'node:path';
import {SYSTEM_PATH} from '../support/system-path.ts';
import type {Finding} from './finding.ts';

/** By the package that has them on Debian. */
const NEEDED: Readonly<Record<string, readonly string[]>> = {
  'util-linux': ['flock', 'setpriv', 'unshare', 'mount'],
  coreutils: ['cp', 'sync', 'chown', 'chmod'],
  findutils: ['find'],
};

/** What the command needs of the system beside svn, git and nginx. `path` as PATH has it. */
export function programsAreThere(path: string = SYSTEM_PATH): Finding[] {
  const missing = Object.entries(NEEDED).flatMap(([name, programs]) => {
    const gone = programs.filter(program => findProgram(program, path) === undefined);
    return gone.length === 0 ? [] : [{name, gone}];
  });
  const check = 'programs';
  if (missing.length === 0) return [{check, level: 'ok', says: `${Object.values(NEEDED).flat().join(', ')} are there`}];
  return missing.map(({name, gone}) => ({
    check, level: 'problem' as const, says: `not found in ${path}: ${gone.join(', ')}`,
    means: 'the deployer runs them, so a deploy fails', mend: `apt-get install --yes ${name}`,
  }));
}

/** The file that a name on a PATH means, or an absolute path itself; undefined where nothing can be run. */
export function findProgram(name: string, path: string = SYSTEM_PATH): string | undefined {
  const places = name.includes('/') ? [name] : path.split(':').map(directory => join(directory, name));
  return places.find(file => {
    try {
      accessSync(file, constants.X_OK);
      return true;
    } catch {
      return false; // Not there, or not ours to run.
    }
  });
}
