import {readdirSync} from 'node:fs';
import {dirname, join} from 'node:path';
import type {Config, NginxConfig} from '../config/config.ts';
import {errnoOf} from '../errors.ts';
import {shellWord} from '../service/quoting.ts';
import {accountOf, type Identity} from '../support/accounts.ts';
import {lstatIfThere} from '../support/lstat-if-there.ts';
import {octal} from '../support/octal.ts';
import {runCommand, type Command} from '../support/run-command.ts';
import {SYSTEM_PATH} from '../support/system-path.ts';
import {systemdRuns} from '../support/systemd.ts';
import {mayUse, sudoersLine, under} from '../trigger/hook-status.ts';
import {nearest} from './disk.ts';
import type {Finding} from './finding.ts';
import {findProgram} from './programs.ts';
import {namedFile} from '../upstream/upstream-text.ts';

const COMMAND_MS = 10_000;
const ROOT: Identity = {uid: 0, gid: 0, name: 'root'};

/** Whether who deploys can make nginx reload. `masterUid`: the account of the running master. */
export async function reloadRights(nginx: NginxConfig, deployer: Identity, masterUid: number, signal: AbortSignal): Promise<Finding> {
  const check = 'reload-rights';
  const place = 'nginx.reload';
  if (nginx.reload === undefined) {
    if (deployer.uid === 0 || deployer.uid === masterUid) return {check, level: 'ok', says: `${deployer.name}, who deploys, may signal nginx's master, which runs as ${nameOf(masterUid)}`};
    const reload = usualReload(nginx);
    return {
      check, level: 'problem', place, means: 'the switch of every deploy is refused (SWITCH_REFUSED)',
      says: `${deployer.name}, who deploys, may not signal nginx's master, which runs as ${nameOf(masterUid)}`,
      mend: `reload: [sudo, -n, ${reload.join(', ')}]\n${sudoersLine(deployer, ROOT, [findProgram(reload[0] ?? '') ?? reload[0] ?? '', ...reload.slice(1)])}`,
    };
  }
  const [name = '', ...args] = nginx.reload;
  const file = findProgram(name);
  if (file === undefined) return {check, level: 'problem', place, says: `${name}, which is to reload nginx, is not there or cannot be run`, means: 'the switch of every deploy is refused (SWITCH_REFUSED)', mend: `reload: [${usualReload(nginx).join(', ')}]`};
  const asked = file.endsWith('/sudo') ? sudoCommand(file, args) : undefined;
  if (asked === undefined || deployer.uid === 0) return {check, level: 'ok', says: `nginx is reloaded by \`${nginx.reload.join(' ')}\``, place};
  const {exitCode} = await runAs(deployer, asked.ask, signal);
  if (exitCode === 0) return {check, level: 'ok', says: `sudo lets ${deployer.name} run \`${asked.command.join(' ')}\``, place};
  const [program = '', ...rest] = asked.command;
  return {
    check, level: 'problem', place, says: `sudo does not let ${deployer.name} run \`${asked.command.join(' ')}\` without a password`,
    means: 'the switch of every deploy is refused (SWITCH_REFUSED)', mend: sudoersLine(deployer, ROOT, [findProgram(program) ?? program, ...rest]),
  };
}

function usualReload({binary, conf, prefix}: NginxConfig): string[] {
  return systemdRuns() ? ['systemctl', 'reload', 'nginx'] : [binary, ...(conf === undefined ? [] : ['-c', conf]), ...(prefix === undefined ? [] : ['-p', prefix]), '-s', 'reload'];
}

/** What is to be run behind sudo's own options, and the question whether it may. Undefined for options that are not known here. */
function sudoCommand(file: string, args: readonly string[]): {command: readonly string[]; ask: Command} | undefined {
  let begin = 0;
  while (begin < args.length && /^(?:-n|--non-interactive|--)$/.test(args[begin] ?? '')) begin++;
  const command = args.slice(begin);
  if (command.length === 0 || command[0]?.startsWith('-') === true) return undefined;
  return {command, ask: {file, args: ['-n', '-l', '--', ...command]}};
}

