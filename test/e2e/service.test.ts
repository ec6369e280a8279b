import assert from 'node:assert/strict';
import {chmodSync, chownSync, copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {test, type TestContext} from 'node:test';
import {bootMachine, type Machine} from '../support/machine-rig.ts';
import {CLI} from '../support/osyw.ts';
import {get} from '../support/raw-http.ts';
import {makeSite, type Site} from '../support/site.ts';
import {waitUntil} from '../support/wait-until.ts';

// On a machine of the test's own whose first process is systemd: only root can boot one, and where nobody looks it must be root who tests.

const ROOT = {timeout: 240_000, skip: process.getuid?.() !== 0 && process.env['CI'] === undefined && 'only root can boot a systemd'};
const SOON = {withinMs: 60_000, everyMs: 50};
const UNIT = 'osyw-deploy-site.service';
interface Served {
  readonly site: Site;
  readonly machine: Machine;
}

/** Installed by the command, with a watchdog and pauses that a test can wait for. */
async function installed(t: TestContext, {boot = 0, runner = 'process'}: {boot?: number; runner?: 'process' | 'systemd'} = {}): Promise<Served> {
  const site = await makeSite(t, {config: {workers: {user: 'www-data', runner, ...(runner === 'systemd' && {log: null})}, run_dir: null, watch: {poll: '0s'}}, behaviour: {boot_ms: boot}});
  const machine = await bootMachine(t, site);
  const end = await site.run(['service', 'install']);
  assert.equal(end.exit, 0, end.stderr);
  mkdirSync(machine.etc(`systemd/system/${UNIT}.d`));
  writeFileSync(machine.etc(`systemd/system/${UNIT}.d/test.conf`), '[Service]\nWatchdogSec=2s\nRestartSec=100ms\n');
  const enabled = await site.run(['service', 'install', '--enable']);
  assert.equal(enabled.exit, 0, enabled.stderr);
  return {site, machine};
}

async function pids(site: Site): Promise<number[]> {
  const {serving} = await site.status();
  assert.deepEqual(serving?.workers.map(({state}) => state), ['healthy', 'healthy']);
  return serving?.workers.map(({pid}) => pid) ?? [];
}

async function mainPid({machine}: Served): Promise<number> {
  return Number(await machine.systemctl('show', '--value', '--property=MainPID', UNIT));
}

async function activeState({machine}: Served): Promise<string> {
  return (await machine.systemctl('show', '--value', '--property=ActiveState', UNIT)).trim();
}

/** Another process is the watch, and systemd has heard that it is ready. */
function another(served: Served, before: number): Promise<number> {
  return waitUntil('another watch', async () => {
    const now = await mainPid(served);
    return now !== 0 && now !== before && await activeState(served) === 'active' && now;
  }, SOON);
}

function units(machine: Machine): string[] {
  return readdirSync(machine.etc('systemd/system'));
}

function journal({machine}: Served): Promise<string> {
  return machine.run('journalctl', '--no-pager', '--output=cat', `--unit=${UNIT}`);
}

function answers(ports: readonly number[]): Promise<string[]> {
  return Promise.all(ports.map(async port => (await get(port, '/')).text));
}

async function nginxRuns({machine}: Served): Promise<unknown> {
  return waitUntil('nginx to be started', async () => (await machine.systemctl('show', '--value', '--property=ActiveState', 'nginx.service')).trim() === 'active', SOON);
}

/** Switched off and on again: fresh workers answer on the ports of before as soon as there is an nginx. */
async function comesBack(served: Served): Promise<void> {
  const {site, machine} = served;
  const ports = site.nginx.upstreamPorts();
  const before = (await site.status()).serving?.since;
  await machine.reboot();
  await nginxRuns(served);
  // Whoever asks first has an answer.
  assert.deepEqual(await answers(ports), ['1', '1']);
  await waitUntil('nginx to listen', () => site.version(), SOON);
  assert.equal(await site.version(), '1');
  const [watch, nginx] = await Promise.all([UNIT, 'nginx.service'].map(async unit => Number(await machine.systemctl('show', '--value', '--property=ActiveEnterTimestampMonotonic', unit))));
  assert.ok((watch ?? 0) <= (nginx ?? 0), `ready at ${watch}, nginx at ${nginx}`);
  await pids(site);
  assert.notEqual((await site.status()).serving?.since, before);
  assert.deepEqual(site.nginx.upstreamPorts(), ports);
}

test('paths that systemd could take for something else', ROOT, async t => {
  const site = await makeSite(t, {config: {run_dir: null, watch: {poll: '0s'}}});
  const machine = await bootMachine(t, site);
  const place = join(site.dir, `a %i  b $HOME \${x} 'c' "d" \\e\\x41 ;#`);
  mkdirSync(place);
  const config = join(place, 'osyw deploy.yaml');
  const script = join(place, 'osyw-deploy.cjs');
  copyFileSync(site.configFile, config);
  copyFileSync(CLI, script);
  await machine.run(process.execPath, script, 'service', 'install', '--enable', '--config', config);
  const pid = (await machine.systemctl('show', '--value', '--property=MainPID', UNIT)).trim();
  assert.deepEqual((await machine.run('cat', `/proc/${pid}/cmdline`)).split('\0'), [process.execPath, script, 'watch', '--verbose', '--config', config, '']);
  assert.equal(await machine.ask('systemd-analyze', 'verify', machine.etc(`systemd/system/${UNIT}`)), '');
  const before = units(machine);
  await machine.run(process.execPath, script, 'service', 'uninstall', '--config', config);
  assert.deepEqual(before.filter(name => !units(machine).includes(name)), [UNIT]);
});

test('as an init script, which systemd starts before nginx', ROOT, async t => {
  const site = await makeSite(t, {config: {run_dir: null}});
  const machine = await bootMachine(t, site);
  const script = '/etc/init.d/osyw-deploy-site';
  const end = await site.run(['service', 'install', '--sysv', '--enable']);
  assert.equal(end.exit, 0, end.stderr);
  assert.match((await site.run(['service', 'status'])).stdout, /^site: nothing serves, comes up at a boot\n[^]*→ it does not run: `\/etc\/init\.d\/osyw-deploy-site start`\n$/);
  await site.deployed();
  const status = await site.run(['service', 'status']);
  assert.equal(status.exit, 0, status.stdout);
  // Source: systemd-sysv-generator(8).
  await machine.run('mkdir', '/run/normal', '/run/early', '/run/late');
  await machine.run('/lib/systemd/system-generators/systemd-sysv-generator', '/run/normal', '/run/early', '/run/late');
  const unit = await machine.run('cat', `/run/late/${UNIT}`);
  assert.match(unit, /^Before=.*\bnginx\.service\b/m);
  for (const line of [`ExecStart=${script} start`, `ExecStop=${script} stop`, `ExecReload=${script} reload`, 'KillMode=process']) assert.ok(unit.split('\n').includes(line), unit);
  assert.equal((await site.run(['service', 'uninstall'])).exit, 0);
  assert.deepEqual((await machine.run('find', '/etc', '-name', '*osyw-deploy-site*')).trim(), '');
  assert.equal(await site.version(), '1');
});

test('of an account that is not root', ROOT, async t => {
  const as = {uid: 33, gid: 33};
  const site = await makeSite(t, {as, config: {watch: {poll: '0s'}}});
  const machine = await bootMachine(t, site);
  mkdirSync(site.stateDir);
  chownSync(site.stateDir, as.uid, as.gid);
  chownSync(site.configFile, 0, 0);
  chmodSync(site.configFile, 0o644);
  const command = [process.execPath, join(site.dir, 'osyw-deploy.cjs')] as const;
  const refused = await machine.ask('setpriv', '--reuid=33', '--regid=33', '--init-groups', '--', ...command, 'service', 'install', '--config', site.configFile);
  assert.match(refused, /may not write \/etc\/systemd\/system[^]*Then, as root:\n {2}install -D -m 0644 [^]*systemctl enable --now osyw-deploy-site\.service\nexit 2\n$/);
  await machine.run(...command, 'service', 'install', '--enable', '--config', site.configFile);
  const pid = (await machine.systemctl('show', '--value', '--property=MainPID', UNIT)).trim();
  assert.equal((await machine.run('ps', '-o', 'user=', '-p', pid)).trim(), 'www-data');
  const status = await machine.ask(...command, 'service', 'status', '--config', site.configFile);
  assert.doesNotMatch(status, /exit|→/);
});

test('the unit: its watch is restarted, stopped, killed, held and told a broken configuration; the workers serve on', ROOT, async t => {
  const served = await installed(t);
  const {site, machine} = served;
  assert.equal((await machine.ask('systemd-analyze', 'verify', machine.etc(`systemd/system/${UNIT}`))), '');
  await site.deployed();
  const before = await pids(site);
  const traffic = site.traffic();

  await t.test('restart', async () => {
    const watch = await mainPid(served);
    await machine.systemctl('restart', UNIT);
    assert.notEqual(await mainPid(served), watch);
    assert.deepEqual(await pids(site), before);
  });
  await t.test('stop and start', async () => {
    await machine.systemctl('stop', UNIT);
    assert.equal(await activeState(served), 'inactive');
    assert.deepEqual(await pids(site), before);
    assert.equal(await site.version(), '1');
    assert.equal((await site.run(['service', 'status'])).exit, 1);
    await machine.systemctl('start', UNIT);
    assert.deepEqual(await pids(site), before);
    const status = await site.run(['service', 'status']);
    assert.equal(status.exit, 0, status.stdout);
  });
  await t.test('kill -9', async () => {
    const watch = await mainPid(served);
    await machine.systemctl('kill', '--kill-whom=main', '--signal=KILL', UNIT);
    await another(served, watch);
    assert.deepEqual(await pids(site), before);
  });
  await t.test('one that is held does not answer the watchdog', async () => {
    const watch = await mainPid(served);
    await machine.systemctl('kill', '--kill-whom=main', '--signal=STOP', UNIT);
    await another(served, watch);
    assert.match(await journal(served), /Watchdog timeout/);
    assert.deepEqual(await pids(site), before);
    const successor = await mainPid(served);
    // One that answers is left alone.
    await waitUntil('two words to the watchdog', async () => Number(await machine.systemctl('show', '--value', '--property=WatchdogTimestampMonotonic', UNIT)) > Number(await machine.systemctl('show', '--value', '--property=ActiveEnterTimestampMonotonic', UNIT)) + 4_000_000, SOON);
    assert.equal(await mainPid(served), successor);
  });
  await t.test('reload with a broken configuration, then with a good one', async () => {
    const watch = await mainPid(served);
    const good = readFileSync(site.configFile, 'utf8');
    writeFileSync(site.configFile, `${good}\nno_such_key: 1\n`);
    await machine.systemctl('reload', UNIT);
    await waitUntil('the journal to tell', async () => /CONFIG_INVALID[^]*The configuration of before stays in force/.test(await journal(served)), SOON);
    writeFileSync(site.configFile, good);
    await machine.systemctl('reload', UNIT);
    await waitUntil('the journal to tell', async () => (await journal(served)).includes(`read ${site.configFile} again`), SOON);
    await waitUntil('it to be active', async () => await activeState(served) === 'active', SOON);
    assert.equal(await mainPid(served), watch);
    assert.deepEqual(await pids(site), before);
  });
  await t.test('a deploy has all the rights it needs', async () => {
    site.configure({release: {build: [['sh', '-c', 'cat /proc/1/comm >first && id -un >built-by && chmod g+s .']]}});
    await site.release('2');
    await site.deployed();
    assert.equal(await site.version(), '2');
    assert.deepEqual((await machine.run('ps', '-o', 'user=', '-p', (await pids(site)).join())).trim().split(/\s+/), ['www-data', 'www-data']);
    assert.equal(readFileSync(join(site.stateDir, 'releases/000002/built-by'), 'utf8'), 'www-data\n');
    // In a process namespace of its own.
    assert.equal(readFileSync(join(site.stateDir, 'releases/000002/first'), 'utf8'), 'sh\n');
  });
  await t.test('uninstall', async () => {
    const now = await pids(site);
    const end = await site.run(['service', 'uninstall']);
    assert.equal(end.exit, 0, end.stderr);
    assert.deepEqual(await pids(site), now);
    assert.equal((await site.run(['service', 'status'])).exit, 3);
    assert.deepEqual(['systemd/system', 'logrotate.d', 'tmpfiles.d', 'systemd/system/multi-user.target.wants'].flatMap(place => readdirSync(machine.etc(place))).filter(name => name.startsWith('osyw-deploy-site')), [`${UNIT}.d`], 'the drop-in is not ours');
    await machine.systemctl('daemon-reload');
    assert.equal(await site.version(), '2');
  });
  const {failures} = await traffic.stop();
  assert.deepEqual(failures, []);
});

test('it is ready when the workers serve, and after a boot before nginx', ROOT, async t => {
  const served = await installed(t, {boot: 1500});
  const {site, machine} = served;
  await site.deployed();
  const ports = site.nginx.upstreamPorts();

  await t.test('a start ends when the workers answer', async () => {
    const before = await pids(site);
    await machine.systemctl('stop', UNIT);
    await machine.run('kill', '-KILL', ...before.map(String));
    const starting = machine.systemctl('start', UNIT);
    await waitUntil('it to be activating', async () => await activeState(served) === 'activating', SOON);
    await assert.rejects(get(ports[0] ?? 0, '/'));
    await starting;
    assert.deepEqual(await answers(ports), ['1', '1']);
  });
  await t.test('a boot', async () => {
    await comesBack(served);
    assert.equal((await site.history())[0]?.trigger, 'boot');
    assert.equal((await site.run(['service', 'status'])).exit, 0);
  });
  await t.test('what cannot come back does not keep nginx from its other sites', async () => {
    site.configure({workers: {command: ['/bin/false', '{port}']}});
    await machine.reboot();
    await nginxRuns(served);
    assert.equal(await activeState(served), 'active');
    assert.match(await journal(served), /START_FAILED/);
  });
  assert.ok(existsSync(machine.etc(`systemd/system/${UNIT}`)));
});

test('with workers that are units of their own: a restart leaves them alone, and after a boot they are back before nginx', ROOT, async t => {
  const served = await installed(t, {runner: 'systemd'});
  const {site, machine} = served;
  await site.deployed();
  const before = await pids(site);
  await machine.systemctl('restart', UNIT);
  assert.deepEqual(await pids(site), before);
  await comesBack(served);
});
