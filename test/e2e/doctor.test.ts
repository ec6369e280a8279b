import assert from 'node:assert/strict';
import {execFileSync, spawn} from 'node:child_process';
import {appendFileSync, chmodSync, chownSync, lstatSync, mkdirSync, readdirSync, readFileSync, readlinkSync, renameSync, utimesSync, writeFileSync} from 'node:fs';
import {connect, createServer, type AddressInfo} from 'node:net';
import {join} from 'node:path';
import {test} from 'node:test';
import {fileURLToPath} from 'node:url';
import type {Finding, Level} from '../../src/doctor/finding.ts';
import {childrenOf} from '../../src/workers/process-identity.ts';
import {parseHook, renderHook} from '../../src/trigger/hook-script.ts';
import {makeGate} from '../support/gate.ts';
import {runCommand, type CommandEnd, type CommandOptions} from '../support/osyw.ts';
import {establishedTo} from '../support/leftovers.ts';
import {ask} from '../support/raw-http.ts';
import {scrubbedEnv} from '../support/scrubbed-env.ts';
import {makeSite, present, type Settings, type Site} from '../support/site.ts';
import {makeTempDir, removeTempDir} from '../support/temp-dir.ts';
import {waitUntil} from '../support/wait-until.ts';

const LONG_MS = 120_000;
const ROOT_ONLY = process.getuid?.() === 0 ? false : 'only root can set this up';
const NOBODY = {uid: 65_534, gid: 65_534};

interface Diagnosis {
  readonly app: string | null;
  readonly findings: readonly Finding[];
  readonly problems: number;
  readonly warnings: number;
  readonly end: CommandEnd;
}

async function examined(site: Site, options: Partial<CommandOptions> = {}): Promise<Diagnosis> {
  return diagnosisIn(await site.run(['doctor', '--json'], options));
}

function diagnosisIn(end: CommandEnd): Diagnosis {
  assert.ok(end.exit === 0 || end.exit === 1, `doctor ended with ${end.exit}:\n${end.stdout}\n${end.stderr}`);
  const said = JSON.parse(end.stdout) as Omit<Diagnosis, 'end'>;
  assert.equal(end.exit, said.problems > 0 ? 1 : 0);
  assert.equal(said.problems, said.findings.filter(({level}) => level === 'problem').length);
  assert.deepEqual(said.findings.filter(({level, mend}) => level === 'problem' && (mend ?? '') === ''), [], 'each problem has its way out');
  assert.equal(said.warnings, said.findings.filter(({level}) => level === 'warning').length);
  return {...said, end};
}

/** The one finding of a check that is of this level. */
function found({findings}: Diagnosis, check: string, level: Level): Finding {
  const all = findings.filter(one => one.check === check && one.level === level);
  assert.equal(all.length, 1, `${level} ${check} in\n${findings.filter(one => one.check === check || one.level === 'problem').map(one => JSON.stringify(one)).join('\n')}`);
  return present(all[0], check);
}

function problemsOf({findings}: Diagnosis): string[] {
  return findings.filter(({level}) => level === 'problem').map(({check}) => check);
}

/** Types the lines as a person would, from anywhere, with the site's directory for a home. */
function typed(site: Site, lines: string | undefined): string {
  return execFileSync('sh', ['-ec', lines ?? 'false'], {cwd: '/', env: scrubbedEnv(site.dir, {HOME: site.dir}), encoding: 'utf8', stdio: 'pipe'});
}

/** Lays settings over the site's for one look. */
async function examinedWith(site: Site, settings: Settings, options?: Partial<CommandOptions>): Promise<Diagnosis> {
  site.configure(settings);
  try {
    return await examined(site, options);
  } finally {
    site.forget();
  }
}

/** One look from a mount namespace of its own, after `script` has run there; its words are the arguments. */
async function examinedBehind(site: Site, script: string, ...words: readonly string[]): Promise<Diagnosis> {
  const shift = words.length === 0 ? '' : `shift ${words.length}; `;
  site.wrap(['unshare', '--mount', '--propagation', 'private', '--', 'sh', '-c', `set -e; ${script}; ${shift}exec "$@"`, 'sh', ...words]);
  try {
    return await examined(site);
  } finally {
    site.wrap([]);
  }
}

/** Each path below with its mode, owner, times and bytes. */
function treeOf(top: string): string[] {
  return [top, ...readdirSync(top, {recursive: true, encoding: 'utf8'}).sort().map(name => join(top, name))].map(path => {
    const {mode, uid, gid, mtimeMs, ctimeMs, size} = lstatSync(path);
    const type = mode & 0o170000;
    const content = type === 0o100000 ? readFileSync(path).toString('base64') : type === 0o120000 ? readlinkSync(path) : '';
    return [path, mode, uid, gid, mtimeMs, ctimeMs, size, content].join(' ');
  });
}

/** In `http`, beside the upstream file; nginx has it once it is reloaded, the doctor at once. */
const KEEPS_NO_CLIENT = 'keepalive_timeout 0;\n';

