import assert from 'node:assert/strict';
import {readFileSync} from 'node:fs';
import {dirname, join} from 'node:path';
import {test, type TestContext} from 'node:test';
import type {CommandEnd} from '../support/osyw.ts';
import {type Behaviour, makeSite, type Site} from '../support/site.ts';
import {observe, type Observer} from './observer.ts';
import {recordRun} from './report.ts';
import {type Call, injecting, readCalls, tracing} from './tracing.ts';

// OSYW_FAULTS=full: every call. Else a few of each, spread over the deploy, the last one always among them.
const FULL = process.env['OSYW_FAULTS'] === 'full';
/** Only plans that have this in their title, for a developer. */
const ONLY = process.env['OSYW_FAULTS_ONLY'] ?? '';

interface Plan {
  /** Of the release that meets it. */
  readonly behaviour?: Behaviour;
  /** Instead of `on`: the only path that counts. */
  readonly path?: (site: Site) => string;
  readonly fault: string;
  readonly call: string;
  /**
   * `ours`: calls on the deployer's own files, by path. `log`: on its log. `all`: whatever the call is made on; so for calls that are
   * made on nothing but the deployer's files, and this way those count whose names nobody knows before, as a drain's.
   */
  readonly on: 'ours' | 'log' | 'all';
  /** How many runs the short size makes; the last call is among them, but where their number varies from run to run. */
  readonly short: number;
  /** The first call that is met; 1 unless told. */
  readonly from?: number;
  /** Every how manieth call the full size meets; 1 unless told. */
  readonly step?: number;
  /** The fault stays until the deploy has ended. In the short size it begins well before that end. */
  readonly lasting?: boolean;
}

const PLANS: readonly Plan[] = [
  ...([
    ['rename', 4], ['fsync', 3], ['fdatasync', 6], ['unlink', 2], ['mkdir', 2], ['link', 1], ['symlink', 1],
    ['rmdir', 0], ['fchmod', 0], ['ftruncate', 1], ['kill', 2],
  ] as const).map(([call, short]): Plan => ({fault: 'SIGKILL', call, on: 'all', short})),
  {fault: 'SIGKILL', call: 'openat', on: 'ours', short: 2},
  {fault: 'SIGKILL', call: 'write', on: 'ours', short: 3},
  {fault: 'SIGKILL', call: 'write', on: 'log', short: 0},
  {fault: 'SIGKILL', call: 'openat', on: 'all', short: 1, step: 60},

  ...([['rename', 2], ['fsync', 1], ['fdatasync', 2], ['mkdir', 1], ['link', 0], ['symlink', 1]] as const)
    .map(([call, short]): Plan => ({fault: 'ENOSPC', call, on: 'all', short})),
  {fault: 'ENOSPC', call: 'fdatasync', on: 'all', short: 1, step: 2, lasting: true},
  {fault: 'ENOSPC', call: 'openat', on: 'ours', short: 1},
  {fault: 'ENOSPC', call: 'write', on: 'ours', short: 3},
  {fault: 'ENOSPC', call: 'write', on: 'ours', short: 2, step: 3, lasting: true},
  {fault: 'ENOSPC', call: 'write', on: 'log', short: 1},

  ...([['rename', 1], ['fsync', 2], ['fdatasync', 3], ['unlink', 1], ['mkdir', 0], ['link', 1], ['symlink', 0], ['rmdir', 1], ['fchmod', 0], ['ftruncate', 1]] as const)
    .map(([call, short]): Plan => ({fault: 'EIO', call, on: 'all', short})),
  {fault: 'EIO', call: 'fsync', on: 'all', short: 1, step: 2, lasting: true},
  {fault: 'EIO', call: 'rename', on: 'all', short: 1, step: 2, lasting: true},
  {fault: 'EIO', call: 'openat', on: 'ours', short: 1},
  {fault: 'EIO', call: 'write', on: 'ours', short: 1},
  {fault: 'EIO', call: 'write', on: 'log', short: 0},

  {fault: 'EMFILE', call: 'openat', on: 'ours', short: 3},
  {fault: 'EMFILE', call: 'openat', on: 'ours', short: 1, step: 3, lasting: true},
  {fault: 'EMFILE', call: 'openat', on: 'all', short: 2, step: 30},
  {fault: 'EMFILE', call: 'openat', on: 'log', short: 0},
  {fault: 'EMFILE', call: 'socketpair', on: 'all', short: 1},
  // Without the first three Node itself does not start.
  {fault: 'EMFILE', call: 'pipe2', on: 'all', short: 1, from: 4},
  {fault: 'EMFILE', call: 'socket', on: 'all', short: 1},
];

