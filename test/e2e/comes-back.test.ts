import assert from 'node:assert/strict';
import {readFileSync} from 'node:fs';
import {createServer} from 'node:net';
import {test} from 'node:test';
import {isAlive, listeningPorts} from '../support/leftovers.ts';
import {makeSite, type Site} from '../support/site.ts';
import {waitUntil} from '../support/wait-until.ts';

// What a power cut leaves of the workers. That no pid of another boot is believed, the unit tests show.

async function allWorkersDie(site: Site): Promise<void> {
  const workers = site.processes();
  for (const {pid} of workers) process.kill(pid, 'SIGKILL');
  await waitUntil('the workers to be dead', () => workers.every(({pid}) => !isAlive(pid)));
}

test('start after all workers died: the same release, on the ports that nginx names already', async t => {
  const site = await makeSite(t);
  await site.deployed();
  const ports = site.nginx.upstreamPorts();
  const file = readFileSync(site.nginx.upstreamFile, 'utf8');
  await allWorkersDie(site);
  assert.equal((await site.run(['status'])).exit, 1);
  const end = await site.run(['start', '--json']);
  assert.equal(end.exit, 0, end.stdout + end.stderr);
  assert.deepEqual(site.nginx.upstreamPorts(), ports);
  assert.equal(readFileSync(site.nginx.upstreamFile, 'utf8'), file);
  await site.settled({version: '1', release: '000001', outcome: 'deployed'});
  assert.equal((await site.run(['start', '--json'])).result?.outcome, 'unchanged');
  await site.release('2');
  await site.deployed();
  await site.settled({version: '2'});
});

test('start beside a stranger on one of the ports: on others, and nginx is told', async t => {
  const site = await makeSite(t);
  await site.deployed();
  const [first = 0] = site.nginx.upstreamPorts();
  await allWorkersDie(site);
  const stranger = createServer();
  await new Promise<void>(resolve => stranger.listen(first, '127.0.0.1', resolve));
  t.after(() => stranger.close());
  const end = await site.run(['start', '--json']);
  assert.equal(end.exit, 0, end.stdout + end.stderr);
  assert.equal(site.nginx.upstreamPorts().includes(first), false);
  await new Promise(resolve => stranger.close(resolve));
  await site.settled({version: '1', release: '000001', outcome: 'deployed'});
});

test('start before nginx: the workers wait for it', async t => {
  const site = await makeSite(t);
  await site.deployed();
  const ports = site.nginx.upstreamPorts();
  await allWorkersDie(site);
  await site.nginx.stop();
  const refused = await site.now();
  assert.equal(refused.exit, 9, 'a new revision is not deployed without nginx');
  const end = await site.run(['start', '--verbose']);
  assert.equal(end.exit, 0, end.stdout + end.stderr);
  assert.match(end.stdout + end.stderr, /nginx does not run/);
  assert.deepEqual(listeningPorts(site.ports.first, site.ports.last), [...ports].sort((a, b) => a - b));
  await site.nginx.start();
  await site.settled({version: '1', release: '000001', outcome: 'deployed'});
});

test('a start that is killed is taken back, and the next one works', async t => {
  const site = await makeSite(t, {behaviour: {boot_ms: 700}});
  await site.deployed();
  const ports = site.nginx.upstreamPorts();
  await allWorkersDie(site);
  const command = site.start(['start', '--json']);
  await waitUntil('two workers', () => site.processes().filter(({command: line}) => line.includes('worker.py')).length === 2, {withinMs: 20_000, everyMs: 5});
  command.child.kill('SIGKILL');
  await command.ended;
  const recovered = await site.run(['recover', '--json']);
  assert.equal(recovered.exit, 0, recovered.stdout + recovered.stderr);
  assert.deepEqual(listeningPorts(site.ports.first, site.ports.last), []);
  assert.equal((await site.run(['start'])).exit, 0);
  assert.deepEqual(site.nginx.upstreamPorts(), ports);
  await site.settled({version: '1', release: '000001', outcome: 'deployed'});
});
