import assert from 'node:assert/strict';
import {execFileSync} from 'node:child_process';
import {chmodSync, copyFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync} from 'node:fs';
import {join, relative} from 'node:path';
import type {TestContext} from 'node:test';
import {fileURLToPath} from 'node:url';
import {stringify} from 'yaml';
import {leasePorts, type PortLease} from './free-ports.ts';
import {type GitRig, makeGit} from './git-rig.ts';
import {isAlive, listeningPorts, parentOf, processesOf, type Seen} from './leftovers.ts';
import {NGINX, type NginxRig, startNginx} from './nginx-rig.ts';
import {CLI, type CommandEnd, type CommandOptions, runCommand, type RunningCommand, startCommand} from './osyw.ts';
import {get} from './raw-http.ts';
import {type Files, makeSvn, type SvnRig} from './svn-rig.ts';
import {makeTempDir, removeTempDir} from './temp-dir.ts';
import {startTraffic, type Traffic, type TrafficReport} from './traffic.ts';
import {waitUntil} from './wait-until.ts';

/** Part of an osyw-deploy.yaml; null takes a key away. */
export interface Settings {
  readonly [key: string]: unknown;
}

export interface SiteOptions {
  readonly vcs?: 'svn' | 'git';
  readonly app?: 'worker-app' | 'osyw';
  readonly tree?: 'snapshot' | 'in_place';
  readonly count?: number;
  /** The workers turn themselves into daemons and write pid files. */
  readonly daemon?: boolean;
  /** Laid over the site's configuration. */
  readonly config?: Settings;
  readonly nginx?: {readonly upstream?: string; readonly inline?: boolean; readonly server?: string; readonly main?: string; readonly bareEnvironment?: boolean};
  readonly svn?: {readonly serve?: boolean | {readonly user: string; readonly password: string}};
  /** Runs nginx and the command as this account; the test must be root. */
  readonly as?: {readonly uid: number; readonly gid: number};
  /** behaviour.json of the first commit, beside its version 1. */
  readonly behaviour?: Behaviour;
  /** Further files of the first commit. */
  readonly files?: Files;
}

/** See fixtures/worker-app/worker.py. */
export interface Behaviour {
  readonly [key: string]: string | number | boolean | readonly string[];
}

export interface StatusWorker {
  readonly port: number;
  readonly pid: number;
  readonly state: string;
  readonly started_at: string;
  readonly restarts: number;
  readonly saw: string | null;
  readonly memory: number | null;
  readonly cpu: number | null;
}

export interface Status {
  readonly app: string;
  readonly serving: {readonly release: string; readonly revision: string; readonly since: string; readonly workers: readonly StatusWorker[]} | null;
  readonly draining: readonly {readonly release: string; readonly revision: string; readonly workers: readonly StatusWorker[]; readonly connections: number; readonly nginx_workers: readonly number[]; readonly since: string}[];
  readonly deploy: {readonly id: string; readonly phase: string; readonly revision: string; readonly since: string; readonly phase_since: string} | null;
  readonly pending: {readonly revision: string | null; readonly since: string} | null;
  readonly upstream: {readonly name: string; readonly file: string; readonly ports: readonly number[]};
  readonly watch: {readonly pid: number; readonly since: string} | null;
  readonly deploys: readonly HistoryLine[];
}

export interface HistoryLine {
  readonly id: string;
  readonly trigger: string;
  readonly requested_by: string;
  readonly revision: string | null;
  readonly release: string | null;
  readonly outcome: string;
  readonly exit: number;
  readonly code: string;
  readonly error: string | null;
  readonly phases: Readonly<Record<string, number>>;
  readonly started_at: string;
  readonly ended_at: string;
}

/** What must be true when everything has come to rest. */
export interface Settled {
  /** What `/` answers through nginx. */
  readonly version?: string;
  readonly revision?: string;
  readonly release?: string;
  /** Workers that serve; `count` of the site unless told. */
  readonly workers?: number;
  /** Of the newest line in the history. */
  readonly outcome?: string;
  readonly code?: string;
  /** A load that ran meanwhile: not one request may have failed. */
  readonly traffic?: Traffic;
}