function titleOf({fault, call, on, lasting = false}: Plan): string {
  return `${lasting ? 'lasting ' : ''}${fault} at ${call} on ${on}`;
}

/** Exit codes that say "the new release serves" and "the old one does". Source: the contract. */
const NEW_SERVES = [0, 10];
const OLD_SERVES = [2, 3, 4, 5, 6, 7, 8, 9, 11, 13];
const UNCERTAIN = 12;

interface Bench {
  readonly site: Site;
  readonly observer: Observer;
  version: number;
}

async function setUp(t: TestContext): Promise<Bench> {
  // Each deploy has a shared path to link, an old release to retire, and a retired one to be made of.
  const site = await makeSite(t, {
    config: {release: {shared: ['data'], keep: 2}, check: {deadline: '8s'}},
    files: {'data/initial': 'x\n'},
  });
  const bench = {site, version: 0};
  for (let i = 0; i < 3; i++) await deployNext(bench);
  return {...bench, observer: await observe(t, site, {traffic: {everyMs: 50, slowMs: 200, uploadBytes: 50_000}})};
}

async function deployNext(bench: Pick<Bench, 'site'> & {version: number}): Promise<void> {
  await bench.site.release(String(++bench.version));
  await bench.site.deployed();
}

/** By name, what the next deploy has open or names: all but the drain, whose name is not known before. */
function ownPaths({stateDir, nginx}: Site): string[] {
  const state = (...names: string[]) => join(stateDir, ...names);
  const {state: {nextRelease}} = JSON.parse(readFileSync(state('state.json'), 'utf8')) as {state: {nextRelease: number}};
  const id = String(nextRelease).padStart(6, '0');
  return [
    stateDir, state('journal.ndjson'), state('.journal.ndjson.new'), state('state.json'), state('.state.json.new'), state('state.json.prev'), state('history.ndjson'),
    state('lock'), state('drains'), state('rehearsal.conf'), state('git', 'osyw-checked'),
    state('releases'), state('releases', id), state('spare'), state('spare', 'manifest'), state('spare', 'tree'), state('spare', 'work'), state('spare', 'work', 'data'), state('shared'),
    state('manifests'), ...[`${id}.json`, `.${id}.json.new`, `${id}.tree`, `${id}.tree.new`, `${id}.building`].map(name => state('manifests', name)),
    nginx.upstreamFile, dirname(nginx.upstreamFile), join(dirname(nginx.upstreamFile), '.myweb.conf.osyw-new'),
  ];
}

function pathsOf(site: Site, {on, path}: Pick<Plan, 'on' | 'path'>): string[] {
  if (path !== undefined) return [path(site)];
  return on === 'all' ? [] : on === 'log' ? [join(site.stateDir, 'log', 'osyw-deploy.log')] : ownPaths(site);
}

