// `npm run demo`: the main job by itself. Ends 0 only when every step did what it should and no request failed.
import {type ChildProcess, execFileSync, spawn} from 'node:child_process';
import {cpSync, existsSync, mkdirSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {setTimeout as pause} from 'node:timers/promises';
import {fileURLToPath} from 'node:url';
import {leasePorts} from './support/free-ports.ts';
import {isAlive, processesOf} from './support/leftovers.ts';
import {listens, NGINX, type NginxRig, startNginx} from './support/nginx-rig.ts';
import {runCommand, startCommand} from './support/osyw.ts';
import {ask} from './support/raw-http.ts';
import {run, spawnBound} from './support/run.ts';
import {scrubbedEnv} from './support/scrubbed-env.ts';
import type {HistoryLine} from './support/site.ts';
import {makeTempDir, removeTempDir} from './support/temp-dir.ts';
import {startTraffic, type Traffic} from './support/traffic.ts';
import {waitUntil} from './support/wait-until.ts';

const APPLICATION = fileURLToPath(new URL('../fixtures/osyw', import.meta.url));
const LIMIT_MS = 120_000;
const colour = (process.stdout.isTTY || (process.env['FORCE_COLOR'] ?? '') !== '') && (process.env['NO_COLOR'] ?? '') === '';

const NAMES: Readonly<Record<string, string>> = {freshGet: 'GET', freshPost: 'POST', slow: 'slow GET', upload: 'upload'};

const BROKEN = `"""What \`/healthz\` says."""
import cache_of_version_three


def check():
    return cache_of_version_three.state()
`;

/** What one command did, for the table at the end. */
interface Step {
  readonly what: string;
  readonly exit: number;
  readonly ms: number;
  /** From the command to the first answer of the version that it should bring; undefined when it should bring none. */
  readonly liveMs: number | undefined;
  readonly phases: Readonly<Record<string, number>>;
  readonly answered: number;
  readonly failed: number;
}

const dir = makeTempDir();
let stopping = false;
let interrupted: ((why: Error) => void) | undefined;
const interruption = new Promise<never>((_, reject) => (interrupted = reject));
interruption.catch(() => {}); // also when it comes before anybody waits for it
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => interrupted?.(new Error(`interrupted by ${signal}`)));
const limit = setTimeout(() => interrupted?.(new Error(`the demo took longer than ${LIMIT_MS / 1000} s`)), LIMIT_MS);

