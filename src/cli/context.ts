import type {Config} from '../config/config.ts';
import {configPlace} from '../config/find-config.ts';
import {loadConfig} from '../config/load-config.ts';
import {openRenderer, type Renderer, type Verbosity} from './renderer.ts';
import type {Reviving} from '../watch/reviving.ts';
import type {Output} from './output.ts';

/** The options that every command takes. */
export interface GlobalOptions {
  readonly config?: string;
  readonly app?: string;
  readonly json?: boolean;
  readonly quiet?: boolean;
  readonly verbose?: boolean;
}

/** What a command works with. */
export interface Context extends Verbosity {
  readonly output: Output;
  readonly env: NodeJS.ProcessEnv;
  readonly cwd: string;
  /** Who runs the command, where another process runs it in his name. */
  readonly requestedBy?: string;
  /** Aborted by the first SIGINT, SIGTERM or SIGHUP. */
  readonly signal: AbortSignal;
  /** Ends the wait for what drains, which is left to another process. */
  readonly letGo?: AbortSignal;
  /** In a watch: what lets workers be started again beside this command. */
  readonly reviving?: Reviving;
  /** From now on SIGHUP calls this and ends nothing. */
  onHangup(listener: () => void): void;
  /** What `hook install` writes, before the applications are in it. */
  readonly hookScript: string;
  /** Where the configuration is; where there is none, where a new one goes. */
  configFile(): {readonly file: string; readonly there: boolean};
  /** The application that is meant, where it was named. */
  readonly app: string | undefined;
  /** Read once; later calls give the same. */
  loadConfig(): Config;
  loadConfigAgain(): Config;
  renderer(): Renderer;
}

export function makeContext(options: GlobalOptions, world: {output: Output; env: NodeJS.ProcessEnv; cwd: string; signal: AbortSignal; onHangup: Context['onHangup']; hookScript: string}): Context {
  const verbosity = {json: options.json === true, quiet: options.quiet === true, verbose: options.verbose === true};
  const place = {
    ...(options.config === undefined ? {} : {configFlag: options.config}),
    ...(options.app === undefined ? {} : {appFlag: options.app}),
    env: world.env,
    cwd: world.cwd,
  };
  const load = () => loadConfig(place);
  let config: Config | undefined;
  return {
    ...world,
    ...verbosity,
    app: options.app,
    configFile: () => configPlace(place),
    loadConfig: () => config ??= load(),
    loadConfigAgain: () => config = load(),
    renderer: () => openRenderer(world.output, verbosity),
  };
}
