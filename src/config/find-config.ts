import {existsSync} from 'node:fs';
import {resolve} from 'node:path';
import {DeployError} from '../errors.ts';
import {shown} from './shown.ts';

/** Where a configuration is looked for. */
export interface ConfigPlace {
  /** `--config` */
  readonly configFlag?: string | undefined;
  /** `--app` */
  readonly appFlag?: string | undefined;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd: string;
}

/**
 * Absolute path of the configuration: --config, else $OSYW_DEPLOY_CONFIG, else ./osyw-deploy.yaml, else /etc with --app.
 * A file that was asked for by name is the only place that is looked at: another application's would be worse than none.
 * Errors: CONFIG_INVALID with the places; USAGE for an `--app` that cannot be a name.
 */
export function findConfigFile(place: ConfigPlace): string {
  const places = placesToLook(place);
  const found = places.find(({path}) => existsSync(path));
  if (found !== undefined) return found.path;
  const looked = places.map(({path, by}) => `  ${path} (${by})`);
  throw new DeployError('CONFIG_INVALID', ['there is no configuration; looked at', ...looked].join('\n'), {
    hint: 'Write one with `osyw-deploy init`, or name it with --config FILE or $OSYW_DEPLOY_CONFIG'
      + (place.appFlag === undefined ? ', or /etc/osyw-deploy/APP.yaml with --app APP.' : '.'),
  });
}

/** The same; where there is none, where a new one would be found first. Errors: USAGE for an `--app` that cannot be a name. */
export function configPlace(place: ConfigPlace): {file: string; there: boolean} {
  const places = placesToLook(place);
  const found = places.find(({path}) => existsSync(path));
  return {file: (found ?? places[0])?.path ?? resolve(place.cwd, 'osyw-deploy.yaml'), there: found !== undefined};
}

function placesToLook({configFlag, appFlag, env, cwd}: ConfigPlace): {path: string; by: string}[] {
  if (appFlag !== undefined && !/^[a-z0-9][a-z0-9_-]{0,62}$/.test(appFlag)) {
    throw new DeployError('USAGE', `--app is ${shown(appFlag)}; expected a name of lower-case letters, digits, _ and -, at most 63`);
  }
  const fromEnv = env['OSYW_DEPLOY_CONFIG'];
  if (configFlag !== undefined) return [{path: resolve(cwd, configFlag), by: '--config'}];
  if (fromEnv !== undefined && fromEnv !== '') return [{path: resolve(cwd, fromEnv), by: '$OSYW_DEPLOY_CONFIG'}];
  return [
    {path: resolve(cwd, 'osyw-deploy.yaml'), by: 'the current directory'},
    ...(appFlag === undefined ? [] : [{path: `/etc/osyw-deploy/${appFlag}.yaml`, by: '--app'}]),
  ];
}
