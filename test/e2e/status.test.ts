import assert from 'node:assert/strict';
import {test, type TestContext} from 'node:test';
import {makeGate} from '../support/gate.ts';
import {establishedTo} from '../support/leftovers.ts';
import {ask} from '../support/raw-http.ts';
import {makeSite, present, type Site} from '../support/site.ts';
import {waitUntil} from '../support/wait-until.ts';

const LONG_MS = 120_000;
const SOON = {withinMs: 30_000, everyMs: 50};

/** Until it is killed or told to end. */
function begun(t: TestContext, site: Site, args: readonly string[]): ReturnType<Site['start']> {
  const running = site.start(args, {withinMs: LONG_MS});
  t.after(() => running.child.kill('SIGKILL'));
  return running;
}

test('status tells of the deploy at hand, and of what drains and what it waits for', {timeout: LONG_MS}, async t => {
  const site = await makeSite(t);
  await site.deployed();
  const gate = makeGate(t, site);
  site.configure({release: {build: [gate.build]}});
  await site.release('2');
  const deploy = site.start(['now', '--json']);
  await gate.reached();
  const built = present((await site.status()).deploy ?? undefined, 'deploy');
  assert.equal(built.phase, 'build');
  assert.ok(built.since < built.phase_since);
  assert.match((await site.run(['status'])).stdout, /^deploy \S+ of \w+ is in build for \d+ s, began \d+ s ago$/m);

  const slow = ask({port: site.nginx.port, path: '/slow?ms=4000'});
  await waitUntil('the slow request to be under way', () => establishedTo(site.nginx.upstreamPorts()) > 0, {everyMs: 2});
  gate.open();
  const drain = await waitUntil('the drain', async () => (await site.status()).draining[0], SOON);
  assert.ok(drain.nginx_workers.length > 0 && drain.connections > 0, JSON.stringify(drain));
  assert.ok(drain.workers.every(({state, memory}) => state === 'draining' && memory !== null), JSON.stringify(drain));
  assert.match((await site.run(['status'])).stdout, new RegExp(`^release 000001 \\(\\w+\\) drains since \\S+, waits for ${drain.nginx_workers.length} old nginx workers? \\(${drain.nginx_workers.join(', ')}\\) and \\d+ connection`, 'm'));
  assert.equal((await slow).kind, 'answer');
  assert.equal((await deploy.ended).exit, 0);
  await site.settled({version: '2'});
});

test('status tells whether a watch runs', {timeout: LONG_MS}, async t => {
  const site = await makeSite(t);
  await site.deployed();
  const watch = begun(t, site, ['watch']);
  const seen = await waitUntil('the watch to be seen', async () => (await site.status()).watch, SOON);
  assert.equal(seen.pid, watch.pid);
  assert.ok(Math.abs(Date.now() - Date.parse(seen.since)) < 60_000);
  assert.match((await site.run(['status'])).stdout, new RegExp(`^a watch runs, pid ${watch.pid}, since ${seen.since} \\(\\d+ s\\)$`, 'm'));
  watch.child.kill('SIGKILL');
  await watch.ended;
  assert.equal((await site.status()).watch, null, 'its record is still there, its process is not');
  assert.match((await site.run(['status'])).stdout, /^no watch runs$/m);
});
