import {join} from 'node:path';
import {accountOf, findAccount} from '../support/accounts.ts';
import {findGroup} from '../support/groups.ts';
import {SYSTEMD_RUNS, systemdRuns} from '../support/systemd.ts';
import {examineEnvFile} from './env-file.ts';
import {readRegularFile} from './regular-file.ts';
import type {Settings} from './schema.ts';
import {shown} from './shown.ts';
import {examineWebhookSecrets} from './webhook-secrets.ts';
import type {Path} from './yaml-tree.ts';

export interface Operator {
  readonly uid: number;
  readonly env: Readonly<Record<string, string | undefined>>;
}

/** A rule that asks the machine. `valid` says whether a key is right by itself. */
export interface PlaceFault {
  readonly at: Path;
  /** `is …; expected …`; a message about another file names that file and stands alone. */
  readonly message: string;
  readonly inOtherFile?: boolean;
}

/** Where the state goes when the configuration does not say; undefined when there is no home directory either. */
export function defaultStateDir(app: string, {uid, env}: Operator): string | undefined {
  if (uid === 0) return `/var/lib/osyw-deploy/${app}`;
  const home = absolute(env['HOME']) ?? accountOf(uid)?.home;
  const base = absolute(env['XDG_STATE_HOME']) ?? (home === undefined ? undefined : join(home, '.local/state'));
  return base === undefined ? undefined : join(base, 'osyw-deploy', app);
}

export function defaultRunDir(app: string, stateDir: string, {uid}: Operator): string {
  return uid === 0 ? `/run/osyw-deploy/${app}` : `${stateDir}/run`;
}

/** Where a worker's output goes that the configuration names no place for. */
export function defaultWorkerLog(stateDir: string): string {
  return `${stateDir}/log/worker-{port}.log`;
}

function absolute(path: string | undefined): string | undefined {
  return path?.startsWith('/') === true ? path : undefined;
}

export function findPlaceFaults(settings: Settings, valid: (path: Path) => boolean, operator: Operator): PlaceFault[] {
  return [
    ...accountFaults(settings, valid, operator),
    ...(valid(['workers', 'runner']) ? runnerFaults(settings.workers.runner, operator) : []),
    ...(valid(['source', 'password_file']) ? privateFileFaults(['source', 'password_file'], settings.source.password_file) : []),
    ...(valid(['workers', 'env_file']) ? envFileFaults(settings.workers.env_file) : []),
    ...(valid(['watch', 'webhook']) ? webhookFaults(settings.watch.webhook) : []),
    ...directoryFaults(settings, valid, operator),
  ];
}

function accountFaults(settings: Settings, valid: (path: Path) => boolean, {uid}: Operator): PlaceFault[] {
  const named = [
    {at: ['workers', 'user'], name: () => settings.workers.user},
    {at: ['release', 'build_user'], name: () => settings.release.build_user},
  ];
  return named.flatMap(({at, name}) => {
    const user = valid(at) ? name() : undefined;
    if (user === undefined) return [];
    const account = findAccount(user);
    if (account === undefined) return [{at, message: `is ${shown(user)}, and this machine has no such account; expected one of /etc/passwd`}];
    if (uid === 0 || account.uid === uid) return [];
    const own = accountOf(uid)?.name;
    return [{at, message: `is ${shown(user)}, but only root can start programs as another account; expected ${own === undefined ? '' : `${own} or `}nothing`}];
  });
}

function runnerFaults(runner: Settings['workers']['runner'], {uid}: Operator): PlaceFault[] {
  if (runner !== 'systemd') return [];
  const at = ['workers', 'runner'];
  if (!systemdRuns()) return [{at, message: `is systemd, but systemd does not run here (there is no ${SYSTEMD_RUNS}); expected process`}];
  return uid === 0 ? [] : [{at, message: 'is systemd, but only root may start units of the system; expected process'}];
}

function privateFileFaults(at: Path, path: string | undefined): PlaceFault[] {
  if (path === undefined) return [];
  const file = readRegularFile(path, 1_000_000);
  if (file.kind === 'missing') return [{at, message: `is ${shown(path)}, which is not there; expected a file that only its owner can read`}];
  if (file.kind === 'refused') return [{at, message: `is ${shown(path)}, which ${file.reason}; expected a file that only its owner can read`}];
  const mode = file.stats.mode & 0o777;
  return (mode & 0o077) === 0 ? []
    : [{at, message: `is ${shown(path)} with mode ${mode.toString(8).padStart(4, '0')}, which others can use; expected mode 0600: chmod 600 ${path}`}];
}

function envFileFaults(path: string | undefined): PlaceFault[] {
  const at = ['workers', 'env_file'];
  const faults = privateFileFaults(at, path);
  if (path === undefined || faults.length > 0) return faults;
  return examineEnvFile(path).problems.map(message => ({at, message, inOtherFile: true}));
}

function webhookFaults({secret_file: secretFile, group}: Settings['watch']['webhook']): PlaceFault[] {
  const at = ['watch', 'webhook', 'secret_file'];
  const faults = privateFileFaults(at, secretFile);
  if (secretFile !== undefined && faults.length === 0) {
    const {fault} = examineWebhookSecrets(secretFile);
    if (fault !== undefined) faults.push({at, message: `is ${shown(secretFile)}, which ${fault}`});
  }
  if (group !== undefined && findGroup(group) === undefined) {
    faults.push({at: ['watch', 'webhook', 'group'], message: `is ${shown(group)}, and this machine has no such group; expected one of /etc/group`});
  }
  return faults;
}

function directoryFaults(settings: Settings, valid: (path: Path) => boolean, operator: Operator): PlaceFault[] {
  if (!valid(['app']) || !valid(['state_dir'])) return [];
  const stateDir = settings.state_dir ?? defaultStateDir(settings.app, operator);
  const at = ['state_dir'];
  if (stateDir === undefined) return [{at, message: 'has no default without a home directory; expected an absolute path'}];
  if (!valid(['source', 'working_copy']) || !valid(['release', 'tree']) || settings.release.tree !== 'snapshot') return [];
  const workingCopy = settings.source.working_copy;
  const said = settings.state_dir === undefined ? `is ${shown(stateDir)} by default` : `is ${shown(stateDir)}`;
  if (isInside(stateDir, workingCopy)) {
    return [{at, message: `${said}, inside source.working_copy ${workingCopy}; expected it elsewhere, as each release is a copy of that tree`}];
  }
  if (isInside(workingCopy, stateDir)) {
    return [{at, message: `${said}, around source.working_copy ${workingCopy}; expected one outside the other`}];
  }
  return [];
}

function isInside(path: string, directory: string): boolean {
  return path === directory || path.startsWith(`${directory}/`);
}
