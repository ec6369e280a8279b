import assert from 'node:assert/strict';
import {describe, test} from 'node:test';
import {deploy, type Deployed} from '../../../src/deploy/deploy.ts';
import type {Outcome} from '../../../src/deploy/deployment.ts';
import type {Request} from '../../../src/deploy/events.ts';
import {finishDrain} from '../../../src/deploy/finish-drain.ts';
import {recover, unfinished} from '../../../src/deploy/recover.ts';
import {releasesToKeep} from '../../../src/deploy/retention.ts';
import {startRun} from '../../../src/deploy/run.ts';
import {portsOf, type DeployTools} from '../../../src/deploy/tools.ts';
import {DeployError, FAILURES, type FailureCode} from '../../../src/errors.ts';
import {portsIn} from '../../../src/upstream/render-upstream.ts';
import {World, type Life, type LifeOptions, type NginxMood, type WorldOptions} from '../../fakes/world.ts';

/**
 * The deployer is killed before its 1st, 2nd, 3rd … effect until it runs through; nothing of it runs after that, not even abort.
 * Then, perhaps, a stranger reloads nginx, and the deployer recovers; it may be killed in that, too. Then `complaints` must be none.
 */
interface Situation {
  readonly world?: WorldOptions;
  /** Revisions that are deployed before, to their end. */
  readonly before?: readonly string[];
  readonly prepare?: (world: World) => void;
  readonly nginx?: NginxMood;
  readonly bakeMs?: number;
  readonly request?: (world: World) => Request;
  /** How it ends when nobody kills it. */
  readonly ends: 'OK' | FailureCode;
  /** The new release must never be the one that serves in the end. */
  readonly bad?: boolean;
  /** A signal of the operator when this is told. */
  readonly interruptIn?: string;
  readonly noWait?: boolean;
  /** No worker of ours lives any more. */
  readonly dead?: true;
  /** Much like another one: killed once is enough. */
  readonly alike?: true;
}

const NEW = 'r9';
const newest = (): Request => ({trigger: 'manual', requestedBy: 'ann', target: {kind: 'revision', wanted: NEW}, force: false, filed: []});
const release = (trigger: Request['trigger'], index: number) => (world: World): Request => {
  const served = world.state.served.at(index);
  assert.ok(served);
  return {trigger, requestedBy: 'ann', target: {kind: 'release', release: {id: served.id, revision: served.revision, dir: served.dir, ...(served.adopted && {adopted: true})}}, force: true, filed: []};
};
const replacement = (...slots: number[]) => (world: World): Request => {
  const {target, ...request} = release('watch', -1)(world);
  assert.ok(target.kind === 'release');
  return {...request, target: {...target, slots}};
};
const flawed = (flaw: NonNullable<WorldOptions['flaws']>[string]) => ({flaws: {[NEW]: flaw}});
const LONG_BAKE = 60_000;
const BY_HAND = 'upstream myweb {\n    ip_hash;\n    server 127.0.0.1:9001 weight=4;\n    server 127.0.0.1:9002;\n}\n';

