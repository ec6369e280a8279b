import assert from 'node:assert/strict';
import {once} from 'node:events';
import {createServer, type RequestListener} from 'node:http';
import {writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {test, type TestContext} from 'node:test';
import {makeSite, present, type Site} from '../support/site.ts';
import {waitUntil} from '../support/wait-until.ts';

interface Checked {
  readonly app: string;
  readonly good: boolean;
  readonly release: string | null;
  readonly revision: string | null;
  readonly workers: readonly {readonly port: number; readonly pid: number | null; readonly good: boolean; readonly saw: string; readonly status: number | null; readonly ms: number; readonly hint: string | null; readonly repeat: string | null}[];
  readonly probe: {readonly url: string; readonly good: boolean; readonly saw: string | null} | null;
}

async function checked(site: Site, exit: number, args: readonly string[] = []): Promise<Checked> {
  const end = await site.run(['check', '--json', ...args]);
  assert.equal(end.exit, exit, end.stdout + end.stderr);
  return JSON.parse(end.stdout) as Checked;
}

/** A program that was started by hand. */
async function serve(t: TestContext, listener: RequestListener): Promise<string> {
  const server = createServer(listener);
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const address = server.address();
  assert.ok(typeof address === 'object' && address !== null);
  return String(address.port);
}

test('check asks each worker that serves once, and through nginx: 0 when all is good', async (t) => {
  const site = await makeSite(t);
  site.configure({nginx: {probe: `${site.nginx.url}/`}});
  const none = await checked(site, 8);
  assert.deepEqual([none.good, none.release, none.workers], [false, null, []]);
  assert.match((await site.run(['check'])).stdout, /^site: nothing serves; /);

  await site.deployed();
  const {serving} = await site.status();
  const before = site.nginx.logs().access.split('\n').length;
  const good = await checked(site, 0);
  assert.deepEqual([good.app, good.good, good.release, good.revision], ['site', true, serving?.release, serving?.revision]);
  assert.deepEqual(good.workers.map(({port, pid, status, saw, hint}) => ({port, pid, status, saw, hint})), serving?.workers.map(({port, pid}) => ({port, pid, status: 200, saw: 'status 200', hint: null})));
  assert.ok(good.workers.every(({ms}) => ms >= 0 && ms < 2000));
  assert.deepEqual([good.probe?.good, good.probe?.saw], [true, null]);
  assert.equal(site.nginx.logs().access.split('\n').length, before + 1, 'through nginx it asked once');
  const text = (await site.run(['check'])).stdout;
  for (const {port, pid} of serving?.workers ?? []) assert.match(text, new RegExp(`^  good  ${port} \\(pid ${pid}\\)  status 200, \\d+ ms$`, 'm'));
  assert.match(text, /^ {2}good {2}through nginx: /m);
  assert.equal((await site.run(['check', '--quiet'])).stdout, '');
  await site.settled({version: '1'});
});

test('check says which worker is not good, what it saw, and what helps: 8', async (t) => {
  const site = await makeSite(t);
  const sick = join(site.dir, 'sick');
  writeFileSync(sick, '');
  await site.release('2', {unhealthy_when_named: sick});
  site.configure({check: {timeout: '400ms'}});
  await site.deployed();
  const workers = present((await site.status()).serving ?? undefined, 'what serves').workers;
  const [first, second] = [present(workers[0], 'worker'), present(workers[1], 'worker')];
  writeFileSync(sick, `server 127.0.0.1:${first.port};\n`);
  const one = await checked(site, 8);
  assert.deepEqual(one.workers.map(({port, good, status}) => ({port, good, status})), [{port: first.port, good: false, status: 500}, {port: second.port, good: true, status: 200}]);
  assert.match(one.workers[0]?.saw ?? '', /^status 500, expected 200/);
  assert.match(one.workers[0]?.repeat ?? '', new RegExp(`^curl -i .*127\\.0\\.0\\.1:${first.port}/`));
  writeFileSync(sick, '');

  process.kill(second.pid, 'SIGSTOP');
  const began = performance.now();
  const hangs = await checked(site, 8);
  process.kill(second.pid, 'SIGCONT');
  assert.match(hangs.workers[1]?.saw ?? '', /no complete answer within 400 ms/);
  assert.match(hangs.workers[1]?.hint ?? '', /needs longer than 400 ms, name a quicker path/);
  assert.ok(performance.now() - began < 10_000);

  process.kill(second.pid, 'SIGKILL');
  await waitUntil('the worker to be seen dead', async () => (await site.status()).serving?.workers[1]?.state === 'dead');
  const dead = await site.run(['check', '--quiet']);
  assert.equal(dead.exit, 8);
  assert.match(dead.stdout, new RegExp(`^  BAD   ${second.port} \\(pid ${second.pid}\\)  its process ${second.pid} is dead, \\d+ ms\\n +→ see .osyw-deploy logs.`, 'm'), 'what is not good is told in any case');

  site.configure({nginx: {probe: `${site.nginx.url.replace(/\d+$/, '1')}/`}});
  const unreached = await checked(site, 8);
  assert.match(unreached.probe?.saw ?? '', /ECONNREFUSED/);
});

test('check --port asks whatever listens there, and names what the configuration lacks', async (t) => {
  const site = await makeSite(t);
  const port = (listener: RequestListener) => serve(t, listener);
  const secure = await port((request, response) => request.headers['x-forwarded-proto'] === 'https' ? response.end('ok') : response.writeHead(301, {Location: 'https://www.example.org/'}).end());
  const [one] = (await checked(site, 8, ['--port', secure])).workers;
  assert.deepEqual([one?.pid, one?.status], [null, 301]);
  assert.match(one?.hint ?? '', /`check\.headers: \{X-Forwarded-Proto: https\}`/);
  site.configure({check: {headers: {'X-Forwarded-Proto': 'https'}}});
  assert.equal((await checked(site, 0, ['--port', secure])).workers[0]?.saw, 'status 200', 'and that helps');
  site.forget();

  const named = await port((request, response) => response.writeHead(request.headers.host === 'www.example.org' ? 200 : 400).end('ok'));
  assert.match((await checked(site, 8, ['--port', named])).workers[0]?.hint ?? '', /`check\.host: www\.example\.org`/);
  site.configure({check: {host: 'www.example.org'}});
  assert.equal((await checked(site, 0, ['--port', named])).good, true, 'and that helps');
  site.forget();

  const moved = await port((_, response) => response.writeHead(302, {Location: '/login'}).end());
  assert.match((await checked(site, 8, ['--port', moved])).workers[0]?.hint ?? '', /\/login.*`check\.status: \[302\]`/);
  const hostile = await port((_, response) => response.writeHead(503, {'Content-Type': 'text/html'}).end('\u001b[2J\u0007gone'));
  const text = (await site.run(['check', '--port', hostile])).stdout;
  assert.ok(!text.includes('\u001b') && !text.includes('\u0007'), 'nothing of the answer moves the screen');
  assert.match(text, /status 503, expected 200: ".*gone"/);

  const free = createServer();
  await once(free.listen(0, '127.0.0.1'), 'listening');
  const address = free.address();
  const nobody = String(typeof address === 'object' ? address?.port : 0);
  free.close();
  await once(free, 'close');
  const refused = (await checked(site, 8, ['--port', nobody])).workers[0];
  assert.match(refused?.saw ?? '', /connection refused/);
  for (const bad of ['0', '65536', 'x', '-1', '80.5']) assert.equal((await site.run(['check', `--port=${bad}`])).exit, 2, bad);
  assert.match((await site.run(['check', '--help'])).stdout, /--port[^]*start the program by hand/);
});