/** Which calls of a deploy that meets no fault a plan can meet: from the first one on the state, for before it there is only Node itself. */
function range(calls: readonly Call[], {call, on, from = 1}: Plan, site: Site, paths: readonly string[]): {first: number; last: number} {
  const firstOnState = calls.findIndex(({text}) => text.includes(site.stateDir));
  const named = (text: string) => paths.some(path => text.includes(`"${path}"`) || text.includes(`<${path}>`));
  const met = calls.flatMap(({name, main, text}, i) => main && name === call && (on === 'all' || named(text)) ? [i] : []);
  return {first: Math.max(from, met.filter(i => i < firstOnState).length + 1), last: met.length};
}

function spread(first: number, last: number, many: number): number[] {
  if (last < first || many === 0) return [];
  const step = (last - first) / many;
  return [...new Set(Array.from({length: many}, (_, i) => Math.round(last - i * step)))].reverse();
}

/** The phase that a call was made in, by the journal: it begins in `update` and is closed before the drain. */
function phaseOf(calls: readonly Call[]): string {
  const at = calls.findIndex(({injected, returned}) => injected || returned === undefined);
  const written = (at === -1 ? calls : calls.slice(0, at)).filter(({name}) => name === 'write').map(({text}) => text.replaceAll('\\"', '"'));
  const phases = written.flatMap(text => /"type":"closed"/.test(text) ? ['drain'] : /"type":"phase","phase":"(\w+)"/.exec(text)?.[1] ?? /"event":"phase","phase":"(\w+)","state":"began"/.exec(text)?.[1] ?? []);
  return phases.at(-1) ?? 'lock';
}

async function faulted({site}: Bench, plan: Plan, at: number): Promise<{end: CommandEnd; calls: Call[]; hit: boolean}> {
  const record = join(site.dir, 'now.trace');
  const end = await site.now([], {wrap: injecting(record, {...plan, at, paths: pathsOf(site, plan)})});
  const calls = readCalls(record);
  return {end, calls, hit: plan.fault === 'SIGKILL' ? end.signal === 'SIGKILL' : calls.some(({injected}) => injected)};
}

/** One deploy that meets a fault, and what has to hold after it. False when it met none. */
async function meet(bench: Bench, plan: Plan, at: number): Promise<boolean> {
  const {site, observer} = bench;
  const old = await site.version();
  await site.release(String(++bench.version), plan.behaviour);
  const {end, calls, hit} = await faulted(bench, plan, at);
  const met = calls.find(({injected, returned}) => injected || returned === undefined)?.text.slice(0, 240) ?? '';
  let held = false;
  try {
    const serves = await site.version();
    if (plan.fault !== 'SIGKILL') {
      assert.equal(end.signal, null, 'it ends by itself');
      assert.ok([...NEW_SERVES, ...OLD_SERVES, UNCERTAIN].includes(end.exit ?? -1), `exit ${end.exit} is not of the contract`);
      assert.equal(end.result?.exit, end.exit, 'its last line is the result');
      if (NEW_SERVES.includes(end.exit ?? -1)) assert.equal(serves, String(bench.version), `exit ${end.exit}: the new release serves`);
      if (OLD_SERVES.includes(end.exit ?? -1)) assert.equal(serves, old, `exit ${end.exit}: the old release serves`);
    } else if (!hit) {
      assert.equal(end.exit, 0, 'no fault, no failure');
    }
    observer.nobodyHarmed();
    await observer.settles(plan.fault === 'SIGKILL' || end.exit === UNCERTAIN ? {} : {version: serves});
    assert.ok([old, String(bench.version)].includes(await site.version()), 'the old or the new release serves');
    await site.deployed();
    await site.settled({version: String(bench.version)});
    observer.nobodyHarmed();
    held = true;
  } catch (cause) {
    throw new Error(`${titleOf(plan)}, number ${at} (exit ${end.exit}, signal ${end.signal}), met:\n  ${met}\n${end.stdout}\n${end.stderr}`, {cause});
  } finally {
    if (hit) recordRun({suite: 'system calls', fault: plan.fault, phase: phaseOf(calls), held, call: plan.call, on: plan.on, at, lasting: plan.lasting === true, met, exit: end.exit ?? -1});
  }
  return hit;
}

