import assert from 'node:assert/strict';
import {spawn} from 'node:child_process';
import {once} from 'node:events';
import {writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {test} from 'node:test';
import {findNginx} from '../../../src/config/look-at-nginx.ts';
import {NGINX} from '../../support/nginx-rig.ts';
import {makeTempDir, removeTempDir} from '../../support/temp-dir.ts';
import {waitUntil} from '../../support/wait-until.ts';

test('an nginx whose main file is named from its prefix on', async t => {
  const dir = makeTempDir();
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(name => `${name}_temp_path ${dir}/${name};`).join(' ');
  writeFileSync(join(dir, 'own.conf'), `daemon off;\npid ${dir}/nginx.pid;\nerror_log ${dir}/error.log;\nevents {}\nhttp { access_log off; ${temporary} upstream there { server 127.0.0.1:1; } }\n`);
  const nginx = spawn(NGINX, ['-e', join(dir, 'error.log'), '-p', `${dir}/`, '-c', 'own.conf'], {stdio: 'inherit'});
  const ended = once(nginx, 'exit');
  t.after(async () => {
    nginx.kill('SIGTERM');
    await ended;
    removeTempDir(dir);
  });
  const found = await waitUntil('nginx to have its title', () => {
    const one = findNginx(join(dir, 'own.conf'));
    return one.running ? one : undefined;
  }, {withinMs: 20_000, everyMs: 10});
  assert.deepEqual([found.pid, found.conf, found.prefix], [nginx.pid, join(dir, 'own.conf'), dir]);
  assert.deepEqual(found.upstreams.map(({name}) => name), ['there']);
});
