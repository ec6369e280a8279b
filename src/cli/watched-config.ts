import type {Config} from '../config/config.ts';
import type {Report} from '../deploy/events.ts';
import {asFailure} from '../deploy/run.ts';
import type {DeployTools} from '../deploy/tools.ts';
import {DeployError} from '../errors.ts';
import {wire} from '../wire.ts';
import type {Context} from './context.ts';
import {configStamp} from './through-watch.ts';

/** Whose workers may still run. */
const MOST_CONFIGURATIONS = 5;

/** The configuration of a running watch. */
export interface WatchedConfig {
  current(): Config;
  /** Whether a client has this very configuration; one that was changed since is read again first. */
  isThatOf(stamp: ReturnType<typeof configStamp>): boolean;
  /** Those of the configuration with this hash, where it was read in this watch; else of the present one. */
  toolsOf(hash: string): DeployTools;
  /** Reads the file again. A bad one is told, and what was read before stays in force. */
  reload(): void;
}

interface Told {
  readonly report: Report;
  readonly say: (text: string) => void;
  /** Before the fresh one takes the place of the other. */
  readonly onChange: (fresh: Config, before: Config) => void;
}

/** Errors: CONFIG_INVALID. */
export function watchedConfig(context: Context, {report, say, onChange}: Told): WatchedConfig {
  // Stamped before it is read, so that an edit in between is seen as one.
  let stamp = configStamp(context.loadConfig().file);
  let config = context.loadConfigAgain();
  let latest = wire(config, report);
  const wired = [latest];
  const reload = (): void => {
    try {
      const seen = configStamp(config.file);
      const fresh = context.loadConfigAgain();
      const moved = (['app', 'stateDir', 'runDir'] as const).filter(key => fresh[key] !== config[key]);
      if (moved.length > 0) throw new DeployError('CONFIG_INVALID', `${moved.map(key => ({app: 'app', stateDir: 'state_dir', runDir: 'run_dir'})[key]).join(' and ')} changed; that needs a new \`osyw-deploy watch\``);
      onChange(fresh, config);
      latest = wire(fresh, report);
      wired.push(latest);
      if (wired.length > MOST_CONFIGURATIONS) wired.shift();
      [config, stamp] = [fresh, seen];
      say(`read ${config.file} again`);
    } catch (error) {
      const {code, message} = asFailure(error);
      context.output.err(`${code}: ${message}\nThe configuration of before stays in force.\n`);
      report({event: 'note', text: `${code}: ${message}; the configuration of before stays in force`});
    }
  };
  return {
    current: () => config,
    isThatOf: theirs => {
      if (theirs.file !== config.file) return false;
      if (theirs.changed !== stamp.changed) reload();
      return theirs.changed === stamp.changed;
    },
    toolsOf: hash => wired.find(({config: {hash: other}}) => other === hash) ?? latest,
    reload,
  };
}