export interface Site {
  readonly dir: string;
  readonly app: string;
  readonly count: number;
  readonly ports: PortLease;
  readonly nginx: NginxRig;
  /** The repository, for what `commit` cannot say; the one of the other system throws. */
  readonly svn: SvnRig;
  readonly git: GitRig;
  readonly configFile: string;
  readonly workingCopy: string;
  readonly stateDir: string;
  /** Commits files; returns the revision as osyw-deploy writes it. */
  commit(files: Files, message?: string): Promise<string>;
  /** Commits a version of the application, with this behaviour (worker-app). */
  release(version: string, behaviour?: Behaviour, files?: Files): Promise<string>;
  /** Writes the configuration again, with these settings laid over the site's for good. */
  configure(settings: Settings): void;
  /** Undoes every `configure`. */
  forget(): void;
  /** From now on every command runs behind these words, e.g. in namespaces of its own. */
  wrap(words: readonly string[]): void;
  /** Any command, with --config. */
  run(args: readonly string[], options?: Partial<CommandOptions>): Promise<CommandEnd>;
  start(args: readonly string[], options?: Partial<CommandOptions>): RunningCommand;
  /** `now --json`. */
  now(args?: readonly string[], options?: Partial<CommandOptions>): Promise<CommandEnd>;
  /** `now --json` that must end with 0; the whole output is in the message when it does not. */
  deployed(args?: readonly string[]): Promise<CommandEnd>;
  status(): Promise<Status>;
  /** Newest first. */
  history(): Promise<HistoryLine[]>;
  traffic(options?: Parameters<typeof startTraffic>[1]): Traffic;
  /** What `/` answers through nginx. */
  version(): Promise<string>;
  /** Our processes that are not nginx, svnserve or the test: workers, their children, commands. */
  processes(): Seen[];
  /** The block that ends every test. */
  settled(expected?: Settled): Promise<TrafficReport | undefined>;
  /** After a first deploy that failed, or a stop: nothing runs, nothing listens. */
  nothingRuns(): Promise<void>;
}

const FIXTURES = fileURLToPath(new URL('../../fixtures', import.meta.url));

const alive = new Set<string>();
// A test that is cut off leaves no process: the workers are detached from everybody, so nobody else would end them.
process.on('exit', () => alive.forEach(endProcesses));
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));

/**
 * An application in a repository, behind an nginx, with a configuration: all of it in one temporary directory, and gone with the test.
 * Version 1 is committed; nothing is deployed yet.
 */