/** Whether who deploys can write what a deploy writes: tried as that account where we can become it. */
export async function writeRights(config: Config, deployer: Identity, signal: AbortSignal): Promise<Finding[]> {
  const {app, nginx, stateDir, runDir, source, release} = config;
  const who = shellWord(deployer.name);
  // Whoever may write beside nginx's other files may write what root's nginx loads: so our file gets a directory of its own.
  const ours = join(dirname(nginx.conf ?? '/etc/nginx/nginx.conf'), 'osyw-deploy');
  // Somebody's `svn update` or `git pull` under another account leaves what is his in there.
  const records = ['.svn', '.git'].map(name => join(source.workingCopy, name)).filter(path => lstatIfThere(path)?.isDirectory() === true);
  const parts: Part[] = [
    {check: 'upstream-file-rights', paths: [dirname(namedFile(config))], place: nginx.edit === true ? 'nginx.edit' : 'nginx.file', fails: 'the switch of every deploy is refused (SWITCH_REFUSED)', mend: `install -d -o ${who} ${shellWord(ours)}\ninclude ${ours}/*.conf;\nfile: ${join(ours, `${app}.conf`)}`},
    {check: 'state-dir-rights', paths: [stateDir], place: 'state_dir', fails: 'nothing can be put on record, so nothing is deployed'},
    {check: 'run-dir-rights', paths: [runDir], place: 'run_dir', fails: 'no worker can be started'},
    {check: 'working-copy-rights', paths: [source.workingCopy, ...records], place: 'source.working_copy', fails: 'the working copy cannot be updated (UPDATE_FAILED)', ...(records.length === 0 ? {} : {mend: `chown -R ${who} ${shellWord(source.workingCopy)}`})},
    ...release.shared.length === 0 ? [] : [{check: 'shared-rights', paths: [join(stateDir, 'shared')], place: 'release.shared', fails: 'no release can be built'}],
  ];
  return Promise.all(parts.map(async ({check, paths, place, fails, mend}): Promise<Finding> => {
    let says = '';
    for (const path of paths) {
      const there = nearest(path);
      const made = there === path ? '' : ', where it would be made';
      if (!(await mayUse(deployer, there, 'w', signal) && await mayUse(deployer, there, 'x', signal))) {
        return {check, level: 'problem', says: `${deployer.name}, who deploys, may not write ${there}${made}`, means: fails, mend: mend ?? `install -d -o ${who} ${shellWord(path)}`, place};
      }
      if (says === '') says = `${deployer.name}, who deploys, may write ${there}${made}`;
    }
    return {check, level: 'ok', says, place};
  }));
}

interface Part {
  readonly check: string;
  readonly paths: readonly string[];
  readonly place: string;
  readonly fails: string;
  readonly mend?: string;
}

/** Files that only who deploys may read, and directories that others may pass and no more. */
const MODES: readonly {name: string; most: number; mend: string}[] = [
  {name: '.', most: 0o755, mend: '0711'},
  ...['state.json', 'state.json.prev', 'journal.ndjson', 'history.ndjson', 'lock', 'waiting', 'watching', 'hook-options.json', 'deliveries'].map(name => ({name, most: 0o600, mend: '0600'})),
  ...['drains', 'restarts', 'svn', 'git'].map(name => ({name, most: 0o700, mend: '0700'})),
];

/** Whether others can read or change what is on record. */
export function stateModes(stateDir: string): Finding {
  const check = 'state-modes';
  const logs = namesIn(join(stateDir, 'log')).map(name => ({name: join('log', name), most: 0o640, mend: '0640'}));
  const wrong = [...MODES, ...logs].flatMap(({name, most, mend}) => {
    const path = join(stateDir, name);
    const stat = lstatIfThere(path);
    const mode = (stat?.mode ?? 0) & 0o777;
    return stat === undefined || (mode & ~most) === 0 ? [] : [{path, mode, mend}];
  });
  if (wrong.length === 0) return {check, level: 'ok', says: `nobody but who deploys can read or change the records in ${stateDir}`, place: stateDir};
  const writable = wrong.some(({mode}) => (mode & 0o022) !== 0);
  return {
    check, level: writable ? 'problem' : 'warning', place: stateDir,
    says: wrong.map(({path, mode}) => `${path} has mode ${octal(mode)}`).join(', '),
    means: writable ? 'others can change what the deployer believes, and with it what it stops and starts' : 'others can read what was deployed, by whom, and why it failed',
    mend: wrong.map(({path, mend}) => `chmod ${mend} ${shellWord(path)}`).join('\n'),
  };
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
    return []; // Not there, or not ours to read.
  }
}

/** Whether the doctor is who deploys: what it tries itself then holds. */
export function examiner(deployer: Identity): Finding {
  const uid = process.getuid?.() ?? 0;
  const check = 'account';
  if (uid === deployer.uid) return {check, level: 'ok', says: `${deployer.name} deploys, and looks`};
  if (uid === 0) return {check, level: 'ok', says: `${deployer.name} deploys; root looks, and tries as that account what matters`};
  return {check, level: 'note', says: `${deployer.name} deploys, and ${nameOf(uid)} looks`, means: 'what only that account or root can see is judged by modes, or not at all', mend: `sudo -u ${shellWord(deployer.name)} osyw-deploy doctor`};
}

function runAs(account: Identity, command: Command, signal: AbortSignal) {
  return runCommand(process.getuid?.() === 0 && account.uid !== 0 ? under(account, command) : command, {cwd: '/', env: {PATH: SYSTEM_PATH, LC_ALL: 'C.UTF-8'}, timeoutMs: COMMAND_MS, signal});
}

function nameOf(uid: number): string {
  return accountOf(uid)?.name ?? `uid ${uid}`;
}
