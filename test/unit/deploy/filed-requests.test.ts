import assert from 'node:assert/strict';
import {describe, test} from 'node:test';
import {deploy, type Deployed} from '../../../src/deploy/deploy.ts';
import type {FiledRequest, Request} from '../../../src/deploy/events.ts';
import {finishDrain} from '../../../src/deploy/finish-drain.ts';
import {recover} from '../../../src/deploy/recover.ts';
import {startRun, Superseded} from '../../../src/deploy/run.ts';
import type {DeployTools} from '../../../src/deploy/tools.ts';
import {DeployError} from '../../../src/errors.ts';
import {World, type Life, type LifeOptions, type WorldOptions} from '../../fakes/world.ts';

const NEVER = new AbortController().signal;

function file(world: World, ...names: readonly string[]): void {
  for (const name of names) world.disk.spool.set(`${name}.json`, filed(name));
}

function filed(name: string): FiledRequest {
  return {id: `request-${name}`, file: `${name}.json`, stamp: `stamp-${name}`, requestedBy: 'bob', uid: 1001, revision: name, filedAt: `2026-11-23T02:11:${name.slice(1).padStart(2, '0')}.000Z`, killed: 0};
}

function requestOf(tools: DeployTools, trigger: 'hook' | 'manual'): Request {
  return {trigger, requestedBy: 'bob', target: {kind: 'revision', wanted: undefined}, force: false, filed: tools.records.filed()};
}

/** What `now` and `now --requested` do under the lock, and after it. */
async function turn(tools: DeployTools, trigger: 'hook' | 'manual', signal = NEVER): Promise<Deployed | undefined> {
  await recover(tools);
  const request = requestOf(tools, trigger);
  const deployed = trigger === 'hook' && request.filed.length === 0 ? undefined : await deploy(request, tools, signal, {historyNow: false});
  await finishDrains(tools);
  return deployed;
}

async function settled(world: World): Promise<void> {
  await world.live(async tools => {
    await recover(tools);
    await finishDrains(tools);
  });
}

async function finishDrains(tools: DeployTools): Promise<void> {
  for (const {deploy: id} of tools.records.drains()) {
    const held = tools.records.takeDrain(id);
    if (held !== undefined) await finishDrain(held, tools, startRun({id, trigger: 'recover', requestedBy: '', startedAt: ''}, () => undefined));
  }
}

async function lived(world: World, trigger: 'hook' | 'manual', options: LifeOptions & {signal?: AbortSignal} = {}): Promise<Life<Deployed | undefined>> {
  return world.live(tools => turn(tools, trigger, options.signal), options);
}

async function serving(options: WorldOptions = {}): Promise<World> {
  const world = new World(options);
  await lived(world, 'manual');
  assert.equal(world.state.serving?.release.revision, 'r1');
  return world;
}

const outcomes = (world: World) => world.disk.history.slice(1).map(({outcome, revision, trigger}) => `${trigger} ${revision} ${outcome}`);

