import assert from 'node:assert/strict';
import {existsSync, readFileSync, readdirSync, truncateSync} from 'node:fs';
import {join} from 'node:path';
import type {TestContext} from 'node:test';
import {setTimeout as pause} from 'node:timers/promises';
import type {CommandEnd, RunningCommand} from '../support/osyw.ts';
import {ask, get} from '../support/raw-http.ts';
import {type Behaviour, makeSite, type Site} from '../support/site.ts';
import {LANES, type Failure, type Traffic} from '../support/traffic.ts';
import {waitUntil} from '../support/wait-until.ts';
import {followEvents} from './event-streams.ts';
import {fingerprint} from './observer.ts';
import {recordRun} from './report.ts';
import {postSentinels, type Sentinels} from './sentinels.ts';
import {LONG_BAKE, type FaultKind, type PlannedFault, planSite, planStep, type Step, type VersionKind} from './soak-plan.ts';

export interface SoakOptions {
  readonly seed: number;
  readonly deploys: number;
  say(line: string): void;
}

export interface SoakReport {
  readonly seed: number;
  readonly deploys: number;
  readonly seconds: number;
  readonly medianMs: number;
  /** By kind; `late` ones came when the command had ended, or found nobody to strike. */
  readonly faults: ReadonlyMap<string, {readonly met: number; readonly late: number; readonly phases: ReadonlyMap<string, number>}>;
  readonly outcomes: ReadonlyMap<string, number>;
  readonly lanes: ReadonlyMap<string, number>;
  /** Each cause with how often; those that our own kill of a worker explains, and nginx's own race on kept connections, say so. */
  readonly causes: ReadonlyMap<string, number>;
  readonly recoveries: {readonly count: number; readonly longestMs: number};
  readonly wholeChecks: number;
}

/** What did not hold, with all that is needed to see it again. */
export class SoakFailure extends Error {
  override readonly name = 'SoakFailure';
}

const CALIBRATING = 3;
const RECENT = 7;
const BETWEEN_WHOLE_CHECKS = 10;
const TOLD = 12;
const MOST_KEPT_RELEASES = 5;
/** nginx tells a client at once that the worker which had its request is dead; a request that began a moment later met another one. */
const KILL_SLACK_MS = 250;

/**
 * Deploys again and again under a load, while faults of many kinds come at random times; see `planStep` for what is chosen.
 * Three roles: the workload (`startTraffic`, `followEvents`), the injector (`inject`), the checker (`look`, `examine`).
 * Errors: SoakFailure, when anything that must hold does not.
 */
export async function soak(test: TestContext, options: SoakOptions): Promise<SoakReport> {
  const {seed, deploys, say} = options;
  const began = performance.now();
  const siteOptions = planSite(seed);
  const site = await makeSite(test, siteOptions);
  const {vcs, tree, daemon} = siteOptions;
  say(`soak: seed ${seed}, ${deploys} deploys; ${vcs}, tree ${tree}, ${daemon === true ? 'daemons' : 'plain processes'}`);
  const soaking = new Soaking(test, site, options);
  let interrupted = false;
  const work = (async () => {
    try {
      await soaking.calibrate();
      for (let number = 1; number <= deploys && !interrupted; number++) {
        await soaking.step(planStep(seed, number));
        if (!interrupted && (number % BETWEEN_WHOLE_CHECKS === 0 || number === deploys)) await soaking.examine(number);
      }
      if (interrupted) throw new SoakFailure(`seed ${seed}: interrupted before all ${deploys} deploys were done`);
      return await soaking.end(began);
    } catch (error) {
      throw interrupted ? error : await soaking.failure(error);
    }
  })();
  // Who takes the site away in the middle waits for the step under way first: what that still begins would outlive it.
  test.after(async () => {
    interrupted = true;
    await work.catch(() => undefined);
  });
  return work;
}

class Soaking {
  private readonly site: Site;
  private readonly seed: number;
  private readonly deploys: number;
  private readonly say: (line: string) => void;
  private readonly test: TestContext;