test('a clean site has no problem and no warning, and nothing of it is changed', {timeout: LONG_MS}, async t => {
  const site = await makeSite(t, {vcs: 'svn', nginx: {main: 'worker_shutdown_timeout 30s;', server: 'keepalive_timeout 0;'}});
  await site.deployed();
  assert.equal((await site.run(['hook', 'install'])).exit, 0);
  site.configure({workers: {log: join(site.stateDir, 'log', 'worker-{port}.log')}});
  const trees = () => [site.stateDir, site.workingCopy, join(site.dir, 'nginx'), join(site.dir, 'svn')].map(treeOf);
  // An nginx that is asked for its configuration would make these anew, empty; only root can keep it from that.
  const gone = ROOT_ONLY === false ? [site.nginx.pidFile, join(site.nginx.prefix, 'logs', 'access.log')] : [];
  for (const path of gone) renameSync(path, `${path}.away`);
  const before = trees();
  const diagnosis = await examined(site);
  assert.deepEqual(trees(), before);
  for (const path of gone) renameSync(`${path}.away`, path);
  assert.equal(diagnosis.end.exit, 0);
  assert.equal(diagnosis.app, 'site');
  assert.deepEqual(diagnosis.findings.filter(({level}) => level === 'problem' || level === 'warning').map(({check, says}) => `${check}: ${says}`).filter(text => !text.startsWith('log-rotation: ')), []);
  assert.match(found(diagnosis, 'nginx-running', 'ok').says, new RegExp(`master pid ${site.nginx.masterPid()}, 2 workers`));
  assert.match(found(diagnosis, 'state', 'ok').says, /release 000001 \(r\d+\) serves on 2 workers/);
  assert.match(found(diagnosis, 'hook', 'ok').says, /can file requests and starts the deploy at once/);
  assert.match(found(diagnosis, 'memory', 'ok').says, /2 workers of \d+(?:\.\d)? MB serve/);
  found(diagnosis, 'hook-node', 'ok');
  found(diagnosis, 'nginx-keepalive-reset', 'ok');
  found(diagnosis, 'nginx-worker-shutdown', 'ok');

  const text = await site.run(['doctor']);
  assert.equal(text.exit, 0);
  assert.match(text.stdout, /^site\n[^]*✓ \d+ checks found nothing; --verbose shows them\n0 problems, \d warnings?, \d notes?\n$/);
  assert.match((await site.run(['doctor', '--verbose'])).stdout, /^✓ nginx-running: nginx 1\./m);
  assert.equal((await site.run(['doctor', '--quiet'])).stdout, '');
});

