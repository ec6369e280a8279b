import assert from 'node:assert/strict';
import {readFileSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {test} from 'node:test';
import {get} from '../support/raw-http.ts';
import {run} from '../support/run.ts';
import {makeSite} from '../support/site.ts';

test('a worker\'s environment is the configuration\'s and nothing else, and it holds no descriptor but its own three', async (t) => {
  const site = await makeSite(t, {count: 1});
  const envFile = join(site.dir, 'site.env');
  writeFileSync(envFile, 'DB_PASSWORD=s3cret word\n# a comment\nQUOTED="two words"\n', {mode: 0o600});
  site.configure({workers: {env_file: envFile, env: {NUMBER: 8, FLAG: true, WHERE: 'port {port}, release {release}'}}});
  const end = await site.now([], {
    // What a hook or a shell has open above 2 comes into the command, and must end there.
    wrap: ['/bin/bash', '-c', 'exec 7</etc/passwd 9>>/dev/null 200</etc/passwd; exec "$@"', 'bash'],
    env: {SECRET_OF_THE_HOOK: 'x', GIT_DIR: '/nowhere', NODE_OPTIONS: '', OSYW_DEPLOY_CONFIG: '/nowhere'},
  });
  assert.equal(end.exit, 0, end.stdout + end.stderr);
  const port = site.nginx.upstreamPorts()[0] ?? 0;
  const env = JSON.parse((await get(port, '/env')).text) as Record<string, string>;
  const {release, revision} = end.result ?? {};
  const mark = env['OSYW_WORKER_ID'];
  assert.ok(mark !== undefined && mark !== '', 'the mark by which the worker\'s tree is known');
  for (const name of ['PATH', 'HOME', 'LANG']) assert.ok((env[name] ?? '') !== '', name);
  const {PATH: _path, HOME: _home, LANG: _lang, OSYW_WORKER_ID: _id, ...rest} = env;
  assert.deepEqual(rest, {
    PORT: String(port),
    OSYW_RELEASE: release,
    OSYW_REVISION: revision,
    OSYW_TEST_SITE: site.dir,
    DB_PASSWORD: 's3cret word',
    QUOTED: 'two words',
    NUMBER: '8',
    FLAG: 'true',
    WHERE: `port ${port}, release ${release}`,
  });

  const descriptors = JSON.parse((await get(port, '/fds')).text) as Record<string, string>;
  assert.deepEqual(Object.keys(descriptors).sort(), ['0', '1', '2']);
  assert.equal(descriptors['0'], '/dev/null');
  const log = join(site.dir, 'logs', `worker-${port}.log`);
  assert.deepEqual([descriptors['1'], descriptors['2']], [log, log], 'output goes to the file, never to a pipe of ours');
  assert.match(readFileSync(log, 'utf8'), /listens on/);

  const [worker] = (await site.status()).serving?.workers ?? [];
  const pid = worker?.pid ?? 0;
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
  assert.equal(Number(stat[3]), pid, 'it leads a session of its own');
  assert.equal(Number(stat[2]), pid, 'and a process group of its own');
  const status = (await get(port, '/status')).text;
  assert.match(status, /^SigIgn:\s+0*1001000$/m, 'no signal of importance is ignored (SIGPIPE and SIGXFSZ are Python\'s own)');
  assert.match(status, /^SigBlk:\s+0+$/m, 'no signal is blocked');
  await site.settled({version: '1'});
});

test('a worker outlives the command, its terminal and its process group', async (t) => {
  const site = await makeSite(t);
  const command = site.start(['now', '--json'], {wrap: ['/usr/bin/setsid', '--wait']});
  assert.equal((await command.ended).exit, 0);
  await site.settled({version: '1'});
});

test('workers run as the configured user', {skip: process.getuid?.() === 0 ? false : 'only root can become another user'}, async (t) => {
  const site = await makeSite(t, {config: {workers: {user: 'nobody'}}});
  await site.deployed();
  const port = site.nginx.upstreamPorts()[0] ?? 0;
  const status = (await get(port, '/status')).text;
  assert.match(status, /^Uid:\s+65534\s+65534\s+65534\s+65534$/m);
  assert.match(status, /^Groups:\s*(65534)?\s*$/m, 'no group of root\'s');
  await site.release('2');
  await site.deployed();
  await site.settled({version: '2'});
});

test('what a worker was told in secret is in no argument, no log and no state', async (t) => {
  const site = await makeSite(t);
  const envFile = join(site.dir, 'site.env');
  writeFileSync(envFile, 'DB_PASSWORD=hunter2-hunter2\n', {mode: 0o600});
  site.configure({workers: {env_file: envFile}});
  await site.deployed();
  await site.release('2', {die_at_once: 1});
  const failed = await site.now(['--verbose']);
  assert.equal(failed.exit, 7);
  assert.doesNotMatch(failed.stdout + failed.stderr, /hunter2/);
  const leaks = await run('/bin/sh', ['-c', 'grep -rla hunter2 "$0" | grep -vx "$0/site.env" || true', site.dir]);
  assert.equal(leaks, '');
  const shown = await site.run(['config', 'show']);
  assert.doesNotMatch(shown.stdout, /hunter2/);
});
