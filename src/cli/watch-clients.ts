import type {Config} from '../config/config.ts';
import type {DeployEvent} from '../deploy/events.ts';
import type {ControlAnswer, ControlLine, ControlRequest} from '../watch/control-server.ts';
import {giveBackMemory} from '../watch/give-back-memory.ts';
import type {Reviving} from '../watch/reviving.ts';
import type {Context} from './context.ts';
import type {Renderer} from './renderer.ts';
import {until} from './until.ts';
import type {WatchedConfig} from './watched-config.ts';

/** The commands that a client may leave to a running watch: the same code, told to the client. */
const COMMANDS = {
  now: async (context: Context, options: Record<string, unknown>) => (await import('./now.ts')).now(context, {wait: options['wait'] !== false, force: options['force'] === true, ...textOf('revision', options)}),
  rollback: async (context: Context, options: Record<string, unknown>) => (await import('./rollback.ts')).rollback(context, {wait: options['wait'] !== false, ...textOf('to', options)}),
  start: async (context: Context) => (await import('./init-words.ts')).start(context),
  stop: async (context: Context) => (await import('./init-words.ts')).stop(context),
  restart: async (context: Context) => (await import('./init-words.ts')).restart(context, 'restart'),
  reload: async (context: Context) => (await import('./init-words.ts')).restart(context, 'reload'),
} as const;

interface Serving {
  readonly context: Context;
  readonly config: WatchedConfig;
  readonly reviving: Reviving;
  /** What the start settles is over in a moment, and no reason to be told of another deploy. */
  readonly settledAtStart: Promise<void>;
  readonly signal: AbortSignal;
  /** Shows what happens in the watch's own output, too. */
  follow(event: DeployEvent): void;
}

/** What a running watch answers its clients: it runs the command, as the client would. */
export function answerClients({context, config, reviving, settledAtStart, signal, follow}: Serving): (request: ControlRequest) => ControlAnswer {
  return ({command, options, requestedBy, config: theirs}) => ({
    kind: config.isThatOf(theirs) && Object.hasOwn(COMMANDS, command) ? 'run' : 'other',
    run: async tell => {
      await settledAtStart;
      const own = until(signal);
      try {
        await COMMANDS[command as keyof typeof COMMANDS]({...clientContext(context, config.current(), requestedBy, own.signal, follow, tell), reviving}, options);
      } finally {
        own.close();
        giveBackMemory();
      }
    },
  });
}

function clientContext(context: Context, config: Config, requestedBy: string, signal: AbortSignal, follow: (event: DeployEvent) => void, tell: (line: ControlLine) => void): Context {
  const renderer: Renderer = {
    event: event => {
      follow(event);
      tell(event);
    },
    result: result => tell({event: 'result', ...result}),
  };
  return {
    ...context, signal, letGo: signal, requestedBy,
    output: {out: () => undefined, err: text => tell({event: 'said', text}), terminal: false, colour: false},
    loadConfig: () => config,
    renderer: () => renderer,
  };
}

function textOf<Name extends string>(name: Name, options: Record<string, unknown>): {[key in Name]?: string} {
  const value = options[name];
  return typeof value === 'string' ? {[name]: value} as {[key in Name]: string} : {};
}
