import assert from 'node:assert/strict';
import {chmodSync, chownSync, existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {test, type TestContext} from 'node:test';
import {unitStopper} from '../../src/workers/stop-units.ts';
import {unitOf} from '../../src/workers/unit-name.ts';
import {insideSystemd} from '../support/inside-systemd.ts';
import {isAlive} from '../support/leftovers.ts';
import {get} from '../support/raw-http.ts';
import {run} from '../support/run.ts';
import {makeSite, type Settings, type Site, type SiteOptions} from '../support/site.ts';
import {waitUntil} from '../support/wait-until.ts';

const systemctl = (...args: string[]): Promise<string> => run('/usr/bin/systemctl', args, {env: {LC_ALL: 'C.UTF-8'}});
/** Every unit of ours that systemd knows of, failed ones and those that are about to start again included. */
const units = async (): Promise<string[]> => (await systemctl('list-units', '--all', '--plain', '--no-legend', 'osyw-*')).split('\n').flatMap((line) => line.split(' ')[0] || []);
const show = async (unit: string, property: string): Promise<string> => (await systemctl('show', '--value', `--property=${property}`, unit)).trim();
const mainPid = async (unit: string): Promise<number> => Number(await show(unit, 'MainPID'));

/** A site whose workers are units, with their output in the journal unless told. */
async function makeUnitSite(t: TestContext, {config, ...options}: SiteOptions = {}): Promise<Site> {
  // Before the site's own end, which kills what runs: systemd would start it again.
  t.after(async () => {
    const left = await units();
    if (left.length > 0) await systemctl('stop', ...left);
  });
  const workers = typeof config?.['workers'] === 'object' ? config['workers'] as Settings : {};
  return makeSite(t, {...options, config: {...config, workers: {runner: 'systemd', log: null, ...workers}}});
}

/** What is in `run_dir` of environments: one file a unit that may be started again. */
function environments(site: Site): string[] {
  const dir = join(site.dir, 'run', 'environment');
  return existsSync(dir) ? readdirSync(dir).sort() : [];
}

async function nothingIsLeft(site: Site): Promise<void> {
  assert.deepEqual(await units(), [], 'no unit');
  assert.deepEqual(environments(site), [], 'no environment');
  await site.nothingRuns();
}

async function serves(site: Site, version: string): Promise<void> {
  await site.settled({version});
  const running = (await units()).sort();
  assert.equal(running.length, site.count, 'one unit a worker, and none of before');
  assert.deepEqual(environments(site), running, 'and the environment of each');
  const {serving} = await site.status();
  assert.deepEqual((await Promise.all(running.map(mainPid))).sort(), serving?.workers.map(({pid}) => pid).sort());
}

await insideSystemd(import.meta.url, () => {
  test('no request fails while units take the place of units, and none of before is left', async (t) => {
    const site = await makeUnitSite(t, {vcs: 'svn', count: 3});
    const {result} = await site.deployed();
    t.diagnostic(`start took ${result?.phases['start']} ms, check ${result?.phases['check']} ms`);
    await serves(site, '1');
    const before = await units();
    assert.ok(before.every((unit) => /^osyw-site-\d{8}-\d{6}-[0-9a-f]{6}-[012]-[0-9a-f]{12}\.service$/.test(unit)), before.join());
    const traffic = site.traffic({lanes: {freshGet: 3, freshPost: 1, slow: 1}, everyMs: 4});
    await waitUntil('traffic', () => traffic.count() > 50);
    await site.release('2');
    await site.deployed();
    const report = await site.settled({version: '2', traffic});
    assert.deepEqual(report?.versions, ['1', '2']);
    assert.ok(!(await units()).some((unit) => before.includes(unit)));
    await serves(site, '2');
    assert.equal((await site.run(['stop'])).exit, 0);
    await nothingIsLeft(site);
    assert.equal((await site.run(['stop'])).exit, 0);
    assert.equal((await site.run(['start'])).exit, 0);
    await serves(site, '2');
  });

  test('a unit has the environment that is configured, to the letter, and no command line shows a secret of it', async (t) => {
    const site = await makeUnitSite(t, {count: 1});
    const envFile = join(site.dir, 'site.env');
    const nasty = {
      DOLLAR: '$HOME ${HOME} $$ `id` $(id)', QUOTES: `"two" 'words' "`, BACKSLASHES: 'a\\b\\\\c \\n \\x41 \\', SPACES: '  around\t ', PERCENT: '%h %% %n',
      EQUALS: 'a=b=c', HASH: '# ; none', GLOB: '* ? [a]', UMLAUT: 'schön €', EMPTY: '',
    };
    writeFileSync(envFile, ['DB_PASSWORD=hunter2-hunter2', ...Object.entries(nasty).map(([name, value]) => `${name}="${value}"`)].join('\n'), {mode: 0o600});
    const words = ['%h', '%%', 'two words', `"'`, '\\n\\', '\\x41', '*', '#', '@x', '-x', '<>|&!', 'é€', '', '--', '\t'];
    site.configure({
      workers: {env_file: envFile, env: {NUMBER: 8, SHELL: '/none', CONTROL: '\x01\x1b[0m\x7f'}, command: ['/usr/bin/python3', '-S', '-E', 'worker.py', '{port}', ...words]},
    });
    const commands = join(site.dir, 'commands');
    const end = await site.now([], {wrap: ['strace', '--follow-forks', '--quiet=all', '--trace=execve', '--string-limit=65536', `--output=${commands}`]});
    assert.equal(end.exit, 0, end.stdout + end.stderr);
    assert.match(readFileSync(commands, 'utf8'), /execve\("\/usr\/bin\/systemd-run", \[/);
    assert.doesNotMatch(readFileSync(commands, 'utf8'), /hunter2/);
    const [port = 0] = site.nginx.upstreamPorts();
    const given = async (): Promise<Record<string, string>> => {
      const {INVOCATION_ID, JOURNAL_STREAM, SYSTEMD_EXEC_PID, ...env} = JSON.parse((await get(port, '/env')).text) as Record<string, string>;
      assert.ok([INVOCATION_ID, JOURNAL_STREAM, SYSTEMD_EXEC_PID].every((one) => one !== undefined && one !== ''), 'what systemd says of itself');
      return env;
    };
    const first = await given();
    const {PATH, HOME, LANG, PORT, OSYW_RELEASE, OSYW_REVISION, OSYW_WORKER_ID, OSYW_TEST_SITE, ...rest} = first;
    assert.ok([PATH, HOME, LANG, PORT, OSYW_RELEASE, OSYW_REVISION, OSYW_WORKER_ID, OSYW_TEST_SITE].every((one) => one !== undefined && one !== ''));
    assert.deepEqual(rest, {...nasty, DB_PASSWORD: 'hunter2-hunter2', NUMBER: '8', SHELL: '/none', CONTROL: '\x01\x1b[0m\x7f'});

    const [unit = ''] = await units();
    const pid = await mainPid(unit);
    const argv = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1);
    assert.deepEqual(argv.slice(-words.length), words);
    const [file = ''] = environments(site);
    assert.equal((await run('stat', ['-c', '%a %u', join(site.dir, 'run', 'environment', file)])).trim(), '600 0');
    assert.equal((await run('stat', ['-c', '%a', join(site.dir, 'run', 'environment')])).trim(), '700');
    // As an update of the machine does: systemd then knows the unit by what it wrote down of it.
    await systemctl('daemon-reload');
    process.kill(pid, 'SIGKILL');
    const again = await waitUntil('the worker to be started again', async () => {
      const now = await mainPid(unit);
      return now !== pid && (await get(port, '/healthz')).status === 200 && now;
    }, {withinMs: 20_000});
    assert.deepEqual(await given(), first);
    assert.deepEqual(readFileSync(`/proc/${again}/cmdline`, 'utf8').split('\0').slice(0, -1), argv);
  });

  test('limits and hardening arrive, and the account; a log that is configured is a file', async (t) => {
    const site = await makeUnitSite(t, {
      count: 1,
      config: {
        workers: {
          user: 'nobody',
          stop: {signal: 'SIGINT', timeout: '700ms'},
          systemd: {memory_max: '512M', tasks_max: 64, properties: {ProtectSystem: 'strict', PrivateTmp: false, LimitNOFILE: 5000, RestartSec: '50ms', CPUQuota: '80%'}},
        },
      },
    });
    const logs = join(site.dir, 'by-root');
    mkdirSync(logs);
    site.configure({workers: {log: join(logs, 'worker-{port}.log')}});
    await site.deployed();
    const [unit = ''] = await units();
    const expected = {
      MemoryMax: String(512 << 20), TasksMax: '64', ProtectSystem: 'strict', LimitNOFILE: '5000', CPUQuotaPerSecUSec: '800ms', RestartUSec: '50ms', User: 'nobody', KillSignal: '2',
      TimeoutStopUSec: '700ms', KillMode: 'mixed', NoNewPrivileges: 'yes', CapabilityBoundingSet: '', Restart: 'always', StartLimitBurst: '20', CollectMode: 'inactive-or-failed', Slice: 'system.slice',
    };
    assert.deepEqual(Object.fromEntries(await Promise.all(Object.keys(expected).map(async (name) => [name, await show(unit, name)] as const))), expected);
    const [port = 0] = site.nginx.upstreamPorts();
    const status = (await get(port, '/status')).text;
    assert.match(status, /^Uid:\s+65534\s+65534\s+65534\s+65534$/m);
    assert.match(status, /^Groups:\s*(65534)?\s*$/m);
    assert.match(status, /^CapBnd:\s+0+$/m);
    assert.match(status, /^NoNewPrivs:\s+1$/m);
    assert.match(status, /^SigIgn:\s+0*1001000$/m, 'no signal of importance is ignored (SIGPIPE and SIGXFSZ are Python\'s own)');
    const env = JSON.parse((await get(port, '/env')).text) as Record<string, string>;
    for (const name of ['USER', 'LOGNAME', 'SHELL']) assert.equal(env[name], undefined, name);
    assert.equal(env['HOME'], '/nonexistent');
    assert.match(readFileSync(join(logs, `worker-${port}.log`), 'utf8'), /listens on/);
    assert.match((await site.run(['logs'])).stdout, /listens on/);
    const shown = await site.run(['config', 'show']);
    assert.match(shown.stdout, /runner: systemd\n\s+systemd:\n\s+memory_max: 512M\n\s+tasks_max: 64\n\s+properties:\n\s+ProtectSystem: strict/);

    // Systemd would open it as root, whatever the account puts there.
    chownSync(logs, 65534, 65534);
    await site.release('2');
    const refused = await site.now();
    assert.equal(refused.exit, 7, refused.stdout);
    assert.match(refused.result?.error ?? '', /others than root can write/);
    chownSync(logs, 0, 0);
    chmodSync(logs, 0o755);
    site.configure({workers: {systemd: {properties: {NoSuchProperty: 'x'}}}});
    const unknown = await site.now();
    assert.equal(unknown.exit, 7, unknown.stdout);
    assert.match(unknown.result?.error ?? '', /NoSuchProperty/);
    site.configure({workers: {systemd: {properties: {NoSuchProperty: null}}}});
    await serves(site, '1');
  });

  test('a worker that is killed is started again, and what stands in its place is ours', async (t) => {
    // It replaces its environment, so that by its unit alone it can be known.
    const site = await makeUnitSite(t, {behaviour: {close_env: true}, config: {workers: {systemd: {properties: {RestartSec: '300ms'}}}}});
    await site.deployed();
    const [worker] = (await site.status()).serving?.workers ?? [];
    assert.ok(worker);
    process.kill(worker.pid, 'SIGKILL');
    const between = await site.status();
    const [dead] = between.serving?.workers ?? [];
    assert.ok(dead?.state === 'starting' || dead?.state === 'healthy' || dead?.state === 'unhealthy', `${dead?.state}`);
    const now = await waitUntil('the worker to be healthy again', async () => (await site.status()).serving?.workers.find(({port, state}) => port === worker.port && state === 'healthy'), {withinMs: 20_000});
    assert.notEqual(now.pid, worker.pid);
    assert.equal(now.restarts, 1);
    await serves(site, '1');
    const again = await site.now();
    assert.equal(again.result?.outcome, 'unchanged', 'it is healthy, so there is nothing to deploy');
    await site.release('2');
    await site.deployed();
    assert.equal(isAlive(now.pid), false, 'and it is stopped like any other');
    await serves(site, '2');
  });

  test('what a worker starts cannot leave its unit: it is gone after the stop', async (t) => {
    const site = await makeUnitSite(t, {count: 1, behaviour: {spawn_child: true, close_env: true}});
    await site.deployed();
    const [unit = ''] = await units();
    const sleeper = () => readdirSync('/proc').map(Number).find((pid) => commandLine(String(pid)) === 'sleep 3600');
    const escaped = await waitUntil('the grandchild', sleeper);
    assert.equal(readFileSync(`/proc/${escaped}/environ`, 'utf8').includes('OSYW_WORKER_ID'), false, 'it has no mark');
    assert.equal(/^PPid:\s+1$/m.test(readFileSync(`/proc/${escaped}/status`, 'utf8')), true, 'it has left its parent');
    assert.match(readFileSync(`/proc/${escaped}/cgroup`, 'utf8'), new RegExp(`/${unit}$`, 'm'));
    assert.equal((await site.run(['stop'])).exit, 0);
    assert.equal(sleeper(), undefined);
    await nothingIsLeft(site);
  });

  test('a worker that ignores its signal is killed after the grace', async (t) => {
    const site = await makeUnitSite(t, {count: 1, behaviour: {ignore_term: true}, config: {workers: {stop: {timeout: '400ms'}}}});
    await site.deployed();
    const began = performance.now();
    const stopped = await site.run(['stop', '--verbose']);
    assert.equal(stopped.exit, 0, stopped.stderr);
    assert.match(stopped.stdout, /did not end on its stop signal and was killed/);
    assert.ok(performance.now() - began >= 400);
    await nothingIsLeft(site);
  });

  test('a worker that systemd gave up leaves no unit, is dead, and can be stopped twice', async (t) => {
    const site = await makeUnitSite(t, {count: 1, config: {workers: {systemd: {properties: {StartLimitBurst: 2, RestartSec: '10ms'}}}}});
    await site.deployed();
    const [unit = ''] = await units();
    await waitUntil('systemd to give up', async () => {
      const pid = await mainPid(unit);
      if (pid > 0) process.kill(pid, 'SIGKILL');
      return (await units()).length === 0;
    }, {withinMs: 30_000});
    const status = await site.run(['status', '--json']);
    assert.equal(status.exit, 1, status.stdout);
    assert.deepEqual(environments(site), [unit]);
    const [id = ''] = /site\/[^"]*\/unit-[0-9a-f]{12}/.exec(readFileSync(join(site.stateDir, 'state.json'), 'utf8')) ?? [];
    assert.equal(unitOf(id), unit);
    const stop = unitStopper({runDir: join(site.dir, 'run'), stop: {timeoutMs: 1000}});
    const worker = {id, port: 1, process: undefined};
    for (const time of ['once', 'twice']) assert.deepEqual(await stop(worker, unit), {port: 1, pid: undefined, end: 'gone', left: []}, time);
    assert.deepEqual(environments(site), []);
    const again = await site.now();
    assert.equal(again.result?.outcome, 'deployed', 'a dead worker is no reason to call it unchanged');
    await serves(site, '1');
  });

  test('daemons with a pid file are units, too', async (t) => {
    const site = await makeUnitSite(t, {daemon: true});
    await site.deployed();
    await serves(site, '1');
    const [unit = ''] = await units();
    assert.equal(await show(unit, 'Type'), 'forking');
    const pid = await mainPid(unit);
    process.kill(pid, 'SIGKILL');
    await waitUntil('another daemon', async () => ![0, pid].includes(await mainPid(unit)), {withinMs: 20_000});
    await waitUntil('it to be healthy', async () => (await site.status()).serving?.workers.every(({state}) => state === 'healthy'), {withinMs: 20_000});
    await site.release('2');
    await site.deployed();
    await serves(site, '2');
  });

  test('the failure of a worker is told with the end of its output, and nothing of it is left', async (t) => {
    const site = await makeUnitSite(t);
    await site.deployed();
    const before = await units();
    for (const [behaviour, exit, error] of [
      [{die_at_once: 5, say: ['the database is not there']}, 7, /exited with 5[^]*journalctl -u osyw-site[^]*\| the database is not there/],
      [{die_after_checks: 1, say: ['so far so good']}, 7, /exited with 3[^]*\| so far so good/],
      [{never_listen: true}, 8, /was not healthy after[^]*\| worker \d+ runs and listens nowhere/],
    ] as const) {
      await site.release('bad', behaviour);
      const end = await site.now();
      assert.equal(end.exit, exit, end.stdout + end.stderr);
      assert.match(end.result?.error ?? '', error);
      assert.deepEqual(await units(), before);
    }
    site.configure({workers: {command: ['/not/there', '{port}']}});
    const absent = await site.now();
    assert.equal(absent.exit, 7);
    assert.match(absent.result?.error ?? '', /systemd could not start it[^]*not\/there/);
    assert.match((await site.run(['logs', '--lines', '3'])).stdout, /^worker-\d+: worker \d+ listens on/m);
    site.forget();
    await serves(site, '1');
  });

  test('logs --follow shows what comes into the journal, until it is stopped', async (t) => {
    const site = await makeUnitSite(t, {count: 1, config: {workers: {systemd: {properties: {RestartSec: '100ms'}}}}});
    await site.deployed();
    const following = site.start(['logs', '--follow']);
    await waitUntil('what is there', () => following.stdout().includes('listens on'), {withinMs: 20_000});
    const [unit = ''] = await units();
    // Each new worker says so; the first may come before the journal is being followed.
    await waitUntil('what comes', async () => {
      const pid = await mainPid(unit);
      if (pid > 0 && (await get(site.nginx.port, '/healthz').catch(() => undefined))?.status === 200) process.kill(pid, 'SIGKILL');
      return following.stdout().split('listens on').length > 2;
    }, {withinMs: 30_000, everyMs: 200});
    following.child.kill('SIGINT');
    const {exit, signal} = await following.ended;
    assert.ok(exit === 0 || exit === 130 || signal === 'SIGINT', `${exit} ${signal}`);
    await waitUntil('journalctl to end', () => !readdirSync('/proc').some((pid) => commandLine(pid).startsWith('/usr/bin/journalctl ')));
  });

  for (const moment of ['systemd-run is there', 'a unit is there', 'every unit is there'] as const) {
    test(`kill -9 of the deployer when ${moment}, then recover: no unit is left`, async (t) => {
      const site = await makeUnitSite(t, {count: 3, behaviour: {boot_ms: 1500}});
      let command = site.start(['now', '--json']);
      await waitUntil(moment, async () => {
        // It is there for a few hundredths of a second: who did not see it tries again.
        if (command.child.exitCode !== null) {
          await site.run(['stop']);
          command = site.start(['now', '--force', '--json']);
        }
        if (moment !== 'systemd-run is there') return (await units()).length >= (moment === 'a unit is there' ? 1 : 3);
        // Held, it has not asked yet when the recovery comes, and would ask afterwards.
        for (const pid of starting()) signal(pid, 'SIGSTOP');
        return starting().length > 0;
      }, {withinMs: 30_000, everyMs: 1});
      command.child.kill('SIGKILL');
      await command.ended;
      for (const pid of starting()) signal(pid, 'SIGSTOP');
      const recovered = await site.run(['recover', '--json']);
      assert.equal(recovered.exit, 0, recovered.stdout + recovered.stderr);
      for (const pid of starting()) signal(pid, 'SIGCONT');
      await waitUntil('every systemd-run to end', () => starting().length === 0, {withinMs: 20_000});
      await nothingIsLeft(site);
      assert.equal((await site.run(['recover'])).exit, 0);
      await site.deployed();
      await serves(site, '1');
    });
  }

  test('workers go from one runner to the other and back', async (t) => {
    const site = await makeUnitSite(t);
    await site.deployed();
    site.configure({workers: {runner: 'process'}});
    await site.deployed();
    assert.deepEqual(await units(), []);
    assert.deepEqual(environments(site), []);
    await site.settled({version: '1'});
    site.configure({workers: {runner: 'systemd'}});
    await site.deployed();
    await serves(site, '1');
  });
});

function starting(): number[] {
  return readdirSync('/proc').filter((pid) => commandLine(pid).startsWith('/usr/bin/systemd-run ')).map(Number);
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // It has ended meanwhile.
  }
}

function commandLine(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim();
  } catch {
    return ''; // gone meanwhile
  }
}
