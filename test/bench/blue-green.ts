import {cpSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {fileURLToPath} from 'node:url';
import {leasePorts} from '../support/free-ports.ts';
import {type NginxRig, startNginx} from '../support/nginx-rig.ts';
import {run} from '../support/run.ts';
import {makeTempDir, removeTempDir} from '../support/temp-dir.ts';
import {endProcessesOf, type Row} from './rig.ts';

const WORKER_APP = fileURLToPath(new URL('../../fixtures/worker-app', import.meta.url));
export const SCRIPTS = fileURLToPath(new URL('scripts', import.meta.url));

/** A tree that is deployed in place, an nginx before it, and ports: what the scripts and pm2 work on. */
export interface HandMadeSite {
  readonly dir: string;
  readonly tree: string;
  readonly nginx: NginxRig;
  readonly first: number;
  readonly env: Record<string, string>;
}

export async function startHandMade(row: Row, count: number): Promise<HandMadeSite & {readonly other: number}> {
  const dir = makeTempDir();
  row.after(() => removeTempDir(dir));
  const ports = await leasePorts(2 * count);
  row.after(() => ports.release());
  const tree = join(dir, 'tree');
  cpSync(WORKER_APP, tree, {recursive: true, filter: (path) => !path.includes('__pycache__')});
  writeFileSync(join(tree, 'behaviour.json'), '{"version": "1"}\n');
  const servers = Array.from({length: count}, (_, slot) => `    server 127.0.0.1:${ports.first + slot};\n`).join('');
  const nginx = await startNginx(join(dir, 'nginx'), {upstream: `upstream myweb {\n${servers}}\n`});
  row.after(() => nginx.stop());
  row.after(() => endProcessesOf(dir));
  return {dir, tree, nginx, first: ports.first, other: ports.first + count, env: {PATH: '/usr/sbin:/usr/bin:/sbin:/bin', OSYW_TEST_SITE: dir}};
}

export async function startBlueGreen(row: Row, count: number): Promise<HandMadeSite & {deploy(): Promise<string>}> {
  const site = await startHandMade(row, count);
  let [old, fresh] = [site.other, site.first];
  const deploy = async (): Promise<string> => {
    const said = await run('/bin/sh', [join(SCRIPTS, 'blue-green.sh'), site.tree, String(old), String(fresh), String(count), site.nginx.upstreamFile, site.nginx.prefix], {env: site.env});
    [old, fresh] = [fresh, old];
    return said;
  };
  await deploy();
  return {...site, deploy};
}
