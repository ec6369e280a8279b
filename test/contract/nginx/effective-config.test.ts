import assert from 'node:assert/strict';
import {lstatSync, mkdirSync, readdirSync, readFileSync, renameSync, symlinkSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {after, before, describe, test} from 'node:test';
import type {NginxConfig} from '../../../src/config/config.ts';
import {DeployError} from '../../../src/errors.ts';
import {effectiveConfig, findUpstreams} from '../../../src/nginx/effective-config.ts';
import {serverLines} from '../../../src/nginx/server-lines.ts';
import {NGINX, startNginx, type NginxRig} from '../../support/nginx-rig.ts';
import {makeTempDir, removeTempDir} from '../../support/temp-dir.ts';

describe('the configuration of an nginx that runs', () => {
  const dir = makeTempDir();
  let rig: NginxRig;
  const nginxOf = (conf: string | undefined): NginxConfig => ({upstream: 'myweb', file: rig.upstreamFile, server: {}, directives: [], binary: NGINX, conf, prefix: undefined, probe: undefined, reload: undefined});
  before(async () => {
    rig = await startNginx(dir);
  });
  after(async () => {
    await rig.stop();
    removeTempDir(dir);
  });

  test('all its files, with their bytes, through links and patterns', async () => {
    mkdirSync(join(dir, 'sites-available'));
    const text = '# configuration file /etc/hosts:\nupstream other {\r\n\tserver 127.0.0.1:1; # \xe4\n}';
    writeFileSync(join(dir, 'sites-available', 'other'), text, 'latin1');
    const link = join(dir, 'conf.d', 'other.conf');
    symlinkSync('../sites-available/other', link);
    const files = await effectiveConfig(nginxOf(rig.conf));
    assert.deepEqual(files.map(({path}) => path), [rig.conf, rig.upstreamFile, link]);
    for (const {path, bytes, fault} of files) {
      assert.deepEqual(bytes, readFileSync(path));
      assert.equal(fault, undefined);
    }
    const [found, second] = findUpstreams(files, 'other');
    assert.equal(second, undefined);
    assert.ok(found);
    assert.equal(found.file.path, link);
    assert.deepEqual(serverLines(found.directive).map(({target}) => target), [{host: '127.0.0.1', port: 1}]);
  });

  test('nothing is left of the look, as where its pid file and its logs are gone', {skip: process.getuid?.() === 0 ? false : 'only root has a shadow of all'}, async () => {
    const pidFile = /^\s*pid\s+([^;]+);/m.exec(readFileSync(rig.conf, 'utf8'))?.[1] ?? '';
    const gone = [pidFile, ...readdirSync(join(dir, 'logs')).map(name => join(dir, 'logs', name))];
    for (const path of gone) renameSync(path, `${path}.away`);
    const before = treeOf(dir);
    assert.ok((await effectiveConfig(nginxOf(rig.conf))).length > 1);
    assert.deepEqual(treeOf(dir), before);
    for (const path of gone) renameSync(`${path}.away`, path);
  });

  test('of one that does not run, by what the configuration names', async () => {
    const conf = join(dir, 'another.conf');
    writeFileSync(conf, `pid ${dir}/another.pid;\nerror_log ${dir}/logs/another.log;\nevents {}\nhttp { upstream there { server 127.0.0.1:1; } }\n`);
    const files = await effectiveConfig(nginxOf(conf));
    assert.deepEqual(findUpstreams(files, 'there').map(({file}) => file.path), [conf]);
  });

  test('one that nginx refuses', async () => {
    const broken = rig.brokenInclude();
    await assert.rejects(effectiveConfig(nginxOf(rig.conf)), (error: unknown) => error instanceof DeployError && error.code === 'SWITCH_REFUSED' && error.message.includes(broken.path));
    broken.remove();
  });
});

/** Each path below, with what changes when anything is done to it. */
function treeOf(top: string): string[] {
  return [top, ...readdirSync(top, {recursive: true, encoding: 'utf8'}).map(name => join(top, name))].toSorted().map(path => {
    const {mode, size, ctimeMs} = lstatSync(path);
    return [path, mode, size, ctimeMs].join(' ');
  });
}
