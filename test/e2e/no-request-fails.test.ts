import assert from 'node:assert/strict';
import {test} from 'node:test';
import {CLIENTS_BY_HEADER, keepsEveryClient} from '../support/client-places.ts';
import {get} from '../support/raw-http.ts';
import {makeSite} from '../support/site.ts';
import {waitUntil} from '../support/wait-until.ts';

for (const [vcs, daemon] of [['svn', true], ['git', false]] as const) {
  test(`no request fails while three deploys run under load (${vcs}, ${daemon ? 'daemons' : 'foreground'})`, async (t) => {
    const site = await makeSite(t, {vcs, daemon, count: 3});
    await site.deployed();
    const traffic = site.traffic({lanes: {freshGet: 4, freshPost: 2, keepAliveGet: 2, keepAlivePost: 1, slow: 2, upload: 1}, everyMs: 4});
    for (const version of ['2', '3', '4']) {
      await site.release(version);
      await site.deployed();
      const served = traffic.count();
      await waitUntil('more traffic', () => traffic.count() > served + 50);
    }
    const report = await site.settled({version: '4', traffic});
    assert.deepEqual(report?.versions, ['1', '2', '3', '4']);
    for (const [lane, {ok}] of Object.entries(report?.lanes ?? {})) assert.ok(ok > 0, `lane ${lane} had answers`);
    const kept = (report?.lanes.keepAliveGet.ok ?? 0) + (report?.lanes.keepAlivePost.ok ?? 0);
    t.diagnostic(`requests: ${traffic.count()}, of them kept alive ${kept}; failed: 0; nginx's own keep-alive race: ${report?.keepAliveRaces.length}`);
    // nginx.md, section 2: nginx 1.22 closes kept connections on a reload, whoever asked for it; three clients, three reloads.
    assert.ok((report?.keepAliveRaces.length ?? 0) <= 9, 'no more than one race a client and reload');
  });
}

test('requests are spread evenly over the workers', async (t) => {
  const site = await makeSite(t, {count: 3, config: {nginx: {server: {weight: 4, max_fails: 2, fail_timeout: '30s'}}}});
  await site.deployed();
  const counts = new Map<string, number>();
  for (let request = 0; request < 60; request++) {
    const port = (await get(site.nginx.port, '/')).headers['x-osyw-port'] ?? '';
    counts.set(port, (counts.get(port) ?? 0) + 1);
  }
  assert.equal(counts.size, 3);
  // Two nginx workers go round each by itself.
  for (const [port, count] of counts) assert.ok(count >= 15 && count <= 25, `port ${port} had ${count} of 60`);
  await site.settled({version: '1'});
});

test('ip_hash sends a client to the worker in the same place after a deploy', async (t) => {
  const site = await makeSite(t, {
    count: 3,
    config: {nginx: {directives: ['ip_hash']}},
    nginx: {server: CLIENTS_BY_HEADER},
  });
  await keepsEveryClient(site);
});