test("the traps of nginx's settings, each with the line that mends it", {timeout: LONG_MS}, async t => {
  const site = await makeSite(t, {nginx: {main: 'worker_shutdown_timeout 2s;\nworker_rlimit_nofile 200;'}});
  await site.deployed();
  const clean = await examined(site);
  assert.deepEqual(problemsOf(clean), []);
  const withFile = async (text: string): Promise<Diagnosis> => {
    const {remove} = site.nginx.foreignFile(text);
    try {
      return await examined(site);
    } finally {
      remove();
    }
  };

  await t.test('kept connections of clients are reset by a reload', () => {
    const {says, means, mend, place} = found(clean, 'nginx-keepalive-reset', 'warning');
    assert.match(says, /keepalive_min_timeout/);
    assert.match(`${means}`, /measured: 13 requests on 50 busy connections/);
    assert.equal(mend, 'keepalive_timeout 0;');
    assert.match(`${place}`, /nginx\.conf:\d+$/);
  });
  await t.test('the estimate counts the connections of this moment, and a setting of http holds in a location', async () => {
    const clients = await Promise.all(Array.from({length: 20}, () => connected(site.nginx.port)));
    try {
      assert.match(`${found(await examined(site), 'nginx-keepalive-reset', 'warning').means}`, /so about 5 if all of the 20 connections/);
    } finally {
      clients.forEach(client => client.destroy());
    }
    found(await withFile(KEEPS_NO_CLIENT), 'nginx-keepalive-reset', 'ok');
  });
  await t.test('worker_shutdown_timeout cuts what a drain would wait for', () => {
    assert.equal(found(clean, 'nginx-worker-shutdown', 'warning').mend, 'worker_shutdown_timeout 30s;');
  });
  await t.test('proxy_next_upstream is inherited, off or for POST too', async () => {
    found(clean, 'nginx-next-upstream', 'ok');
    const off = found(await withFile('proxy_next_upstream off;\n'), 'nginx-next-upstream', 'warning');
    assert.equal(off.mend, 'proxy_next_upstream error timeout;');
    assert.match(`${off.place}`, /somebody-else-\d+\.conf:1$/);
    assert.equal(found(await withFile('proxy_next_upstream error timeout non_idempotent;\n'), 'nginx-next-upstream', 'warning').mend, 'proxy_next_upstream error timeout;');
  });
  await t.test('max_fails, with several servers and with one', async () => {
    assert.equal(found(await examinedWith(site, {nginx: {server: {max_fails: 2, fail_timeout: '30s'}}}), 'nginx-max-fails', 'warning').mend, 'server: { max_fails: 0, fail_timeout: 30s }');
    const single = await examinedWith(site, {workers: {count: 1}, nginx: {server: {max_fails: 2}}});
    assert.equal(found(single, 'nginx-max-fails', 'warning').mend, 'server: { max_fails: 0 }\ncount: 2');
    assert.equal(found(await examinedWith(site, {workers: {count: 1}}), 'single-worker', 'note').mend, 'count: 2');
  });
  await t.test('hash … consistent', async () => {
    assert.equal(found(await examinedWith(site, {nginx: {directives: ['hash $remote_addr consistent']}}), 'nginx-hash-consistent', 'warning').mend, 'directives: ["hash $remote_addr"]');
    found(await examinedWith(site, {nginx: {directives: ['hash $remote_addr']}}), 'nginx-hash-consistent', 'ok');
  });
  await t.test('reuseport', async () => {
    const {mend} = found(await withFile(`server { listen 127.0.0.1:${site.ports.last} reuseport backlog=64; }\n`), 'nginx-reuseport', 'note');
    assert.equal(mend, `listen 127.0.0.1:${site.ports.last} backlog=64;`);
  });
  await t.test('more connections than files', () => {
    const {says, mend} = found(clean, 'nginx-open-files', 'warning');
    assert.match(says, /may open 200 files, and worker_connections is 1024/);
    assert.equal(mend, 'worker_rlimit_nofile 2048;');
  });
  await t.test('a pattern that fits temporary files', async () => {
    const conf = readFileSync(site.nginx.conf, 'utf8');
    try {
      writeFileSync(site.nginx.conf, conf.replace('include conf.d/*.conf;', 'include conf.d/*;'));
      const {mend, place} = found(await examined(site), 'nginx-include-temporary', 'warning');
      assert.equal(mend, `include ${join(site.nginx.prefix, 'conf.d')}/*.conf;`);
      assert.match(`${place}`, new RegExp(`^${site.nginx.conf}:\\d+$`));
      writeFileSync(site.nginx.conf, conf.replace('include conf.d/*.conf;', 'include conf.d/*.conf;\ninclude conf.d/.m*;'));
      found(await examined(site), 'nginx-include-temporary', 'problem');
    } finally {
      writeFileSync(site.nginx.conf, conf);
    }
  });
  await t.test('nobody includes the upstream file, or sends requests there', async () => {
    const conf = readFileSync(site.nginx.conf, 'utf8');
    try {
      writeFileSync(site.nginx.conf, conf.replace('include conf.d/*.conf;', 'upstream myweb { server 127.0.0.1:1; }'));
      const {mend, place} = found(await examined(site), 'nginx-includes-upstream', 'problem');
      assert.deepEqual([mend, place], [`include ${site.nginx.upstreamFile};`, site.nginx.conf]);
      writeFileSync(site.nginx.conf, conf.replace('proxy_pass http://myweb', 'proxy_pass http://127.0.0.1:1'));
      assert.equal(found(await examined(site), 'nginx-passes-to-upstream', 'warning').mend, 'proxy_pass http://myweb;');
    } finally {
      writeFileSync(site.nginx.conf, conf);
    }
  });
  await t.test('the file was changed, and nginx has not loaded it', async () => {
    const later = Date.now() / 1000 + 60;
    utimesSync(site.nginx.upstreamFile, later, later);
    assert.deepEqual(problemsOf(await examined(site)), [], 'as long as it names the ports that serve');
    const text = readFileSync(site.nginx.upstreamFile, 'utf8');
    writeFileSync(site.nginx.upstreamFile, text.replace(String(site.nginx.upstreamPorts()[0]), String(site.ports.last)));
    utimesSync(site.nginx.upstreamFile, later, later);
    const {mend, place} = found(await examined(site), 'nginx-loaded', 'problem');
    const asStarted = `-p ${site.nginx.prefix} -c ${site.nginx.conf}`;
    assert.match(`${mend}`, new RegExp(`^/usr/sbin/nginx -t ${asStarted} && /usr/sbin/nginx -s reload ${asStarted}$`));
    assert.equal(place, site.nginx.upstreamFile);
    writeFileSync(site.nginx.upstreamFile, text);
    const master = site.nginx.masterPid();
    const before = childrenOf(master);
    typed(site, mend);
    await waitUntil('workers of this very nginx with the file as it is', () => childrenOf(master).length >= before.length && !childrenOf(master).some(pid => before.includes(pid)));
    found(await examined(site), 'nginx-loaded', 'ok');
  });
  await t.test('ip_hash with backup', async () => {
    const text = readFileSync(site.nginx.upstreamFile, 'utf8');
    try {
      writeFileSync(site.nginx.upstreamFile, 'upstream myweb {\n    ip_hash;\n    server 127.0.0.1:1;\n    server 127.0.0.1:2 weight=2 backup;\n}\n');
      const diagnosis = await examined(site);
      assert.match(found(diagnosis, 'nginx-config', 'problem').says, /balancing method does not support parameter "backup"/);
      const {mend, place} = found(diagnosis, 'nginx-ip-hash-backup', 'problem');
      assert.deepEqual([mend, place], ['server 127.0.0.1:2 weight=2;', `${site.nginx.upstreamFile}:4`]);
    } finally {
      writeFileSync(site.nginx.upstreamFile, text);
    }
  });
  await t.test('nginx refuses the configuration', async () => {
    const {remove} = site.nginx.brokenInclude();
    const {says, mend} = found(await examined(site), 'nginx-config', 'problem');
    assert.match(says, /this_is_no_directive/);
    assert.match(`${mend}`, /^\/usr\/sbin\/nginx -t -p \S+ -c \S+nginx\.conf$/);
    remove();
  });
  await t.test('nginx does not run', async () => {
    await site.nginx.stop();
    assert.equal(found(await examined(site), 'nginx-running', 'problem').mend, 'systemctl start nginx');
    await site.nginx.start();
  });
});

test("an upstream in a file of the user's: its own lines count, and mend it", {timeout: LONG_MS}, async t => {
  const site = await makeSite(t, {nginx: {upstream: 'upstream myweb {\n    hash $remote_addr consistent;\n    server 127.0.0.1:1 weight=4 max_fails=3;\n    server 127.0.0.1:2;\n}\n'}});
  site.configure({nginx: {file: null, edit: site.nginx.upstreamFile}});
  await site.deployed();
  const diagnosis = await examined(site);
  assert.deepEqual(problemsOf(diagnosis), []);
  found(diagnosis, 'upstream-file', 'ok');
  found(diagnosis, 'nginx-loaded', 'ok');
  const [first, second] = site.nginx.upstreamPorts();
  const {mend, place} = found(diagnosis, 'nginx-max-fails', 'warning');
  assert.deepEqual([mend, place], [`server 127.0.0.1:${first} weight=4 max_fails=0;\nserver 127.0.0.1:${second} max_fails=0;`, `${site.nginx.upstreamFile}:1`]);
  assert.equal(found(diagnosis, 'nginx-hash-consistent', 'warning').mend, 'hash $remote_addr;');

  appendFileSync(site.nginx.upstreamFile, 'upstream myweb { server 127.0.0.1:3; }\n');
  assert.match(found(await examined(site), 'upstream-file', 'problem').says, /has `upstream myweb` twice/);
  site.configure({nginx: {edit: null, file: site.nginx.foreignFile('server { listen 127.0.0.1:1; }\n').path}});
  found(await examined(site), 'upstream-file', 'problem');
});