  private sentinels: Sentinels | undefined;
  private traffic: Traffic | undefined;
  private streams: ReturnType<typeof followEvents> | undefined;
  private trafficBegan = 0;

  private readonly kinds = new Map<string, VersionKind>();
  private readonly versionOf = new Map<string, string>();
  private newest = '1';
  /** The versions one of which serves; more than one only while a killed command is not settled. */
  private possible = new Set<string>();
  /** A command was killed, and none has recovered since. */
  private unsettled = false;
  private readonly killedPids = new Set<number>();
  private readonly killedPorts = new Set<number>();
  private readonly killTimes: number[] = [];
  private seenFailures = 0;

  private readonly times: number[] = [];
  private readonly told: string[] = [];
  private readonly faults = new Map<string, {met: number; late: number; phases: Map<string, number>}>();
  private readonly outcomes = new Map<string, number>();
  private readonly causes = new Map<string, number>();
  private readonly recoveries = {count: 0, longestMs: 0};
  private wholeChecks = 0;
  private at = 0;
  private lastEnd: CommandEnd | undefined;
  /** Faults of the step under way, to be put on record when the look at it is over. */
  private struck: {fault: string; phase: string}[] = [];

  constructor(test: TestContext, site: Site, {seed, deploys, say}: SoakOptions) {
    this.test = test;
    this.site = site;
    this.seed = seed;
    this.deploys = deploys;
    this.say = say;
  }

  /** The first deploys meet no fault: they say how long one takes. */
  async calibrate(): Promise<void> {
    const {site} = this;
    this.sentinels = await postSentinels(this.test);
    this.kinds.set('1', 'good');
    await site.deployed();
    this.versionOf.set((await site.status()).serving?.revision ?? '', '1');
    this.trafficBegan = performance.now();
    this.traffic = site.traffic({countsOnly: true, everyMs: 50, slowMs: 400, lanes: {freshGet: 2, freshPost: 1, keepAliveGet: 1, keepAlivePost: 1, slow: 1, upload: 1}});
    const streams = followEvents(site.nginx.port, this.killedPids);
    this.streams = streams;
    this.test.after(() => streams.stop());
    for (let n = 0; n < CALIBRATING; n++) {
      const version = await this.commit('good', {});
      const {ms} = await site.deployed();
      this.times.push(ms);
      this.possible = new Set([version]);
    }
    this.say(`soak: a deploy without a fault takes ${Math.round(this.median())} ms (median of ${CALIBRATING})`);
  }

  async step(step: Step): Promise<void> {
    const {site} = this;
    this.at = step.number;
    this.struck = [];
    if (step.version !== undefined) await this.commit(step.version.kind, step.version.behaviour);
    // What goes bad after the switch must do so while it bakes, also where a recovery takes it up.
    const bake = this.kinds.get(this.newest) === 'fades' || this.unsettled ? {bake: {for: LONG_BAKE}} : {};
    site.configure({...step.settings, ...bake});
    const before = new Set(this.possible);
    const settledBefore = !this.unsettled;
    const upstream = site.nginx.upstreamPorts().join();
    const old = new Set(site.processes().map(({pid}) => pid));

    const command = site.start([...step.command, '--json']);
    const beside: Promise<CommandEnd>[] = [];
    const injected = step.faults.map(fault => this.inject(fault, command, {upstream, old, beside}));
    const end = await command.ended;
    await Promise.all(injected);
    const others = await Promise.all(beside);
    this.lastEnd = end;
    const deed = [`#${step.number} ${step.command.join(' ')}`, step.version === undefined ? `(newest ${this.newest}, ${this.kinds.get(this.newest)})` : `version ${this.newest} (${step.version.kind} ${JSON.stringify(step.version.behaviour)})`,
      JSON.stringify({...step.settings, ...bake}), ...this.struck.map(({fault, phase}) => `${fault} in ${phase}`), `→ ${told(end)}`, ...others.map(other => `beside it → ${told(other)}`)];
    this.remember(deed.join(' · '));

    const targets = this.targets(step);
    for (const one of [end, ...others]) this.judge(one, step, one === end ? step.command[0] ?? '' : 'now', targets, others.length > 0);
    const struck = new Set(this.struck.map(({fault}) => fault));
    const untouched = struck.size === 0 && settledBefore;
    if (others.length > 0 || end.exit === null) {
      this.possible = new Set([...before, ...targets, ...(others.length > 0 && this.mayServe(this.newest) ? [this.newest] : [])]);
    } else if (end.exit === 0 && end.result?.revision !== null && end.result?.outcome !== 'aborted' && step.command[0] !== 'recover') {
      this.possible = new Set([this.versionOf.get(end.result?.revision ?? '') ?? `unknown revision ${end.result?.revision}`]);
    }
    this.unsettled = end.exit === null ? !others.some(({exit}) => exit !== 4) : false;
    if (untouched) this.expectUntouched(step, end);
    if (untouched && step.command.join(' ') === 'now' && end.result?.outcome === 'deployed') this.times.push(end.ms);
    await this.look();
    if (end.signal === 'SIGKILL' && step.afterKill.recover) await this.recover(step.afterKill.killedAt);
    for (const {fault, phase} of this.struck) recordRun({suite: 'soak', fault, phase, held: true, seed: this.seed, deploy: step.number});
    const phase = brokenIn(end);
    if (step.version !== undefined && step.version.kind !== 'good' && phase !== undefined) {
      this.count(`a version that ${step.version.kind}`, phase);
      recordRun({suite: 'soak', fault: `a version that ${step.version.kind}`, phase, held: true, seed: this.seed, deploy: step.number});
    }
  }

