import type {ProcessIdentity, Worker} from '../../src/deploy/deployment.ts';
import type {DeployEvent, FiledRequest} from '../../src/deploy/events.ts';
import type {DeployTools, WorkingCopy} from '../../src/deploy/tools.ts';
import {DeployError} from '../../src/errors.ts';
import type {NginxConfig} from '../../src/config/config.ts';
import type {Drain} from '../../src/state/drains.ts';
import type {HistoryLine} from '../../src/state/history.ts';
import type {Journal, JournalEntry} from '../../src/state/journal.ts';
import {EMPTY_STATE, type State} from '../../src/state/state-file.ts';
import {isOwn, portsIn, renderUpstream} from '../../src/upstream/render-upstream.ts';
import type {Switched, SwitchSteps} from '../../src/upstream/switch-upstream.ts';
import {hashOf} from '../../src/upstream/upstream-file.ts';
import type {LaunchedWorker} from '../../src/workers/launch-worker.ts';

/** How the workers of a revision behave; all else is well. */
export type Flaw = 'never healthy' | 'dies at once' | 'fails in the bake' | 'dies in the bake' | 'fails the probe';
export type NginxMood = 'good' | 'refuses the test' | 'refuses the reload' | 'answers late' | 'is down';

export interface WorldOptions {
  readonly count?: number;
  readonly keep?: number;
  readonly inPlace?: boolean;
  readonly flaws?: Readonly<Record<string, Flaw>>;
  /** The text of the upstream file before anything; its ports belong to processes that were started by hand. */
  readonly byHand?: string;
}

/** One run of the deployer. */
export interface LifeOptions {
  /** `kill -9` before this effect, counted from 1; nothing runs after it. */
  readonly killBefore?: number;
  /** The disk is full at this effect, and only then. Effects that need no disk are not counted. */
  readonly fullAt?: number;
  readonly report?: (event: DeployEvent) => void;
}

export interface Life<T> {
  readonly end: 'killed' | 'returned' | 'threw';
  readonly value: T | undefined;
  readonly error: unknown;
  /** What it did to the world, in order. */
  readonly effects: readonly string[];
  readonly diskEffects: number;
}

interface Process {
  readonly identity: ProcessIdentity;
  /** The mark; null for a process that was started by hand. */
  readonly id: string | null;
  readonly port: number;
  readonly revision: string;
  /** It was started where nginx looked for a dead one. */
  readonly comesBack: boolean;
  alive: boolean;
}

interface NginxGeneration {
  readonly workers: readonly ProcessIdentity[];
  readonly ports: readonly number[];
}

class Killed extends Error {}
/** One for all: thousands of stack traces would be most of the time. */
const KILLED = new Killed('the deployer is dead');

const NGINX: NginxConfig = {upstream: 'myweb', file: '/etc/nginx/conf.d/osyw.conf', directives: [], server: {}, binary: '/usr/sbin/nginx', conf: undefined, prefix: undefined, probe: undefined, reload: undefined} as unknown as NginxConfig;
/** In the bake: the confirmation right after the switch is the first check, and good. */
const GOOD_CHECKS_BEFORE_FLAW = 2;
const FIRST_PORT = 8811;
const AT = '2026-11-23T02:11:00.000Z';
const NEVER = new Promise<never>(() => undefined);

/**
 * A machine in memory: processes, nginx with what it loaded and what its file says, a disk. It outlives the deployer;
 * `live` runs one life of that, which can be killed before any effect. It watches what must hold at every moment, in `broken`.
 */
export class World {
  readonly options: WorldOptions;
  processes: Process[] = [];
  broken: string[] = [];
  bakeMs = 0;
  /** Revisions whose workers fail every check from now on. */
  failing = new Set<string>();
  nginx: {file: string | null; now: NginxGeneration; old: NginxGeneration[]; late: string | null | undefined; mood: NginxMood};
  disk: {state: State | undefined; journal: JournalEntry[] | undefined; history: HistoryLine[]; drains: Map<string, Drain>; releases: Map<string, {revision: string; complete: boolean}>; workingCopy: string | null; spool: Map<string, FiledRequest>};
  newest = 'r1';
  /** Whether a path that counts changed between two revisions. */
  touches: (from: string, to: string) => boolean = () => true;
  /** What an update makes of the name that it was asked for. */
  becomes: (revision: string) => string = revision => revision;
  /** A stranger sits on these ports. */
  strangers = new Set<number>();
  usedIds = new Set<string>();
  #pids = 100;
  #bootId = 'boot-1';
  #checksOf = new Map<string, number>();
  #heldDrains = new Set<string>();

