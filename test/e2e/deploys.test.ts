import assert from 'node:assert/strict';
import {readdirSync, readFileSync, writeFileSync} from 'node:fs';
import {test} from 'node:test';
import {makeSite} from '../support/site.ts';

const PHASES = ['update', 'build', 'start', 'check', 'switch', 'drain', 'record'];

for (const vcs of ['svn', 'git'] as const) {
  for (const tree of ['snapshot', 'in_place'] as const) {
    for (const daemon of [false, true]) {
      test(`${vcs}, ${tree}, ${daemon ? 'daemons' : 'foreground'}: a commit goes live, and the same again is unchanged`, async (t) => {
        const site = await makeSite(t, {vcs, tree, daemon});
        const first = await site.deployed();
        assert.equal(first.result?.outcome, 'deployed');
        assert.equal(first.result.code, 'OK');
        assert.equal(first.result.error, null);
        assert.equal(first.result.previous, null);
        assert.match(first.result.release ?? '', /^\d{6}$/);
        await site.settled({version: '1', revision: first.result.revision ?? '', outcome: 'deployed', code: 'OK'});

        const traffic = site.traffic();
        const second = await site.release('2');
        const deployed = await site.deployed();
        assert.equal(deployed.result?.revision, second);
        assert.equal(deployed.result.previous, first.result.release);
        const report = await site.settled({version: '2', revision: second, outcome: 'deployed', traffic});
        assert.deepEqual(report?.versions, ['1', '2'], 'old, then new, once');

        const again = await site.now();
        assert.equal(again.exit, 0);
        assert.equal(again.result?.outcome, 'unchanged');
        assert.equal(again.result.revision, second);
        await site.settled({version: '2', revision: second, outcome: 'unchanged'});
      });
    }
  }

  test(`${vcs}: --force deploys the same again, --revision an older one, and now the newest again`, async (t) => {
    const site = await makeSite(t, {vcs});
    const one = (await site.deployed()).result?.revision ?? '';
    const two = await site.release('2');
    await site.deployed();
    const before = (await site.status()).serving?.workers.map((worker) => worker.pid) ?? [];

    const forced = await site.deployed(['--force']);
    assert.equal(forced.result?.outcome, 'deployed');
    assert.equal(forced.result.revision, two);
    const after = (await site.status()).serving?.workers.map((worker) => worker.pid) ?? [];
    assert.ok(after.every((pid) => !before.includes(pid)), 'all workers are fresh');

    const older = await site.deployed(['--revision', vcs === 'svn' ? one.slice(1) : one.slice(0, 9)]);
    assert.equal(older.result?.revision, one);
    await site.settled({version: '1', revision: one});

    const newest = await site.deployed();
    assert.equal(newest.result?.revision, two);
    await site.settled({version: '2', revision: two});
  });

  test(`${vcs}: the events of a deploy are its phases in order, each with its time`, async (t) => {
    const site = await makeSite(t, {vcs, files: {'logs/.keep': ''}, config: {bake: {for: '50ms'}}});
    await site.deployed();
    await site.release('2');
    const {events, result, stdout} = await site.deployed();
    const seen = events.flatMap((event) => (event.event === 'phase' && 'state' in event ? [event] : []));
    const order = ['update', 'build', 'start', 'check', 'switch', 'bake', 'drain', 'record'];
    assert.deepEqual(seen.filter((event) => event.state === 'began').map((event) => event.phase).filter((phase) => order.includes(phase)), order.filter((phase) => seen.some((event) => event.phase === phase)));
    for (const phase of PHASES.filter((name) => name !== 'record')) {
      const ended = seen.find((event) => event.phase === phase && event.state === 'ended');
      assert.equal(typeof ended?.ms, 'number', `the end of ${phase} has its milliseconds`);
      assert.equal(typeof result?.phases[phase], 'number', `the result has the time of ${phase}`);
    }
    assert.ok(stdout.split('\n').every((line) => line === '' || line.startsWith('{')), 'standard output is JSON alone');
    assert.equal(stdout.trimEnd().split('\n').at(-1)?.includes('"event":"result"'), true, 'the result is the last line');
    const [newest] = await site.history();
    assert.equal(newest?.release, result?.release);
    assert.equal(newest?.trigger, 'manual');
    assert.ok((newest?.requested_by ?? '') !== '');
    assert.ok(Date.parse(newest?.started_at ?? '') <= Date.parse(newest?.ended_at ?? ''));
  });
}

test('svn: a commit elsewhere in the repository is unchanged', async (t) => {
  const site = await makeSite(t, {vcs: 'svn'});
  const first = await site.deployed();
  await site.svn.svn(['mkdir', '-q', '-m', 'elsewhere', `file://${site.svn.repository}/branches/other`]);
  const again = await site.now();
  assert.equal(again.result?.outcome, 'unchanged');
  assert.equal(again.result.revision, first.result?.revision);
});

test('git: a rewritten history is followed when the working copy is clean', async (t) => {
  const site = await makeSite(t, {vcs: 'git'});
  await site.release('2');
  await site.deployed();
  const other = await site.git.forcePush({'behaviour.json': '{"version": "other"}\n'});
  await site.deployed();
  await site.settled({version: 'other', revision: other});
});

test('a changed configuration deploys the same revision again', async (t) => {
  const site = await makeSite(t);
  await site.deployed();
  site.configure({workers: {count: 3}});
  const again = await site.deployed();
  assert.equal(again.result?.outcome, 'deployed');
  await site.settled({version: '1', workers: 3});
});

test('build commands run in the release before any worker starts, and shared paths are common to all releases', async (t) => {
  const site = await makeSite(t, {
    config: {release: {build: [['/bin/sh', '-c', 'cp behaviour.json built.json && echo built in $PWD']], shared: ['data']}},
    files: {'.gitignore': 'data\n'},
  });
  await site.deployed();
  const release = (await site.status()).serving?.release ?? '';
  const dir = `${site.stateDir}/releases/${release}`;
  assert.equal(readFileSync(`${dir}/built.json`, 'utf8'), readFileSync(`${dir}/behaviour.json`, 'utf8'));
  writeFileSync(`${dir}/data/kept.txt`, 'kept');
  await site.release('2');
  const second = await site.deployed();
  assert.equal(readFileSync(`${site.stateDir}/releases/${second.result?.release}/data/kept.txt`, 'utf8'), 'kept');
  await site.settled({version: '2'});
});

test('old releases are pruned to `keep`, never the serving one nor the one before', async (t) => {
  const site = await makeSite(t, {config: {release: {keep: 2}}});
  const ids: string[] = [];
  for (const version of ['2', '3', '4']) {
    await site.release(version);
    ids.push((await site.deployed()).result?.release ?? '');
  }
  const left = readdirSync(`${site.stateDir}/releases`).filter((name) => /^\d{6}$/.test(name)).sort();
  assert.deepEqual(left, ids.slice(-2));
  await site.settled({version: '4'});
});