const SITUATIONS: Readonly<Record<string, Situation>> = {
  'a good deploy': {before: ['r1'], ends: 'OK'},
  'a good deploy with --no-wait': {alike: true, before: ['r1'], ends: 'OK', noWait: true},
  'the first deploy': {ends: 'OK'},
  'the first deploy, never healthy': {alike: true, world: flawed('never healthy'), ends: 'NEVER_HEALTHY', bad: true},
  'the first deploy over a block written by hand': {alike: true, world: {byHand: BY_HAND}, ends: 'OK'},
  'the first deploy over a block written by hand, the probe fails': {world: {byHand: BY_HAND, ...flawed('fails the probe')}, ends: 'ROLLED_BACK', bad: true},
  'the first deploy, the probe fails': {alike: true, world: flawed('fails the probe'), ends: 'ROLLED_BACK', bad: true},
  'never healthy': {before: ['r1'], world: flawed('never healthy'), ends: 'NEVER_HEALTHY', bad: true},
  'a worker dies at once': {alike: true, before: ['r1'], world: flawed('dies at once'), ends: 'START_FAILED', bad: true},
  'a stranger sits on a port': {alike: true, before: ['r1'], prepare: world => void world.strangers.add(8813), ends: 'OK'},
  'nginx -t refuses': {alike: true, before: ['r1'], nginx: 'refuses the test', ends: 'SWITCH_REFUSED'},
  'nginx refuses the reload': {before: ['r1'], nginx: 'refuses the reload', ends: 'SWITCH_REFUSED'},
  'nginx answers late': {before: ['r1'], nginx: 'answers late', ends: 'SWITCH_REFUSED'},
  'the bake passes': {alike: true, before: ['r1'], bakeMs: 1, ends: 'OK'},
  'the bake fails': {before: ['r1'], bakeMs: LONG_BAKE, world: flawed('fails in the bake'), ends: 'ROLLED_BACK', bad: true},
  'workers die in the bake': {alike: true, before: ['r1'], bakeMs: LONG_BAKE, world: flawed('dies in the bake'), ends: 'ROLLED_BACK', bad: true},
  'the probe fails': {before: ['r1'], world: flawed('fails the probe'), ends: 'ROLLED_BACK', bad: true},
  'a rollback': {before: ['r1', 'r2'], request: release('rollback', -2), ends: 'OK'},
  'a restart of the same release': {before: ['r1'], request: release('manual', -1), ends: 'OK'},
  'a worker is replaced beside the others': {before: ['r1'], request: replacement(1), ends: 'OK'},
  'both workers are replaced, with a bake': {alike: true, before: ['r1'], bakeMs: 1, request: replacement(1, 0), ends: 'OK'},
  'a worker is replaced, and its successor fails': {before: ['r1'], prepare: world => void world.failing.add('r1'), request: replacement(1), ends: 'ROLLED_BACK'},
  'a worker is replaced, and nginx refuses the reload': {alike: true, before: ['r1'], nginx: 'refuses the reload', request: replacement(0), ends: 'SWITCH_REFUSED'},
  'a deploy after a stop': {before: ['r1'], prepare: stopped, ends: 'OK'},
  'a start after a stop': {alike: true, before: ['r1'], prepare: stopped, request: release('manual', -1), ends: 'OK'},
  'a start after a stop, before nginx': {before: ['r1'], prepare: world => {
    stopped(world);
    world.nginxStops();
  }, nginx: 'is down', request: release('manual', -1), ends: 'OK'},
  'a start after a reboot': {before: ['r1'], prepare: world => world.reboot(), dead: true, request: release('manual', -1), ends: 'OK'},
  'a start after a reboot, a stranger has the ports': {alike: true, before: ['r1'], prepare: rebooted(world => world.loaded.forEach(port => world.strangers.add(port))), dead: true, request: release('manual', -1), ends: 'OK'},
  'a start after a reboot, before nginx': {before: ['r1'], prepare: rebooted(world => world.nginxStops()), nginx: 'is down', dead: true, request: release('manual', -1), ends: 'OK'},
  'a start after a reboot, before nginx, a stranger has the ports': {alike: true, before: ['r1'], prepare: rebooted(world => {
    world.loaded.forEach(port => world.strangers.add(port));
    world.nginxStops();
  }), nginx: 'is down', dead: true, request: release('manual', -1), ends: 'OK'},
  'a new revision after a reboot': {alike: true, before: ['r1'], prepare: world => world.reboot(), dead: true, ends: 'OK'},
  'in place': {before: ['r1'], world: {inPlace: true}, ends: 'OK'},
  'in place, never healthy': {alike: true, before: ['r1'], world: {inPlace: true, ...flawed('never healthy')}, ends: 'NEVER_HEALTHY', bad: true},
  'in place, the probe fails': {before: ['r1'], world: {inPlace: true, ...flawed('fails the probe')}, ends: 'ROLLED_BACK', bad: true},
  'in place, a rollback': {alike: true, before: ['r1', 'r2'], world: {inPlace: true}, request: release('rollback', -2), ends: 'OK'},
  'the first deploy after an adoption': {before: [], world: {byHand: BY_HAND}, prepare: adopted, ends: 'OK'},
  'the first deploy after an adoption, never healthy': {before: [], world: {byHand: BY_HAND, ...flawed('never healthy')}, prepare: adopted, ends: 'NEVER_HEALTHY', bad: true},
  'the first deploy after an adoption, the probe fails': {before: [], world: {byHand: BY_HAND, ...flawed('fails the probe')}, prepare: adopted, ends: 'ROLLED_BACK', bad: true},
  'a restart of adopted workers': {before: [], world: {byHand: BY_HAND}, prepare: adopted, request: release('manual', -1), ends: 'OK'},
  'an adopted worker is replaced beside the other': {alike: true, before: [], world: {byHand: BY_HAND}, prepare: adopted, request: replacement(1), ends: 'OK'},
  'a start of what was adopted, after a reboot': {alike: true, before: [], world: {byHand: BY_HAND}, prepare: world => {
    adopted(world);
    world.reboot();
  }, dead: true, request: release('manual', -1), ends: 'OK'},
  'old releases are pruned': {alike: true, before: ['r1', 'r2', 'r3'], world: {keep: 2}, ends: 'OK'},
  'interrupted in the start': {alike: true, before: ['r1'], interruptIn: 'start', ends: 'INTERRUPTED', bad: true},
  'interrupted in the check': {alike: true, before: ['r1'], interruptIn: 'check', ends: 'INTERRUPTED', bad: true},
  'interrupted in the switch, which is too late': {alike: true, before: ['r1'], interruptIn: 'switch', ends: 'OK'},
};

