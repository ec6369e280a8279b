import {realpathSync} from 'node:fs';
import {join, resolve} from 'node:path';
import {defaultRunDir, defaultStateDir} from '../config/places.ts';
import {DeployError} from '../errors.ts';
import {installFiles, lookAtFile, mayUninstall, mayWrite, uninstallFiles, type ChangedFile, type FileState} from '../service/install-service.ts';
import {shellWord} from '../service/quoting.ts';
import {serviceFiles, serviceName, servicePlaces, type ServiceFacts, type ServiceFile, type ServiceKind} from '../service/service-files.ts';
import {lookAtService, type ServiceStatus} from '../service/service-status.ts';
import {runSystem, systemdRuns, systemdVersion, unitState} from '../service/systemd-state.ts';
import {octal} from '../support/octal.ts';
import {plainText} from '../support/plain-text.ts';
import {deployerOf} from '../trigger/spool-rights.ts';
import type {Context} from './context.ts';

export interface ServiceOptions {
  readonly sysv?: boolean;
  readonly enable?: boolean;
  readonly print?: boolean;
  readonly root?: string;
}

const NOT_INSTALLED = 3;

/** `osyw-deploy service install`: the unit or the init script, and what comes along. Run again, it brings everything up to date. */
export async function serviceInstall(context: Context, {sysv, enable = false, print, root: given}: ServiceOptions): Promise<number> {
  const facts = await factsOf(context);
  const {app} = facts.config;
  const kind = sysv === true ? 'script' : 'unit';
  const files = serviceFiles(facts, kind);
  if (print === true) return show(context, files);
  const root = rootOf(context, given);
  if (enable && root !== '/') throw new DeployError('USAGE', '--enable and --root exclude each other: what lies elsewhere cannot be started');
  if (enable && kind === 'unit' && !systemdRuns()) throw new DeployError('USAGE', 'systemd does not run here, so it can start nothing', {hint: 'Leave --enable out, or take --sysv; nothing was written.'});
  if (!mayWrite(root, files.map(({path}) => path))) throw withoutRights(facts, files, kind);
  const changed = installFiles(root, app, files);
  const did = enable ? await enableService(app, kind, changed.some(one => one.changed), context) : [];
  tell(context, {files: changed, enabled: enable}, [
    `${app}:`, ...[...changed.map(told), ...did].map(line => `  ${line}`),
    ...(enable || root !== '/' ? [] : await nextSteps(app, kind, changed, context)),
  ]);
  return 0;
}

/** `osyw-deploy service uninstall`: what an install wrote is gone. The workers run on. */
export async function serviceUninstall(context: Context, {root: given}: ServiceOptions): Promise<number> {
  const {app} = context.loadConfig();
  const root = rootOf(context, given);
  const places = servicePlaces(app);
  const unit = `${serviceName(app)}.service`;
  if (!mayWrite(root, Object.values(places))) {
    throw new DeployError('USAGE', `this account may not remove the files of ${serviceName(app)}`, {hint: ['As root:', `  systemctl disable --now ${unit}`, `  rm -f ${Object.values(places).map(path => join(root, path)).join(' ')}`, '  systemctl daemon-reload'].join('\n')});
  }
  mayUninstall(root, app);
  const isLive = root === '/' && systemdRuns();
  // While its unit is there: once that is forgotten, whoever stops it ends the workers along with it.
  if (isLive && isInstalled(root, places.unit)) await must(['systemctl', 'disable', '--now', unit], context);
  // Where systemd does not run only the link of `enable` is left to go.
  else if (root === '/' && isInstalled(root, places.unit)) await runSystem('systemctl', ['disable', unit], context.signal);
  const scripted = root === '/' && isInstalled(root, places.script);
  const changed = uninstallFiles(root, app);
  if (scripted) await register(serviceName(app), 'remove', context);
  if (isLive) await must(['systemctl', 'daemon-reload'], context);
  tell(context, {files: changed}, [`${app}:`, ...changed.map(file => `  ${told(file)}`), 'The workers run on; `osyw-deploy stop` stops them.']);
  return 0;
}