function connected(port: number): Promise<ReturnType<typeof connect>> {
  return new Promise((resolve, reject) => {
    const socket = connect({port, host: '127.0.0.1'});
    socket.once('connect', () => resolve(socket)).once('error', reject);
  });
}

test('a worker that closes idle connections sooner than nginx', {timeout: LONG_MS}, async t => {
  const app = `const server = require('node:http').createServer((request, response) => response.end('ok'));
server.keepAliveTimeout = 2000;
server.listen(Number(process.argv[2]), '127.0.0.1');
process.on('SIGTERM', () => process.exit());
`;
  const site = await makeSite(t, {files: {'app.cjs': app}, config: {workers: {command: [process.execPath, 'app.cjs', '{port}']}, nginx: {directives: ['keepalive 16']}}});
  const before = await examined(site);
  assert.match(found(before, 'nginx-upstream-keepalive', 'note').says, /no worker serves/);
  await site.deployed();
  const diagnosis = await examined(site);
  const {says, mend, place} = found(diagnosis, 'nginx-upstream-keepalive', 'warning');
  assert.match(says, /nginx keeps connections to the workers for 1 m 0 s; a worker closes idle connections after ~[23]\.\d s/);
  assert.match(`${mend}`, /^directives: \["keepalive 16", "keepalive_timeout [12]s"\]$/);
  assert.equal(place, 'nginx.directives');
  assert.match(`${found(diagnosis, 'nginx-upstream-keepalive-unused', 'note').mend}`, /^proxy_http_version 1\.1;\nproxy_set_header Connection "";$/);
  found(await examinedWith(site, {nginx: {directives: ['keepalive 16', 'keepalive_timeout 1s']}}), 'nginx-upstream-keepalive', 'ok');
});

