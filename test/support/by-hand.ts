import {execFileSync} from 'node:child_process';
import {chmodSync, copyFileSync, mkdirSync, openSync, readdirSync, readFileSync, writeFileSync} from 'node:fs';
import {join, relative} from 'node:path';
import type {TestContext} from 'node:test';
import {fileURLToPath} from 'node:url';
import {leasePorts} from './free-ports.ts';
import {isAlive, listeningPorts, processesOf, type Seen} from './leftovers.ts';
import {listens, NGINX} from './nginx-rig.ts';
import {CLI, runCommand, startCommand, type CommandEnd, type CommandOptions, type RunningCommand} from './osyw.ts';
import {get} from './raw-http.ts';
import {endChild, run, spawnBound} from './run.ts';
import {scrubbedEnv} from './scrubbed-env.ts';
import type {HistoryLine, Status} from './site.ts';
import {makeSvn, type Files, type SvnRig} from './svn-rig.ts';
import {makeTempDir, removeTempDir} from './temp-dir.ts';
import {startTraffic, type Traffic} from './traffic.ts';
import {waitUntil} from './wait-until.ts';

/** The set-up of fixtures/by-hand in a directory of the test's own: nginx and three workers run, started by its own script. */
export interface ByHand {
  readonly dir: string;
  /** Of the old script. */
  readonly ports: readonly number[];
  readonly svn: SvnRig;
  readonly workingCopy: string;
  readonly nginxConf: string;
  /** Where nginx answers. */
  readonly port: number;
  readonly script: string;
  readonly hook: string;
  readonly pidDir: string;
  /** Where `adopt` writes it. */
  readonly configFile: string;
  readonly stateDir: string;
  /** The old script, with one of its words. */
  old(word: 'start' | 'stop' | 'restart'): Promise<string>;
  /** The processes that listen on the ports of the old script, in order. */
  pids(): number[];
  commit(files: Files): Promise<string>;
  adopt(args?: readonly string[], options?: Partial<CommandOptions>): Promise<CommandEnd>;
  /** Any command, with --config. */
  run(args: readonly string[], options?: Partial<CommandOptions>): Promise<CommandEnd>;
  start(args: readonly string[], options?: Partial<CommandOptions>): RunningCommand;
  status(): Promise<Status>;
  history(): Promise<HistoryLine[]>;
  version(): Promise<string>;
  traffic(options?: Parameters<typeof startTraffic>[1]): Traffic;
  processes(): Seen[];
}

const FIXTURES = fileURLToPath(new URL('../../fixtures', import.meta.url));
/** Of these ports the first three are the old script's. */
const LEASED = 30;

const alive = new Set<string>();
// A test that is cut off leaves no process: daemons are nobody's children.
process.on('exit', () => alive.forEach(endProcesses));
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));

