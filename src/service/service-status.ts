import {existsSync, readdirSync} from 'node:fs';
import {join} from 'node:path';
import {asUser} from '../support/as-user.ts';
import {runCommand} from '../support/run-command.ts';
import {SYSTEM_PATH} from '../support/system-path.ts';
import {lookAtFile, type FileState} from './install-service.ts';
import {serviceFiles, serviceName, servicePlaces, type ServiceFacts, type ServiceKind} from './service-files.ts';
import {runSystem, systemdRuns, unitState} from './systemd-state.ts';

export interface ServiceStatus {
  readonly app: string;
  /** Undefined: neither is installed. */
  readonly kind: ServiceKind | undefined;
  readonly files: readonly {readonly file: string; readonly state: FileState}[];
  /** Whether it comes up at a boot; undefined where nobody here can say. */
  readonly enabled: boolean | undefined;
  readonly running: boolean | undefined;
  /** For people, e.g. `active (running), pid 4711`. */
  readonly state: string | undefined;
  /** Each with its remedy. */
  readonly problems: readonly string[];
}

const CHECK_TIMEOUT_MS = 20_000;

/** Changes nothing. Under another root than `/` only the files are looked at. */
export async function lookAtService(facts: ServiceFacts, root: string, signal: AbortSignal): Promise<ServiceStatus> {
  const {app} = facts.config;
  const places = servicePlaces(app);
  const isThere = (path: string) => ['installed', 'outdated', 'changed'].includes(lookAtFile(root, path));
  const kind = isThere(places.unit) ? 'unit' : isThere(places.script) ? 'script' : undefined;
  const wanted = serviceFiles(facts, kind ?? 'unit');
  const files = wanted.map(({path, text}) => ({file: join(root, path), state: lookAtFile(root, path, text)}));
  const problems = files.flatMap(({file, state}) => faultOf(file, state));
  if (kind === undefined) return {app, kind, files, enabled: undefined, running: undefined, state: undefined, problems};
  problems.push(...await startFaults(facts, kind, signal));
  if (root !== '/') return {app, kind, files, enabled: undefined, running: undefined, state: undefined, problems};
  const at = kind === 'unit' ? await lookAtUnit(app, signal) : await lookAtScript(app, places.script, signal);
  return {app, kind, files, ...at, problems: [...problems, ...at.problems]};
}

function faultOf(file: string, state: FileState): string[] {
  switch (state) {
    case 'installed': return [];
    case 'outdated': return [`${file} is not what an install would write now: \`osyw-deploy service install\` again`];
    case 'changed': return [`${file} was changed by hand: move it away, then \`osyw-deploy service install\`${file.endsWith('.service') ? ', and `systemctl edit` for what you changed' : ''}`];
    case 'foreign': return [`${file} is not of \`osyw-deploy service install\`: look what it is, and move it away`];
    case 'not_installed': return [`${file} is not there: \`osyw-deploy service install\``];
  }
}

interface Found {
  readonly enabled: boolean | undefined;
  readonly running: boolean | undefined;
  readonly state: string | undefined;
  readonly problems: readonly string[];
}

async function lookAtUnit(app: string, signal: AbortSignal): Promise<Found> {
  const unit = `${serviceName(app)}.service`;
  if (!systemdRuns()) return {enabled: undefined, running: false, state: 'systemd does not run here', problems: ['systemd does not run here: `osyw-deploy service uninstall`, then `osyw-deploy service install --sysv`']};
  const {enabled, active, sub, mainPid, needsReload} = await unitState(unit, signal);
  const running = active === 'active' || active === 'reloading';
  return {
    enabled, running,
    state: `${active} (${sub})${mainPid === undefined ? '' : `, pid ${mainPid}`}`,
    problems: [
      ...(needsReload ? ['systemd has not read the unit that is there now: `systemctl daemon-reload`'] : []),
      ...(enabled ? [] : [`it does not come up at a boot: \`systemctl enable ${unit}\``]),
      ...(running ? [] : [`it does not run: \`systemctl start ${unit}\`; \`journalctl -u ${unit}\` says what it did last`]),
    ],
  };
}

async function lookAtScript(app: string, script: string, signal: AbortSignal): Promise<Found> {
  const name = serviceName(app);
  const enabled = [2, 3, 4, 5].some(level => {
    const directory = `/etc/rc${level}.d`;
    return existsSync(directory) && readdirSync(directory).some(link => /^S\d\d/.test(link) && link.slice(3) === name);
  });
  const {exitCode, stdout} = await runSystem(script, ['status'], signal);
  const running = exitCode === 0;
  return {
    enabled, running,
    state: stdout.trim().replace(`${app}: `, ''),
    problems: [
      ...(enabled ? [] : [`it does not come up at a boot: \`update-rc.d ${name} defaults\`, or \`chkconfig --add ${name}\``]),
      ...(running ? [] : [`it does not run: \`${script} start\``]),
    ],
  };
}

/** Whether it would start: tried as the account that deploys, with nothing but what systemd and init give. */
async function startFaults({config, deployer, node, script}: ServiceFacts, kind: ServiceKind, signal: AbortSignal): Promise<string[]> {
  const faults: string[] = [];
  const env = {PATH: SYSTEM_PATH, LC_ALL: 'C.UTF-8'};
  const check = asUser({file: node, args: [script, 'config', 'check', '--quiet', '--config', config.file]}, process.getuid?.() === 0 ? deployer : undefined);
  const {exitCode, stderr, spawnError} = await runCommand(check, {cwd: '/', env, timeoutMs: CHECK_TIMEOUT_MS, signal});
  if (exitCode !== 0) faults.push(`${deployer.name} could not start it: ${stderr.trim() || (spawnError ?? 'it did not answer')}`);
  if (!existsSync(config.nginx.binary)) faults.push(`there is no nginx at ${config.nginx.binary}: nginx.binary`);
  if (kind === 'unit') {
    const notify = await runCommand({file: 'systemd-notify', args: ['--version']}, {cwd: '/', env, timeoutMs: CHECK_TIMEOUT_MS, signal});
    if (notify.exitCode !== 0) faults.push('there is no systemd-notify, so systemd would never hear that it is ready: install the package `systemd`');
  }
  return faults;
}