  /** Puts a fault into effect at its time; what comes too late, or finds nobody, strikes nothing. */
  private async inject(fault: PlannedFault, command: RunningCommand, {upstream, old, beside}: {upstream: string; old: ReadonlySet<number>; beside: Promise<CommandEnd>[]}): Promise<void> {
    const {site} = this;
    let over = false;
    void command.ended.finally(() => (over = true));
    await pause(fault.at * this.median());
    const phase = over ? undefined : phaseOf(command);
    switch (fault.kind) {
      case 'SIGKILL': case 'SIGTERM': case 'SIGINT':
        if (phase === undefined || !command.child.kill(fault.kind)) return this.late(fault.kind);
        return this.strike(fault.kind, phase);
      case 'SIGSTOP':
        if (phase === undefined || !command.child.kill('SIGSTOP')) return this.late(fault.kind);
        await pause(fault.lasts * this.median());
        command.child.kill('SIGCONT');
        return this.strike(fault.kind, phase);
      case "a stranger's reload":
        process.kill(site.nginx.masterPid(), 'SIGHUP');
        return this.strike(fault.kind, phase ?? 'at rest');
      case 'a second now':
        beside.push(site.now());
        return this.strike(fault.kind, phase ?? 'at rest');
      case 'kill -9 of a new worker':
        return this.killWorker(fault, phase, this.workers().filter(({pid}) => !old.has(pid)));
      case 'kill -9 of a worker after the switch': {
        await waitUntil('the switch, or the end', () => over || site.nginx.upstreamPorts().join() !== upstream, {withinMs: 60_000, everyMs: 3});
        const live = site.nginx.upstreamPorts();
        return this.killWorker(fault, over ? undefined : phaseOf(command), this.workers().filter(({pid, port}) => !old.has(pid) && live.includes(port)));
      }
    }
  }

  private killWorker({kind, which}: PlannedFault, phase: string | undefined, candidates: readonly {pid: number; port: number}[]): void {
    const one = candidates[Math.floor(which * candidates.length)];
    // Only where another one of its release is left: a site without a worker is no deploy's fault.
    if (one === undefined || candidates.length < 2) return this.late(kind);
    this.killedPids.add(one.pid);
    this.killedPorts.add(one.port);
    this.killTimes.push(performance.now() - this.trafficBegan);
    try {
      process.kill(one.pid, 'SIGKILL');
    } catch {
      return this.late(kind); // It has ended by itself meanwhile.
    }
    this.strike(kind, phase ?? 'at rest');
  }

