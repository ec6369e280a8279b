import {createHash} from 'node:crypto';
import {DeployError} from '../errors.ts';
import type {Config} from './config.ts';
import {readRegularFile} from './regular-file.ts';

/**
 * SHA-256 (hex) of everything that the configuration says, with the content of `env_file` but not the place of the
 * configuration itself: two equal hashes run the same thing. Errors: CONFIG_INVALID when `env_file` cannot be read.
 */
export function configHash(config: Config): string {
  // When a deploy is due, and who is told of it, changes nothing about what runs.
  const {file: _file, hook: _hook, watch: _watch, source: {paths: _paths, ...source}, ...others} = config;
  const effective = {...others, source};
  const {envFile} = config.workers;
  const content = envFile === undefined ? null : hashOfFile(envFile);
  return createHash('sha256').update(canonicalJson({...effective, envFileContent: content})).digest('hex');
}

function hashOfFile(path: string): string {
  const file = readRegularFile(path, 1_000_000);
  if (file.kind !== 'read') {
    throw new DeployError('CONFIG_INVALID', `${path}: ${file.kind === 'missing' ? 'is not there' : file.reason}; expected the workers.env_file`);
  }
  return createHash('sha256').update(file.bytes).digest('hex');
}

/** Keys sorted, undefined ones left out: the order of the lines in the file makes no difference. */
function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_key, inside: unknown) =>
    (typeof inside === 'object' && inside !== null && !Array.isArray(inside)
      ? Object.fromEntries(Object.entries(inside).toSorted(([a], [b]) => (a < b ? -1 : 1)))
      : inside));
}