  constructor(options: WorldOptions = {}) {
    this.options = options;
    const file = options.byHand ?? null;
    const ports = portsIn(file ?? '');
    for (const port of ports) this.processes.push({identity: this.#identity(), id: null, port, revision: 'by hand', comesBack: false, alive: true});
    this.nginx = {file, now: {workers: [this.#identity(), this.#identity()], ports}, old: [], late: undefined, mood: 'good'};
    this.disk = {state: undefined, journal: undefined, history: [], drains: new Map(), releases: new Map(), workingCopy: null, spool: new Map()};
  }

  /** Another machine in the same state, to try what comes next in more ways than one. */
  copy(): World {
    const {nginx, disk} = this;
    const copy = new World(this.options);
    const generation = (one: NginxGeneration): NginxGeneration => ({...one});
    copy.processes = this.processes.map(process => ({...process}));
    copy.broken = [...this.broken];
    copy.bakeMs = this.bakeMs;
    copy.failing = new Set(this.failing);
    copy.nginx = {...nginx, now: generation(nginx.now), old: nginx.old.map(generation)};
    copy.disk = {...disk, journal: disk.journal?.slice(), history: [...disk.history], drains: new Map(disk.drains), releases: new Map(disk.releases), spool: new Map(disk.spool)};
    copy.newest = this.newest;
    copy.strangers = new Set(this.strangers);
    copy.usedIds = new Set(this.usedIds);
    copy.#pids = this.#pids;
    copy.#bootId = this.#bootId;
    copy.#checksOf = new Map(this.#checksOf);
    return copy;
  }

  get state(): State {
    return this.disk.state ?? EMPTY_STATE;
  }

  get journal(): JournalEntry[] {
    return this.disk.journal ?? [];
  }

  get loaded(): readonly number[] {
    return this.nginx.now.ports;
  }

  /** What lives and carries a mark of ours. */
  running(): Process[] {
    return this.processes.filter(({alive, id}) => alive && id !== null);
  }

  /** Somebody else tells nginx to reload, e.g. after a certificate was renewed. */
  strangersReload(): void {
    this.timePasses();
    if (this.nginx.mood === 'refuses the test' || this.nginx.mood === 'refuses the reload' || this.nginx.mood === 'is down') return;
    this.#load(this.nginx.file);
  }

  /** What was under way in nginx comes to its end. */
  timePasses(): void {
    if (this.nginx.late === undefined) return;
    this.#load(this.nginx.late);
    this.nginx.late = undefined;
  }

  /** The machine starts again: no process of before is left, and nginx reads its file. */
  reboot(): void {
    for (const process of this.processes) process.alive = process.id === null;
    this.#bootId = `boot-${this.#pids}`;
    this.nginx = {...this.nginx, mood: 'good', late: undefined, old: [], now: {workers: [this.#identity()], ports: portsIn(this.nginx.file ?? '')}};
  }

  nginxStops(): void {
    this.nginx = {...this.nginx, mood: 'is down', late: undefined, old: [], now: {workers: [], ports: []}};
  }

  /** Does nothing to one that runs but to mend it. */
  nginxStarts(): void {
    if (this.nginx.mood === 'is down') this.#load(this.nginx.file);
    this.nginx = {...this.nginx, mood: 'good', old: this.nginx.old.filter(({workers}) => workers.length > 0), now: {...this.nginx.now}};
  }

  /** Runs one life of the deployer to its end, which is `killed` when the switch was set. */
  async live<T>(story: (tools: DeployTools) => Promise<T>, options: LifeOptions = {}): Promise<Life<T>> {
    this.#heldDrains.clear(); // Their holder is dead; the kernel freed them.
    const life = new Deployer(this, options);
    const told = story(this.#toolsFor(life, options)).then(
      value => ({end: 'returned' as const, value, error: undefined}),
      (error: unknown) => ({end: 'threw' as const, value: undefined, error}),
    );
    const end = await Promise.race([told, life.killed]);
    const {effects, diskEffects} = life;
    if (life.over) {
      this.timePasses();
      return {end: 'killed', value: undefined, error: undefined, effects, diskEffects};
    }
    if (end === undefined) throw new Error('neither ended nor killed');
    life.over = true;
    return {...end, effects, diskEffects};
  }

  #identity(): ProcessIdentity {
    const pid = ++this.#pids;
    return {pid, startTime: pid * 7, bootId: this.#bootId};
  }

  #load(file: string | null): void {
    this.nginx.old.push(this.nginx.now);
    this.nginx.now = {workers: [this.#identity(), this.#identity()], ports: portsIn(file ?? '')};
  }

  #isAlive(identity: ProcessIdentity): boolean {
    return identity.bootId === this.#bootId && this.processes.some(process => process.alive && process.identity.pid === identity.pid);
  }

  /** Every old nginx worker: all of them may still send requests to where their configuration says. */
  #oldNginxWorkers(): ProcessIdentity[] {
    return this.nginx.old.flatMap(({workers}) => workers);
  }

  /** What must hold after every single effect: nginx sends requests to living processes only. */
  look(after: string): void {
    for (const port of this.loaded) {
      const process = this.processes.findLast(one => one.port === port);
      const diedItself = process !== undefined && (process.identity.bootId !== this.#bootId || process.comesBack || this.options.flaws?.[process.revision] === 'dies in the bake');
      if (process?.alive !== true && !diedItself) this.broken.push(`after "${after}" nginx sends requests to port ${port}, where nothing lives`);
    }
  }

  #stop(process: Process): void {
    const {port, revision} = process;
    if (process.id === null) this.broken.push(`a process that is not ours was stopped, on port ${port}`);
    const isBack = process.comesBack && !(this.disk.state?.serving?.workers.some(({id}) => id === process.id) ?? false);
    if (isBack) {
      // Where it was started nobody answered before.
      process.alive = false;
      return;
    }
    if (this.loaded.includes(port)) this.broken.push(`the worker on port ${port} was stopped while nginx's loaded configuration names it`);
    if (portsIn(this.nginx.file ?? '').includes(port)) this.broken.push(`the worker on port ${port} was stopped while the upstream file names it`);
    if (this.options.flaws?.[revision] === undefined && !this.failing.has(revision) && this.nginx.old.some(({ports}) => ports.includes(port))) {
      this.broken.push(`the worker on port ${port} was stopped while an nginx worker of before may still send requests to it`);
    }
    process.alive = false;
  }

  #verdict(revision: string, port: number): string | undefined {
    const flaw = this.options.flaws?.[revision];
    if (flaw === 'never healthy' || this.failing.has(revision)) return 'answered 500';
    if ((flaw === 'fails in the bake' || flaw === 'dies in the bake') && this.loaded.includes(port)) {
      const checks = (this.#checksOf.get(revision) ?? 0) + 1;
      this.#checksOf.set(revision, checks);
      if (checks <= GOOD_CHECKS_BEFORE_FLAW * (this.options.count ?? 2)) return undefined;
      if (flaw === 'dies in the bake') for (const process of this.processes) if (process.revision === revision) process.alive = false;
      return flaw === 'dies in the bake' ? 'its process is dead' : 'answered 500';
    }
    return undefined;
  }

  #toolsFor(life: Deployer, {report}: LifeOptions): DeployTools {
    const {disk, options} = this;
    const world = this;
    const {bakeMs} = this;
    const {count = 2, keep = 5, inPlace = false} = options;
    const text = (base64: string | null) => base64 === null ? null : Buffer.from(base64, 'base64').toString('utf8');
    const setFile = (file: string | null) => {
      if (world.nginx.file !== file) life.disk(`upstream file: ${file === null ? 'none' : portsIn(file).join()}`, () => (world.nginx.file = file));
    };
    const requireRunning = () => {
      if (world.nginx.mood === 'is down') throw new DeployError('SWITCH_REFUSED', 'nginx does not run');
    };
    const hup = () => life.now('nginx: HUP', () => {
      world.timePasses();
      if (world.nginx.mood === 'answers late') world.nginx.late = world.nginx.file;
      else if (world.nginx.mood !== 'refuses the reload') world.#load(world.nginx.file);
    });

    /** As src/upstream/switch-upstream.ts goes about it. */
    const replace = (file: string | null, ports: readonly number[], steps: SwitchSteps): Switched => {
      requireRunning();
      const old = world.nginx.file;
      steps.intend({file: NGINX.file, ports, oldBytes: old === null ? null : Buffer.from(old).toString('base64'), oldHash: hashOf(old), newHash: hashOf(file), master: {pid: 1, startTime: 1, bootId: 'x'}, accepting: world.nginx.now.workers});
      try {
        setFile(file);
        if (world.nginx.mood === 'refuses the test') throw new DeployError('SWITCH_REFUSED', 'nginx -t refuses the configuration');
        steps.reloading();
        hup();
      } catch (error) {
        if (error instanceof Killed) throw error;
        setFile(old);
        throw error instanceof DeployError ? error : new DeployError('SWITCH_REFUSED', `cannot write the upstream file: ${String(error)}`);
      }
      if (world.nginx.mood === 'refuses the reload') {
        setFile(old);
        throw new DeployError('SWITCH_REFUSED', 'nginx was told to reload and kept its old configuration');
      }
      if (world.nginx.mood === 'answers late') {
        setFile(old);
        world.nginx.mood = 'good';
        hup();
        life.look(world.nginx.old = []);
        throw new DeployError('SWITCH_REFUSED', 'nginx did not take the new configuration in time');
      }
      return {oldNginxWorkers: world.#oldNginxWorkers()};
    };

    const workingCopy: WorkingCopy = {
      vcs: 'svn',
      resolve: async wanted => life.read(wanted ?? world.newest),
      update: async revision => life.later(`working copy: ${revision}`, () => disk.workingCopy = world.becomes(revision)),
      exportTo: async () => life.later('export', () => undefined),
      verifyExport: async () => life.read(undefined),
      lookAhead: () => undefined,
      changedPaths: async () => life.read(undefined),
      touches: async (from, to) => life.read(world.touches(from, to)),
    };

    const journalOn = (): Journal => ({
      append: (...entries) => {
        for (const entry of entries) life.disk(`journal: ${entry.type}${'phase' in entry ? ` ${entry.phase}` : ''}`, () => disk.journal?.push(written<JournalEntry>({at: AT, ...entry})));
      },
      close: () => undefined,
    });

    return {
      config: {app: 'osyw', hash: 'config-1', count, keep, bakeMs, checkIntervalMs: 0, longestDrainMs: 1000, inPlace},
      report: event => {
        if (!life.over) report?.(event);
      },
      workingCopy: () => workingCopy,

      releases: {
        lookAhead: () => undefined,
        dirOf: id => inPlace ? '/var/bottle' : `/releases/${id}`,
        build: async release => {
          if (!inPlace && disk.releases.get(release.id)?.complete === true) world.broken.push(`the complete release ${release.id} was built over`);
          world.usedIds.add(release.id);
          if (!inPlace) await life.later(`release ${release.id}: begun`, () => disk.releases.set(release.id, {revision: release.revision, complete: false}));
          if (disk.workingCopy !== release.revision) world.broken.push(`release ${release.id} of ${release.revision} was built from ${disk.workingCopy}`);
          await life.later(`release ${release.id}: complete`, () => disk.releases.set(release.id, {revision: release.revision, complete: true}));
        },
        isComplete: async id => life.read(disk.releases.get(id)?.complete === true),
        discard: async id => {
          if (disk.releases.has(id)) await life.later(`release ${id}: discarded`, () => disk.releases.delete(id));
        },
        prune: async kept => {
          for (const id of [...disk.releases.keys()].filter(one => !kept.includes(one))) await life.later(`release ${id}: pruned`, () => disk.releases.delete(id));
        },
      },

      workers: {
        leasePorts: async (wanted, taken, after) => {
          const busy = (port: number) => taken.has(port) || world.processes.some(one => one.alive && one.port === port);
          const range = Array.from({length: 60}, (_, i) => FIRST_PORT + i);
          const first = after === null ? 0 : range.indexOf(after) + 1;
          const free = [...range.slice(first), ...range.slice(0, first)].filter(port => !busy(port));
          return life.read(free.slice(0, wanted));
        },
        answering: ports => life.look(ports.filter(port => world.processes.some(one => one.alive && one.port === port))),
        areSpare: async ports => life.read(ports.every(port => !world.strangers.has(port) && !world.processes.some(one => one.alive && one.port === port))),
        newId: (deploy, slot) => `osyw/${deploy}/${slot}/${++world.#pids}`,
        launch: async (release, plan) => life.later(`start: worker ${plan.slot + 1}`, () => {
          const identity = world.#identity();
          const flaw = options.flaws?.[release.revision];
          if (release.adopted === true ? disk.workingCopy !== release.revision : !disk.releases.get(release.id)?.complete) world.broken.push(`a worker was started in release ${release.id}, which is not complete`);
          const named = portsIn(world.nginx.file ?? '').includes(plan.port);
          if (named && (world.state.serving?.release.id !== release.id || world.state.serving.workers.some(worker => world.#isAlive(worker.process)))) world.broken.push(`a worker was started on port ${plan.port}, which the upstream file names`);
          const process: Process = {identity, id: plan.id, port: plan.port, revision: release.revision, comesBack: named, alive: flaw !== 'dies at once'};
          world.processes.push(process);
          const worker: Worker = {slot: plan.slot, port: plan.port, id: plan.id, process: identity, startedAt: new Date().toISOString()};
          return {
            ...plan, output: {place: '', lastLines: () => Promise.resolve([])}, worker: () => worker, onEnd: () => undefined,
            life: () => process.alive ? {kind: 'running', process: identity} : {kind: 'ended', how: 'exited with 1'},
          } satisfies LaunchedWorker;
        }),
        stop: async worker => {
          await life.read(undefined);
          const found = world.processes.filter(one => one.alive && (one.id === worker.id || (worker.process !== undefined && one.identity.pid === worker.process.pid && world.#isAlive(worker.process))));
          for (const process of found) await life.later(`stop: worker on ${process.port}`, () => world.#stop(process));
          return {port: worker.port, pid: worker.process?.pid, end: found.length === 0 ? 'gone' : 'stopped', left: []};
        },
        isAlive: worker => life.look(world.#isAlive(worker.process)),
      },

      health: {
        waitUntilHealthy: async (launched, release, relaunch, _report, signal) => {
          await life.read(undefined);
          signal.throwIfAborted();
          const flaw = options.flaws?.[release.revision];
          if (flaw === 'dies at once') throw new DeployError('START_FAILED', 'a worker exited with 1');
          if (flaw === 'never healthy') throw new DeployError('NEVER_HEALTHY', 'a worker answered 500');
          const workers: Worker[] = [];
          for (let one of launched) {
            while (world.strangers.has(one.port)) one = await relaunch(one);
            workers.push(one.worker());
          }
          return life.read(workers);
        },
        check: async (release, worker) => {
          await life.read(undefined);
          if (!world.#isAlive(worker.process)) return {good: false, saw: 'its process is dead', listens: false};
          const saw = world.#verdict(release.revision, worker.port);
          return saw === undefined ? {good: true, saw: '200', listens: true} : {good: false, saw, listens: true};
        },
      },

      upstream: {
        isRunning: async () => life.read(world.nginx.mood !== 'is down'),
        requireRunning: async () => {
          await life.read(undefined);
          requireRunning();
        },
        rehearse: () => undefined,
        switchTo: async (ports, steps) => life.read(undefined).then(() => replace(renderUpstream(NGINX, 'osyw', '127.0.0.1', ports), ports, steps)).catch(life.hangIfKilled),
        writeAhead: (ports, steps) => {
          const file = renderUpstream(NGINX, 'osyw', '127.0.0.1', ports);
          const old = world.nginx.file;
          steps.intend({file: NGINX.file, ports, oldBytes: old === null ? null : Buffer.from(old).toString('base64'), oldHash: hashOf(old), newHash: hashOf(file), master: null, accepting: []});
          setFile(file);
        },
        restore: async ({oldBytes}, steps) => life.read(undefined).then(() => replace(text(oldBytes), portsIn(text(oldBytes) ?? ''), steps)).catch(life.hangIfKilled),
        putBack: oldBytes => {
          life.look(undefined);
          setFile(text(oldBytes));
        },
        reload: async () => life.read(undefined).then(() => {
          requireRunning();
          hup();
          if (world.nginx.mood === 'refuses the reload') throw new DeployError('STATE_UNCERTAIN', 'nginx did not reload');
          world.timePasses();
          return {oldNginxWorkers: world.#oldNginxWorkers()};
        }).catch(life.hangIfKilled),
        file: () => NGINX.file,
        fileHash: () => life.look(hashOf(world.nginx.file)),
        ownFile: () => life.look(isOwn(world.nginx.file ?? '', 'osyw') ? {file: NGINX.file, byHeader: true} : undefined),
        filePorts: () => life.look(portsIn(world.nginx.file ?? '')),
        acceptsOnly: async workers => life.read(world.nginx.mood === 'is down' ? undefined : world.nginx.late === undefined && workers.map(({pid}) => pid).join() === world.nginx.now.workers.map(({pid}) => pid).join()),
        probe: async () => {
          await life.read(undefined);
          const revisions = world.loaded.map(port => world.processes.find(one => one.alive && one.port === port)?.revision ?? '');
          return revisions.some(revision => options.flaws?.[revision] === 'fails the probe') ? 'answered 502' : undefined;
        },
        waitDrained: async nginxWorkers => {
          await life.read(undefined);
          const waited = new Set(nginxWorkers.map(({pid}) => pid));
          // Time passes, and those that were waited for end; of the others nobody knows.
          world.nginx.old = world.nginx.old.filter(({workers}) => !workers.every(({pid}) => waited.has(pid)));
          return {nginxWorkers: 0, connections: 0, waitedMs: 0};
        },
      },

      records: {
        state: () => life.look(world.state),
        save: state => {
          if (JSON.stringify(state) !== JSON.stringify(disk.state)) life.disk(`state: ${state.serving?.release.id ?? 'nothing'} serves`, () => (disk.state = written(state)));
        },
        readJournal: () => life.look([...world.journal]),
        beginJournal: first => {
          life.disk('journal: deploy', () => (disk.journal = [written<JournalEntry>({at: AT, ...first})]));
          return journalOn();
        },
        continueJournal: () => life.look(journalOn()),
        addToHistory: (...lines) => {
          life.look(undefined);
          for (const line of lines) if (!disk.history.some(({id}) => id === line.id)) life.disk(`history: ${line.outcome}`, () => disk.history.push(written(line)));
        },
        drains: () => life.look([...disk.drains].sort(([a], [b]) => a < b ? -1 : 1).map(([, drain]) => drain)),
        writeDrain: drain => life.disk(`drain: ${drain.generation.release.id}`, () => disk.drains.set(drain.deploy, written(drain))),
        takeDrain: deploy => {
          const drain = life.look(disk.drains.get(deploy));
          if (drain === undefined || this.#heldDrains.has(deploy)) return undefined;
          this.#heldDrains.add(deploy);
          return {
            drain,
            finish: () => life.disk('drain: done', () => disk.drains.delete(deploy)),
            release: () => void this.#heldDrains.delete(deploy),
          };
        },
        filed: () => life.look([...disk.spool.values()].sort((a, b) => a.filedAt < b.filedAt ? -1 : 1)),
        unfile: requests => {
          life.look(undefined);
          for (const {file, stamp} of requests) if (disk.spool.get(file)?.stamp === stamp) life.disk(`spool: ${file} taken`, () => disk.spool.delete(file));
        },
        fileAgain: (request, deploy) => life.disk(`spool: ${request.file} again`, () => disk.spool.set(`again-${deploy}.json`, {...written(request), file: `again-${deploy}.json`, stamp: `${++world.#pids}`, id: `again-${world.#pids}`})),
      },
    };
  }
}

/** What a disk gives back: nothing of it is what was written, it only looks the same. */
function written<T>(value: T): T {
  return JSON.parse(JSON.stringify(value)) as T;
}

/** One life of the deployer: counts its effects, and ends it before the one that was named. */
class Deployer {
  readonly effects: string[] = [];
  diskEffects = 0;
  over = false;
  readonly killed: Promise<undefined>;
  readonly #world: World;
  readonly #options: LifeOptions;
  #kill: () => void = () => undefined;

  constructor(world: World, options: LifeOptions) {
    this.#world = world;
    this.#options = options;
    this.killed = new Promise(resolve => {
      this.#kill = () => resolve(undefined);
    });
  }

  /** An effect of a call that cannot wait: a dead deployer gets an error, and whatever it catches it with finds everything dead. */
  now<T>(what: string, change: () => T): T {
    if (this.over || this.effects.length + 1 === this.#options.killBefore) {
      this.over = true;
      this.#kill();
      throw KILLED;
    }
    this.effects.push(what);
    const value = change();
    this.#world.look(what);
    return value;
  }

  disk<T>(what: string, change: () => T): T {
    if (!this.over && ++this.diskEffects === this.#options.fullAt) throw Object.assign(new Error(`ENOSPC: no space left on device, write (${what})`), {code: 'ENOSPC'});
    return this.now(what, change);
  }

  /** An effect of a call that can wait: a dead deployer waits for ever. */
  async later<T>(what: string, change: () => T): Promise<T> {
    await this.read(undefined);
    try {
      return this.now(what, change);
    } catch (error) {
      return this.hangIfKilled(error);
    }
  }

  look<T>(value: T): T {
    if (this.over) throw KILLED;
    return value;
  }

  read<T>(value: T): Promise<T> {
    return this.over ? NEVER : Promise.resolve(value);
  }

  readonly hangIfKilled = (error: unknown): Promise<never> => {
    if (error instanceof Killed) return NEVER;
    throw error;
  };
}
