import {closeSync, constants, fstatSync, openSync, readdirSync, readSync} from 'node:fs';
import {dirname, join} from 'node:path';
import type {Config} from '../config/config.ts';
import {examineEnvFile} from '../config/env-file.ts';
import {readRegularFile, utf8Of} from '../config/regular-file.ts';
import {examineWebhookSecrets} from '../config/webhook-secrets.ts';
import {errnoOf} from '../errors.ts';
import {shellWord} from '../service/quoting.ts';
import {lstatIfThere} from '../support/lstat-if-there.ts';
import {octal} from '../support/octal.ts';
import {allPids, readProcFile} from '../workers/process-identity.ts';
import {counted, type Finding} from './finding.ts';

/** A value that is searched for and never shown. */
export interface Secret {
  /** For people: `the password in FILE`. */
  readonly what: string;
  readonly file: string;
  readonly bytes: Buffer;
  /** The workers are given it in their environment, as the configuration says. */
  readonly inEnvironment: boolean;
}

/** A shorter one would be found everywhere. */
const LEAST_LENGTH = 6;
const MOST_FILE_BYTES = 1_000_000;
/** Of each log so much of the end is searched. */
const LOG_BYTES = 4 * 1024 * 1024;
const MOST_LOGS = 500;
/** Of a variable or a header that is taken for a secret. */
export const SECRET_NAME = /pass|pwd|secret|token|key|credential|auth|dsn|salt|private/i;
const CREDENTIALS_IN_URL = /:\/\/[^/\s:@]*:[^/\s@]+@/;

/** The secrets that the configuration names, as far as they can be read, and how many are too short to be looked for. */
export function configuredSecrets({source, workers, watch}: Config): {secrets: Secret[]; tooShort: number} {
  const found: {what: string; file: string; value: string; inEnvironment: boolean}[] = [];
  if (source.passwordFile !== undefined) {
    const file = source.passwordFile;
    const read = readRegularFile(file, MOST_FILE_BYTES);
    const value = read.kind === 'read' ? utf8Of(read.bytes)?.split(/\r?\n/)[0] : undefined;
    if (value !== undefined) found.push({what: 'the password in source.password_file', file, value, inEnvironment: false});
  }
  if (watch.webhook !== undefined) {
    const file = watch.webhook.secretFile;
    for (const value of examineWebhookSecrets(file).secrets) found.push({what: 'the secret in watch.webhook.secret_file', file, value, inEnvironment: false});
  }
  if (workers.envFile !== undefined) {
    const file = workers.envFile;
    // Not every variable is a secret, and `production` stands in many a command line.
    const values = Object.entries(examineEnvFile(file).values).filter(([name, value]) => isSecret(name, value));
    for (const [name, value] of values) found.push({what: `${name} in workers.env_file`, file, value, inEnvironment: true});
  }
  const whole = found.filter(({value}) => value !== '');
  const long = whole.filter(({value}) => value.length >= LEAST_LENGTH);
  return {secrets: long.map(({value, ...rest}) => ({...rest, bytes: Buffer.from(value)})), tooShort: whole.length - long.length};
}

/** Whether a secret stands where every account of the machine can read it: in the arguments of a process. */
export function secretsInArguments(secrets: readonly Secret[]): Finding[] {
  return inProcesses('secret-in-process-list', 'cmdline', secrets, {where: 'in the arguments of', means: 'every account of this machine can read the arguments of every process'});
}

/** Whether one stands in an environment where none belongs: passwords and webhook secrets are read from their files alone. */
export function secretsInEnvironments(secrets: readonly Secret[]): Finding[] {
  return inProcesses('secret-in-environment', 'environ', secrets.filter(({inEnvironment}) => !inEnvironment), {where: 'in the environment of', means: 'an environment is inherited by whatever the process starts, and ends up in crash reports'});
}

function inProcesses(check: string, file: 'cmdline' | 'environ', secrets: readonly Secret[], {where, means}: {where: string; means: string}): Finding[] {
  const pids = allPids();
  const found = secrets.flatMap((secret): Finding[] => {
    const holders = pids.filter(pid => readProcFile(`/proc/${pid}/${file}`)?.includes(secret.bytes) === true);
    if (holders.length === 0) return [];
    return [{
      check, level: 'problem', place: secret.file, says: `${secret.what} stands ${where} ${named(holders.map(pid => processName(pid, secret)))}`,
      means: `${means}: see who started it, let it read a file instead, and change the secret, in ${secret.file} too`,
      mend: `ps -o pid,ppid,user,lstart -p ${holders.slice(0, MOST_NAMED).join(',')}`,
    }];
  });
  return found.length > 0 ? found : [{check, level: 'ok', says: `${searched(secrets)} ${where} each process that we can see`}];
}