export async function makeSite(test: TestContext, options: SiteOptions = {}): Promise<Site> {
  const dir = makeTempDir();
  alive.add(dir);
  const app = options.app ?? 'worker-app';
  const count = options.count ?? 2;
  const vcs = options.vcs ?? 'git';
  const ports = await leasePorts(Math.max(10, count * 3));
  const svn = vcs === 'svn' ? await makeSvn(join(dir, 'svn'), options.svn) : undefined;
  const git = vcs === 'git' ? await makeGit(join(dir, 'git')) : undefined;
  const nginx = await startNginx(join(dir, 'nginx'), {...options.nginx, ...(options.as && {as: options.as})});
  test.after(async () => {
    endProcesses(dir);
    await Promise.all([nginx.stop(), svn?.stop(), git?.stop()]);
    await waitUntil('the processes of the test to end', () => processesOf(dir).length === 0);
    await ports.release();
    removeTempDir(dir);
    alive.delete(dir);
  });

  for (const name of ['pids', 'logs']) mkdirSync(join(dir, name));
  const configFile = join(dir, 'osyw-deploy.yaml');
  const workingCopy = join(dir, 'copy');
  const stateDir = join(dir, 'state');
  let settings = merge(siteSettings({dir, app, count, vcs, ports, nginx, edit: options.nginx?.inline === true, url: (svn ?? git)?.url ?? '', tree: options.tree ?? 'snapshot', daemon: options.daemon ?? false}), options.config ?? {});
  const original = settings;
  const cli = options.as ? join(dir, 'osyw-deploy.cjs') : CLI;
  if (options.as) copyFileSync(CLI, cli);

  function own(): void {
    if (options.as) execFileSync('chown', ['-R', `${options.as.uid}:${options.as.gid}`, dir]);
  }
  function writeConfig(): void {
    writeFileSync(configFile, stringify(settings), {mode: 0o600});
    chmodSync(configFile, 0o600);
    own();
  }
  let wrap: readonly string[] = [];
  function asked(more: Partial<CommandOptions> = {}): CommandOptions {
    return {cwd: dir, cli, wrap, ...(options.as && {as: options.as}), ...more};
  }
  function withConfig(args: readonly string[]): string[] {
    return [...args, '--config', configFile];
  }

  const site: Site = {
    dir,
    app,
    count,
    ports,
    nginx,
    get svn() {
      return present(svn, 'svn');
    },
    get git() {
      return present(git, 'git');
    },
    configFile,
    workingCopy,
    stateDir,
    async commit(files, message) {
      const revision = await present(svn ?? git, vcs).commit(files, message);
      own();
      return revision;
    },
    release: (version, behaviour = {}, files = {}) =>
      site.commit(app === 'osyw' ? {VERSION: `${version}\n`, ...files} : {'behaviour.json': behaviourText(dir, options, {...behaviour, version}), ...files}, `version ${version}`),
    configure(more) {
      settings = merge(settings, more);
      writeConfig();
    },
    forget() {
      settings = original;
      writeConfig();
    },
    wrap(words) {
      wrap = words;
    },
    run: (args, more) => runCommand(withConfig(args), asked(more)),
    start: (args, more) => startCommand(withConfig(args), asked(more)),
    now: (args = [], more) => site.run(['now', '--json', ...args], more),
    async deployed(args = []) {
      const end = await site.now(args);
      assert.equal(end.exit, 0, `now ended with ${end.exit}:\n${end.stdout}\n${end.stderr}`);
      return end;
    },
    async status() {
      const end = await site.run(['status', '--json']);
      return JSON.parse(end.stdout) as Status;
    },
    async history() {
      const end = await site.run(['history', '--json']);
      assert.equal(end.exit, 0, end.stderr);
      return end.lines as HistoryLine[];
    },
    traffic(more) {
      const traffic = startTraffic(nginx.port, more);
      // A test that fails never gets to stop it.
      test.after(() => traffic.stop());
      return traffic;
    },
    version: async () => (await get(nginx.port, '/')).text,
    processes: () => foreign(processesOf(dir)),
    async settled(expected = {}) {
      const report = await expected.traffic?.stop();
      const status = await site.status();
      const seen = JSON.stringify(status, null, 2);
      const serving = present(status.serving ?? undefined, `serving release in ${seen}`);
      if (expected.revision !== undefined) assert.equal(serving.revision, expected.revision, 'the revision that serves');
      if (expected.release !== undefined) assert.equal(serving.release, expected.release, 'the release that serves');
      const workerPorts = serving.workers.map((worker) => worker.port);
      assert.equal(workerPorts.length, expected.workers ?? count, `workers that serve: ${seen}`);
      assert.deepEqual(serving.workers.map((worker) => worker.state), serving.workers.map(() => 'healthy'), `states of the workers: ${seen}`);
      assert.deepEqual(nginx.upstreamPorts(), workerPorts, 'the ports in the upstream file are the running workers, in their order');
      assert.deepEqual(status.upstream.ports, workerPorts);
      assert.deepEqual(status.draining, []);
      assert.equal(status.deploy, null);
      assert.deepEqual(listeningPorts(ports.first, ports.last), [...workerPorts].sort((a, b) => a - b), 'nobody else listens in the range');
      const workers = serving.workers.map((worker) => worker.pid);
      const strangers = site.processes().filter((seen) => !descendsFrom(seen.pid, workers));
      assert.deepEqual(strangers, [], 'no process of ours but the workers');
      const lines = await site.history();
      const newest = present(lines[0], 'line in the history');
      // A line comes at the end of its drain, which may be after the end of a deploy that began later.
      const servedLast = lines.filter((line) => line.outcome === 'deployed' || line.outcome === 'unchanged').sort((a, b) => b.started_at.localeCompare(a.started_at))[0];
      assert.equal(servedLast?.revision, serving.revision, 'the history names the revision that serves');
      if (expected.outcome !== undefined) assert.equal(newest.outcome, expected.outcome, JSON.stringify(newest));
      if (expected.code !== undefined) assert.equal(newest.code, expected.code, JSON.stringify(newest));
      for (let round = 0; round < 2 * count; round++) {
        const answer = await get(nginx.port, '/');
        if (expected.version !== undefined) assert.equal(answer.text, expected.version, 'the version that nginx answers');
        assert.ok(workerPorts.includes(Number(answer.headers['x-osyw-port'])), 'the answer comes from a serving worker');
      }
      if (report) assert.deepEqual(report.failures, [], `requests failed: ${JSON.stringify(report.lanes, (key, value: unknown) => (key === 'latencies' ? undefined : value))}`);
      return report;
    },
    async nothingRuns() {
      assert.deepEqual(site.processes(), [], 'no process of ours');
      assert.deepEqual(listeningPorts(ports.first, ports.last), [], 'nobody listens in the range');
      const status = await site.status();
      assert.equal(status.deploy, null);
      assert.deepEqual(status.draining, []);
    },
  };

  await site.commit({...fixtureFiles(app), ...(app === 'worker-app' && {'behaviour.json': behaviourText(dir, options, {version: '1', ...options.behaviour})}), ...options.files}, 'version 1');
  writeConfig();
  return site;
}