/** `osyw-deploy service status`. Exit code: 0 it runs and would start again, 1 something would not, 3 not installed. */
export async function serviceStatus(context: Context, {root: given}: ServiceOptions): Promise<number> {
  let facts: ServiceFacts;
  try {
    facts = await factsOf(context);
  } catch (error) {
    // 3 says that it is not installed; here that is not known.
    if (!(error instanceof DeployError) || error.code !== 'CONFIG_INVALID') throw error;
    context.output.err(`→ it would not start: ${plainText(error.message)}\n`);
    return 1;
  }
  const status = await lookAtService(facts, rootOf(context, given), context.signal);
  if (context.json) context.output.out(`${JSON.stringify(status)}\n`);
  else if (!context.quiet) context.output.out(plainText(tellStatus(status)));
  if (status.kind === undefined) return NOT_INSTALLED;
  return status.problems.length === 0 ? 0 : 1;
}

/** Errors: USAGE where the service would find another state than this command does. */
async function factsOf({loadConfig, env, signal}: Context): Promise<ServiceFacts> {
  const config = loadConfig();
  const deployer = deployerOf(config.stateDir);
  const [own, theirs] = [{uid: process.getuid?.() ?? 0, env}, {uid: deployer.uid, env: {}}];
  // A place that nobody named depends on who asks.
  const moved = [
    {key: 'state_dir', is: config.stateDir, byUs: defaultStateDir(config.app, own), byThem: defaultStateDir(config.app, theirs)},
    {key: 'run_dir', is: config.runDir, byUs: defaultRunDir(config.app, config.stateDir, own), byThem: defaultRunDir(config.app, config.stateDir, theirs)},
  ].find(({is, byUs, byThem}) => is === byUs && is !== byThem);
  if (moved !== undefined) throw new DeployError('USAGE', `${deployer.name}, who deploys, would look for ${moved.key} in ${moved.byThem ?? 'no place at all'}, and not in ${moved.is}`, {hint: `Write \`${moved.key}: ${moved.is}\` into ${config.file}.`});
  // Where a package puts the command there may be a link, which the next version moves.
  return {config, deployer, node: process.execPath, script: realpathSync(process.argv[1] ?? ''), systemd: await systemdVersion(signal)};
}

function rootOf({cwd}: Context, given: string | undefined): string {
  return resolve(cwd, given ?? '/');
}

function isInstalled(root: string, path: string): boolean {
  return lookAtFile(root, path) === 'outdated';
}

function show({json, output}: Context, files: readonly ServiceFile[]): number {
  output.out(json ? `${JSON.stringify({files: files.map(({path, mode, text}) => ({path, mode: octal(mode), text}))})}\n` : files.map(({path, text}) => `==> ${path} <==\n${text}`).join('\n'));
  return 0;
}

function withoutRights({config, node, script}: ServiceFacts, files: readonly ServiceFile[], kind: ServiceKind): DeployError {
  const again = [node, script, 'service', 'install', ...(kind === 'script' ? ['--sysv'] : []), '--config', config.file];
  const elsewhere = join('/tmp', serviceName(config.app));
  return new DeployError('USAGE', `this account may not write ${files.map(({path}) => path).join(', ')}`, {hint: [
    'Nothing was written. Write them where you may:',
    `  ${[...again, '--root', elsewhere].map(shellWord).join(' ')}`,
    'Then, as root:',
    ...files.map(({path, mode}) => `  install -D -m ${octal(mode)} ${join(elsewhere, path)} ${path}`),
    ...startCommands(config.app, kind).map(line => `  ${line}`),
  ].join('\n')});
}

function startCommands(app: string, kind: ServiceKind): string[] {
  const name = serviceName(app);
  return kind === 'unit' ? ['systemctl daemon-reload', `systemctl enable --now ${name}.service`] : [`update-rc.d ${name} defaults    # or: chkconfig --add ${name}`, `/etc/init.d/${name} start`];
}

