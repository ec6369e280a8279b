import type {Config} from '../config/config.ts';
import {examineEnvFile} from '../config/env-file.ts';
import {runCommand} from '../support/run-command.ts';
import {SYSTEM_PATH} from '../support/system-path.ts';
import type {Finding} from './finding.ts';

const COMMAND_MS = 5000;
/** Under which svn, git, nginx and the workers are run, unless the configuration says otherwise for the workers. */
const OURS = 'C.UTF-8';
const NAMES = ['LC_ALL', 'LC_CTYPE', 'LANG'];

/** Whether this machine has the locales that are used: svn's and git's for names that are not ASCII, and the workers'. */
export async function localesAreThere({workers}: Config, signal: AbortSignal): Promise<Finding[]> {
  const environment = {...(workers.envFile === undefined ? {} : examineEnvFile(workers.envFile).values), ...workers.env};
  const set = NAMES.flatMap(name => environment[name] === undefined || environment[name] === '' ? [] : [{name: `workers.env ${name}`, value: environment[name]}]);
  return judgeLocales(await localesOfMachine(signal), set);
}

/** What `locale -a` prints. */
export async function localesOfMachine(signal: AbortSignal): Promise<string[]> {
  const {exitCode, stdout, spawnError} = await runCommand({file: 'locale', args: ['-a']}, {env: {PATH: SYSTEM_PATH, LC_ALL: 'C'}, cwd: '/', timeoutMs: COMMAND_MS, signal});
  if (exitCode !== 0) throw new Error(`\`locale -a\` does not say which locales there are (${spawnError ?? `exit ${exitCode ?? 'by a signal'}`})`);
  return stdout.split('\n');
}

/** `there`: what `locale -a` prints. */
export function judgeLocales(there: readonly string[], set: readonly {name: string; value: string}[]): Finding[] {
  const check = 'locale';
  const known = new Set(there.map(plain));
  const missing = [{name: 'of svn, git and the workers', value: OURS}, ...set].filter(({value}) => !known.has(plain(value)) && value !== 'POSIX');
  if (missing.length === 0) return [{check, level: 'ok', says: `the locales that are used are there: ${[OURS, ...set.map(({value}) => value)].join(', ')}`}];
  return missing.map(({name, value}) => ({
    check, level: 'warning' as const, place: name,
    says: `this machine has no locale ${value} (${name})`,
    means: value === OURS ? 'svn refuses files whose names are not ASCII, and Python falls back to ASCII' : 'the workers run in the locale C: programs may take names and text that are not ASCII for broken ones',
    mend: value === OURS ? 'apt-get install --yes locales libc-bin' : /^[\w.@-]+$/.test(value) ? `localedef -i ${value.split(/[.@]/)[0] ?? ''} -f UTF-8 ${value}` : `LANG: ${OURS}`,
  }));
}

/** `de_DE.UTF-8` and `de_DE.utf8` are the same. */
function plain(name: string): string {
  return name.trim().toLowerCase().replace(/\.(.*)$/, (_, charset: string) => `.${charset.replaceAll('-', '')}`);
}
