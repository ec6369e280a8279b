import assert from 'node:assert/strict';
import {mkdirSync, readdirSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {test, type TestContext} from 'node:test';
import {setTimeout as pause} from 'node:timers/promises';
import type {CommandEnd, RunningCommand} from '../support/osyw.ts';
import {makeSite, present, type Behaviour, type Settings, type Site, type SiteOptions} from '../support/site.ts';
import {cliWithBarriers, raiseBarrier, type Barrier} from './barrier.ts';
import {observe, type Observer} from './observer.ts';
import {reboot, whyNoReboot} from './reboot.ts';
import {recordRun} from './report.ts';
import {postSentinels} from './sentinels.ts';

// A deploy is stopped before or after each of its effects in turn, something happens to it there, and the site must come through.
// OSYW_FAULTS=full meets every point with every fault, short (the default) a part of them; OSYW_FAULTS_ONLY runs those whose name fits.
const FULL = process.env['OSYW_FAULTS'] === 'full';
const ONLY = new RegExp(process.env['OSYW_FAULTS_ONLY'] ?? '');
/** In the short size SIGKILL meets every so manieth point, each other fault so many points in all. */
const SHORT = {killEvery: 3, points: 4};
const LANES = 2;
const STOPPED_MS = 5000;
const ENDS_WITHIN_MS = 30_000;

interface Configuration {
  readonly name: string;
  readonly options: SiteOptions;
  /** A request lies in the spool when the deploy begins. */
  readonly filed: boolean;
}

const CONFIGURATIONS = (['snapshot', 'in_place'] as const).flatMap(tree => (['git', 'svn'] as const).flatMap(vcs => [false, true].map((daemon): Configuration => ({
  name: `${tree} ${vcs} ${daemon ? 'daemons' : 'foreground'}`,
  options: {tree, vcs, daemon, config: {bake: {for: vcs === 'git' ? '200ms' : '0s'}}},
  filed: daemon === (tree === 'snapshot'),
}))));

/** Whether a tree is made anew or from a retired one depends on what was deployed before: such a point is not met where the deploy does not pass it. */
const NOT_ALWAYS = /\.(exportTo|changedPaths)\./;

/** How the deploy goes that is met by the fault. */
interface Story {
  readonly name: string;
  readonly exit: number;
  readonly behaviour: (site: Site) => Behaviour;
  readonly settings: Settings;
}

const GOOD: Story = {name: 'a deploy', exit: 0, behaviour: () => ({}), settings: {}};
const STORIES: readonly Story[] = [
  GOOD,
  {name: 'a deploy that fails', exit: 8, behaviour: () => ({health_status: 500}), settings: {check: {deadline: '1s'}}},
  {name: 'a deploy that is rolled back', exit: 11, behaviour: site => ({unhealthy_when_named: site.nginx.upstreamFile}), settings: {}},
];

interface Point {
  readonly name: string;
  readonly story: Story;
  readonly phase: string;
  /** In which configurations it is passed. */
  readonly where: readonly Configuration[];
}

/** A deploy that stands at its point, and everything that a fault needs. */
interface Standing {
  readonly t: TestContext;
  readonly site: Site;
  readonly point: Point;
  /** Which effects are behind it. */
  readonly past: (effect: string) => boolean;
  readonly barrier: Barrier;
  readonly command: RunningCommand;
  /** The versions of before and of this deploy. */
  readonly old: string;
  readonly fresh: string;
  readonly observer: Observer | undefined;
  readonly filed: boolean;
}

interface Fault {
  readonly name: string;
  readonly skip?: string | undefined;
  readonly failsRequests?: boolean;
  readonly meet: (at: Standing) => Promise<void>;
}

const FAULTS: readonly Fault[] = [
  {
    name: 'SIGKILL',
    meet: async at => {
      await kill(at.command);
      await recovers(at);
    },
  },
  {
    name: "SIGKILL and a stranger's reload",
    meet: async at => {
      await kill(at.command);
      await at.site.nginx.reload();
      await recovers(at);
    },
  },
  {
    name: 'SIGTERM',
    meet: async at => {
      const {command, point, past} = at;
      command.child.kill('SIGTERM');
      const began = performance.now();
      const end = await goesOn(at);
      assert.ok(performance.now() - began < ENDS_WITHIN_MS, `it took ${performance.now() - began} ms to end`);
      // What the other stories have of their own comes after the failure that decides how they end.
      const allowed = point.story !== GOOD || past('journal.switched') ? [point.story.exit] : past('health.waitUntilHealthy') ? [0, 13] : [13];
      await endsWith(end, allowed, at);
    },
  },
  {
    name: 'SIGSTOP for 5 s',
    meet: async at => {
      at.command.child.kill('SIGSTOP');
      await pause(STOPPED_MS);
      at.command.child.kill('SIGCONT');
      await endsWith(await goesOn(at), [at.point.story.exit], at);
    },
  },
  {
    name: "a stranger's reload",
    meet: async at => {
      await at.site.nginx.reload();
      await endsWith(await goesOn(at), [at.point.story.exit], at);
    },
  },
  {
    name: 'a second deploy',
    meet: async at => {
      const second = await at.site.now(['--force']);
      const locked = !at.past('records.takeDrain');
      assert.ok(second.exit === 4 || !locked && second.exit === at.point.story.exit, `the second ended with ${second.exit}: ${second.stdout}${second.stderr}`);
      await endsWith(await goesOn(at), [at.point.story.exit], at);
    },
  },
  {
    name: 'reboot',
    skip: whyNoReboot(),
    failsRequests: true,
    meet: async ({t, site, command, old, fresh}) => {
      const sentinels = await postSentinels(t);
      await kill(command);
      await reboot(site);
      site.forget();
      const start = await site.run(['start', '--json']);
      assert.equal(start.exit, 0, `start ended with ${start.exit}: ${start.stdout}${start.stderr}`);
      await site.settled();
      const version = await site.version();
      assert.ok([old, fresh].includes(version), `a release serves that nobody asked for: ${version}`);
      const observer = await observe(t, site);
      await observer.recovers({version});
      sentinels.unharmed();
    },
  },
];

async function kill(command: RunningCommand): Promise<void> {
  command.child.kill('SIGKILL');
  const end = await command.ended;
  assert.equal(end.signal, 'SIGKILL', end.stdout + end.stderr);
}

/** From wherever it was killed it comes to the old or the new release, and loses neither a request of a visitor nor one of a hook. */
async function recovers({site, point, past, observer, old, fresh, filed}: Pick<Standing, 'site' | 'point' | 'past' | 'observer' | 'old' | 'fresh' | 'filed'>): Promise<void> {
  site.forget();
  await observer?.settles();
  const version = await site.version();
  const may = point.story !== GOOD ? [old] : past('journal.switched') ? [fresh] : past('journal.switching') ? [old, fresh] : [old];
  assert.ok(may.includes(version), `${version} serves, it should be ${may.join(' or ')}`);
  if (filed && version === old && point.story === GOOD) assert.ok(spooled(site) > 0, 'the request that nobody answered is filed again');
  await observer?.goesOn({version});
  assert.equal(spooled(site), 0, 'the request is answered');
}

function goesOn({barrier, command}: Standing): Promise<CommandEnd> {
  barrier.open();
  return command.ended;
}

async function endsWith(end: CommandEnd, exits: readonly number[], {site, observer, old, fresh}: Standing): Promise<void> {
  assert.ok(end.exit !== null && exits.includes(end.exit), `now ended with ${end.exit ?? end.signal}, it should be ${exits.join(' or ')}: ${end.stdout}${end.stderr}`);
  site.forget();
  await observer?.goesOn({version: end.exit === 0 ? fresh : old});
}

function spooled(site: Site): number {
  const spool = join(site.stateDir, 'spool');
  mkdirSync(spool, {recursive: true});
  return readdirSync(spool).filter(name => !name.startsWith('.')).length;
}

/** A deploy of a fresh version that stands at the point; the version that served before. */
async function standAt(t: TestContext, site: Site, point: Point, {filed}: Configuration, watched: boolean): Promise<Standing | undefined> {
  const old = await site.version();
  const fresh = `${point.story.exit} ${Date.now()}`;
  const observer = watched ? await observe(t, site) : undefined;
  const barrier = await begin(site, point.story, fresh, point.name, filed);
  const reached = await barrier.reached(barrier.command);
  if (!reached && NOT_ALWAYS.test(point.name)) {
    site.forget();
    await observer?.goesOn();
    return undefined;
  }
  assert.ok(reached, `the deploy did not come to ${point.name}: ${barrier.command.stdout()}${barrier.command.stderr()}`);
  const passed = new Set(barrier.passed().filter(name => name !== point.name));
  return {t, site, point, past: effect => passed.has(`${effect}.after`), barrier, command: barrier.command, old, fresh, observer, filed};
}

async function begin(site: Site, story: Story, version: string, point: string | undefined, filed: boolean): Promise<Barrier & {command: RunningCommand}> {
  await site.release(version, story.behaviour(site));
  site.configure(story.settings);
  if (filed) {
    const spool = join(site.stateDir, 'spool');
    mkdirSync(spool, {recursive: true});
    writeFileSync(join(spool, `${Date.now()}.json`), '{"version":1,"app":"site"}', {mode: 0o600});
  }
  const barrier = raiseBarrier(site.dir, point);
  return {...barrier, command: site.start(['now', '--json'], barrier.options)};
}

// --- which points there are, and what is run

/** Sites by configuration: deployed, in use by one run at a time, and replaced when a run failed. */
class Sites {
  private readonly made = new Map<Configuration, Promise<Site>>();
  private readonly t: TestContext;
  constructor(t: TestContext) {
    this.t = t;
  }

  of(configuration: Configuration): Promise<Site> {
    const made = this.made.get(configuration) ?? this.make(configuration);
    this.made.set(configuration, made);
    return made;
  }

  discard(configuration: Configuration): void {
    this.made.delete(configuration);
  }

  private async make({options}: Configuration): Promise<Site> {
    const site = await makeSite(this.t, options);
    await site.deployed();
    return site;
  }
}

/** The points that each story passes, from a run of it in which nothing happens. */
async function findPoints(sites: Sites): Promise<Point[]> {
  const found = new Map<string, {name: string; story: Story; phase: string; where: Configuration[]}>();
  await inLanes(CONFIGURATIONS, async configuration => {
    const site = await sites.of(configuration);
    // What a failed deploy does is the same for all but the tree.
    for (const story of FULL || ['snapshot git foreground', 'in_place svn daemons'].includes(configuration.name) ? STORIES : [GOOD]) {
      const {command, passed} = await begin(site, story, `dry ${Date.now()}`, undefined, configuration.filed);
      const end = await command.ended;
      site.forget();
      assert.equal(end.exit, story.exit, `${story.name}, ${configuration.name}: ${end.stdout}${end.stderr}`);
      let phase = 'update';
      const names = passed();
      for (const name of names) {
        phase = phaseFrom(name) ?? phase;
        const key = `${story.exit} ${name}`;
        const point = found.get(key) ?? {name, story, phase, where: []};
        point.where.push(configuration);
        found.set(key, point);
      }
    }
  });
  const points: Point[] = [...found.values()];
  const good = new Set(points.filter(({story}) => story === GOOD).map(({name}) => name));
  // What the other stories have in common with the good one was met there.
  return points.filter(({story, name}) => story === GOOD || !good.has(name));
}

function phaseFrom(point: string): string | undefined {
  const began = /^journal\.(\w+) began/.exec(point)?.[1];
  if (began !== undefined) return began;
  return {
    'journal.aborting.before': 'abort', 'journal.rolling_back.before': 'rollback', 'records.writeDrain.before': 'record', 'upstream.waitDrained.before': 'drain',
    'drain.finish.before': 'record', 'releases.prune.before': 'record',
  }[point];
}

interface Run {
  readonly configuration: Configuration;
  readonly name: string;
  readonly fault: string;
  readonly phase: string;
  readonly point: string;
  readonly skip: string | undefined;
  readonly body: (t: TestContext, site: Site) => Promise<'held' | 'not passed'>;
}

function planRuns(points: readonly Point[]): Run[] {
  return FAULTS.flatMap((fault, f) => met(points, f).map(({point, i}): Run => {
    // The configurations take turns, and begin with another one for each fault.
    const configuration = present(point.where[(i + f) % point.where.length], 'configuration');
    return {
      configuration, fault: fault.name, phase: point.phase, point: point.name, skip: fault.skip,
      name: `${fault.name} at ${point.name} of ${point.story.name} (${configuration.name})`,
      body: async (t, site) => {
        const at = await standAt(t, site, point, configuration, fault.failsRequests !== true);
        if (at === undefined) return 'not passed';
        await fault.meet(at);
        return 'held';
      },
    };
  }));
}

function met(points: readonly Point[], fault: number): {point: Point; i: number}[] {
  const all = points.map((point, i) => ({point, i}));
  if (FULL) return all;
  if (fault === 0) return all.filter(({i}) => i % SHORT.killEvery === 0);
  const step = points.length / SHORT.points;
  return Array.from({length: SHORT.points}, (_, n) => present(all[Math.floor((n + fault / FAULTS.length) * step)], 'point'));
}

/** From where a recovery is begun that is killed itself: each way that one can take. */
const RECOVERED_FROM = [
  'journal.starting.after', 'health.waitUntilHealthy.before', 'upstream.intend.after', 'upstream.reloading.after', 'upstream.switchTo.after', 'journal.switched.after',
  'records.save.after', 'records.takeDrain.after', 'workers.stop.before', 'workers.stop.after', 'upstream.restore.before', 'journal.rolled_back.after',
];

/** Three recoveries in a row are killed, each one effect later than the one before it; then the next three, until none is left. */
function planRecoveries(points: readonly Point[]): Run[] {
  return RECOVERED_FROM.flatMap((name, i) => {
    const point = points.findLast(one => one.name === name);
    if (point === undefined) throw new Error(`no deploy passes ${name}`);
    const configuration = present(point.where[i % point.where.length], 'configuration');
    const series = FULL ? Array.from({length: 12}, (_, n) => 1 + 3 * n) : [[2], [5], [8]][i % 3] ?? [];
    const over = {is: false};
    return series.map((first): Run => ({
      configuration, fault: 'SIGKILL in recover, three times', phase: 'recover', point: name, skip: undefined,
      name: `SIGKILL in recover at its points ${first} to ${first + 2}, after SIGKILL at ${name} of ${point.story.name} (${configuration.name})`,
      body: async (t, site) => {
        if (over.is) return 'not passed';
        const at = present(await standAt(t, site, point, configuration, true), 'deploy at its point');
        await kill(at.command);
        for (let passage = first; passage < first + 3; passage++) {
          const barrier = raiseBarrier(site.dir, `@${passage}`);
          const command = site.start(['recover', '--json'], barrier.options);
          if (await barrier.reached(command)) {
            await kill(command);
            continue;
          }
          const end = await command.ended;
          assert.equal(end.exit, 0, end.stdout + end.stderr);
          over.is = passage === first;
          break;
        }
        await recovers(at);
        return 'held';
      },
    }));
  });
}

async function inLanes<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const left = [...items];
  await Promise.all(Array.from({length: LANES}, async () => {
    for (let item = left.shift(); item !== undefined; item = left.shift()) await work(item);
  }));
}

test('whatever happens at any point of a deploy, no request fails and recover settles it', {concurrency: LANES, timeout: FULL ? 7_200_000 : 900_000}, async t => {
  cliWithBarriers();
  const sites = new Sites(t);
  const points = await findPoints(sites);
  const runs = [...planRuns(points), ...planRecoveries(points)].filter(({name}) => ONLY.test(name));
  console.log(`${points.length} points, ${runs.length} runs`);
  await inLanes(CONFIGURATIONS, async configuration => {
    for (const {name, fault, phase, point, skip, body} of runs.filter(run => run.configuration === configuration)) {
      await t.test(name, {skip: skip ?? false, timeout: 120_000}, async run => {
        const site = await sites.of(configuration);
        let end: 'held' | 'not passed' | 'failed' = 'failed';
        try {
          end = await body(run, site);
          if (end === 'not passed') run.skip('the point is not passed here');
        } finally {
          if (end === 'failed') sites.discard(configuration);
          if (end !== 'not passed') recordRun({suite: 'barriers', fault, phase, held: end === 'held', point, configuration: configuration.name});
        }
      });
    }
  });
});