async function nextSteps(app: string, kind: ServiceKind, changed: readonly ChangedFile[], {signal}: Context): Promise<string[]> {
  const unit = `${serviceName(app)}.service`;
  if (kind === 'unit' && systemdRuns()) {
    const {active, enabled} = await unitState(unit, signal);
    if (active === 'active' && enabled) return changed.some(one => one.changed) ? ['Next:', '  systemctl daemon-reload', `  systemctl restart ${unit}    # the workers serve on`] : [];
  }
  return ['Next:', ...startCommands(app, kind).map(line => `  ${line}`)];
}

/** Returns what was done, for people. */
async function enableService(app: string, kind: ServiceKind, changed: boolean, context: Context): Promise<string[]> {
  const name = serviceName(app);
  if (kind === 'script') return [await register(name, 'add', context)];
  const unit = `${name}.service`;
  await must(['systemctl', 'daemon-reload'], context);
  await must(['systemctl', 'enable', unit], context);
  // The workers serve on while it is started anew.
  await must(['systemctl', changed ? 'restart' : 'start', unit], context);
  return [`${unit} is enabled, and runs`];
}

/** Says to init that the script is there, or gone. */
async function register(name: string, word: 'add' | 'remove', context: Context): Promise<string> {
  const commands = word === 'add' ? [['update-rc.d', name, 'defaults'], ['chkconfig', '--add', name]] : [['update-rc.d', name, 'remove'], ['chkconfig', '--del', name]];
  for (const [file = '', ...args] of commands) {
    const {spawnError, exitCode, stderr} = await runSystem(file, args, context.signal);
    if (spawnError === 'ENOENT') continue;
    if (exitCode !== 0 && word === 'add') throw new DeployError('USAGE', `\`${[file, ...args].join(' ')}\` failed: ${stderr.trim()}`, {hint: 'The files are written; mend that, then run it again.'});
    return `${[file, ...args].join(' ')}`;
  }
  if (word === 'remove') return '';
  throw new DeployError('USAGE', 'there is neither update-rc.d nor chkconfig, so nobody here can enable an init script', {hint: `The files are written. Link /etc/init.d/${name} into the directories of the runlevels by hand.`});
}

async function must([file = '', ...args]: readonly string[], {signal}: Context): Promise<void> {
  const {exitCode, stderr, spawnError} = await runSystem(file, args, signal);
  if (exitCode !== 0) throw new DeployError('USAGE', `\`${[file, ...args].join(' ')}\` failed: ${stderr.trim() || (spawnError ?? 'it did not end')}`, {hint: 'Mend that, then run it again; what is done already stays done.'});
}

function tell({json, quiet, output}: Context, {files, ...more}: {files: readonly ChangedFile[]; enabled?: boolean}, lines: readonly string[]): void {
  if (json) output.out(`${JSON.stringify({files: files.map(({file, changed}) => ({file, changed})), ...more})}\n`);
  else if (!quiet) output.out(plainText(`${lines.join('\n')}\n`));
}

function told({file, did}: ChangedFile): string {
  return `${file} ${did}`;
}

const STATES: Readonly<Record<FileState, string>> = {
  installed: 'installed',
  outdated: 'installed, but outdated',
  changed: 'changed by hand',
  foreign: "somebody else's",
  not_installed: 'not installed',
};

function tellStatus({app, kind, files, enabled, state, problems}: ServiceStatus): string {
  return [
    `${app}: ${state ?? (kind === undefined ? 'no service' : 'a service')}${enabled === undefined ? '' : enabled ? ', comes up at a boot' : ', does not come up at a boot'}`,
    ...files.map(({file, state: how}) => `  ${file}: ${STATES[how]}`),
    ...problems.map(problem => `→ ${problem}`),
    '',
  ].join('\n');
}