  /** The workers' own processes, without their children. */
  private workers(): {pid: number; port: number}[] {
    return this.site.processes().flatMap(({pid, command}) => {
      const port = /\bworker\.py (\d+)$/.exec(command)?.[1];
      return port === undefined ? [] : [{pid, port: Number(port)}];
    });
  }

  /** What a command may end with. */
  private judge(end: CommandEnd, step: Step, word: string, targets: readonly string[], concurrent: boolean): void {
    this.outcomes.set(outcomeOf(end), (this.outcomes.get(outcomeOf(end)) ?? 0) + 1);
    const shown = `${word} of step ${step.number} ended with ${told(end)}\n${end.stdout}\n${end.stderr}`;
    // Node itself takes a moment before any program can catch a signal; by then nothing was begun, or told.
    assert.ok(end.exit !== null || end.signal === 'SIGKILL' || end.stdout + end.stderr === '', `a signal that can be caught is: ${shown}`);
    assert.ok(end.exit !== null || this.struck.some(({fault}) => fault === end.signal), `nobody killed it: ${shown}`);
    assert.ok(![1, 3, 5, 6, 9, 10, 12].includes(end.exit ?? 0), shown);
    assert.ok(end.exit !== 2 || word === 'rollback', shown);
    assert.ok(end.exit !== 4 || concurrent, `nobody else was at work: ${shown}`);
    assert.ok(end.exit !== 13 || this.struck.some(({fault}) => ['SIGTERM', 'SIGINT'].includes(fault)), `no signal was sent: ${shown}`);
    if (end.exit === 0 && word === 'now' && !concurrent) assert.ok(targets.includes(this.versionOf.get(end.result?.revision ?? '') ?? ''), `another version than the newest: ${shown}`);
  }

  private expectUntouched({command: [word]}: Step, end: CommandEnd): void {
    const kind = this.kinds.get(this.newest);
    const shown = `without a fault, a version that is ${kind} ended with ${told(end)}\n${end.stdout}\n${end.stderr}`;
    if (word === 'now') assert.ok(kind === 'good' ? end.exit === 0 : [7, 8, 11].includes(end.exit ?? 0), shown);
    else assert.ok(end.exit === 0 || (word === 'rollback' && end.exit === 2), shown);
  }

  /** What may serve after a command that got no further than anybody knows. */
  private targets({command: [word]}: Step): string[] {
    if (word === 'recover' || word === 'restart') return [];
    return word === 'rollback' ? [...this.kinds.keys()].filter(version => this.mayServe(version)) : [this.newest].filter(version => this.mayServe(version));
  }

  /** What cannot become healthy never serves, whatever happens. */
  private mayServe(version: string): boolean {
    return ['good', 'fades'].includes(this.kinds.get(version) ?? '');
  }

  private async recover(killedAt: readonly number[]): Promise<void> {
    for (const share of killedAt) {
      const command = this.site.start(['recover', '--json']);
      await pause(share * this.median());
      const phase = phaseOf(command);
      const killed = command.child.exitCode === null && command.child.kill('SIGKILL');
      const end = await command.ended;
      if (killed && end.exit === null) this.strike('SIGKILL of the recovery', phase === 'before update' ? 'recover' : phase);
      else this.late('SIGKILL of the recovery');
      await this.look();
    }
    const end = await this.site.run(['recover', '--json']);
    this.lastEnd = end;
    this.remember(`  recover${killedAt.length > 0 ? `, killed up to ${killedAt.length} times before` : ''} → ${told(end)}`);
    assert.equal(end.exit, 0, `recover ended with ${told(end)}\n${end.stdout}\n${end.stderr}`);
    this.recoveries.count++;
    this.recoveries.longestMs = Math.max(this.recoveries.longestMs, end.ms);
    this.unsettled = false;
    await this.look();
  }

