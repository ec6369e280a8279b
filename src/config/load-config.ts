import * as v from 'valibot';
import {DeployError} from '../errors.ts';
import {accountOf} from '../support/accounts.ts';
import {CLASHES} from './clashes.ts';
import type {CheckConfig, Config, WebhookConfig, WorkersConfig} from './config.ts';
import {findConfigFile} from './find-config.ts';
import type {ConfigPlace} from './find-config.ts';
import {withKnownKeys} from './known-keys.ts';
import type {Refusal} from './known-keys.ts';
import {defaultRunDir, defaultStateDir, defaultWorkerLog, findPlaceFaults} from './places.ts';
import type {Operator} from './places.ts';
import {renderProblems} from './problems.ts';
import type {Problem} from './problems.ts';
import {readRegularFile, utf8Of} from './regular-file.ts';
import {AS_WRITTEN, settingsSchema} from './schema.ts';
import type {Settings} from './schema.ts';
import {nameOf, readYamlTree} from './yaml-tree.ts';
import type {Path} from './yaml-tree.ts';

const MAX_BYTES = 1_000_000;

/**
 * The effective configuration of one application.
 * Errors: CONFIG_INVALID, with all problems at once, each as `file:line:column: what is wrong; what was expected`, the line
 * and a caret; or with the places that were looked at.
 */
export function loadConfig(place: ConfigPlace): Config {
  const file = findConfigFile(place);
  const config = parseConfig(readConfigFile(file), file, place.env);
  if (place.appFlag !== undefined && place.appFlag !== config.app) {
    throw new DeployError('CONFIG_INVALID', `${file}: says app: ${config.app}; expected ${place.appFlag}, as --app says`, {
      hint: `Name the file with --config, or leave ${file.startsWith('/etc/') ? 'its app as the file is named' : 'this directory'}.`,
    });
  }
  return config;
}

function readConfigFile(file: string): string {
  const refuse = (message: string, hint?: string) =>
    new DeployError('CONFIG_INVALID', `${file}: ${message}`, hint === undefined ? {} : {hint});
  const read = readRegularFile(file, MAX_BYTES);
  if (read.kind === 'missing') throw refuse('is not there; expected a configuration');
  if (read.kind === 'refused') throw refuse(`${read.reason}; expected a file of less than 1 MB`);
  const {mode, uid} = read.stats;
  // It names commands that run with the deployer's rights.
  if (uid !== 0 && uid !== ownUid()) {
    const owner = accountOf(uid)?.name ?? `#${uid}`;
    throw refuse(`belongs to ${owner}; expected root or yourself (uid ${ownUid()}) as its owner`,
      ownUid() === 0 ? `As ${owner}, who deploys: sudo -u '${owner}' osyw-deploy …. Only where root is to deploy from now on: chown root ${file}` : `chown ${ownUid()} ${file}`);
  }
  if ((mode & 0o022) !== 0) {
    const octal = (mode & 0o777).toString(8).padStart(4, '0');
    throw refuse(`has mode ${octal}, so others can write it; expected that only its owner can`, `chmod go-w ${file}`);
  }
  const text = utf8Of(read.bytes);
  if (text === undefined) throw refuse('is not UTF-8 text without NUL bytes; expected a YAML file');
  return text;
}

/** `text` as the content of `file`. Asks the machine about accounts and private files, and writes nothing. */
export function parseConfig(text: string, file: string, env: ConfigPlace['env']): Config {
  const operator: Operator = {uid: ownUid(), env};
  const tree = readYamlTree(text, AS_WRITTEN);
  if (!tree.whole) throw invalid(file, text, tree.problems);

  const known = withKnownKeys(tree.value);
  const result = v.safeParse(settingsSchema, known.value);
  const refusals = [...known.refusals];
  for (const issue of result.issues ?? []) {
    const refusal = refusalOf(issue);
    if (!refusals.some(({path}) => isPrefix(path, refusal.path))) refusals.push(refusal);
  }
  const problems: Problem[] = [
    ...tree.problems,
    ...refusals.map(({path, part, message}) => ({offset: tree.offsetOf(path, part), message})),
  ];

  // Whatever a valid key says is checked further even when other keys are not, so that one run shows every problem.
  const valid = (path: Path) => !refusals.some(refusal => isPrefix(refusal.path, path) || isPrefix(path, refusal.path));
  const settings = result.output as Settings;
  for (const {at, needs, fault} of CLASHES) {
    const message = [at, ...needs].every(valid) ? fault(settings) : undefined;
    if (message !== undefined) problems.push({offset: tree.offsetOf(at, 'value'), message: `${nameOf(at)} ${message}`});
  }
  for (const {at, message, inOtherFile} of findPlaceFaults(settings, valid, operator)) {
    problems.push(inOtherFile === true ? {offset: undefined, message}
      : {offset: tree.offsetOf(at, 'value'), message: `${nameOf(at)} ${message}`});
  }
  const stateDir = valid(['app']) && valid(['state_dir']) ? settings.state_dir ?? defaultStateDir(settings.app, operator) : undefined;
  if (problems.length > 0 || !result.success || stateDir === undefined) throw invalid(file, text, problems);
  return effective(result.output, file, stateDir, operator);
}

