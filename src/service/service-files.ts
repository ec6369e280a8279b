import type {Config} from '../config/config.ts';
import {DeployError} from '../errors.ts';
import type {Identity} from '../support/accounts.ts';
import {renderInitScript} from './init-script.ts';
import {hasControlCharacter} from './quoting.ts';
import {renderLogrotate, renderTmpfiles} from './snippets.ts';
import {stamped} from './stamp.ts';
import {renderUnit} from './unit.ts';

/** What the files of a service are made of. */
export interface ServiceFacts {
  readonly config: Config;
  /** Whose the state is. */
  readonly deployer: Identity;
  /** Absolute paths. */
  readonly node: string;
  readonly script: string;
  /** The version of this machine's systemd; undefined where there is none. */
  readonly systemd: number | undefined;
}

/** `unit` and `script` exclude each other: under one name systemd sees the unit alone. */
export type ServiceKind = 'unit' | 'script';

export interface ServiceFile {
  readonly kind: ServiceKind | 'snippet';
  readonly path: string;
  readonly mode: number;
  readonly text: string;
}

/** Undefined where systemd's journal has what the workers say. */
export function workerLog({workers}: Config): string | undefined {
  return 'log' in workers ? workers.log : undefined;
}

export function serviceName(app: string): string {
  return `osyw-deploy-${app}`;
}

/** The places of all files that a service may have, whichever kind it is. */
export function servicePlaces(app: string) {
  const name = serviceName(app);
  return {
    unit: `/etc/systemd/system/${name}.service`,
    script: `/etc/init.d/${name}`,
    logrotate: `/etc/logrotate.d/${name}`,
    tmpfiles: `/etc/tmpfiles.d/${name}.conf`,
  };
}

/** The files of a service. Errors: USAGE for a path that no such file can name. */
export function serviceFiles(facts: ServiceFacts, kind: ServiceKind): ServiceFile[] {
  refuseUnspeakable(facts);
  const places = servicePlaces(facts.config.app);
  const tmpfiles = renderTmpfiles(facts);
  const files: ServiceFile[] = [
    kind === 'unit' ? {kind, path: places.unit, mode: 0o644, text: renderUnit(facts)} : {kind, path: places.script, mode: 0o755, text: renderInitScript(facts)},
    {kind: 'snippet', path: places.logrotate, mode: 0o644, text: renderLogrotate(facts)},
    ...(tmpfiles === undefined ? [] : [{kind: 'snippet', path: places.tmpfiles, mode: 0o644, text: tmpfiles} as const]),
  ];
  return files.map(file => ({...file, text: stamped(file.text)}));
}

function refuseUnspeakable({config, node, script}: ServiceFacts): void {
  const {file, stateDir, runDir, source, workers} = config;
  const bad = [file, node, script, stateDir, runDir, source.workingCopy, workerLog(config) ?? '', workers.pidFile ?? ''].find(hasControlCharacter);
  if (bad !== undefined) throw new DeployError('USAGE', `${JSON.stringify(bad)} holds a control character, which no line of a unit can`, {hint: 'Give it another name.'});
  // Source: systemd, config_parse_exec(): "Executable name contains special characters".
  if (/["'\\]/.test(node)) throw new DeployError('USAGE', `systemd starts no program whose path holds a quote or a backslash: ${node}`, {hint: 'Run it by a node elsewhere.'});
}