  /** The cheap look, after every command: what nginx answers, that somebody is healthy, no request lost, no stranger touched. */
  private async look(): Promise<void> {
    const {site} = this;
    const seen = new Set<string>();
    for (let round = 0; round < 4; round++) seen.add((await get(site.nginx.port, '/')).text);
    for (const version of seen) assert.ok(this.possible.has(version), `nginx answers version ${version}; possible were ${[...this.possible].join(', ')}`);
    if (!this.unsettled) {
      assert.equal(seen.size, 1, `nginx answers more than one version: ${[...seen].join(', ')}`);
      this.possible = seen;
    }
    const ports = site.nginx.upstreamPorts();
    const healthy = (await Promise.all(ports.map(async port => {
      const answer = await ask({port, path: '/healthz'});
      return answer.kind === 'answer' && answer.status === 200 ? [port] : [];
    }))).flat();
    const fading = this.unsettled && [...this.possible].some(version => this.kinds.get(version) === 'fades');
    assert.ok(healthy.length > 0 || fading, `no worker is healthy of those that the upstream file names: ${ports.join(', ')}`);
    assert.deepEqual(ports.filter(port => !healthy.includes(port) && !this.killedPorts.has(port) && !fading), [], 'ports in the upstream file without a healthy worker, that nobody killed');
    this.lookAtRequests();
    this.sentinels?.unharmed();
  }

  private lookAtRequests(): void {
    const report = this.traffic?.report();
    const lost = report?.failures.slice(this.seenFailures) ?? [];
    this.seenFailures += lost.length;
    const ours = lost.filter(failure => this.isOurKill(failure));
    for (const {cause, lane} of ours) this.cause(`${cause} of ${lane}, in the hands of a worker that we killed`);
    const unexplained = lost.filter(failure => !ours.includes(failure));
    assert.deepEqual(unexplained, [], `requests failed; workers were killed at ${this.killTimes.slice(-3).map(Math.round).join(', ')}`);
    for (const version of report?.versions ?? []) assert.ok(this.mayServe(version), `version ${version} (${this.kinds.get(version)}) has answered a request`);
    assert.deepEqual(this.streams?.report().failures, [], 'event streams failed');
  }

  /** nginx tries another worker only for requests that it may repeat; a POST that the dead worker had is lost, and that was the injector. */
  private isOurKill({lane, cause, at, ms}: Failure): boolean {
    return ['freshPost', 'keepAlivePost', 'upload'].includes(lane) && cause === 'STATUS 502' && this.killTimes.some(time => time >= at - KILL_SLACK_MS && time <= at + ms + 5);
  }

  /** The whole look: all at rest, a second recovery changes nothing, the next deploy works, nothing is left over, nothing grows. */
  async examine(number: number): Promise<void> {
    const {site} = this;
    const first = await site.run(['recover', '--json']);
    this.lastEnd = first;
    assert.equal(first.exit, 0, `recover ended with ${told(first)}\n${first.stdout}\n${first.stderr}`);
    this.unsettled = false;
    await waitUntil('nobody to drain any more', () => readdirSync(join(site.stateDir, 'drains')).length === 0 && site.processes().every(({command}) => !command.includes('osyw-deploy.cjs')), {withinMs: 20_000});
    await this.look();
    const settled = fingerprint(site);
    const second = await site.run(['recover', '--json']);
    assert.equal(second.exit, 0, second.stdout + second.stderr);
    assert.deepEqual(fingerprint(site), settled, 'a second recover changes nothing');
    site.forget();
    const version = await this.commit('good', {});
    const end = await site.deployed();
    this.lastEnd = end;
    this.possible = new Set([version]);
    this.times.push(end.ms);
    await site.settled({version, outcome: 'deployed'});
    await this.look();
    this.lookForGrowth();
    this.killedPorts.clear();
    this.wholeChecks++;
    const faults = [...this.faults.values()].reduce((sum, {met}) => sum + met, 0);
    this.remember(`  the whole look after #${number}: all holds`);
    this.say(`soak: ${number} of ${this.deploys} deploys, ${faults} faults, ${this.traffic?.count() ?? 0} requests: all holds`);
  }