const whole = demo();
try {
  await Promise.race([whole, interruption]);
} catch (error) {
  say(`\n${paint(31, 'The demo failed')}: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
} finally {
  clearTimeout(limit);
  await cleanUp();
}
process.exit();

async function demo(): Promise<void> {
  title('A private Subversion repository, still empty, and an nginx of its own');
  const svn = await privateRepository();
  const nginx = await startNginx(join(dir, 'nginx'));
  const ports = await leasePorts(12);
  const config = configuration(svn.url, nginx, `${ports.first}-${ports.last}`);
  writeFileSync(join(dir, 'osyw-deploy.yaml'), config, {mode: 0o600});
  say(`${svn.url} (user and password)`);
  say(`${nginx.url}, in front of nothing yet: it answers ${await answerOf(nginx)}`);
  say(`\nosyw-deploy.yaml, in ${dir}:\n`);
  say(indented(config));

  title('From now on a commit is a deploy; with hook.wait the committer hears how it went');
  const install = osyw(['hook', 'install', '--repository', svn.repository]);
  say(paint(1, `$ ${install.shown}`));
  const installed = await shown(install.start());
  expect(installed.code, 0, 'the exit code of `hook install`');

  const steps: Step[] = [];
  title('r1, the application, is imported: the first deploy');
  steps.push(await step('r1, first', svn.importApplication(), nginx, undefined, {exit: 0, after: 'version 1'}));

  title('From here on clients ask all the time: GET and POST on fresh connections, a slow answer, an upload');
  const traffic = startTraffic(nginx.port, {lanes: {freshGet: 3, freshPost: 2, keepAliveGet: 0, keepAlivePost: 0}});
  await waitUntil('answers', () => traffic.count() > 100, {withinMs: 20_000});
  say(`${traffic.count()} requests answered, ${traffic.report().failures.length} failed`);

  title('r2: a new version is committed');
  steps.push(await step('r2', svn.commit({VERSION: '2\n'}, 'version 2'), nginx, traffic, {exit: 0, after: 'version 2'}));

  title('r3: a version that cannot start, for it needs a module that is not there');
  steps.push(await step('r3, broken', svn.commit({VERSION: '3\n', 'oscore/health.py': BROKEN}, 'version 3'), nginx, traffic, {exit: 7, after: 'version 2'}));

  title('Back to what served before r2');
  steps.push(await step('rollback', osyw(['rollback']), nginx, traffic, {exit: 0, after: 'version 1'}));

  await pause(300);
  const report = await traffic.stop();
  title('What each cost');
  table(steps);
  const answered = Object.entries(report.lanes).map(([lane, {ok}]) => ({lane, ok})).filter(({ok}) => ok > 0);
  const total = answered.reduce((sum, {ok}) => sum + ok, 0);
  say(`\nrequests: ${total} answered, ${report.failures.length} failed   (${answered.map(({lane, ok}) => `${NAMES[lane] ?? lane} ${ok}`).join(', ')})`);
  if (report.failures.length > 0) throw new Error(`${report.failures.length} requests failed: ${JSON.stringify(report.failures.slice(0, 5))}`);
  expect(report.versions.join(' → '), '1 → 2', 'the versions that answered, in the order of their first answer');
  say(paint(32, 'Every step did what it should, and no request was lost.'));
}

function configuration(url: string, nginx: NginxRig, ports: string): string {
  return `app: osyw
source:
  url: ${url}
  username: deploy
  password_file: ${dir}/svn.password
  working_copy: ${dir}/working-copy
workers:
  command: [/usr/bin/python3, osyw.py, "{port}"]
  count: 3
  ports: ${ports}
check:
  http: /healthz
hook:
  wait: true
nginx:
  upstream: myweb
  file: ${nginx.upstreamFile}
  server: { weight: 4, max_fails: 2, fail_timeout: 30s }
  binary: ${NGINX}
  conf: ${nginx.conf}
  prefix: ${nginx.prefix}
state_dir: ${dir}/state
run_dir: ${dir}/run
`;
}

/** A command as a person would type it. */
interface Typed {
  readonly shown: string;
  start(): ChildProcess;
}

function osyw(words: readonly string[]): Typed {
  return {shown: `osyw-deploy ${words.map((word) => word.replace(`${dir}/`, '')).join(' ')}`, start: () => startCommand(words, {cwd: dir}).child};
}

/** Shows what the command prints, line by line, until its end. */
async function shown(child: ChildProcess): Promise<{code: number | null}> {
  let line = '';
  const show = (part: string): void => {
    const lines = (line + part).split('\n');
    line = lines.pop() ?? '';
    for (const whole of lines) say(whole === '' ? '' : `  ${whole}`);
  };
  child.stdout?.setEncoding('utf8').on('data', show);
  child.stderr?.setEncoding('utf8').on('data', show);
  const code = await new Promise<number | null>((resolve, reject) => child.once('error', reject).once('close', resolve));
  if (line !== '') say(`  ${line}`);
  return {code};
}

/** Runs a command that leads to a deploy, and looks at what serves before and after it. */
async function step(what: string, typed: Typed, nginx: NginxRig, traffic: Traffic | undefined, wanted: {exit: number; after: string}): Promise<Step> {
  const before = await answerOf(nginx);
  const known = (await history()).length;
  const began = performance.now();
  const counted = traffic?.count() ?? 0;
  const failed = traffic?.report().failures.length ?? 0;
  say(paint(1, `$ ${typed.shown}`));
  let live: number | undefined;
  let over = false;
  const watch = (async () => {
    while (live === undefined && !over) {
      if (wanted.exit === 0 && (await textOf(nginx)) === wanted.after.replace('version ', '')) live = performance.now() - began;
      await pause(10);
    }
  })();
  await shown(typed.start());
  over = true;
  await watch;
  const now = await answerOf(nginx);
  // A line comes when everything old is gone; who committed is not kept waiting for that.
  const line = await waitUntil('the line in the history', async () => (await history())[(await history()).length - known - 1], {withinMs: 30_000});
  const ms = performance.now() - began;
  say(`${line.trigger} by ${line.requested_by}: ${line.outcome} (exit ${line.exit}); nginx answered ${before} before, ${now} now${live === undefined ? '' : `, for the first time after ${seconds(live)}`}`);
  expect(line.exit, wanted.exit, 'the exit code of the deploy');
  expect(now, wanted.after, 'what nginx answers now');
  return {
    what, exit: line.exit, ms, liveMs: live,
    phases: line.phases,
    answered: (traffic?.count() ?? 0) - counted,
    failed: (traffic?.report().failures.length ?? 0) - failed,
  };
}

/** Newest first. */
async function history(): Promise<HistoryLine[]> {
  const {lines, exit, stderr} = await runCommand(['history', '--json'], {cwd: dir});
  if (exit !== 0) throw new Error(`no history: ${stderr}`);
  return lines as HistoryLine[];
}

function table(steps: readonly Step[]): void {
  const phases = ['update', 'build', 'start', 'check', 'switch', 'drain'];
  const rows = [
    ['', 'exit', 'new answers', 'all done', ...phases, 'answered', 'failed'],
    ...steps.map(({what, exit, ms, liveMs, phases: times, answered, failed}) => [
      what, String(exit), liveMs === undefined ? '-' : seconds(liveMs), seconds(ms),
      ...phases.map((phase) => (times[phase] === undefined ? '-' : `${times[phase]} ms`)),
      answered === 0 ? '-' : String(answered), answered === 0 ? '-' : String(failed),
    ]),
  ];
  const widths = rows[0]?.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0))) ?? [];
  for (const row of rows) say(row.map((cell, column) => (column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0))).join('  '));
}

/** An svnserve that wants a password, and a repository in which nothing is yet. */
async function privateRepository(): Promise<{url: string; repository: string; importApplication(): Typed; commit(files: Readonly<Record<string, string>>, message: string): Typed}> {
  const home = join(dir, 'svn');
  const repository = join(home, 'osyw');
  const trunk = join(home, 'trunk');
  const desk = join(home, 'desk');
  mkdirSync(home);
  const env = scrubbedEnv(home);
  const url = `file://${repository}/trunk`;
  const svn = (shown: string, args: readonly string[], cwd = home): Typed => ({shown, start: () => spawn('svn', ['--non-interactive', ...args], {cwd, env, stdio: ['ignore', 'pipe', 'pipe']})});
  await run('svnadmin', ['create', repository], {env});
  cpSync(APPLICATION, trunk, {recursive: true, filter: (path) => !path.includes('__pycache__')});

  const password = 'not in any argument, log or error';
  writeFileSync(join(repository, 'conf', 'svnserve.conf'), '[general]\nanon-access = none\nauth-access = write\npassword-db = passwd\nrealm = osyw\n');
  writeFileSync(join(repository, 'conf', 'passwd'), `[users]\ndeploy = ${password}\n`, {mode: 0o600});
  writeFileSync(join(dir, 'svn.password'), `${password}\n`, {mode: 0o600});
  const {first: port} = await leasePorts(1);
  spawnBound('svnserve', ['--daemon', '--foreground', '--listen-host', '127.0.0.1', '--listen-port', String(port), '--root', home], {env, stdio: 'ignore'});
  await waitUntil('svnserve to listen', () => listens(port));
  return {
    url: `svn://127.0.0.1:${port}/osyw/trunk`,
    repository,
    importApplication: () => svn("svn import -m 'version 1' trunk", ['import', '-m', 'version 1', trunk, url]),
    commit(files, message) {
      if (!existsSync(desk)) execFileSync('svn', ['--non-interactive', '-q', 'checkout', url, desk], {cwd: home, env});
      for (const [path, text] of Object.entries(files)) writeFileSync(join(desk, path), text);
      return svn(`svn commit -m '${message}'`, ['commit', '-m', message], desk);
    },
  };
}

async function textOf(nginx: NginxRig): Promise<string | undefined> {
  const answer = await ask({port: nginx.port, path: '/'});
  return answer.kind === 'answer' && answer.status === 200 ? answer.body.toString() : undefined;
}

async function answerOf(nginx: NginxRig): Promise<string> {
  const answer = await ask({port: nginx.port, path: '/'});
  if (answer.kind === 'none') return answer.cause;
  return answer.status === 200 ? `version ${answer.body.toString()}` : String(answer.status);
}

function expect<T>(found: T, wanted: T, what: string): void {
  if (found !== wanted) throw new Error(`${what}: expected ${String(wanted)}, found ${String(found)}`);
}

/** Whatever was reached: no process and no file is left. */
async function cleanUp(): Promise<void> {
  stopping = true;
  await waitUntil('the processes of the demo to end', endOurs, {withinMs: 15_000, everyMs: 30});
  // Where it was cut off, the demo itself fails soon, for its processes are gone; what it began meanwhile ends, too.
  await Promise.race([whole.catch(() => {}), pause(2000)]);
  await waitUntil('the last processes of the demo to end', endOurs, {withinMs: 15_000, everyMs: 30});
  removeTempDir(dir);
}

/** Commands, workers and servers: each has the demo's own directory in its environment, its arguments or as its place. True when none is left. */
function endOurs(): boolean {
  const left = processesOf(dir);
  for (const {pid, command} of left) {
    // nginx's workers carry no such mark: the master takes them along.
    if (isAlive(pid)) process.kill(pid, command.startsWith('nginx: ') ? 'SIGTERM' : 'SIGKILL');
  }
  return left.length === 0;
}

function title(text: string): void {
  if (stopping) throw new Error('stopped');
  say(`\n${paint(1, `== ${text}`)}\n`);
}

function say(line = ''): void {
  if (!stopping) process.stdout.write(`${line}\n`);
}

function indented(text: string): string {
  return text.trimEnd().split('\n').map((line) => `    ${line}`).join('\n');
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(2)} s`;
}

function paint(code: number, text: string): string {
  return colour ? `\x1b[${code}m${text}\x1b[0m` : text;
}