describe('requests', () => {
  test('the newest is deployed, each older one is in the history as superseded', async () => {
    const world = await serving();
    file(world, 'r2', 'r3', 'r4');
    world.newest = 'r4';
    await lived(world, 'hook');
    assert.deepEqual(outcomes(world), ['hook r2 superseded', 'hook r3 superseded', 'hook r4 deployed']);
    assert.equal(world.disk.spool.size, 0);
    assert.equal(world.disk.history.at(-1)?.requested_by, 'bob');
  });

  test('a commit that came after the newest request overtakes that one, too', async () => {
    const world = await serving();
    file(world, 'r2');
    world.newest = 'r3';
    await lived(world, 'hook');
    assert.deepEqual(outcomes(world), ['hook r2 superseded', 'hook r3 deployed']);
    file(world, 'r3');
    await lived(world, 'hook');
    assert.deepEqual(outcomes(world).slice(2), ['hook r3 unchanged']);
  });

  test('one by hand answers them all', async () => {
    const world = await serving();
    file(world, 'r2', 'r3');
    world.newest = 'r3';
    await lived(world, 'manual');
    assert.deepEqual(outcomes(world), ['hook r2 superseded', 'hook r3 superseded', 'manual r3 deployed']);
    assert.equal(world.disk.spool.size, 0);
  });

  for (const trigger of ['hook', 'manual'] as const) {
    for (const [name, flaws] of [['a good revision', {}], ['a broken one', {r4: 'never healthy'}], ['one that is rolled back from', {r4: 'fails the probe'}]] as const) {
      test(`${trigger}, ${name}: killed before each effect, none is lost and none runs twice`, async () => {
        for (let n = 1, killed = true; killed; n++) {
          const world = await serving({flaws});
          file(world, 'r2', 'r3', 'r4');
          world.newest = 'r4';
          const life = await lived(world, trigger, {killBefore: n});
          killed = life.end === 'killed';
          const where = `killed before effect ${n}, after "${life.effects.at(-1) ?? 'nothing'}"`;
          await settled(world);
          const good = name === 'a good revision';
          assert.ok(world.state.serving?.release.revision === 'r4' || world.disk.spool.size > 0 || world.disk.history.some(({revision, outcome}) => revision === 'r4' && outcome !== 'superseded' && outcome !== 'aborted')
            || (!good && world.state.tried === 'r4'), `${where}: the request stands until it is answered`);
          while (world.disk.spool.size > 0) await lived(world, 'hook');
          await settled(world);
          assert.equal(world.disk.spool.size, 0, where);
          assert.equal(world.state.serving?.release.revision, good ? 'r4' : 'r1', where);
          for (const older of ['r2', 'r3']) {
            assert.deepEqual(world.disk.history.filter(({revision}) => revision === older).map(({outcome}) => outcome), ['superseded'], `${where}: ${older}`);
          }
          assert.ok(world.disk.history.some(({revision, outcome}) => revision === 'r4' && outcome !== 'superseded'), `${where}: the newest has a line of its own`);
          assert.equal(new Set(world.disk.history.map(({id}) => id)).size, world.disk.history.length, where);
          assert.deepEqual(world.broken, [], where);
          const own = world.disk.history.filter(({revision, code}) => revision === 'r4' && code !== 'INTERNAL').filter(({outcome}) => outcome !== 'superseded');
          assert.ok(own.length <= 1, `${where}: it ran twice: ${own.map(({outcome, code}) => `${outcome} ${code}`).join(', ')}`);
          if (good) assert.ok(world.disk.history.filter(({revision, outcome}) => revision === 'r4' && outcome === 'deployed').length === 1, `${where}: deployed once`);
        }
      });
    }
  }

  test('one that kills the deployer each time is given up after three', async () => {
    const world = await serving();
    file(world, 'r2');
    world.newest = 'r2';
    const {effects} = await lived(world.copy(), 'hook');
    const inTheStart = effects.findIndex(effect => effect.startsWith('start:')) + 1;
    for (let tries = 1; tries <= 3; tries++) {
      assert.equal(world.disk.spool.size, 1, `before try ${tries}`);
      assert.equal((await lived(world, 'hook', {killBefore: inTheStart})).end, 'killed');
      await settled(world);
    }
    assert.equal(world.disk.spool.size, 0);
    assert.deepEqual(outcomes(world), ['hook r2 aborted', 'hook r2 aborted', 'hook r2 aborted']);
  });

  test('who is stopped by a signal leaves the request to the next', async () => {
    const world = await serving();
    file(world, 'r2', 'r3');
    world.newest = 'r3';
    const stop = new AbortController();
    await lived(world, 'hook', {signal: stop.signal, report: event => {
      if (event.event === 'phase' && event.phase === 'check') stop.abort(new DeployError('INTERRUPTED', 'interrupted by SIGTERM'));
    }});
    assert.deepEqual(outcomes(world), ['hook r2 superseded', 'hook r3 aborted']);
    assert.deepEqual([...world.disk.spool.values()].map(({revision}) => revision), ['r3']);
    await lived(world, 'hook');
    assert.equal(world.state.serving?.release.revision, 'r3');
  });

  test('a newer one takes the place of a deploy that has not switched: its line says so, and nothing of it is left', async () => {
    const world = await serving();
    file(world, 'r2');
    world.newest = 'r2';
    const newer = new AbortController();
    const {value} = await lived(world, 'hook', {signal: newer.signal, report: event => {
      if (event.event === 'phase' && event.phase === 'check') newer.abort(new Superseded('r3 took its place'));
    }});
    assert.deepEqual([value?.result.outcome, value?.result.exit, value?.result.code, value?.result.error], ['superseded', 0, 'OK', null]);
    assert.deepEqual(outcomes(world), ['hook r2 superseded']);
    assert.equal(world.disk.spool.size, 0);
    assert.equal(world.running().length, 2);
    file(world, 'r2', 'r3');
    await lived(world, 'hook');
    assert.equal(world.state.serving?.release.revision, 'r2', 'what was superseded was not tried');
  });
});

