import {realpathSync} from 'node:fs';
import type {Config} from '../config/config.ts';
import {freePorts, listeningPorts} from '../config/look-around.ts';
import {parseConfig} from '../config/load-config.ts';
import {DeployError} from '../errors.ts';
import {fileWithUpstream} from '../nginx/file-with-upstream.ts';
import {checkWorker} from '../health/check-worker.ts';
import {WORKER_MARK} from '../workers/worker-tree.ts';
import {isAdoptedId} from './adopted-id.ts';
import {asOfRelease, findCode, subdirectoryOf, type FoundCode} from './find-code.ts';
import {findLocalUpstream, type LocalUpstream} from './find-upstream.ts';
import {findWorkers, shownWords, type FoundWorker} from './find-workers.ts';
import {findOldHands, findPidFiles, scriptsNaming, type OldHand, type PidFile} from './old-set-up.ts';
import {ownVariables, rangeAround, renderAdoptedConfig} from './render-adopted-config.ts';
import {recogniseCommand, type RecognisedCommand} from './recognise-command.ts';

export interface AdoptOptions {
  readonly upstream?: string;
  readonly nginx?: string;
  readonly workingCopy?: string;
  readonly pidFile?: string;
  readonly stateDir?: string;
  readonly dryRun?: boolean;
}

/** What runs now, as it was found; nothing was changed. */
export interface Survey {
  readonly upstream: LocalUpstream;
  readonly workers: readonly FoundWorker[];
  readonly code: FoundCode;
  /** With {port}, as a release runs it; undefined when it was not recognised, and a configuration says it. */
  readonly command: readonly string[] | undefined;
  /** Names of variables that a fresh worker will not have, as far as `env` of a configuration says. */
  readonly variables: readonly string[];
  readonly pidFiles: readonly PidFile[];
  readonly oldHands: readonly OldHand[];
  /** Scripts of the boot or the clock that name their ports. */
  readonly scripts: readonly string[];
}

/**
 * Looks at what runs: nginx's upstream, who owns its ports, whose they are, how they were started, where their code is, which revision that is.
 * `config`: the configuration, where there is one. Errors: USAGE for what cannot be adopted; CONFIG_INVALID where `config` contradicts what runs.
 */
export async function survey(options: AdoptOptions, config: Config | undefined, cwd: string): Promise<Survey> {
  const upstream = await findLocalUpstream({upstream: options.upstream ?? config?.nginx.upstream, nginx: options.nginx ?? config?.nginx.conf, cwd});
  if (config !== undefined) refuseOtherUpstream(config, upstream);
  const workers = findWorkers(upstream.host, upstream.ports);
  refuseDeployed(workers);
  refuseSeveralAccounts(workers);
  const code = await findCode(workers, options.workingCopy);
  if (config !== undefined && realPath(config.source.workingCopy) !== realPath(code.source.workingCopy)) {
    throw contradicts(config, `source.working_copy is ${config.source.workingCopy}, but the workers run from ${code.source.workingCopy} (${code.because})`);
  }
  const recognised = recogniseCommand(workers.map(({port, words, environment}) => ({port, words, portVariable: environment.get('PORT')})));
  if (config === undefined) refuseUnrecognised(recognised, workers);
  const [worker] = workers;
  return {
    upstream, workers, code,
    command: recognised.kind !== 'recognised' || worker === undefined ? undefined : asOfRelease(recognised.words, worker, code),
    variables: ownVariables(workers).filter(name => !Object.hasOwn(config?.workers.env ?? {}, name)),
    pidFiles: findPidFiles(workers, options.pidFile),
    oldHands: await findOldHands(workers),
    scripts: scriptsNaming(upstream.ports),
  };
}