for (const fault of ['SIGKILL', 'ENOSPC', 'EIO', 'EMFILE']) {
  const plans = PLANS.filter(plan => plan.fault === fault && titleOf(plan).includes(ONLY) && (FULL || plan.short > 0));
  test(`${fault} at system calls of a deploy: the old or the new release serves, no request fails, recover settles it once`, {skip: plans.length === 0}, async t => {
    const failures: unknown[] = [];
    const runs: string[] = [];
    let bench = await setUp(t);
    const record = join(bench.site.dir, 'count.trace');
    const paths = new Map((['ours', 'log', 'all'] as const).map(on => [on, pathsOf(bench.site, {on})]));
    await bench.site.release(String(++bench.version));
    const counted = await bench.site.now([], {wrap: tracing(record, [...new Set([...plans.map(({call}) => call), 'openat', 'mkdir'])])});
    assert.equal(counted.exit, 0, counted.stdout + counted.stderr);
    const calls = readCalls(record);
    for (const plan of plans) {
      const {first, last} = range(calls, plan, bench.site, paths.get(plan.on) ?? []);
      // The full size ends with the first run that meets nothing; as calls come and go from run to run, it looks a little further.
      const points = FULL ? Array.from({length: Math.ceil(2 * (last + 5) / (plan.step ?? 1))}, (_, i) => first + i * (plan.step ?? 1)) : spread(first, plan.step === undefined ? last : Math.round(0.7 * last), plan.short);
      let hits = 0;
      for (const at of points) {
        try {
          const hit = await meet(bench, plan, at);
          if (hit) hits++;
          else if (FULL && at > last) break;
        } catch (error) {
          hits++;
          failures.push(error);
          t.diagnostic(`${String(error).slice(0, 1500)}\n${String((error as Error).cause).slice(0, 500)}`);
          await bench.observer.traffic.stop();
          bench = await setUp(t);
        }
      }
      runs.push(`${titleOf(plan)} ${hits} of ${last - first + 1}`);
    }
    await bench.observer.holds();
    t.diagnostic(`runs: ${runs.join(', ')}`);
    if (failures.length > 0) throw new AggregateError(failures, `${failures.length} runs did not hold`);
  });
}

interface Known extends Plan {
  readonly at: number;
  readonly what: string;
}

/** Where a fault did harm once. */
const KNOWN: readonly Known[] = [
  {what: 'the note in the lock cannot be taken back', fault: 'EIO', call: 'ftruncate', on: 'ours', path: site => join(site.stateDir, 'lock'), at: 2, short: 1},
  {what: 'what was rehearsed cannot be removed', fault: 'EIO', call: 'unlink', on: 'ours', path: site => join(site.stateDir, 'rehearsal.conf'), behaviour: {boot_ms: 600}, at: 1, short: 1},
  {what: 'nginx cannot be looked at while it reloads', fault: 'EMFILE', call: 'openat', on: 'all', path: site => `/proc/${site.nginx.masterPid()}/status`, at: 1, short: 1},
  {what: 'nginx cannot be looked at any more since it reloads', fault: 'EMFILE', call: 'openat', on: 'all', path: site => `/proc/${site.nginx.masterPid()}/status`, at: 1, short: 1, lasting: true},
  {what: 'no program can be started to lock', fault: 'EMFILE', call: 'socketpair', on: 'all', at: 1, short: 1},
  ...[2, 4, 6].map((at): Known => ({what: `git cannot be started, ${at}`, fault: 'EMFILE', call: 'socketpair', on: 'all', at, short: 1})),
];

for (const known of KNOWN) {
  test(`${known.fault}: ${known.what}`, {skip: !`known ${known.what}`.includes(ONLY)}, async t => {
    const bench = await setUp(t);
    assert.ok(await meet(bench, known, known.at), 'the fault was met');
    await bench.observer.holds();
  });
}