for (const [name, situation] of Object.entries(SITUATIONS)) {
  describe(name, () => {
    test('ends as it should when nobody kills it', async () => {
      const world = await prepared(situation);
      const life = await liveThrough(world, situation, {});
      assert.equal(life.error, undefined);
      assert.equal(life.value?.result.code, situation.ends);
      assert.deepEqual(complaints(world, situation, endOf(situation)), []);
      assert.deepEqual((await settled(world)).effects, [], 'a recovery finds nothing to do');
    });

    for (const stranger of [false, true]) {
      test(`killed before each effect${stranger ? ', and a stranger reloads nginx' : ''}, it recovers`, async () => {
        const found: string[] = [];
        const runs = await eachKill(n => killedAt(situation, n, stranger), async ({world, life}, n) => {
          found.push(...(await recovered(world, situation, stranger)).map(text => `killed before effect ${n}, after "${life.effects.at(-1) ?? 'nothing'}": ${text}`));
          if (!stranger) found.push(...(await deploysAgain(world, situation)).map(text => `killed before effect ${n}, the next deploy: ${text}`));
        });
        assert.ok(runs > 5);
        assertNone(found);
      });
    }

    if (situation.alike !== true) test('killed in the recovery, too, it recovers', async () => {
      const found: string[] = [];
      const seen = new Set<string>();
      await eachKill(n => killedAt(situation, n, n % 2 === 0), async ({world: killed, life}, n) => {
        // A recovery that goes the same way from the same nginx is the same case.
        const {effects} = await settled(killed.copy());
        const way = [...effects, 'file', killed.nginx.file, 'loaded', ...killed.loaded].join('\n');
        if (seen.has(way)) return;
        seen.add(way);
        await eachKill(async m => {
          const world = killed.copy();
          const second = await settled(world, {killBefore: m});
          if (m % 2 === 0) world.strangersReload();
          return {world, life: second};
        }, async ({world, life: second}, m) => {
          found.push(...(await recovered(world, situation, false)).map(text => `killed before effect ${n}, after "${life.effects.at(-1) ?? 'nothing'}", and before effect ${m} of the recovery, after "${second.effects.at(-1) ?? 'nothing'}": ${text}`));
        });
      });
      assertNone(found);
    });

    if (situation.alike !== true && situation.bad !== true && situation.request === undefined) test('killed before each effect, and the new workers fail from then on, it goes back', async () => {
      const found: string[] = [];
      await eachKill(n => killedAt(situation, n, n % 2 === 0), async ({world, life}, n) => {
        const was = world.state.serving;
        world.failing.add(NEW);
        found.push(...(await recovered(world, situation, false)).map(text => `killed before effect ${n}, after "${life.effects.at(-1) ?? 'nothing'}": ${text}`));
        if (was?.release.revision !== NEW && world.state.serving?.release.revision === NEW) found.push(`killed before effect ${n}, after "${life.effects.at(-1) ?? 'nothing'}": what fails serves`);
      });
      assertNone(found);
    });

    if (situation.alike !== true) test('the machine starts again after each kill, and the next deploy works', async () => {
      const found: string[] = [];
      await eachKill(n => killedAt(situation, n, false), async ({world, life}, n) => {
        world.reboot();
        const again = await settled(world);
        const says = (text: string) => void found.push(`rebooted before effect ${n}, after "${life.effects.at(-1) ?? 'nothing'}": ${text}`);
        const failed = world.journal.some(({type}) => type === 'rolling_back');
        if (failed && world.state.serving?.release.revision === NEW) says('the release that failed is the one to start again');
        if (again.end === 'threw') says(`the recovery says: ${String(again.error)}`);
        // What it could not settle it has at least told.
        else if ((await settled(world)).effects.length > 0) says('a second recovery still does something');
        (await deploysAgain(world, situation)).forEach(says);
      });
      assertNone(found);
    });

    test('a full disk at each write: what is told is what serves, and the recovery settles it', async () => {
      const found: string[] = [];
      for (let n = 1; ; n++) {
        const world = await prepared(situation);
        const was = whoServes(world);
        const ranBefore = world.running().length;
        const life = await liveThrough(world, situation, {fullAt: n});
        if (life.diskEffects < n) break;
        const says = (text: string) => void found.push(`full at write ${n}, after "${life.effects.at(-1) ?? 'nothing'}": ${text}`);
        const {outcome, code} = life.value?.result ?? {outcome: 'aborted', code: 'INTERNAL'};
        const serves = whoServes(world) === was ? 'old' : 'new';
        if (code !== 'STATE_UNCERTAIN' && outcome !== 'uncertain' && serves !== (outcome === 'deployed' ? 'new' : 'old')) says(`"${outcome}", ${code} is told, but the ${serves} release serves`);
        if (serves === 'new' && code === 'INTERNAL') says(`a full disk is told as a bug: ${String(life.error)}`);
        if (life.end === 'threw' && world.running().length > ranBefore) says(`workers of it run on after ${String(life.error)}`);
        (await recovered(world, situation, false)).forEach(says);
      }
      assertNone(found);
    });
  });
}