function invalid(file: string, text: string, problems: readonly Problem[]): DeployError {
  return new DeployError('CONFIG_INVALID', renderProblems(file, text, problems));
}

function refusalOf(issue: v.BaseIssue<unknown>): Refusal {
  const items = issue.path ?? [];
  const path = items.map(({key}) => (typeof key === 'number' ? key : String(key)));
  const part = items.at(-1)?.origin === 'key' ? 'key' : 'value';
  return {path, part, message: `${nameOf(path)} ${issue.message}`};
}

function isPrefix(prefix: Path, path: Path): boolean {
  return prefix.length <= path.length && prefix.every((step, index) => step === path[index]);
}

function ownUid(): number {
  return process.getuid?.() ?? 0;
}

function effective(settings: Settings, file: string, stateDir: string, operator: Operator): Config {
  const {app, source, release, workers, bake, nginx, drain, hook, watch} = settings;
  return {
    file,
    app,
    source: {
      vcs: source.vcs,
      workingCopy: source.working_copy,
      timeoutMs: source.timeout,
      url: source.url,
      branch: source.branch,
      username: source.username,
      passwordFile: source.password_file,
      paths: source.paths,
    },
    release: {
      tree: release.tree,
      build: release.build,
      buildTimeoutMs: release.build_timeout,
      buildUser: release.build_user ?? workers.user,
      shared: release.shared,
      keep: release.keep,
    },
    workers: effectiveWorkers(workers, stateDir),
    check: effectiveCheck(settings.check),
    bake: {forMs: bake.for},
    nginx: {
      upstream: nginx.upstream,
      // The clashes leave exactly one of them.
      file: nginx.file ?? nginx.edit ?? '',
      ...(nginx.edit === undefined ? {} : {edit: true}),
      server: nginx.edit === undefined ? serverParameters(nginx.server) : {},
      directives: nginx.directives ?? [],
      binary: nginx.binary,
      conf: nginx.conf,
      prefix: nginx.prefix,
      probe: nginx.probe,
      reload: nginx.reload,
    },
    drain: {quietMs: drain.quiet, deadlineMs: drain.deadline},
    hook: {wait: hook.wait, waitTimeoutMs: hook.wait_timeout, supersede: hook.supersede},
    watch: {pollMs: watch.poll, settleMs: watch.settle, edits: watch.edits, checkMs: watch.check, webhook: effectiveWebhook(watch.webhook)},
    stateDir,
    runDir: settings.run_dir ?? defaultRunDir(app, stateDir, operator),
  };
}

function effectiveWorkers(workers: Settings['workers'], stateDir: string): WorkersConfig {
  const common = {
    command: workers.command,
    count: workers.count,
    ports: workers.ports,
    host: workers.host,
    env: workers.env,
    envFile: workers.env_file,
    user: workers.user,
    pidFile: workers.pid_file,
    stop: {signal: workers.stop.signal, timeoutMs: workers.stop.timeout},
  };
  if (workers.runner === 'process') return {...common, runner: 'process', log: workers.log ?? defaultWorkerLog(stateDir)};
  const {memory_max: memoryMax, tasks_max: tasksMax, properties} = workers.systemd;
  return {...common, runner: 'systemd', log: workers.log, systemd: {memoryMax, tasksMax, properties: properties ?? {}}};
}

function effectiveCheck(check: Settings['check']): CheckConfig {
  const timing = {
    intervalMs: check.interval,
    timeoutMs: check.timeout,
    consecutive: check.consecutive,
    deadlineMs: check.deadline,
  };
  if (check.tcp === true) return {kind: 'tcp', ...timing};
  if (check.command !== undefined) return {kind: 'command', command: check.command, ...timing};
  return {
    kind: 'http',
    path: check.http ?? '/',
    host: check.host,
    headers: check.headers ?? {},
    status: check.status ?? [200],
    body: check.body,
    ...timing,
  };
}

function effectiveWebhook({listen, path, secret_file: secretFile, mode, group, max_body: maxBodyBytes, rate}: Settings['watch']['webhook']): WebhookConfig | undefined {
  if (listen === undefined || secretFile === undefined) return undefined;
  return {listen: 'unix' in listen ? {...listen, mode: mode ?? 0o660, group} : listen, path, secretFile, maxBodyBytes, rate};
}

function serverParameters(server: Settings['nginx']['server']): Record<string, string> {
  const names = ['weight', 'max_conns', 'max_fails', 'fail_timeout'] as const;
  return Object.fromEntries(names.flatMap(name => {
    // On loopback a refused connection costs nothing and is retried on the next server. With nginx's own default of 1,
    // one restart would mark every worker as down for 10 s.
    const value = server[name] ?? (name === 'max_fails' ? '0' : undefined);
    return value === undefined ? [] : [[name, value]];
  }));
}