  private lookForGrowth(): void {
    const {site} = this;
    const names = (name: string): string[] => (existsSync(join(site.stateDir, name)) ? readdirSync(join(site.stateDir, name)) : []);
    const releases = new Set([...names('releases'), ...names('manifests').map(name => name.replace(/\..*$/, ''))]);
    assert.ok(releases.size <= MOST_KEPT_RELEASES, `releases ${[...releases].join(', ')} are kept, of at most ${MOST_KEPT_RELEASES}`);
    assert.deepEqual(names('spare').filter(name => !['tree', 'manifest'].includes(name)), [], 'what a build left behind');
    const known = new Set(readdirSync(site.stateDir));
    assert.ok(known.size <= 20, `more and more lies in the state directory: ${[...known].join(', ')}`);
    // nginx appends, so what it has written can go; the deployer looks only at what comes during a reload, and none is under way.
    for (const log of ['access.log', 'error.log']) truncateSync(join(site.nginx.prefix, 'logs', log));
  }

  async end(began: number): Promise<SoakReport> {
    const report = await this.traffic?.stop();
    await this.streams?.stop();
    this.lookAtRequests();
    const streams = this.streams?.report();
    const lanes = new Map<string, number>(LANES.map(lane => [lane, report?.lanes[lane].ok ?? 0]));
    lanes.set('events', streams?.whole ?? 0);
    for (let n = 0; n < (streams?.cutByUs ?? 0); n++) this.cause('an event stream of a worker that we killed');
    for (const {cause, lane} of report?.keepAliveRaces ?? []) this.cause(`${cause} of ${lane}, nginx closed the kept connection as the request came`);
    return {
      seed: this.seed, deploys: this.deploys, seconds: (performance.now() - began) / 1000, medianMs: this.median(),
      faults: this.faults, outcomes: this.outcomes, lanes, causes: this.causes, recoveries: this.recoveries, wholeChecks: this.wholeChecks,
    };
  }

  /** The error, with the seed, the last deeds and what the deployer has put down. */
  async failure(error: unknown): Promise<SoakFailure> {
    const {site} = this;
    for (const {fault, phase} of this.struck) recordRun({suite: 'soak', fault, phase, held: false, seed: this.seed, deploy: this.at});
    const status = await site.run(['status', '--json']).catch(() => undefined);
    return new SoakFailure([
      `seed ${this.seed}, deploy ${this.at}: ${error instanceof Error ? error.message : String(error)}`,
      `\nthe last deeds:`, ...this.told,
      `\nthe last command: ${this.lastEnd === undefined ? 'none' : `${told(this.lastEnd)}\n${this.lastEnd.stdout}${this.lastEnd.stderr}`}`,
      `\nstatus: ${status?.stdout}${status?.stderr}`,
      `\nprocesses:`, ...site.processes().map(({pid, command}) => `${pid} ${command}`),
      `\nupstream: ${tail(site.nginx.upstreamFile, 20)}`,
      `\njournal:\n${tail(join(site.stateDir, 'journal.ndjson'), 60)}`,
      `\nlog:\n${tail(join(site.stateDir, 'log', 'osyw-deploy.log'), 60)}`,
      `\nhistory:\n${tail(join(site.stateDir, 'history.ndjson'), 6)}`,
      `\nnginx:\n${tail(join(site.nginx.prefix, 'logs', 'error.log'), 20)}`,
      `\nagain: npm run soak -- --deploys ${this.deploys} --seed ${this.seed}`,
    ].join('\n'), {cause: error});
  }

  private async commit(kind: VersionKind, behaviour: Behaviour): Promise<string> {
    const version = String(this.kinds.size + 1);
    this.kinds.set(version, kind);
    this.versionOf.set(await this.site.release(version, behaviour), version);
    this.newest = version;
    return version;
  }

  /** Of the last deploys that met no fault: how fast a machine is changes with who else uses it. */
  private median(): number {
    const last = this.times.slice(-RECENT).sort((a, b) => a - b);
    return last[Math.floor(last.length / 2)] ?? 1000;
  }

  private strike(fault: FaultKind | 'SIGKILL of the recovery', phase: string): void {
    this.struck.push({fault, phase});
    this.count(fault, phase);
  }

