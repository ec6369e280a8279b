import type {Config} from '../config/config.ts';
import {loadConfig} from '../config/load-config.ts';
import {openRenderer, type Renderer, type Verbosity} from './renderer.ts';
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
  /** Aborted by the first SIGINT, SIGTERM or SIGHUP. */
  readonly signal: AbortSignal;
  /** What `hook install` writes, before the applications are in it. */
  readonly hookScript: string;
  loadConfig(): Config;
  renderer(): Renderer;
}

export function makeContext(options: GlobalOptions, world: {output: Output; env: NodeJS.ProcessEnv; cwd: string; signal: AbortSignal; hookScript: string}): Context {
  const verbosity = {json: options.json === true, quiet: options.quiet === true, verbose: options.verbose === true};
  return {
    ...world,
    ...verbosity,
    loadConfig: () => loadConfig({
      ...(options.config === undefined ? {} : {configFlag: options.config}),
      ...(options.app === undefined ? {} : {appFlag: options.app}),
      env: world.env,
      cwd: world.cwd,
    }),
    renderer: () => openRenderer(world.output, verbosity),
  };
}