function settled(world: World, options: LifeOptions = {}): Promise<Life<Deployed | undefined>> {
  return world.live(tools => settle(tools, world), options);
}

/** Runs with the kill before the 1st, 2nd, 3rd … effect, until a run is not hit any more. Returns how many were. */
async function eachKill(run: (n: number) => Promise<{world: World; life: Life<unknown>}>, look: (hit: {world: World; life: Life<unknown>}, n: number) => Promise<void>): Promise<number> {
  for (let n = 1; ; n++) {
    const hit = await run(n);
    if (hit.life.end !== 'killed') return n - 1;
    await look(hit, n);
  }
}

async function killedAt(situation: Situation, n: number, stranger: boolean): Promise<{world: World; life: Life<unknown>}> {
  const world = await prepared(situation);
  const life = await liveThrough(world, situation, {killBefore: n});
  if (stranger && life.end === 'killed') world.strangersReload();
  return {world, life};
}

const PREPARED = new Map<Situation, World>();

async function prepared(situation: Situation): Promise<World> {
  const ready = PREPARED.get(situation) ?? await prepare(situation);
  PREPARED.set(situation, ready);
  return ready.copy();
}

async function prepare({world: options, before = [], prepare: further, nginx, bakeMs = 0}: Situation): Promise<World> {
  const world = new World(options);
  for (const revision of before) {
    const {value} = await world.live(tools => change(tools, world, {...newest(), target: {kind: 'revision', wanted: revision}}));
    assert.equal(value?.result.outcome, 'deployed');
  }
  further?.(world);
  world.nginx.mood = nginx ?? 'good';
  world.bakeMs = bakeMs;
  return world;
}

/** What `osyw-deploy stop` leaves. */
function stopped(world: World): void {
  const file = world.nginx.file?.replace(/server [^;]*;/g, 'server 127.0.0.1:1 down;') ?? null;
  world.nginx = {...world.nginx, file, now: {...world.nginx.now, ports: []}, old: []};
  for (const process of world.processes) process.alive = false;
  world.disk.state = {...world.state, serving: null};
  world.disk.journal = undefined;
}