describe('what the spool does not let us do', () => {
  test('a request that cannot be taken is not deployed for, and stands', async () => {
    for (const cannot of ['beginJournal', 'unfile'] as const) {
      const world = await serving();
      file(world, 'r2');
      world.newest = 'r2';
      const {error} = await world.live(tools => turn({...tools, records: {...tools.records, [cannot]: () => {
        throw Object.assign(new Error('ENOSPC: no space left on device'), {code: 'ENOSPC'});
      }}}, 'hook'));
      assert.match(String(error), /ENOSPC/);
      await settled(world);
      assert.deepEqual([...new Set([...world.disk.spool.values()].map(({revision}) => revision))], ['r2'], cannot);
      while (world.disk.spool.size > 0) await lived(world, 'hook');
      assert.equal(world.state.serving?.release.revision, 'r2', cannot);
    }
  });

  test('a recovery goes on when the request can be neither taken nor filed again', async () => {
    const world = await serving();
    file(world, 'r2');
    world.newest = 'r2';
    await lived(world, 'hook', {killBefore: 6});
    const refuse = () => {
      throw Object.assign(new Error('EISDIR: illegal operation on a directory'), {code: 'EISDIR'});
    };
    const notes: string[] = [];
    const {end, error} = await world.live(tools => recover({...tools, report: event => {
      if (event.event === 'note') notes.push(event.text);
    }, records: {...tools.records, unfile: refuse, fileAgain: refuse}}));
    assert.equal(end, 'returned', String(error));
    assert.ok(notes.some(text => /EISDIR/.test(text)), notes.join('\n'));
    assert.equal(outcomes(world).at(-1), 'hook r2 aborted');
  });

  test('a failure before the revision is known leaves the request', async () => {
    const world = await serving();
    file(world, 'r2');
    const {value} = await world.live(tools => turn({...tools, upstream: {...tools.upstream, requireRunning: () => Promise.reject(new DeployError('SWITCH_REFUSED', 'nginx does not run'))}, workingCopy: () => ({
      ...tools.workingCopy(), resolve: () => Promise.reject(new DeployError('UPDATE_FAILED', 'no repository')),
    })}, 'hook'));
    assert.equal(value?.result.outcome, 'aborted');
    assert.deepEqual([...world.disk.spool.values()].map(({revision, killed}) => [revision, killed]), [['r2', 0]]);
  });

  test('one that is filed again stays behind a newer one', async () => {
    const world = await serving();
    file(world, 'r2');
    world.newest = 'r2';
    await lived(world, 'hook', {killBefore: 6});
    file(world, 'r3');
    world.newest = 'r3';
    await lived(world, 'hook');
    assert.deepEqual(outcomes(world), ['hook r2 aborted', 'hook r2 superseded', 'hook r3 deployed']);
  });
});

test('a commit elsewhere that came last was overtaken by nobody', async () => {
  const world = await serving();
  file(world, 'r3', 'r4');
  world.newest = 'r3';
  await lived(world, 'hook');
  assert.deepEqual(outcomes(world), ['hook r3 superseded', 'hook r3 deployed']);
});

describe('a hook tries a revision once', () => {
  const looked = async (world: World, name: string) => {
    file(world, name);
    await lived(world, 'hook');
    return outcomes(world).at(-1);
  };

  test('a commit elsewhere is unchanged', async () => {
    assert.equal(await looked(await serving(), 'r7'), 'hook r1 unchanged');
  });

  test('what was broken is not tried again for a commit elsewhere; by hand it is', async () => {
    const world = await serving({flaws: {r2: 'never healthy'}});
    world.newest = 'r2';
    assert.equal(await looked(world, 'r2'), 'hook r2 aborted');
    assert.equal(await looked(world, 'r3'), 'hook r1 unchanged');
    await lived(world, 'manual');
    assert.equal(outcomes(world).at(-1), 'manual r2 aborted');
  });

  test('what was rolled back from is left alone until a newer one comes', async () => {
    const world = await serving();
    world.newest = 'r2';
    await lived(world, 'manual');
    await world.live(async tools => {
      const [old] = tools.records.state().served;
      assert.ok(old);
      await deploy({trigger: 'rollback', requestedBy: 'ann', target: {kind: 'release', release: old}, force: true, filed: []}, tools, NEVER, {historyNow: true});
    });
    assert.equal(world.state.serving?.release.revision, 'r1');
    assert.equal(await looked(world, 'r3'), 'hook r1 unchanged');
    world.newest = 'r4';
    assert.equal(await looked(world, 'r4'), 'hook r4 deployed');
  });

  test('an older number never replaces a newer one', async () => {
    const world = await serving();
    world.newest = 'r5';
    await lived(world, 'manual');
    world.newest = 'r4';
    assert.equal(await looked(world, 'r4'), 'hook r5 unchanged');
    assert.equal(world.state.serving?.release.revision, 'r5');
  });

  test('an older revision by hand stays until a newer one comes', async () => {
    const world = await serving();
    world.newest = 'r3';
    await lived(world, 'manual');
    await world.live(tools => deploy({trigger: 'manual', requestedBy: 'ann', target: {kind: 'revision', wanted: 'r2'}, force: false, filed: []}, tools, NEVER, {historyNow: true}));
    assert.equal(world.state.serving?.release.revision, 'r2');
    assert.equal(await looked(world, 'r9'), 'hook r2 unchanged');
    world.newest = 'r10';
    assert.equal(await looked(world, 'r10'), 'hook r10 deployed');
  });

  test('before anything was deployed, any request deploys', async () => {
    const world = new World();
    world.newest = 'r3';
    file(world, 'r3');
    await lived(world, 'hook');
    assert.equal(world.state.serving?.release.revision, 'r3');
  });

  test('a commit that touches none of the paths that count is unchanged, and the next is compared with it', async () => {
    const world = await serving();
    const asked: string[] = [];
    world.touches = (from, to) => {
      asked.push(`${from}..${to}`);
      return to === 'r3';
    };
    world.newest = 'r2';
    assert.equal(await looked(world, 'r2'), 'hook r1 unchanged');
    world.newest = 'r3';
    assert.equal(await looked(world, 'r3'), 'hook r3 deployed');
    assert.deepEqual(asked, ['r1..r2', 'r2..r3']);
  });
});