  private count(fault: string, phase: string): void {
    const entry = this.entry(fault);
    entry.met++;
    entry.phases.set(phase, (entry.phases.get(phase) ?? 0) + 1);
  }

  private late(fault: string): void {
    this.entry(fault).late++;
  }

  private entry(fault: string): {met: number; late: number; phases: Map<string, number>} {
    const entry = this.faults.get(fault) ?? {met: 0, late: 0, phases: new Map<string, number>()};
    this.faults.set(fault, entry);
    return entry;
  }

  private cause(cause: string): void {
    this.causes.set(cause, (this.causes.get(cause) ?? 0) + 1);
  }

  private remember(line: string): void {
    this.told.push(line);
    if (this.told.length > TOLD) this.told.shift();
  }
}

/** The phase that a command with --json is in, as far as it has said. */
function phaseOf(command: RunningCommand): string {
  const said = [...command.stdout().matchAll(/"phase":"(\w+)","state":"began"/g)].at(-1)?.[1];
  return said ?? 'before update';
}

/** Where a version was found to be broken; undefined: nobody got so far. */
function brokenIn({result}: CommandEnd): string | undefined {
  return {START_FAILED: 'start', NEVER_HEALTHY: 'check', ROLLED_BACK: 'bake'}[result?.code ?? ''];
}

function outcomeOf(end: CommandEnd): string {
  if (end.exit === null) return 'killed';
  const outcome = end.result?.outcome ?? 'no result';
  return end.exit === 0 ? outcome : `${outcome}, ${end.exit} ${end.result?.code ?? ''}`.trimEnd();
}

function told(end: CommandEnd): string {
  return `${end.exit ?? end.signal} ${end.result?.outcome ?? ''} ${end.result?.code ?? ''} in ${Math.round(end.ms)} ms`;
}

function tail(path: string, lines: number): string {
  try {
    return readFileSync(path, 'utf8').trimEnd().split('\n').slice(-lines).join('\n');
  } catch (error) {
    return `(${String(error)})`;
  }
}

/** The table at the end. */
export function soakTable(report: SoakReport): string {
  const failed = 0; // A run with one that nothing explains ends there.
  const requests = [...report.lanes.values()].reduce((sum, count) => sum + count, 0);
  const faults = [...report.faults.values()].reduce((sum, {met}) => sum + met, 0);
  const sorted = (map: ReadonlyMap<string, number>): [string, number][] => [...map].sort((a, b) => b[1] - a[1]);
  const rows = (map: ReadonlyMap<string, number>): string[] => (map.size === 0 ? ['| none | |'] : sorted(map).map(([name, count]) => `| ${name} | ${count} |`));
  return [
    `seed ${report.seed}: ${report.deploys} deploys in ${report.seconds.toFixed(0)} s, ${(report.seconds / report.deploys).toFixed(2)} s each with all that is looked at; ${report.wholeChecks} whole looks; median deploy ${Math.round(report.medianMs)} ms`,
    '', '| fault | met | too late | in |', '|---|---:|---:|---|',
    ...[...report.faults].sort().map(([name, {met, late, phases}]) => `| ${name} | ${met} | ${late} | ${sorted(phases).map(([phase, count]) => `${phase} ${count}`).join(', ')} |`),
    '', '| commands by outcome | |', '|---|---:|', ...rows(report.outcomes),
    '', '| requests answered, by lane | |', '|---|---:|', ...rows(report.lanes),
    '', '| not answered, by cause | |', '|---|---:|', ...rows(report.causes),
    '', `recoveries: ${report.recoveries.count}, the longest ${Math.round(report.recoveries.longestMs)} ms`,
    `requests that a deploy failed: ${failed} of ${requests}, so with 95 % confidence fewer than 3/${requests} = ${(300 / requests).toFixed(4)} %`,
    `faults that were not survived: 0 of ${faults}, so fewer than 3/${faults} = ${(300 / Math.max(1, faults)).toFixed(2)} %`,
  ].join('\n');
}