export async function makeByHand(test: TestContext, options: {
  /** The text of nginx.conf, changed. */
  nginxConf?: (text: string, prefix: string) => string;
  /** The text of the init script, changed. */
  script?: (text: string) => string;
  /** Nothing is started but nginx. */
  cold?: boolean;
  /** Everything is this account's; the test must be root. */
  as?: {uid: number; gid: number};
} = {}): Promise<ByHand> {
  const dir = makeTempDir();
  alive.add(dir);
  const lease = await leasePorts(LEASED + 1);
  const svn = await makeSvn(join(dir, 'svn'));
  const ports = [lease.first, lease.first + 1, lease.first + 2];
  const port = lease.first + LEASED;
  const workingCopy = join(dir, 'bottle');
  const [pidDir, logDir, prefix] = [join(dir, 'pids'), join(dir, 'log'), join(dir, 'nginx')];
  for (const made of [pidDir, logDir, prefix, join(prefix, 'tmp')]) mkdirSync(made);
  const env = scrubbedEnv(dir);

  const script = join(dir, 'osyw.init');
  const moved = (text: string) => [['/var/bottle', workingCopy], ['/etc/init.d/osyw', script], ['/var/www/osyw/log', logDir], ['/tmp/osyw-update', join(dir, 'osyw-update')], ['8811 8812 8813', ports.join(' ')], ['/var/run', pidDir]]
    .reduce((all, [from = '', to = '']) => all.replaceAll(from, to), text);
  const executable = (path: string, text: string) => {
    writeFileSync(path, text);
    chmodSync(path, 0o755);
  };
  executable(script, (options.script ?? (text => text))(moved(readFileSync(join(FIXTURES, 'by-hand/osyw.init'), 'utf8'))));
  const hook = join(svn.repository, 'hooks', 'post-commit');
  const nginxConf = join(prefix, 'nginx.conf');
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(name => `    ${name}_temp_path ${prefix}/tmp/${name};\n`).join('');
  const conf = readFileSync(join(FIXTURES, 'by-hand/nginx.conf'), 'utf8')
    .replace('/var/run/nginx.pid', `${prefix}/nginx.pid`).replaceAll('/var/log/nginx', prefix)
    .replace(/listen +80;/, `listen 127.0.0.1:${port} backlog=1024;`)
    .replace(/:(881[123])\b/g, (_, old: string) => `:${ports[Number(old) - 8811] ?? 0}`)
    .replace('http {\n', `http {\n${temporary}`);
  writeFileSync(nginxConf, `daemon off;\n${(options.nginxConf ?? (text => text))(conf, prefix)}`);

  const own = () => options.as === undefined ? undefined : execFileSync('chown', ['-R', `${options.as.uid}:${options.as.gid}`, dir]);
  const cli = options.as === undefined ? CLI : join(dir, 'osyw-deploy.cjs');
  if (options.as !== undefined) copyFileSync(CLI, cli);
  const output = openSync(join(prefix, 'output.log'), 'a');
  own();
  const nginx = spawnBound(NGINX, ['-p', prefix, '-c', nginxConf], {stdio: ['ignore', output, output], env: scrubbedEnv(prefix), ...options.as});
  test.after(async () => {
    endProcesses(dir);
    await endChild(nginx);
    await svn.stop();
    await waitUntil('the processes of the test to end', () => processesOf(dir).length === 0);
    await lease.release();
    removeTempDir(dir);
    alive.delete(dir);
  });
  await waitUntil('nginx to listen', async () => {
    if (nginx.exitCode !== null) throw new Error(`nginx ended: ${readFileSync(join(prefix, 'output.log'), 'utf8')}`);
    return listens(port);
  });

  const configFile = join(dir, 'osyw-deploy.yaml');
  const stateDir = join(dir, 'state');
  const asked = (more: Partial<CommandOptions> = {}): CommandOptions => ({cwd: dir, cli, ...(options.as && {as: options.as}), ...more});
  const byHand: ByHand = {
    dir, ports, svn, workingCopy, nginxConf, port, script, hook, pidDir, configFile, stateDir,
    old: word => run('/usr/bin/setpriv', [...(options.as === undefined ? [] : ['--reuid', String(options.as.uid), '--regid', String(options.as.gid), '--clear-groups']), '/bin/sh', script, word], {cwd: '/', env: {PATH: '/usr/sbin:/usr/bin:/sbin:/bin', OSYW_TEST_SITE: dir}}),
    pids: () => ports.flatMap(one => listenerOn(one)),
    commit: files => svn.commit(files),
    adopt: (args = [], more) => byHand.run(['adopt', '--nginx', nginxConf, '--state-dir', stateDir, ...args], more),
    run: (args, more) => runCommand([...args, '--config', configFile], asked(more)),
    start: (args, more) => startCommand([...args, '--config', configFile], asked(more)),
    status: async () => JSON.parse((await byHand.run(['status', '--json'])).stdout) as Status,
    history: async () => (await byHand.run(['history', '--json'])).lines as HistoryLine[],
    version: async () => (await get(port, '/')).text,
    traffic(more) {
      const traffic = startTraffic(port, more);
      test.after(() => traffic.stop());
      return traffic;
    },
    processes: () => foreign(dir),
  };
  await svn.commit(applicationFiles());
  await run('svn', ['checkout', '-q', '--non-interactive', '--config-dir', join(dir, 'config'), svn.url, workingCopy], {env});
  // From here on it is as it would be found: a commit runs the old hook.
  executable(hook, moved(readFileSync(join(FIXTURES, 'by-hand/post-commit'), 'utf8')));
  own();
  if (options.cold !== true) {
    await byHand.old('start');
    await waitUntil('the three workers to listen', () => listeningPorts(ports[0] ?? 0, ports[2] ?? 0).length === 3, {withinMs: 30_000});
  }
  return byHand;
}

/** nginx is the rig's own child. */
function foreign(dir: string): Seen[] {
  return processesOf(dir).filter(({command}) => !command.startsWith('nginx: '));
}

function endProcesses(dir: string): void {
  // Each of them carries the unique directory of this test, so none can be anybody else's.
  for (let round = 0; round < 20; round++) {
    const left = foreign(dir);
    if (left.length === 0) return;
    for (const {pid} of left) if (isAlive(pid)) process.kill(pid, 'SIGKILL');
  }
}

function listenerOn(port: number): number[] {
  const said = execFileSync('lsof', ['-t', `-i:${port}`, '-sTCP:LISTEN'], {encoding: 'utf8'});
  return said.split('\n').filter(line => line !== '').map(Number);
}

function applicationFiles(): Record<string, string> {
  const root = join(FIXTURES, 'osyw');
  return Object.fromEntries(readdirSync(root, {recursive: true, withFileTypes: true}).filter(entry => entry.isFile()).map(entry => join(entry.parentPath, entry.name))
    .filter(path => !path.includes('__pycache__')).map(path => [relative(root, path), readFileSync(path, 'utf8')]));
}
