import assert from 'node:assert/strict';
import {readFileSync} from 'node:fs';
import {test} from 'node:test';
import {get} from '../support/raw-http.ts';
import {makeSite} from '../support/site.ts';

// The application that the project grew from: gevent, three ports, the upstream and the server block of its nginx.
for (const [vcs, daemon, directives] of [['svn', true, []], ['git', false, ['ip_hash']]] as const) {
  test(`the application goes through two deploys under load (${vcs}, ${daemon ? 'daemon' : 'foreground'}${directives.length > 0 ? ', ip_hash' : ''})`, async (t) => {
    const site = await makeSite(t, {
      app: 'osyw',
      vcs,
      daemon,
      count: 3,
      config: {nginx: {server: {weight: 4, max_fails: 2, fail_timeout: '30s'}, directives}, workers: {stop: {timeout: '10s'}}},
    });
    await site.deployed();
    const upstream = readFileSync(site.nginx.upstreamFile, 'utf8');
    assert.equal(upstream.match(/server 127\.0\.0\.1:\d+ weight=4 max_fails=2 fail_timeout=30s;/g)?.length, 3, upstream);
    const client = JSON.parse((await get(site.nginx.port, '/client', {host: 'www.example.org', 'x-forwarded-for': '10.1.2.3'})).text) as unknown;
    assert.deepEqual(client, {host: 'www.example.org', forwarded_for: '10.1.2.3, 127.0.0.1'});

    const traffic = site.traffic({lanes: {freshGet: 2, slow: 2}, slowMs: 800, everyMs: 20});
    for (const version of ['2', '3']) {
      await site.release(version);
      await site.deployed();
    }
    const report = await site.settled({version: '3', outcome: 'deployed', traffic});
    assert.deepEqual(report?.versions, ['1', '2', '3']);
    if (directives.length > 0) return;
    const served = new Map<number, number>();
    for (const {version, port} of report?.served ?? []) if (version === '3') served.set(port, (served.get(port) ?? 0) + 1);
    assert.equal(served.size, 3, 'all three workers answer');
    const counts = [...served.values()];
    assert.ok(Math.max(...counts) <= 3 * Math.min(...counts) + 5, `evenly spread: ${counts.join(', ')}`);
  });
}

test('a session outlives a deploy', async (t) => {
  const site = await makeSite(t, {app: 'osyw'});
  await site.deployed();
  const first = await get(site.nginx.port, '/');
  const cookie = first.headers['set-cookie']?.split(';')[0] ?? '';
  assert.equal(first.headers['x-osyw-visits'], '1');
  await site.release('2');
  await site.deployed();
  assert.equal((await get(site.nginx.port, '/', {cookie})).headers['x-osyw-visits'], '2');
  await site.settled({version: '2'});
});

test('a release of the application that cannot be imported is refused with its traceback', async (t) => {
  const site = await makeSite(t, {app: 'osyw'});
  await site.deployed();
  await site.release('2', {}, {'oscore/health.py': 'import not_there\n'});
  const end = await site.now();
  assert.equal(end.exit, 7, end.stdout);
  assert.match(end.result?.error ?? '', /ModuleNotFoundError: No module named 'not_there'/);
  await site.settled({version: '1', outcome: 'aborted', code: 'START_FAILED'});
});