test('the traps of ports, locale, clock, logs and records', {timeout: LONG_MS}, async t => {
  const site = await makeSite(t);
  await site.deployed();

  await t.test('ports that the kernel gives to outgoing connections', async () => {
    const {says, mend} = found(await examinedWith(site, {workers: {ports: '40000-40009'}}), 'ports-ephemeral', 'warning');
    assert.match(says, /10 ports of 40000-40009/);
    assert.equal(mend, 'echo net.ipv4.ip_local_reserved_ports=40000-40009 >/etc/sysctl.d/60-osyw-deploy-site.conf && sysctl -p /etc/sysctl.d/60-osyw-deploy-site.conf');
  });
  await t.test('somebody else listens in the range', async () => {
    const server = createServer().listen(site.ports.last, '127.0.0.1');
    await new Promise(resolve => server.once('listening', resolve));
    try {
      const {says, mend} = found(await examined(site), 'ports-in-use', 'warning');
      assert.match(says, new RegExp(`1 port of .*\\(${site.ports.last} pid ${process.pid} \\(\\S+\\)\\); 7 spare, a deploy needs 2`));
      assert.match(`${mend}`, /^ports: \d+-\d+$/);
    } finally {
      server.close();
    }
  });
  await t.test('a locale that is not there', async () => {
    assert.equal(found(await examinedWith(site, {workers: {env: {LANG: 'xx_YY.UTF-8'}}}), 'locale', 'warning').mend, 'localedef -i xx_YY -f UTF-8 xx_YY.UTF-8');
  });
  await t.test('logs that nobody rotates', async () => {
    const {mend, says} = found(await examined(site), 'log-rotation', 'warning');
    assert.equal(mend, `osyw-deploy service install --config ${site.configFile}`);
    assert.match(says, /no file of \/etc\/logrotate\.d names .*worker-\d+\.log/);
  });
  await t.test('a clock that is behind', async () => {
    const history = join(site.stateDir, 'history.ndjson');
    const text = readFileSync(history, 'utf8');
    writeFileSync(history, text.replaceAll(/"ended_at":"[^"]+"/g, `"ended_at":"${new Date(Date.now() + 3_600_000).toISOString()}"`));
    assert.equal(found(await examined(site), 'clock', 'warning').mend, 'timedatectl set-ntp true');
    writeFileSync(history, text);
  });
  await t.test('records that others can read or change', async () => {
    const history = join(site.stateDir, 'history.ndjson');
    chmodSync(history, 0o644);
    assert.equal(found(await examined(site), 'state-modes', 'warning').mend, `chmod 0600 ${history}`);
    chmodSync(history, 0o666);
    found(await examined(site), 'state-modes', 'problem');
    chmodSync(history, 0o600);
    const log = join(site.stateDir, 'log', 'osyw-deploy.log');
    chmodSync(log, 0o644);
    assert.equal(found(await examined(site), 'state-modes', 'warning').mend, `chmod 0640 ${log}`);
    chmodSync(log, 0o640);
  });
  await t.test('nginx workers of before a reload', async () => {
    const slow = ask({port: site.nginx.port, path: '/slow?ms=8000'});
    await waitUntil('the slow request to be under way', () => establishedTo(site.nginx.upstreamPorts()) > 0, {everyMs: 2});
    await site.nginx.reload();
    assert.match(found(await examined(site), 'nginx-lingering', 'note').says, /^1 nginx worker of before a reload is still there/);
    assert.equal((await slow).kind, 'answer');
  });
  await t.test('an interrupt ends the look', async () => {
    const server = createServer().listen(0, '127.0.0.1');
    await new Promise(resolve => server.once('listening', resolve));
    t.after(() => server.close());
    const asked = new Promise(resolve => server.once('connection', resolve));
    // A repository that takes the question and never answers.
    site.configure({source: {url: `git://127.0.0.1:${(server.address() as AddressInfo).port}/x.git`}});
    const doctor = site.start(['doctor', '--json']);
    await asked;
    doctor.child.kill('SIGINT');
    assert.equal((await doctor.ended).exit, 13);
    site.forget();
  });
  await t.test('a deploy that was killed', async () => {
    const gate = makeGate(t, site);
    site.configure({release: {build: [gate.build]}});
    await site.release('2');
    const deploy = site.start(['now']);
    await gate.reached();
    found(await examined(site), 'state', 'ok');
    deploy.child.kill('SIGKILL');
    await deploy.ended;
    assert.equal(found(await examined(site), 'state', 'problem').mend, `osyw-deploy recover --config ${site.configFile}`);
    gate.open();
    assert.equal((await site.run(['recover'])).exit, 0);
    site.forget();
    found(await examined(site), 'state', 'ok');
  });
  await t.test('workers that are dead', async () => {
    const [first, ...others] = (await site.status()).serving?.workers ?? [];
    assert.ok(first);
    process.kill(first.pid, 'SIGKILL');
    const one = found(await examined(site), 'state', 'problem');
    assert.match(one.says, new RegExp(`, and one is dead: port ${first.port}$`));
    assert.equal(one.mend, `osyw-deploy restart --config ${site.configFile}`);
    for (const {pid} of others) process.kill(pid, 'SIGKILL');
    assert.equal(found(await examined(site), 'state', 'problem').mend, `osyw-deploy start --config ${site.configFile}`);
    assert.equal((await site.run(['start'])).exit, 0);
    found(await examined(site), 'state', 'ok');
  });
});

test('the traps of disk, memory, inotify and cgroups', {timeout: LONG_MS, skip: ROOT_ONLY}, async t => {
  const site = await makeSite(t);
  await site.deployed();
  const fake = (text: string): string => {
    const path = join(site.dir, 'fake');
    writeFileSync(path, text);
    return path;
  };

  await t.test('no room for the next release', async () => {
    const diagnosis = await examinedBehind(site, 'mount -t tmpfs -o size=8m,nr_inodes=60,mode=711 none "$1"', site.stateDir);
    const space = found(diagnosis, 'disk-space', 'problem');
    assert.match(space.says, new RegExp(`^8\\.0 MB free on ${site.stateDir}, the next release takes about \\d+ MB$`));
    assert.equal(space.mend, `du -xh --max-depth=3 ${site.stateDir} | sort -h | tail -n 20`);
    assert.match(found(diagnosis, 'disk-inodes', 'problem').says, /^\d+ inodes free/);
  });
  await t.test('no room in the working copy', async () => {
    const diagnosis = await examinedBehind(site, 'mount -t tmpfs -o size=1m,mode=755 none "$1"', join(site.nginx.prefix, 'conf.d'));
    found(diagnosis, 'disk-elsewhere', 'problem');
  });
  await t.test('no memory for two sets of workers', async () => {
    const diagnosis = await examinedBehind(site, 'mount --bind "$1" /proc/meminfo', fake('MemTotal:        500000 kB\nMemAvailable:      70000 kB\nSwapFree:              0 kB\n'));
    const {says, mend} = found(diagnosis, 'memory', 'problem');
    assert.match(says, /2 workers of \d+(?:\.\d)? MB serve, .* 68 MB available/);
    assert.equal(mend, 'count: 1');
  });
  await t.test('too few watches for watch.edits', async () => {
    site.configure({watch: {edits: true}});
    const diagnosis = await examinedBehind(site, 'mount --bind "$1" /proc/sys/fs/inotify/max_user_watches', fake('8\n'));
    site.forget();
    assert.match(`${found(diagnosis, 'inotify-watches', 'warning').mend}`, /^echo fs\.inotify\.max_user_watches=\d+ >\/etc\/sysctl\.d\/60-inotify\.conf && sysctl -p \/etc\/sysctl\.d\/60-inotify\.conf$/);
  });
  await t.test('workers in the cgroup of the service that ran the hook', async () => {
    const pid = present((await site.status()).serving?.workers[0], 'worker').pid;
    const diagnosis = await examinedBehind(site, 'mount --bind "$1" "$2"', fake('0::/system.slice/svnserve.service\n'), `/proc/${pid}/cgroup`);
    const {says, mend} = found(diagnosis, 'workers-cgroup', 'problem');
    assert.equal(says, `1 worker (pid ${pid}) in the cgroup of svnserve.service`);
    assert.equal(mend, 'osyw-deploy service install --enable\nosyw-deploy restart');
  });
});

test('the traps of svn: credentials, edits and conflicts', {timeout: LONG_MS}, async t => {
  const site = await makeSite(t, {vcs: 'svn', svn: {serve: {user: 'deploy', password: 'opensesame'}}});
  const password = join(site.dir, 'password');
  writeFileSync(password, 'opensesame\n', {mode: 0o600});
  const account = {source: {username: 'deploy', password_file: password}};
  site.configure(account);
  found(await examined(site), 'working-copy', 'note');
  await site.deployed();
  found(await examined(site), 'source-reachable', 'ok');

  writeFileSync(password, 'opensesame-no-more\n');
  const denied = await examined(site);
  const {says, mend} = found(denied, 'source-reachable', 'problem');
  assert.match(says, /was denied as user "deploy"/);
  assert.equal(mend, `svn info --username deploy ${site.svn.url}`);
  assert.doesNotMatch(denied.end.stdout, /opensesame/);
  writeFileSync(password, 'opensesame\n');

  appendFileSync(join(site.workingCopy, 'worker.py'), '# edited\n');
  const edited = join(site.workingCopy, 'worker.py');
  const reverting = found(await examined(site), 'working-copy', 'problem');
  assert.equal(reverting.mend, `svn diff --git --force ${edited} >>~/site-edits.diff && svn revert ${edited}`);
  typed(site, reverting.mend);
  assert.match(readFileSync(join(site.dir, 'site-edits.diff'), 'utf8'), /^\+# edited$/m, 'the edit is not lost');
  found(await examined(site), 'working-copy', 'ok');
  appendFileSync(edited, '# edited\n');
  site.configure({watch: {edits: true}});
  found(await examined(site), 'working-copy', 'ok');
  const conflicting = join(site.workingCopy, 'behaviour.json');
  writeFileSync(conflicting, '{"version": "mine"}\n');
  await site.commit({'behaviour.json': '{"version": "theirs"}\n'});
  await site.svn.svn(['update', '-q', '--accept', 'postpone', '--username', 'deploy', '--password', 'opensesame', site.workingCopy]);
  assert.equal(found(await examined(site), 'working-copy', 'problem').mend, `svn resolve ${conflicting}`);

  await site.svn.svn(['revert', '-q', conflicting]);
  const login = ['--username', 'deploy', '--password', 'opensesame'];
  await site.svn.svn(['copy', '-q', '-m', 'x', ...login, `${site.svn.url}/behaviour.json`, `${site.svn.url}/other.json`]);
  await site.svn.svn(['switch', '-q', ...login, `${site.svn.url}/other.json`, conflicting]);
  const switched = found(await examined(site), 'working-copy', 'problem');
  assert.match(`${switched.mend}`, new RegExp(`^svn switch '\\^/\\S*behaviour\\.json' ${conflicting}$`));
  typed(site, switched.mend?.replace(/^svn switch/, `svn switch ${login.join(' ')}`));
  found(await examined(site), 'working-copy', 'ok');
});

test("the traps of git: a password in a remote, somebody else's work tree, edits, a merge that was begun", {timeout: LONG_MS, skip: ROOT_ONLY}, async t => {
  const site = await makeSite(t);
  await site.deployed();
  const git = (...args: string[]) => execFileSync('git', ['-c', 'safe.directory=*', '-C', site.workingCopy, ...args], {encoding: 'utf8'});
  const untouched = treeOf(site.workingCopy);
  assert.deepEqual(problemsOf(await examined(site)), []);
  assert.deepEqual(treeOf(site.workingCopy), untouched, 'the index neither');
  const origin = git('config', 'remote.origin.url').trim();
  git('config', 'remote.origin.url', 'https://bob:hunter22@example.org/x.git');
  const leaking = await examined(site);
  assert.equal(found(leaking, 'password-in-remote', 'problem').mend, `git -C ${site.workingCopy} remote set-url origin https://example.org/x.git\nusername: NAME`);
  assert.doesNotMatch(leaking.end.stdout, /hunter22|bob/);
  git('config', 'remote.origin.url', origin);

  appendFileSync(join(site.workingCopy, 'worker.py'), '# edited\n');
  const stashing = found(await examined(site), 'working-copy', 'problem');
  assert.equal(stashing.mend, `git -C ${site.workingCopy} stash push -- worker.py`);
  typed(site, stashing.mend);
  assert.match(git('stash', 'show', '--patch'), /^\+# edited$/m, 'the edit is not lost');
  found(await examined(site), 'working-copy', 'ok');
  const stages = [1, 2, 3].map(stage => `100644 ${git('rev-parse', 'HEAD:worker.py').trim()} ${stage}\tworker.py\n`).join('');
  execFileSync('git', ['-C', site.workingCopy, 'update-index', '--index-info'], {input: `0 ${'0'.repeat(40)}\tworker.py\n${stages}`});
  appendFileSync(join(site.workingCopy, 'worker.py'), '# half merged\n');
  const resolving = found(await examined(site), 'working-copy', 'problem');
  assert.equal(resolving.mend, `git -C ${site.workingCopy} diff --binary HEAD -- worker.py >>~/site-edits.diff && git -C ${site.workingCopy} checkout HEAD -- worker.py`);
  typed(site, resolving.mend);
  assert.match(readFileSync(join(site.dir, 'site-edits.diff'), 'utf8'), /^\+# half merged$/m, 'nothing of it is lost');
  found(await examined(site), 'working-copy', 'ok');
  writeFileSync(join(site.workingCopy, '.git', 'MERGE_HEAD'), git('rev-parse', 'HEAD'));
  assert.equal(found(await examined(site), 'working-copy', 'problem').mend, `git -C ${site.workingCopy} merge --abort`);
  execFileSync('rm', [join(site.workingCopy, '.git', 'MERGE_HEAD')]);

  execFileSync('chown', ['-R', '65534:65534', site.workingCopy]);
  const foreign = await examined(site);
  assert.equal(found(foreign, 'git-safe-directory', 'note').mend, `git config --global --add safe.directory ${site.workingCopy}`);
  found(foreign, 'working-copy', 'ok');

  renameSync(join(site.dir, 'git', 'repository.git'), join(site.dir, 'git', 'moved.git'));
  assert.equal(found(await examined(site), 'source-reachable', 'problem').mend, `git ls-remote ${site.git.url} main`);
});

test('the traps of a hook: its rights, its node, who may start', {timeout: LONG_MS, skip: ROOT_ONLY}, async t => {
  const site = await makeSite(t, {vcs: 'svn'});
  const hook = join(site.svn.repository, 'hooks', 'post-commit');
  const install = `osyw-deploy hook install --config ${site.configFile}`;
  assert.equal(found(await examined(site), 'hook', 'note').mend, install);
  assert.equal((await site.run(['hook', 'install'])).exit, 0);
  found(await examined(site), 'hook', 'ok');

  chmodSync(hook, 0o644);
  const unable = (await examined(site)).findings.filter(({check, level}) => check === 'hook' && level === 'problem');
  assert.ok(unable.some(({says, mend}) => /is not executable/.test(says) && mend === install), JSON.stringify(unable));
  chmodSync(hook, 0o755);

  const template = readFileSync(fileURLToPath(new URL('../../hooks/hook.sh', import.meta.url)), 'utf8');
  const old = join(site.dir, 'old-node');
  writeFileSync(old, '#!/bin/sh\necho v18.20.4\n', {mode: 0o755});
  const text = readFileSync(hook, 'utf8');
  const parsed = parseHook(text, template);
  assert.equal(parsed.kind, 'ours');
  if (parsed.kind === 'ours') writeFileSync(hook, renderHook(template, parsed.applications.map(one => ({...one, node: old}))));
  const outdated = await examined(site);
  assert.match(found(outdated, 'hook', 'warning').says, /has another node than/);
  const {says, mend} = found(outdated, 'hook-node', 'problem');
  assert.deepEqual([says, mend], [`${old}, which the hook calls, is v18.20.4; at least 20.19 is needed`, install]);
  writeFileSync(hook, text);

  execFileSync('chown', ['-R', '65534:65534', join(site.svn.repository, 'db')]);
  assert.equal((await site.run(['hook', 'install'])).exit, 0);
  const diagnosis = await examined(site);
  assert.match(`${found(diagnosis, 'hook-starts', 'warning').mend}`, /^nobody ALL=\(root\) NOPASSWD: \S*flock --nonblock .* now --requested --quiet --config \S+$/);
});

test('an ordinary account: what it may not, and what it may', {timeout: LONG_MS, skip: ROOT_ONLY}, async t => {
  await t.test('its own nginx', async () => {
    const site = await makeSite(t, {as: NOBODY});
    await site.deployed();
    const diagnosis = await examined(site);
    assert.deepEqual(problemsOf(diagnosis), []);
    found(diagnosis, 'reload-rights', 'ok');
    found(diagnosis, 'nginx-config', 'ok');
  });
  await t.test("root's nginx, and a directory that is not its own", async () => {
    const site = await makeSite(t);
    mkdirSync(site.stateDir);
    chownSync(site.stateDir, NOBODY.uid, NOBODY.gid);
    chownSync(site.configFile, NOBODY.uid, NOBODY.gid);
    const own = await examined(site, {as: NOBODY});
    const {mend} = found(own, 'reload-rights', 'problem');
    assert.match(`${mend}`, /^reload: \[sudo, -n, \S+nginx, -c, \S+, -p, \S+, -s, reload\]\nnobody ALL=\(root\) NOPASSWD: \/usr\/sbin\/nginx -c \S+ -p \S+ -s reload$/);
    const ours = join(site.nginx.prefix, 'osyw-deploy');
    assert.equal(found(own, 'upstream-file-rights', 'problem').mend, `install -d -o nobody ${ours}\ninclude ${ours}/*.conf;\nfile: ${ours}/site.conf`);
    found(own, 'working-copy-rights', 'problem');
    found(own, 'nginx-config', 'note');
    // Root looks in its stead, and sees the same.
    chownSync(site.configFile, 0, 0);
    const byRoot = await examined(site);
    for (const check of ['reload-rights', 'upstream-file-rights', 'working-copy-rights']) found(byRoot, check, 'problem');
    found(byRoot, 'state-dir-rights', 'ok');
    // As after somebody's update as root.
    mkdirSync(join(site.workingCopy, '.git'), {recursive: true});
    chownSync(site.workingCopy, NOBODY.uid, NOBODY.gid);
    const within = found(await examined(site), 'working-copy-rights', 'problem');
    assert.match(within.says, /nobody, who deploys, may not write \S+\/\.git$/);
    assert.equal(within.mend, `chown -R nobody ${site.workingCopy}`);
    const sudo = await examinedWith(site, {nginx: {reload: ['sudo', '-n', '/usr/sbin/nginx', '-s', 'reload']}});
    assert.equal(found(sudo, 'reload-rights', 'problem').mend, 'nobody ALL=(root) NOPASSWD: /usr/sbin/nginx -s reload');
    found(await examinedWith(site, {nginx: {reload: ['no-such-program']}}), 'reload-rights', 'problem');
  });
});

test('a secret that leaked is found, and never printed', {timeout: LONG_MS}, async t => {
  const site = await makeSite(t);
  const secrets = join(site.dir, 'secrets');
  mkdirSync(secrets, {mode: 0o700});
  const [password, variables, webhook] = ['password', 'variables', 'webhook'].map(name => join(secrets, name));
  const values = {password: 'correct-horse-battery', token: 'tk-4f3a9c77e1', webhook: 'f00dfacef00dfacef00dface'};
  writeFileSync(present(password, 'file'), `${values.password}\n`, {mode: 0o600});
  writeFileSync(present(variables, 'file'), `API_TOKEN=${values.token}\nMODE=production\n`, {mode: 0o600});
  writeFileSync(present(webhook, 'file'), `${values.webhook}\n`, {mode: 0o600});
  site.configure({source: {username: 'deploy', password_file: password}, workers: {env_file: variables}, watch: {webhook: {listen: `unix:${join(site.dir, 'hook.sock')}`, secret_file: webhook}}});
  const clean = await examined(site);
  for (const check of ['secret-in-process-list', 'secret-in-environment', 'secret-in-logs', 'secret-modes']) found(clean, check, 'ok');

  const leaking = async (args: readonly string[], env: Readonly<Record<string, string>>): Promise<{pid: number; end(): void}> => {
    // The end of its input is its end.
    const child = spawn('/bin/sh', ['-c', 'echo begun; read line', 'leak', ...args], {env, stdio: ['pipe', 'pipe', 'ignore']});
    await new Promise(resolve => child.stdout.once('data', resolve));
    return {pid: present(child.pid, 'process'), end: () => void child.stdin.end()};
  };
  const [arguing, inheriting] = [await leaking([`--password=${values.password}`, values.token], {}), await leaking([], {WEBHOOK: values.webhook, ALSO: values.token})];
  mkdirSync(join(site.stateDir, 'log'), {recursive: true});
  const log = join(site.stateDir, 'log', 'worker-1.log');
  writeFileSync(log, `${'x'.repeat(100_000)}\nconnecting with ${values.webhook}\n`);
  try {
    const diagnosis = await examined(site);
    const listed = diagnosis.findings.filter(({check}) => check === 'secret-in-process-list');
    assert.deepEqual(listed.map(({says}) => says), [`the password in source.password_file stands in the arguments of pid ${arguing.pid} (sh)`, `API_TOKEN in workers.env_file stands in the arguments of pid ${arguing.pid} (sh)`]);
    assert.ok(listed.every(({level, mend}) => level === 'problem' && mend === `ps -o pid,ppid,user,lstart -p ${arguing.pid}`));
    assert.equal(found(diagnosis, 'secret-in-environment', 'problem').says, `the secret in watch.webhook.secret_file stands in the environment of pid ${inheriting.pid} (sh)`);
    const inLog = found(diagnosis, 'secret-in-logs', 'problem');
    assert.deepEqual([inLog.mend, inLog.place], [`chmod 0600 ${log}    # until the secret is changed`, webhook]);
    assert.equal(diagnosis.end.exit, 1);
    const text = await site.run(['doctor', '--verbose']);
    for (const value of Object.values(values)) assert.ok(!`${diagnosis.end.stdout}${diagnosis.end.stderr}${text.stdout}${text.stderr}`.includes(value), value);
  } finally {
    arguing.end();
    inheriting.end();
  }

  chmodSync(present(password, 'file'), 0o644);
  assert.match(found(await examined(site), 'configuration', 'problem').says, new RegExp(`expected mode 0600: chmod 600 ${password}`));
  chmodSync(present(password, 'file'), 0o600);

  writeFileSync(present(password, 'file'), 'abc\n');
  assert.match(found(await examined(site), 'secret-short', 'warning').says, /^1 configured secret of less than 6/);
  chmodSync(secrets, 0o777);
  assert.equal(found(await examined(site), 'secret-modes', 'problem').mend, `chmod go-w ${secrets}`);
  chmodSync(secrets, 0o700);
  site.configure({workers: {env: {DB_PASSWORD: 'hunter22hunter'}}});
  chmodSync(site.configFile, 0o644);
  const inside = await examined(site);
  assert.match(`${found(inside, 'secret-in-configuration', 'problem').mend}`, new RegExp(`^env_file: /etc/osyw-deploy/site\\.env.*\\nchmod 0600 ${site.configFile}$`));
  assert.doesNotMatch(inside.end.stdout, /hunter22/);
});

test('without a configuration, or with a bad one, the machine is looked at', {timeout: LONG_MS}, async t => {
  const dir = makeTempDir();
  t.after(() => removeTempDir(dir));
  const doctor = async (...args: string[]) => diagnosisIn(await runCommand(['doctor', '--json', ...args], {cwd: dir}));
  const none = await doctor();
  assert.equal(none.app, null);
  assert.equal(found(none, 'configuration', 'problem').mend, 'osyw-deploy init');
  for (const check of ['node', 'programs', 'locale', 'clock', 'inotify-watches']) assert.ok(none.findings.some(one => one.check === check), check);
  assert.ok(none.findings.some(({check}) => check === 'nginx-running'));

  const file = join(dir, 'osyw-deploy.yaml');
  writeFileSync(file, 'app: site\nworkers: {count: "\u001b[2Jthree"}\n', {mode: 0o600});
  const bad = await doctor('--config', file);
  assert.match(found(bad, 'configuration', 'problem').says, /osyw-deploy\.yaml:2:/);
  assert.equal(found(bad, 'configuration', 'problem').mend, 'osyw-deploy config check');
  const text = await runCommand(['doctor', '--config', file], {cwd: dir, env: {FORCE_COLOR: '1'}});
  assert.equal(text.exit, 1);
  assert.match(text.stdout, /^\u001b\[31mproblem configuration\u001b\[0m\n/);
  assert.ok(!text.stdout.includes('\u001b[2J'), 'nothing of the file steers the terminal');
  assert.deepEqual(readdirSync(dir), ['osyw-deploy.yaml'], 'nothing is written');
});

test('a look that cannot be made ends no other', {timeout: LONG_MS}, async t => {
  const site = await makeSite(t);
  await site.deployed();
  const diagnosis = await examinedWith(site, {nginx: {file: join(site.dir, 'no-such-directory', 'myweb.conf')}});
  const {says, mend} = found(diagnosis, 'nginx-running', 'problem');
  assert.match(says, /could not be looked at: the directory of the upstream file is missing/);
  assert.ok(mend !== undefined && mend.length > 10, 'the hint is the way out');
  found(diagnosis, 'source-reachable', 'ok');
});