/** What `osyw-deploy adopt` leaves of the processes that were started by hand. */
function adopted(world: World): void {
  const since = '2026-11-23T02:11:00.000Z';
  const served = {id: '000001', revision: 'r1', dir: '/var/bottle', adopted: true} as const;
  world.processes = world.processes.map((process, slot) => ({...process, id: `osyw/adoption/${slot}/adopted-1`, revision: 'r1'}));
  const workers = world.processes.map(({id, port, identity}, slot) => ({slot, port, id: id ?? '', process: identity, startedAt: since}));
  world.disk.state = {
    ...world.state, nextRelease: 2, lastPort: 9002,
    serving: {deploy: 'adoption', release: served, configHash: 'adopted', since, workers},
    served: [{...served, servedAt: since, firstServedAt: since, good: false}],
  };
  world.disk.workingCopy = 'r1';
  world.disk.history.push({id: 'adoption', trigger: 'manual', requested_by: 'ann', revision: 'r1', release: '000001', outcome: 'deployed', exit: 0, code: 'OK', error: null, phases: {}, started_at: since, ended_at: since});
}

function rebooted(further: (world: World) => void): (world: World) => void {
  return world => {
    world.reboot();
    further(world);
  };
}

async function liveThrough(world: World, situation: Situation, options: LifeOptions): Promise<Life<Deployed>> {
  const request = (situation.request ?? newest)(world);
  const controller = new AbortController();
  return world.live(tools => change(tools, world, request, {signal: controller.signal, historyNow: situation.noWait ?? false}), {
    ...options,
    report: event => {
      if (event.event === 'phase' && event.phase === situation.interruptIn && event.state === 'began') controller.abort(new DeployError('INTERRUPTED', 'interrupted by SIGTERM'));
    },
  });
}

/** As src/cli/change.ts: recover, deploy, drain, prune. */
async function change(tools: DeployTools, world: World, request: Request, {signal = new AbortController().signal, historyNow = false} = {}): Promise<Deployed> {
  await recover(tools);
  const deployed = await deploy(request, tools, signal, {historyNow});
  await drainAndPrune(tools, world, deployed);
  return deployed;
}

async function settle(tools: DeployTools, world: World): Promise<Deployed | undefined> {
  const done = await recover(tools);
  await drainAndPrune(tools, world, done);
  return done;
}

async function drainAndPrune(tools: DeployTools, world: World, done: Deployed | undefined): Promise<void> {
  if (done?.result.outcome === 'aborted' && [...world.disk.releases.keys()].some(id => id === done.result.release && !tools.records.state().served.some(one => one.id === id))) {
    world.broken.push(`the release ${done.result.release} is left behind by its abort`);
  }
  for (const {deploy: id} of tools.records.drains()) {
    const held = tools.records.takeDrain(id);
    if (held !== undefined) await finishDrain(held, tools, startRun({id, trigger: 'manual', requestedBy: '', startedAt: ''}, () => undefined));
  }
  if (unfinished(tools.records.readJournal()) !== undefined) return;
  const state = tools.records.state();
  const keep = releasesToKeep(state, tools.records.drains(), tools.config.keep);
  const served = state.served.filter(({id}) => keep.includes(id));
  try {
    if (served.length < state.served.length) tools.records.save({...state, served});
    await tools.releases.prune(keep);
  } catch {
    // It is only told, and left to the next command.
  }
}

/** Recovers a killed deploy and says what is not as it must be. */
async function recovered(world: World, situation: Situation, stranger: boolean): Promise<string[]> {
  const life = await settled(world);
  if (life.end === 'threw') return [`the recovery says: ${String(life.error)}`];
  const found = complaints(world, situation, undefined);
  if (stranger) {
    world.strangersReload();
    found.push(...complaints(world, situation, undefined).map(text => `after one more reload by a stranger: ${text}`));
  }
  const {effects} = await settled(world);
  if (effects.length > 0) found.push(`a second recovery does something: ${effects.join('; ')}`);
  return found;
}

/** The tool is of use again: a good revision goes live. */
async function deploysAgain(world: World, situation: Situation): Promise<string[]> {
  world.nginxStarts();
  world.bakeMs = 0;
  world.strangers.clear();
  const {value, error} = await world.live(tools => change(tools, world, {...newest(), target: {kind: 'revision', wanted: 'r10'}, force: true, filed: []}));
  if (value?.result.outcome !== 'deployed') return [`${value?.result.code ?? ''} ${value?.result.error ?? String(error)}`];
  return complaints(world, {...situation, bad: false}, undefined, 'r10');
}

function endOf({ends}: Situation): Outcome {
  return ends === 'OK' ? 'deployed' : ends === 'ROLLED_BACK' ? 'rolled_back' : 'aborted';
}

