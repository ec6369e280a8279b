import assert from 'node:assert/strict';
import {execFileSync, spawnSync} from 'node:child_process';
import {existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {test, type TestContext} from 'node:test';
import {get} from '../support/raw-http.ts';
import {makeSite, type Site} from '../support/site.ts';
import {waitUntil} from '../support/wait-until.ts';

// Below a root of the test's own: what is written, what is left alone, and that logrotate rotates by it.

const LOGROTATE = '/usr/sbin/logrotate';
const UNIT = 'etc/systemd/system/osyw-deploy-site.service';
const LOGS = 'etc/logrotate.d/osyw-deploy-site';
const RUN = 'etc/tmpfiles.d/osyw-deploy-site.conf';
const SCRIPT = 'etc/init.d/osyw-deploy-site';

async function rooted(t: TestContext): Promise<{site: Site; root: string; service: (...words: string[]) => ReturnType<Site['run']>}> {
  const site = await makeSite(t, {config: {run_dir: '/run/osyw-deploy/site'}});
  const root = join(site.dir, 'root');
  return {site, root, service: (...words) => site.run(['service', ...words, '--root', root])};
}

/** Every file, with its text, mode and inode. */
function filesBelow(root: string): Record<string, string> {
  if (!existsSync(root)) return {};
  const names = readdirSync(root, {recursive: true, encoding: 'utf8'}).filter(name => statSync(join(root, name)).isFile()).sort();
  return Object.fromEntries(names.map(name => [name, `${statSync(join(root, name)).ino} ${(statSync(join(root, name)).mode & 0o777).toString(8)} ${readFileSync(join(root, name), 'utf8')}`]));
}

test('installed twice it changes nothing, and uninstalled nothing of it is left', async t => {
  const {root, service} = await rooted(t);
  assert.equal((await service('status')).exit, 3);
  const first = await service('install', '--json');
  assert.equal(first.exit, 0, first.stderr);
  assert.deepEqual(JSON.parse(first.stdout), {files: [UNIT, LOGS, RUN].map(file => ({file: join(root, file), changed: true})), enabled: false});
  const before = filesBelow(root);
  assert.deepEqual(Object.keys(before), [LOGS, UNIT, RUN]);
  const second = await service('install', '--json');
  assert.deepEqual((JSON.parse(second.stdout) as {files: {changed: boolean}[]}).files.map(({changed}) => changed), [false, false, false]);
  assert.deepEqual(filesBelow(root), before);
  const status = await service('status');
  assert.equal(status.exit, 0, status.stdout + status.stderr);
  writeFileSync(join(root, 'etc/logrotate.d/nginx'), 'of others\n');
  assert.equal((await service('uninstall')).exit, 0);
  assert.deepEqual(Object.keys(filesBelow(root)), ['etc/logrotate.d/nginx']);
  assert.equal((await service('uninstall')).exit, 0);
});

test('another configuration brings the files up to date, and takes away what it has no need of', async t => {
  const {site, root, service} = await rooted(t);
  await service('install');
  site.configure({run_dir: join(site.dir, 'run')});
  const status = await service('status');
  assert.equal(status.exit, 1);
  assert.match(status.stdout, /installed, but outdated/);
  assert.equal((await service('install')).exit, 0);
  assert.deepEqual(Object.keys(filesBelow(root)), [LOGS, UNIT]);
  assert.equal((await service('status')).exit, 0);
});

for (const [what, text] of [['somebody else\'s', '[Service]\nExecStart=/bin/true\n'], ['ours, and changed by hand', undefined]] as const) {
  test(`a file that is ${what} stays, and nothing is written`, async t => {
    const {root, service} = await rooted(t);
    if (text === undefined) await service('install');
    mkdirSync(join(root, 'etc/systemd/system'), {recursive: true});
    writeFileSync(join(root, UNIT), text ?? `${readFileSync(join(root, UNIT), 'utf8')}Nice=5\n`);
    const before = filesBelow(root);
    for (const words of [['install'], ['install', '--sysv'], ...(text === undefined ? [['uninstall']] : [])]) {
      const end = await service(...words);
      assert.equal(end.exit, 2, end.stdout);
      assert.ok(end.stderr.includes(join(root, UNIT)), end.stderr);
      assert.match(end.stderr, /ove it away|uninstall/);
      assert.deepEqual(filesBelow(root), before);
    }
    assert.equal((await service('status')).exit, text === undefined ? 1 : 3);
    if (text !== undefined) {
      assert.equal((await service('uninstall')).exit, 0);
      assert.deepEqual(filesBelow(root), before);
    }
  });
}

test('the init script in the place of the unit', async t => {
  const {root, service} = await rooted(t);
  assert.equal((await service('install', '--sysv')).exit, 0);
  assert.deepEqual(Object.keys(filesBelow(root)), [SCRIPT, LOGS, RUN]);
  assert.equal(statSync(join(root, SCRIPT)).mode & 0o777, 0o755);
  assert.equal((await service('status')).exit, 0);
  assert.equal((await service('install')).exit, 2);
  assert.equal((await service('uninstall')).exit, 0);
  assert.deepEqual(filesBelow(root), {});
});

test('for packagers: printed, and nothing is written', async t => {
  const {site, root, service} = await rooted(t);
  await service('install');
  const json = await site.run(['service', 'install', '--print', '--json']);
  assert.deepEqual(Object.fromEntries((JSON.parse(json.stdout) as {files: {path: string; text: string}[]}).files.map(({path, text}) => [path, text])), Object.fromEntries([UNIT, LOGS, RUN].map(file => [`/${file}`, readFileSync(join(root, file), 'utf8')])));
  const plain = await site.run(['service', 'install', '--print', '--sysv']);
  assert.deepEqual([...plain.stdout.matchAll(/^==> (.*) <==$/gm)].map(([, path]) => path), [SCRIPT, LOGS, RUN].map(file => `/${file}`));
  for (const words of [['--print', '--enable'], ['--enable', '--root', root]]) assert.equal((await site.run(['service', 'install', ...words])).exit, 2);
});

test('status of what would not start', async t => {
  const {site, service} = await rooted(t);
  await service('install');
  site.configure({nginx: {binary: '/nowhere/nginx'}});
  assert.match((await service('status')).stdout, /→ there is no nginx at \/nowhere\/nginx/);
  site.forget();
  site.configure({no_such_key: 1, run_dir: '/run/osyw-deploy/site'});
  const broken = await service('status');
  assert.equal(broken.exit, 1);
  assert.match(broken.stderr, /it would not start: [^]*no_such_key/);
});

test('a state that the service would look for elsewhere is refused', async t => {
  const site = await makeSite(t, {...(process.getuid?.() === 0 && {as: {uid: 33, gid: 33}})});
  site.configure({state_dir: null});
  const end = await site.run(['service', 'install', '--print'], {env: {XDG_STATE_HOME: join(site.dir, 'xdg')}});
  assert.equal(end.exit, 2, end.stdout);
  assert.match(end.stderr, /would look for state_dir in \/\S+, and not in \S+\/xdg\/osyw-deploy\/site[^]*Write `state_dir: /);
});

test('systemd makes the directories below /run by it', async t => {
  const {root, service} = await rooted(t);
  await service('install');
  execFileSync('systemd-tmpfiles', ['--create', `--root=${root}`, join(root, RUN)]);
  assert.equal(statSync(join(root, 'run/osyw-deploy/site')).mode & 0o777, 0o711);
});

test('logrotate takes the logs by it, and whoever writes them writes on', async t => {
  const {site, root, service} = await rooted(t);
  site.configure({workers: {command: ['/bin/sh', '-c', 'while echo "$1 writes"; do sleep 0.05; done & exec /usr/bin/python3 -S -E worker.py "$1"', 'sh', '{port}']}});
  await site.deployed();
  const end = await service('install');
  assert.equal(end.exit, 0, end.stderr);
  const [port = 0] = site.nginx.upstreamPorts();
  const log = join(site.dir, 'logs', `worker-${port}.log`);
  const own = join(site.stateDir, 'log/osyw-deploy.log');
  await waitUntil('a log', () => statSync(log).size > 100);
  execFileSync('chmod', ['644', join(root, LOGS)]);
  const rotated = spawnSync(LOGROTATE, ['--force', '--verbose', '--state', join(site.dir, 'rotated'), join(root, LOGS)], {encoding: 'utf8'});
  assert.equal(rotated.status, 0, rotated.stderr);
  assert.doesNotMatch(rotated.stderr, /^error/m);
  for (const file of [log, own]) assert.ok(statSync(`${file}.1`).size > 0, `${file}.1`);
  const before = statSync(log).size;
  await waitUntil('the worker to write on', () => statSync(log).size > before);
  // A descriptor that did not append would leave a hole of zeros.
  assert.match(readFileSync(log, 'utf8'), /^(\d+ writes\n)+$/);
  await site.release('2');
  await site.deployed();
  assert.match(readFileSync(own, 'utf8'), /^\{.*\n/);
  assert.deepEqual(readdirSync(join(site.dir, 'logs')).filter(name => name.endsWith('.1.1')), []);
  assert.equal((await get(site.nginx.port, '/')).text, '2');
  await site.run(['stop']);
});
