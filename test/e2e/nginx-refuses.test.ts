import assert from 'node:assert/strict';
import {readFileSync, readdirSync, rmSync, writeFileSync} from 'node:fs';
import {createServer, type Server} from 'node:net';
import {dirname, join} from 'node:path';
import {test, type TestContext} from 'node:test';
import {leasePorts} from '../support/free-ports.ts';
import {childrenOf, isAlive} from '../support/leftovers.ts';
import {makeSite, type Site} from '../support/site.ts';
import {waitUntil} from '../support/wait-until.ts';

/** `now` must end with 9, and with nginx's file byte for byte as it was. */
async function refused(site: Site, says: RegExp): Promise<string> {
  const before = readFileSync(site.nginx.upstreamFile);
  const beside = readdirSync(dirname(site.nginx.upstreamFile)).sort();
  const end = await site.now();
  assert.equal(end.exit, 9, end.stdout + end.stderr);
  assert.equal(end.result?.code, 'SWITCH_REFUSED');
  assert.equal(end.result.outcome, 'aborted');
  assert.match(end.result.error ?? '', says);
  assert.deepEqual(readFileSync(site.nginx.upstreamFile), before, 'the old bytes are back');
  assert.deepEqual(readdirSync(dirname(site.nginx.upstreamFile)).sort(), beside, 'nothing is left beside it');
  return end.result.error ?? '';
}

test('a broken file of somebody else refuses the switch, and is named', async (t) => {
  const site = await makeSite(t);
  await site.deployed();
  await site.release('2');
  const traffic = site.traffic();
  const broken = site.nginx.brokenInclude();
  const error = await refused(site, /this_is_no_directive/);
  assert.ok(error.includes(broken.path), error);
  await site.settled({version: '1', outcome: 'aborted', code: 'SWITCH_REFUSED'});
  broken.remove();
  await site.deployed();
  await site.settled({version: '2', traffic});
});

test('a reload that nginx refuses after `nginx -t` has passed: a listen port that is taken', {timeout: 180_000}, async (t) => {
  const site = await makeSite(t);
  await site.deployed();
  await site.release('2');
  const lease = await leasePorts(1);
  const stranger = await listen(t, lease.first);
  const taken = site.nginx.foreignFile(`server { listen 127.0.0.1:${lease.first}; return 204; }\n`);
  const traffic = site.traffic({everyMs: 25});
  const error = await refused(site, /./);
  assert.match(error, new RegExp(String(lease.first)), 'the port that nginx could not have is named');
  await site.settled({version: '1', outcome: 'aborted', code: 'SWITCH_REFUSED'});
  taken.remove();
  stranger.close();
  await site.deployed();
  await site.settled({version: '2', traffic});
  await lease.release();
});

test('nginx does not run: 9, before anything is started', async (t) => {
  const site = await makeSite(t);
  await site.deployed();
  await site.release('2');
  await site.nginx.stop();
  await refused(site, /nginx/);
  await site.nginx.start();
  await site.settled({version: '1', outcome: 'aborted', code: 'SWITCH_REFUSED'});
});

for (const [name, content] of [['empty', () => ''], ['of a process that is gone', () => '4194000\n'], ['of a process that is not nginx', () => `${process.pid}\n`], ['missing', () => undefined]] as const) {
  test(`a pid file that is ${name} does not mislead: the master is found`, async (t) => {
    const site = await makeSite(t);
    await site.deployed();
    await site.release('2');
    const text = content();
    if (text === undefined) rmSync(site.nginx.pidFile);
    else writeFileSync(site.nginx.pidFile, text);
    await site.deployed();
    await site.settled({version: '2'});
  });
}

test('an nginx that was started with an empty environment is found, though its title is cut off', async (t) => {
  // nginx writes its title over its arguments and environment; without an environment the end of `-c FILE` has no room.
  const site = await makeSite(t, {nginx: {bareEnvironment: true}});
  await site.deployed();
  await site.settled({version: '1'});
});

test('the pid file of an nginx that does not run: 9, and the process that has its pid now is left alone', async (t) => {
  const site = await makeSite(t);
  await site.deployed();
  await site.release('2');
  await site.nginx.stop();
  let hangups = 0;
  const count = (): void => void hangups++;
  process.on('SIGHUP', count);
  writeFileSync(site.nginx.pidFile, `${process.pid}\n`);
  await refused(site, /nginx/);
  process.off('SIGHUP', count);
  assert.equal(hangups, 0);
  await site.nginx.start();
  await site.settled({version: '1'});
});

test('a master that does not answer: nothing that may still serve is stopped, and recover settles it', {timeout: 180_000}, async (t) => {
  const site = await makeSite(t);
  await site.deployed();
  await site.release('2');
  const traffic = site.traffic({everyMs: 25});
  process.kill(site.nginx.masterPid(), 'SIGSTOP');
  const end = await site.now();
  assert.ok(end.exit === 9 || end.exit === 12, `${end.exit}: ${end.stdout}`);
  assert.match(end.result?.error ?? '', /nginx/);
  const old = (await site.status()).serving?.workers.map((worker) => worker.state);
  assert.deepEqual(old, ['healthy', 'healthy'], 'the old workers are untouched');
  process.kill(site.nginx.masterPid(), 'SIGCONT');
  const recovered = await site.run(['recover', '--json']);
  assert.equal(recovered.exit, 0, recovered.stdout + recovered.stderr);
  await site.settled();
  await site.deployed();
  await site.settled({version: '2', traffic});
});