/** The configuration for what was found: its text, and what it means. Errors: CONFIG_INVALID when what was found cannot be written as one. */
export async function proposeAdopted(found: Survey, {app, stateDir, file, env, signal}: {app: string | undefined; stateDir: string | undefined; file: string; env: NodeJS.ProcessEnv; signal: AbortSignal}): Promise<{text: string; config: Config}> {
  const {upstream: {ports: present}, workers: [worker], command = []} = found;
  if (worker === undefined) throw new DeployError('USAGE', 'there is no worker');
  const taken = listeningPorts();
  const proposal = {
    ...found, app, stateDir, command,
    subdirectory: subdirectoryOf(worker, found.code),
    pidFile: patternOf(found.pidFiles),
    ports: rangeAround(present, taken) ?? freePorts(taken),
    root: process.getuid?.() === 0,
  };
  const withHttp = proposed(renderAdoptedConfig({...proposal, answers: true}), file, env);
  const release = {id: '', revision: found.code.revision, dir: found.code.source.workingCopy};
  const checks = await Promise.all(present.map(port => checkWorker(withHttp.config, release, port, signal)));
  return checks.every(({good}) => good) ? withHttp : proposed(renderAdoptedConfig({...proposal, answers: false}), file, env);
}

function proposed(text: string, file: string, env: NodeJS.ProcessEnv): {text: string; config: Config} {
  try {
    return {text, config: parseConfig(text, file, env)};
  } catch (error) {
    if (!(error instanceof DeployError)) throw error;
    throw new DeployError(error.code, `what was found makes no configuration that works:\n${error.message}`,
      {hint: 'Nothing was written. Write one by hand (`osyw-deploy init` begins it), then run `osyw-deploy adopt` again: it goes by that.'});
  }
}

/** Of pid files that tell the truth. */
function patternOf(pidFiles: readonly PidFile[]): string | undefined {
  const [right] = pidFiles.filter(one => one.right);
  return right?.path.replace(new RegExp(`(?<!\\d)${right.port}(?!\\d)`), '{port}');
}

function refuseOtherUpstream(config: Config, {name, file, host}: LocalUpstream): void {
  if (config.nginx.upstream !== name) throw contradicts(config, `nginx.upstream is ${config.nginx.upstream}, not ${name}`);
  const {edit, file: named} = config.nginx;
  if (realPath(edit === true ? fileWithUpstream(config.nginx) : named) !== realPath(file)) throw contradicts(config, `nginx.${edit === true ? 'edit' : 'file'} is ${named}, but upstream ${name} stands in ${file}`);
  if (config.workers.host.toLowerCase() !== host.toLowerCase()) throw contradicts(config, `workers.host is ${config.workers.host}, but the servers of upstream ${name} are at ${host}`);
}

function contradicts({file}: Config, what: string): DeployError {
  return new DeployError('CONFIG_INVALID', `${file}: contradicts what runs: ${what}`, {hint: 'Mend the configuration, or move it away: without one `osyw-deploy adopt` writes it.'});
}

function refuseDeployed(workers: readonly FoundWorker[]): void {
  const own = workers.find(({environment}) => environment.has(WORKER_MARK) && !isAdoptedId(environment.get(WORKER_MARK) ?? ''));
  if (own === undefined) return;
  throw new DeployError('USAGE', `pid ${own.process.pid} on port ${own.port} was not set up by hand: it carries the mark of a deploy, ${own.environment.get(WORKER_MARK) ?? ''}`,
    {hint: 'Use the configuration and the state of that application: `osyw-deploy status --config FILE`.'});
}

function refuseSeveralAccounts(workers: readonly FoundWorker[]): void {
  const [first] = workers;
  const other = workers.find(({uid}) => uid !== first?.uid);
  if (first === undefined || other === undefined) return;
  throw new DeployError('USAGE', `the worker on port ${first.port} runs as ${first.user}, the one on port ${other.port} as ${other.user}`, {hint: 'All workers run as one account (workers.user): start them so, then adopt.'});
}

function refuseUnrecognised(recognised: RecognisedCommand, workers: readonly FoundWorker[]): void {
  const hint = 'Write a configuration whose `workers.command` starts one worker (`osyw-deploy init` begins it), then run `osyw-deploy adopt` again: it goes by that.';
  if (recognised.kind === 'different') {
    throw new DeployError('USAGE', `the workers were not started by one command: with {port} for their ports they are\n  ${shownWords(recognised.first)}\n  ${shownWords(recognised.second)}`, {hint});
  }
  if (recognised.kind === 'without port') {
    const {port, words} = recognised.seen;
    const pid = workers.find(worker => worker.port === port)?.process.pid ?? 0;
    throw new DeployError('USAGE', `neither the command line nor PORT in the environment of pid ${pid} says its port ${port}: ${shownWords(words) || 'it is empty'}`, {hint});
  }
}

function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path; // Not there: it is then only equal to itself.
  }
}