/** Whether one stands in a log of the deployer's or the workers'. */
export function secretsInLogs(secrets: readonly Secret[], {stateDir, workers}: Pick<Config, 'stateDir' | 'workers'>): Finding[] {
  const check = 'secret-in-logs';
  const directories = [...new Set([join(stateDir, 'log'), ...(workers.log === undefined ? [] : [dirname(workers.log)])])];
  const files = [...['history.ndjson', 'journal.ndjson'].map(name => join(stateDir, name)), ...directories.flatMap(filesIn)];
  const places = new Map<Secret, string[]>();
  for (const file of files) {
    const end = endOfFile(file);
    for (const secret of secrets.filter(({bytes}) => end.includes(bytes))) places.set(secret, [...places.get(secret) ?? [], file]);
  }
  const found = [...places].map(([{what, file}, logs]): Finding => ({
    check, level: 'problem', place: file, says: `${what} stands in ${named(logs)}`,
    means: `whoever reads a log, or a copy of it, has the secret: see to it that it is not written there again, and change it, in ${file} too. To hide the log takes it out of no copy`,
    mend: logs.map(log => `chmod 0600 ${shellWord(log)}    # until the secret is changed`).join('\n'),
  }));
  return found.length > 0 ? found : [{check, level: 'ok', says: `${searched(secrets)} in ${counted(files.length, 'log')}`}];
}

/** Whether others can take a secret's file away and put another in its place, or read one out of the configuration. */
export function secretModes(config: Config): Finding[] {
  const {source, workers, watch} = config;
  const files = [source.passwordFile, workers.envFile, watch.webhook?.secretFile].filter(file => file !== undefined);
  const directories = [...new Set([...files, config.file].map(file => dirname(file)))].filter(directory => {
    const mode = lstatIfThere(directory)?.mode ?? 0;
    return (mode & 0o022) !== 0 && (mode & 0o1000) === 0;
  });
  const open: Finding[] = directories.map(directory => ({
    check: 'secret-modes', level: 'problem', place: directory, says: `${directory}, which holds secrets or the configuration, has mode ${octal((lstatIfThere(directory)?.mode ?? 0) & 0o7777)}: others can write it`,
    means: 'others can put a file of theirs in the place of a secret, or of the configuration, which names commands that run with the deployer\'s rights', mend: `chmod go-w ${shellWord(directory)}`,
  }));
  const mode = (lstatIfThere(config.file)?.mode ?? 0) & 0o777;
  const inside = Object.entries(workers.env).filter(([name, value]) => isSecret(name, value)).map(([name]) => name);
  const readable: Finding[] = inside.length === 0 || (mode & 0o044) === 0 ? [] : [{
    check: 'secret-in-configuration', level: 'problem', place: `${config.file}: workers.env`, says: `${config.file} has mode ${octal(mode)} and sets ${inside.join(', ')}`,
    means: 'every account that can read the configuration has the secret', mend: `env_file: /etc/osyw-deploy/${config.app}.env    # mode 0600, a line KEY=value each\nchmod 0600 ${shellWord(config.file)}`,
  }];
  if (open.length + readable.length > 0) return [...open, ...readable];
  return [{check: 'secret-modes', level: 'ok', says: `${counted(files.length, 'file')} with secrets: only their owner can read them, and nobody else can put others in their place`}];
}

function searched(secrets: readonly Secret[]): string {
  return secrets.length === 0 ? 'no secret is configured that could stand' : `none of ${counted(secrets.length, 'configured secret')} was found`;
}

const MOST_NAMED = 5;

function named(places: readonly string[]): string {
  return `${places.slice(0, MOST_NAMED).join(', ')}${places.length > MOST_NAMED ? ` and ${places.length - MOST_NAMED} more` : ''}`;
}

/** What a program calls itself may be a part of the secret. */
function processName(pid: number, {bytes}: Secret): string {
  const name = readProcFile(`/proc/${pid}/comm`)?.toString('utf8').trim() ?? '';
  const secret = bytes.toString('utf8');
  return `pid ${pid}${name === '' || secret.includes(name) || name.includes(secret.slice(0, LEAST_LENGTH)) ? '' : ` (${name})`}`;
}

function isSecret(name: string, value: string): boolean {
  return value.length >= LEAST_LENGTH && ((SECRET_NAME.test(name) && !value.startsWith('/')) || CREDENTIALS_IN_URL.test(value));
}

function filesIn(directory: string): string[] {
  try {
    return readdirSync(directory, {withFileTypes: true}).filter(entry => entry.isFile()).slice(0, MOST_LOGS).map(({name}) => join(directory, name));
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
    return []; // Not there, or not ours to read.
  }
}

/** Empty where there is nothing that we may read. */
function endOfFile(file: string): Buffer {
  let fd: number;
  try {
    fd = openSync(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
    return Buffer.alloc(0);
  }
  try {
    const {size} = fstatSync(fd);
    const bytes = Buffer.alloc(Math.min(size, LOG_BYTES));
    return bytes.subarray(0, readSync(fd, bytes, 0, bytes.length, size - bytes.length));
  } finally {
    closeSync(fd);
  }
}