function siteSettings(site: {
  dir: string;
  app: string;
  count: number;
  vcs: 'svn' | 'git';
  ports: PortLease;
  nginx: NginxRig;
  edit: boolean;
  url: string;
  tree: string;
  daemon: boolean;
}): Settings {
  const {dir, app, count, nginx, daemon} = site;
  const env = {
    // By this mark the test knows every process that comes from this site.
    OSYW_TEST_SITE: dir,
    ...(app === 'osyw' && daemon && {OSYW_STATUS: 'online', OSYW_PID_DIR: join(dir, 'pids'), OSYW_LOG_DIR: join(dir, 'logs')}),
  };
  return {
    app: 'site',
    source: {vcs: site.vcs, working_copy: join(dir, 'copy'), url: site.url, timeout: '20s', ...(site.vcs === 'git' && {branch: 'main'})},
    release: {tree: site.tree},
    workers: {
      command: app === 'osyw' ? ['/usr/bin/python3', 'osyw.py', '{port}'] : ['/usr/bin/python3', '-S', '-E', 'worker.py', '{port}'],
      count,
      ports: `${site.ports.first}-${site.ports.last}`,
      env,
      log: join(dir, 'logs', 'worker-{port}.log'),
      stop: {signal: 'SIGTERM', timeout: '3s'},
      ...(daemon && {pid_file: join(dir, 'pids', 'osyw_{port}.pid')}),
    },
    check: {http: '/healthz', interval: '20ms', timeout: '2s', consecutive: 1, deadline: app === 'osyw' ? '30s' : '4s', body: 'ok'},
    nginx: {upstream: 'myweb', [site.edit ? 'edit' : 'file']: nginx.upstreamFile, binary: NGINX, conf: nginx.conf, prefix: nginx.prefix},
    drain: {quiet: '20s', deadline: '30s'},
    state_dir: join(dir, 'state'),
    run_dir: join(dir, 'run'),
  };
}

function behaviourText(dir: string, options: SiteOptions, behaviour: Behaviour): string {
  const pidFile = options.daemon ? {pid_file: join(dir, 'pids', 'osyw_{port}.pid')} : {};
  return `${JSON.stringify({...pidFile, ...behaviour}, null, 2)}\n`;
}

function fixtureFiles(app: string): Record<string, string> {
  const root = join(FIXTURES, app);
  const files: Record<string, string> = {};
  for (const entry of readdirSync(root, {recursive: true, withFileTypes: true})) {
    const path = join(entry.parentPath, entry.name);
    if (entry.isFile() && !path.includes('__pycache__')) files[relative(root, path)] = readFileSync(path, 'utf8');
  }
  return files;
}

/** nginx, svnserve and their like belong to the rigs. */
function foreign(seen: readonly Seen[]): Seen[] {
  return seen.filter(({command}) => !/^nginx: |^\S*svnserve /.test(command));
}

function endProcesses(dir: string): void {
  // Each of them carries the unique directory of this test, so none can be anybody else's.
  for (let round = 0; round < 20; round++) {
    const left = foreign(processesOf(dir));
    if (left.length === 0) return;
    for (const {pid} of left) if (isAlive(pid)) process.kill(pid, 'SIGKILL');
  }
}

function descendsFrom(pid: number, ancestors: readonly number[]): boolean {
  for (let at = pid; at > 1; at = parentOf(at)) if (ancestors.includes(at)) return true;
  return false;
}

function merge(base: Settings, over: Settings): Settings {
  const merged: Record<string, unknown> = {...base};
  for (const [key, value] of Object.entries(over)) {
    const before = merged[key];
    if (value === null) delete merged[key];
    else merged[key] = isTree(before) && isTree(value) ? merge(before, value) : value;
  }
  return merged;
}

function isTree(value: unknown): value is Settings {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The value, which the test takes for granted; else an error that names it. */
export function present<T>(value: T | undefined, name: string): T {
  if (value === undefined) throw new Error(`there is no ${name}`);
  return value;
}