describe('with edits in the working copy', () => {
  const X = 'r1+edits:0123456789ab';
  const Y = 'r1+edits:ba9876543210';
  const looked = async (world: World, newest: string, hint = newest) => {
    file(world, hint);
    world.newest = newest;
    await lived(world, 'hook');
    return outcomes(world).at(-1);
  };

  test('each name is news, and so is the revision when they are taken back; the same name is not', async () => {
    const world = await serving();
    assert.equal(await looked(world, X), `hook ${X} deployed`);
    assert.equal(await looked(world, X), `hook ${X} unchanged`);
    assert.equal(await looked(world, Y), `hook ${Y} deployed`);
    assert.equal(await looked(world, 'r1'), 'hook r1 deployed');
    assert.equal(await looked(world, X), `hook ${X} deployed`);
  });

  test('a commit is news whatever is edited, an older number is not, and the request of the commit is answered by both', async () => {
    const world = await serving();
    await looked(world, X);
    assert.equal(await looked(world, 'r2+edits:0123456789ab', 'r2'), 'hook r2+edits:0123456789ab deployed');
    assert.ok(!outcomes(world).includes('hook r2 superseded'), 'nothing overtook it');
    assert.equal(await looked(world, X), 'hook r2+edits:0123456789ab unchanged');
    assert.equal(await looked(world, 'r3'), 'hook r3 deployed');
  });

  test('what was rolled back from is left alone; other edits are not', async () => {
    const world = await serving();
    await looked(world, X);
    await world.live(async tools => {
      const [old] = tools.records.state().served;
      assert.ok(old);
      await deploy({trigger: 'rollback', requestedBy: 'ann', target: {kind: 'release', release: old}, force: true, filed: []}, tools, NEVER, {historyNow: true});
    });
    assert.equal(await looked(world, X), 'hook r1 unchanged');
    assert.equal(await looked(world, 'r1'), 'hook r1 unchanged');
    assert.equal(await looked(world, Y), `hook ${Y} deployed`);
  });

  test('the release has the name that the copy has after the update, and so has all that is on record', async () => {
    const world = await serving();
    world.becomes = name => name === 'r2+edits:0123456789ab' ? 'r2+edits:ba9876543210' : name;
    assert.equal(await looked(world, 'r2+edits:0123456789ab', 'r2'), 'hook r2+edits:ba9876543210 deployed');
    assert.deepEqual([world.state.serving?.release.revision, world.state.tried], ['r2+edits:ba9876543210', 'r2+edits:ba9876543210']);
    assert.deepEqual(world.broken, []);
    assert.equal(await looked(world, 'r2+edits:ba9876543210'), 'hook r2+edits:ba9876543210 unchanged');
  });

  test('what was edited meanwhile was not tried, however it looks afterwards', async () => {
    const world = await serving();
    world.newest = X;
    file(world, 'r1');
    await world.live(tools => turn({...tools, workingCopy: () => ({...tools.workingCopy(), update: () => Promise.reject(new DeployError('UPDATE_FAILED', 'edited meanwhile', {passing: true}))})}, 'hook'));
    assert.equal(outcomes(world).at(-1), `hook ${X} aborted`);
    assert.equal(await looked(world, X), `hook ${X} deployed`);
  });
});
