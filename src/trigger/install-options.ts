import {chownSync, unlinkSync} from 'node:fs';
import {join} from 'node:path';
import {ignoreMissing, readRegularFile, replaceFile} from '../state/atomic-file.ts';
import {lstatIfThere} from '../support/lstat-if-there.ts';

/** What `hook install` was told, so that it need not be told again: a second install changes nothing, and status asks about the same. */
export interface InstallOptions {
  readonly repository?: string | undefined;
  readonly group?: string | undefined;
  readonly anyone?: boolean | undefined;
}

/** Nothing where nothing was told, or can be read. */
export function rememberedOptions(stateDir: string): InstallOptions {
  try {
    const said: unknown = JSON.parse(readRegularFile(pathIn(stateDir))?.toString('utf8') ?? '{}');
    if (typeof said !== 'object' || said === null) return {};
    const {repository, group, anyone} = said as Readonly<Record<string, unknown>>;
    return {
      ...(typeof repository === 'string' ? {repository} : {}),
      ...(typeof group === 'string' ? {group} : {}),
      ...(anyone === true ? {anyone} : {}),
    };
  } catch {
    return {}; // Not ours to read, or torn: then they are told again.
  }
}

/** Durable on return. It belongs to whoever the state belongs to. */
export function rememberOptions(stateDir: string, options: InstallOptions): void {
  const owner = lstatIfThere(stateDir);
  replaceFile(pathIn(stateDir), JSON.stringify(options), {mode: 0o600});
  if (owner !== undefined && owner.uid !== process.getuid?.()) chownSync(pathIn(stateDir), owner.uid, owner.gid);
}

export function forgetOptions(stateDir: string): void {
  ignoreMissing(() => unlinkSync(pathIn(stateDir)));
}

function pathIn(stateDir: string): string {
  return join(stateDir, 'hook-options.json');
}
