import {join, resolve} from 'node:path';
import {lookAround} from '../config/look-around.ts';
import {proposeConfig, remarksOn} from '../config/propose-config.ts';
import {plainText} from '../support/plain-text.ts';
import type {Context} from './context.ts';
import {writeNew} from './write-new.ts';

/** `osyw-deploy init`: writes a commented `osyw-deploy.yaml` for what it finds here; never over one that is there. */
export async function init({cwd, env, output, json, quiet}: Context, {nginx}: {readonly nginx?: string}): Promise<number> {
  const path = join(cwd, 'osyw-deploy.yaml');
  const findings = await lookAround(cwd, env, nginx === undefined ? undefined : resolve(cwd, nginx));
  const {adopt, look} = remarksOn(findings);
  const text = proposeConfig(findings);
  writeNew(path, text, {there: 'Move it away to have a new one proposed.', denied: 'Run `osyw-deploy init` in a directory that this account may write, with room in it.'});
  if (json) output.out(`${JSON.stringify({file: path, look, adopt: adopt ?? null})}\n`);
  else if (!quiet) {
    output.out([
      `wrote ${path}`,
      ...(adopt === undefined ? [] : [adopt]),
      ...look.map(text => `  - ${text}`),
      'Look it through, then: osyw-deploy plan, and osyw-deploy now.',
      '',
    ].map(plainText).join('\n'));
  }
  return 0;
}
