import {configAsObject, renderConfig} from '../config/render-config.ts';
import type {Context} from './context.ts';

/** `osyw-deploy config check`: loads the configuration and touches nothing; its errors are those of every command. */
export function configCheck({loadConfig, output, json, quiet}: Context): number {
  const {file, app} = loadConfig();
  if (json) output.out(`${JSON.stringify({file, app, valid: true})}\n`);
  else if (!quiet) output.out(`${file}: the configuration of ${app} is valid\n`);
  return 0;
}

/** `osyw-deploy config show`: the effective configuration, every default filled in. */
export function configShow({loadConfig, output, json}: Context): number {
  const config = loadConfig();
  output.out(json ? `${JSON.stringify(configAsObject(config))}\n` : renderConfig(config));
  return 0;
}
