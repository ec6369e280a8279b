import type {Config} from '../config/config.ts';
import {examine} from '../doctor/doctor.ts';
import {DeployError} from '../errors.ts';
import type {Context} from './context.ts';
import {doctorLines} from './doctor-lines.ts';

/** `osyw-deploy doctor`: changes nothing. Exit code: 1 when there is a problem, 0 with notes and warnings. */
export async function doctor(context: Context): Promise<number> {
  const {output, json, quiet, verbose, signal, cwd, hookScript} = context;
  const config = configured(context);
  const findings = await examine({config, hookScript, cwd, signal});
  const app = config instanceof DeployError ? null : config.app;
  const count = (level: string) => findings.filter(one => one.level === level).length;
  if (json) output.out(`${JSON.stringify({app, findings, problems: count('problem'), warnings: count('warning')})}\n`);
  else output.out(doctorLines(app, findings, {verbosity: quiet ? 'problems' : verbose ? 'all' : 'usual', colour: output.colour}).map(line => `${line}\n`).join(''));
  return count('problem') > 0 ? 1 : 0;
}

function configured({loadConfig}: Context): Config | DeployError {
  try {
    return loadConfig();
  } catch (error) {
    if (error instanceof DeployError && error.code === 'CONFIG_INVALID') return error;
    throw error;
  }
}