/** What is not as it must be once everything has settled. */
function complaints(world: World, situation: Situation, end: Outcome | undefined, next?: string): string[] {
  const found = [...world.broken];
  const expect = (holds: boolean, text: () => string) => void (holds || found.push(text()));
  const {disk, journal, loaded, state} = world;
  const {serving} = state;
  const list = (values: readonly unknown[]) => `[${values.join(', ')}]`;

  const ports = serving === null ? (situation.before === undefined ? portsByHand(world) : []) : portsOf(serving);
  const named = namedPorts(world);
  expect(named.join() === ports.join(), () => `nginx sends requests to ${list(named)}, the state says ${list(ports)}`);
  const first = journal[0];
  const id = first?.type === 'deploy' ? first.id : undefined;
  const isDead = situation.dead === true && next === undefined && serving?.deploy === disk.history[0]?.id;
  expect(isDead || loaded.every(port => world.processes.some(one => one.alive && one.port === port)), () => `nginx sends requests to ${list(loaded)}, of which not all live`);
  const running = world.running().map(({id}) => id).sort();
  const ours = (isDead ? [] : serving?.workers ?? []).map(({id}) => id).sort();
  expect(running.join() === ours.join(), () => `${list(running)} run, ${list(ours)} should`);
  expect(world.processes.every(one => one.alive || one.id !== null), () => 'a process that was started by hand is dead');

  const lines = disk.history.filter(line => line.id === id);
  const wasSwitched = journal.some(({type}) => type === 'switched');
  const deployed = serving !== null && serving.deploy === id;
  const outcome: Outcome = deployed ? 'deployed' : wasSwitched ? 'rolled_back' : 'aborted';
  expect(id === undefined || lines.length === 1, () => `the history has ${lines.length} lines for the deploy`);
  for (const line of lines) {
    expect(line.outcome === outcome, () => `the history says ${line.outcome}, in truth it was ${outcome}`);
    expect((line.exit === 0) === deployed && (line.code === 'OK' || FAILURES[line.code as FailureCode].exit === line.exit), () => `the history says ${line.code}, exit ${line.exit}, of what was ${outcome}`);
  }
  expect(new Set(disk.history.map(line => line.id)).size === disk.history.length, () => 'the history has a deploy twice');
  if (end !== undefined) expect(disk.history.at(-1)?.outcome === end, () => `it should have ended as ${end}, and ended as ${disk.history.at(-1)?.outcome}`);
  if (situation.bad === true) expect(next !== undefined || !deployed || lines.length === 0 || situation.before?.includes(serving.release.revision) === true, () => 'the bad release serves');
  if (situation.bad === true) expect(serving?.release.revision !== NEW, () => 'the bad revision serves');
  if (next !== undefined) expect(serving?.release.revision === next, () => `${serving?.release.revision} serves`);

  expect(journal.length === 0 || journal.at(-1)?.type === 'closed', () => `the journal ends with ${journal.at(-1)?.type}`);
  expect(disk.drains.size === 0, () => 'a drain is left');
  const kept = releasesToKeep(state, [], world.options.keep ?? 5).filter(id => ![serving?.release, ...state.served].some(one => one?.id === id && one.adopted === true));
  expect([...disk.releases.keys()].sort().join() === [...kept].sort().join(), () => `the releases ${list([...disk.releases.keys()])} are there, ${list(kept)} should be`);
  expect([...disk.releases.values()].every(({complete}) => complete), () => 'a release is half made');
  expect([...world.usedIds].every(used => Number(used) < state.nextRelease), () => `the number ${state.nextRelease} would be given a second time`);
  if ((world.options.inPlace === true || serving?.release.adopted === true) && serving !== null) expect(disk.workingCopy === serving.release.revision, () => `the working copy is at ${disk.workingCopy}, ${serving.release.revision} serves`);
  return found;
}

/** Where nginx sends requests, or will when it is started. */
function namedPorts(world: World): readonly number[] {
  return world.nginx.mood === 'is down' ? portsIn(world.nginx.file ?? '') : world.loaded;
}

function whoServes(world: World): string {
  return namedPorts(world).map(port => world.processes.find(one => one.alive && one.port === port)?.identity.pid ?? 'nobody').join();
}

function portsByHand(world: World): number[] {
  return world.processes.filter(({id}) => id === null).map(({port}) => port);
}

function assertNone(found: readonly string[]): void {
  assert.equal(found.length, 0, `${found.length} checks fail, the first of them:\n${found.slice(0, 8).join('\n')}`);
}