test('an upstream file that nginx does not read refuses the switch, with the line to write', async (t) => {
  const site = await makeSite(t);
  const {conf} = site.nginx;
  const text = readFileSync(conf, 'utf8');
  // What it has loaded it goes on with; the next reload would not find the upstream, so somebody has put it elsewhere.
  writeFileSync(conf, text.replace('include conf.d/*.conf;', 'upstream myweb { server 127.0.0.1:1; }'));
  await refused(site, /nginx does not read .*myweb\.conf/);
  await site.nothingRuns();
  writeFileSync(conf, text);
  await site.deployed();
  await site.settled({version: '1'});
});

test('a master that was killed while its workers serve on: 9, nobody else is stopped, and a started nginx takes over', async (t) => {
  const site = await makeSite(t);
  await site.deployed();
  await site.release('2');
  const master = site.nginx.masterPid();
  const orphans = childrenOf(master);
  assert.equal(orphans.length, 2);
  process.kill(master, 'SIGKILL');
  t.after(() => orphans.forEach(({pid}) => isAlive(pid) && process.kill(pid, 'SIGKILL')));
  await waitUntil('the master to end', () => !isAlive(master));
  const traffic = site.traffic();
  await refused(site, /nginx is not running/);
  await site.settled({version: '1', outcome: 'aborted', code: 'SWITCH_REFUSED', traffic});
  for (const {pid} of orphans) process.kill(pid, 'SIGQUIT');
  await waitUntil('its workers to end', () => orphans.every(({pid}) => !isAlive(pid)));
  await site.nginx.start();
  await site.deployed();
  await site.settled({version: '2'});
});

for (const [when, tells, exit] of [
  ['is killed before it has reloaded', () => '', 9],
  // Its workers of before are on their way out, those that follow have read the new file, and nobody is left to tell them of another.
  ['is killed when its new workers run', (master: number, workers: readonly number[]) => `kill -HUP ${master}
until [ "$(wc -w </proc/${master}/task/${master}/children)" -ge 4 ]; do :; done
for pid in ${workers.join(' ')}; do until ! [ -e /proc/$pid ] || grep -q 'shutting down' /proc/$pid/cmdline; do :; done; done
`, 12],
] as const) {
  test(`a master that ${when}: ${exit}, and nobody is stopped to whom its workers send requests`, {timeout: 180_000}, async (t) => {
    const site = await makeSite(t);
    await site.deployed();
    await site.release('2');
    const master = site.nginx.masterPid();
    const workers = childrenOf(master).map(({pid}) => pid);
    const script = join(site.dir, 'somebody.sh');
    writeFileSync(script, `${tells(master, workers)}kill -KILL ${master}\n`);
    site.configure({nginx: {reload: ['/bin/sh', script]}});
    const orphans = new Set(workers);
    const nginxEnds = async (): Promise<void> => {
      for (const pid of orphans) if (isAlive(pid)) process.kill(pid, 'SIGQUIT');
      await waitUntil('the workers of nginx to end', () => [...orphans].every((pid) => !isAlive(pid)), {withinMs: 20_000});
    };
    t.after(nginxEnds);
    const traffic = site.traffic({lanes: {keepAliveGet: 0, keepAlivePost: 0}});
    const command = site.start(['now', '--json']);
    await waitUntil('the master to end', () => {
      for (const {pid} of childrenOf(master)) orphans.add(pid);
      return !isAlive(master);
    }, {withinMs: 20_000, everyMs: 1});
    const end = await command.ended;
    assert.equal(end.exit, exit, end.stdout + end.stderr);
    assert.equal((await site.run(['recover'])).exit, exit === 12 ? 12 : 0);
    const answered = traffic.count();
    await waitUntil('more traffic', () => traffic.count() > answered + 20);
    assert.deepEqual((await traffic.stop()).failures, []);
    await nginxEnds();
    await site.nginx.start();
    site.forget();
    assert.equal((await site.run(['recover'])).exit, 0);
    await site.deployed();
    await site.settled({version: '2'});
  });
}

test('a file with anything else and without our header is refused, and not touched', async (t) => {
  const text = 'upstream myweb { server 127.0.0.1:1; }\nupstream other { server 127.0.0.1:2; }\n';
  const site = await makeSite(t, {nginx: {upstream: text}});
  const end = await site.now();
  assert.ok(end.exit === 3 || end.exit === 9, `${end.exit}: ${end.stdout}`);
  assert.match(end.result?.error ?? '', /other|header|myweb\.conf/);
  assert.equal(readFileSync(site.nginx.upstreamFile, 'utf8'), text);
  await site.nothingRuns();
});

test('the file may be missing before the first deploy', async (t) => {
  const site = await makeSite(t);
  // nginx runs on with what it has loaded; the file itself is gone.
  rmSync(site.nginx.upstreamFile);
  await site.deployed();
  await site.settled({version: '1'});
});

test('a first deploy that is refused leaves the hand-written file and no process', async (t) => {
  const site = await makeSite(t);
  const broken = site.nginx.brokenInclude();
  await refused(site, /this_is_no_directive/);
  await site.nothingRuns();
  broken.remove();
});

function listen(test: TestContext, port: number): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    test.after(() => server.close());
    server.once('error', reject);
    server.listen(port, '127.0.0.1', () => resolve(server));
  });
}
