import {mkdirSync, unlinkSync, writeFileSync} from 'node:fs';
import {dirname, join} from 'node:path';
import {DeployError, messageOf} from '../errors.ts';
import {ignoreMissing} from '../state/atomic-file.ts';

/** Where the environment of a unit stands, for systemd alone to read, as long as it may start the worker once more. */
export function environmentFileOf(runDir: string, unit: string): string {
  return join(runDir, 'environment', unit);
}

/** Writes the environment of a worker. Not synced: it means nothing after a reboot. Errors: START_FAILED. */
export function writeEnvironmentFile(path: string, environment: Readonly<Record<string, string>>): void {
  try {
    mkdirSync(dirname(dirname(path)), {recursive: true});
    mkdirSync(dirname(path), {recursive: true, mode: 0o700});
    writeFileSync(path, renderEnvironment(environment), {mode: 0o600, flag: 'wx'});
  } catch (error) {
    throw new DeployError('START_FAILED', `cannot write the worker's environment for systemd: ${messageOf(error)}`, {hint: 'Mend `run_dir` or the rights of its directory.', cause: error});
  }
}

/** May run twice. */
export function removeEnvironmentFile(path: string): void {
  ignoreMissing(() => unlinkSync(path));
}

/**
 * In systemd's own syntax: between double quotes only these four characters mean anything, each taken literally behind a backslash.
 * Source: systemd.exec(5), EnvironmentFile=; src/basic/env-file.c.
 */
export function renderEnvironment(environment: Readonly<Record<string, string>>): string {
  return Object.entries(environment).map(([name, value]) => `${name}="${value.replace(/["\\`$]/g, '\\$&')}"\n`).join('');
}
