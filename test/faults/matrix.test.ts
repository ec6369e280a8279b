import assert from 'node:assert/strict';
import {execFileSync} from 'node:child_process';
import {cpSync, existsSync, mkdirSync, readFileSync, rmSync, truncateSync, writeFileSync} from 'node:fs';
import {dirname, join} from 'node:path';
import {test, type TestContext} from 'node:test';
import {setTimeout as pause} from 'node:timers/promises';
import {isAlive} from '../support/leftovers.ts';
import {makeSite} from '../support/site.ts';
import {waitUntil} from '../support/wait-until.ts';
import {raiseBarrier} from './barrier.ts';
import {makeControlGroup} from './control-group.ts';
import {observe} from './observer.ts';
import {reboot, whyNoReboot} from './reboot.ts';

// What the other suites cannot do at every point: a fault that needs the kernel's help, or an nginx that it is done to. One test for each.

const root = process.getuid?.() === 0 ? false : 'needs root';

test('the kernel kills the deployer for want of memory in a build: as any other kill', {skip: root}, async t => {
  const site = await makeSite(t);
  const group = makeControlGroup(t, 'memory');
  if (typeof group === 'string') return t.skip(group);
  await site.deployed();
  const observer = await observe(t, site);
  await site.release('2');
  const gate = join(site.dir, 'gate');
  site.configure({release: {build: [['/bin/sh', '-c', `: >${gate}.reached; until [ -e ${gate} ]; do sleep 0.02; done; exec python3 -c "x = bytearray(1 << 30)"`]]}});
  group.limit(300 << 20);
  const command = site.start(['now', '--json'], {wrap: group.enter});
  await waitUntil('the build', () => existsSync(`${gate}.reached`), {withinMs: 20_000});
  // Of all that is in the group the kernel chooses this one, though the build takes more.
  writeFileSync(`/proc/${command.pid}/oom_score_adj`, '1000');
  writeFileSync(gate, '');
  const end = await command.ended;
  assert.equal(end.signal, 'SIGKILL', end.stdout + end.stderr);
  assert.ok(group.killedForMemory() > 0);
  group.unlimit();
  site.forget();
  await observer.recovers({version: '1', outcome: 'aborted'});
});

test('no more processes may be started: 7, and what was started is gone', {skip: root}, async t => {
  const site = await makeSite(t, {count: 12});
  const group = makeControlGroup(t, 'pids');
  if (typeof group === 'string') return t.skip(group);
  await site.deployed();
  const observer = await observe(t, site);
  await site.release('2');
  const gate = join(site.dir, 'gate');
  site.configure({release: {build: [['/bin/sh', '-c', `: >${gate}.reached; until [ -e ${gate} ]; do sleep 0.02; done`]]}});
  const command = site.start(['now', '--json'], {wrap: group.enter});
  await waitUntil('the build', () => existsSync(`${gate}.reached`), {withinMs: 20_000});
  // Room for the end of the build, and for some of the twelve.
  group.limit(group.processes() + 3);
  writeFileSync(gate, '');
  const end = await command.ended;
  assert.equal(end.exit, 7, end.stdout + end.stderr);
  assert.match(end.result?.error ?? '', /EAGAIN/);
  site.forget();
  await observer.goesOn({version: '1', outcome: 'aborted', code: 'START_FAILED'});
});

test('workers that get next to no CPU: 8, and the old ones go on', {skip: root}, async t => {
  const site = await makeSite(t, {config: {check: {deadline: '1s'}}});
  const group = makeControlGroup(t, 'cpu');
  if (typeof group === 'string') return t.skip(group);
  await site.deployed();
  const observer = await observe(t, site);
  await site.release('2');
  group.limit(1);
  site.configure({workers: {command: [...group.enter, '/usr/bin/python3', '-S', '-E', 'worker.py', '{port}']}});
  const end = await site.now();
  group.unlimit();
  assert.equal(end.exit, 8, end.stdout + end.stderr);
  site.forget();
  await observer.goesOn({version: '1', outcome: 'aborted', code: 'NEVER_HEALTHY'});
});

test('nginx is told another configuration between its test and its reload: 9, and the old one is loaded', async t => {
  const site = await makeSite(t);
  await site.deployed();
  const observer = await observe(t, site);
  await site.release('2');
  const text = readFileSync(site.nginx.conf, 'utf8');
  const barrier = raiseBarrier(site.dir, 'upstream.reloading.before');
  const command = site.start(['now', '--json'], barrier.options);
  assert.ok(await barrier.reached(command));
  truncateSync(site.nginx.conf, 200);
  barrier.open();
  const end = await command.ended;
  assert.equal(end.exit, 9, end.stdout + end.stderr);
  writeFileSync(site.nginx.conf, text);
  await observer.goesOn({version: '1', outcome: 'aborted', code: 'SWITCH_REFUSED'});
});

test('somebody reloads nginx five times a second: deploys go live, and no request fails', async t => {
  const site = await makeSite(t);
  await site.deployed();
  const observer = await observe(t, site, {traffic: {lanes: {keepAliveGet: 0, keepAlivePost: 0}, slowMs: 400}});
  let going = true;
  let reloads = 0;
  const reloading = (async () => {
    while (going) {
      process.kill(site.nginx.masterPid(), 'SIGHUP');
      reloads++;
      await pause(200);
    }
  })();
  try {
    for (const version of ['2', '3', '4']) {
      await site.release(version);
      const end = await site.deployed(['--no-wait']);
      assert.equal(end.result?.outcome, 'deployed');
      await waitUntil(`version ${version} alone`, async () => await site.version() === version && await site.version() === version);
    }
  } finally {
    going = false;
    await reloading;
  }
  assert.ok(reloads > 10, `${reloads} reloads`);
  await waitUntil('the drains to end', async () => (await site.status()).draining.length === 0, {withinMs: 20_000, everyMs: 100});
  await waitUntil('nobody to work for the site but its workers', () => site.processes().length === 2);
  await observer.goesOn({version: '4'});
});

for (const [how, lasts] of [['for a moment', false], ['for long', true]] as const) {
  test(`nginx cannot fork its workers, ${how}: it is told the old configuration at once, and nobody is stopped`, {skip: root}, async t => {
    const site = await makeSite(t);
    const group = makeControlGroup(t, 'pids');
    if (typeof group === 'string') return t.skip(group);
    await site.deployed();
    await site.release('2');
    group.join(site.nginx.masterPid());
    group.limit(1);
    const command = site.start(['now', '--json']);
    const failed = (): number => site.nginx.logs().error.split('fork() failed').length - 1;
    await waitUntil('a reload without workers', () => failed() > 0, {withinMs: 20_000, everyMs: 1});
    if (!lasts) group.unlimit();
    const began = performance.now();
    const end = await command.ended;
    assert.ok(performance.now() - began < 8000, `it took ${performance.now() - began} ms`);
    if (lasts) {
      assert.equal(end.exit, 12, end.stdout + end.stderr);
      assert.match(end.result?.error ?? '', /starts no workers/);
      assert.equal(site.processes().length, 4, 'the old workers and the new run');
      group.unlimit();
      assert.equal((await site.run(['recover'])).exit, 0);
      await site.settled();
    } else {
      assert.equal(end.exit, 9, end.stdout + end.stderr);
      await site.settled({version: '1', outcome: 'aborted', code: 'SWITCH_REFUSED'});
    }
    await site.deployed();
    await site.settled({version: '2'});
  });
}

/** A file system of the test's own on a loop device; undefined where there is none. Unmounted before the site's end, so this comes first. */
function makeDisk(t: TestContext): {mount(where: string, image: string): boolean; unmount(): void} {
  const mounted: string[] = [];
  const unmount = (): void => {
    for (let where = mounted.pop(); where !== undefined; where = mounted.pop()) execFileSync('umount', ['-l', where]);
  };
  t.after(unmount);
  return {
    mount: (where, image) => {
      mkdirSync(where, {recursive: true});
      try {
        if (!existsSync(image)) {
          execFileSync('truncate', ['-s', '64M', image]);
          execFileSync('/sbin/mkfs.ext4', ['-q', '-F', image]);
        }
        execFileSync('mount', ['-o', 'loop', image, where], {stdio: 'pipe'});
      } catch {
        return false; // No loop device, as in many a container.
      }
      mounted.push(where);
      return true;
    },
    unmount,
  };
}

test('a worker that the kernel will not let die: 10, its port rests, and recover ends with it', {skip: root, timeout: 120_000}, async t => {
  const disk = makeDisk(t);
  const site = await makeSite(t, {config: {workers: {stop: {timeout: '300ms'}}}});
  const logs = join(site.dir, 'stuck');
  if (!disk.mount(logs, join(site.dir, 'image'))) return t.skip('no loop device here');
  // The last that a worker does is to write a line; on a frozen disk it waits in the kernel, where no signal reaches it.
  site.configure({workers: {log: join(site.dir, 'stuck', 'worker-{port}.log')}});
  await site.deployed();
  const old = site.processes().map(({pid}) => pid);
  const ports = site.nginx.upstreamPorts();
  site.configure({workers: {log: join(site.dir, 'logs', 'worker-{port}.log')}});
  await site.release('2');
  execFileSync('fsfreeze', ['--freeze', logs]);
  let thaw = (): void => {
    thaw = () => {};
    execFileSync('fsfreeze', ['--unfreeze', logs]);
  };
  try {
    const end = await site.now();
    assert.equal(end.exit, 10, end.stdout + end.stderr);
    assert.match(end.result?.error ?? '', /do not die/);
    assert.equal(await site.version(), '2');
    assert.deepEqual(old.filter(pid => !isAlive(pid)), [], 'they are there');
    await site.release('3');
    assert.equal((await site.now(['--no-wait'])).exit, 0);
    assert.equal(await site.version(), '3');
    assert.deepEqual(site.nginx.upstreamPorts().filter(port => ports.includes(port)), [], 'their ports are nobody\'s');
  } finally {
    thaw();
  }
  await waitUntil('them to end', () => old.every(pid => !isAlive(pid)));
  await waitUntil('the drains to end', async () => (await site.run(['recover'])).exit === 0 && (await site.status()).draining.length === 0, {withinMs: 20_000});
  await waitUntil('nobody to work for the site but its workers', () => site.processes().length === 2);
  await site.settled({version: '3'});
});

const CUTS: readonly (readonly [point: string, serves: 'old' | 'new' | 'either'])[] = [
  ['releases.build.after', 'old'],
  ['workers.launch.after', 'old'],
  ['upstream.intend.after', 'old'],
  ['upstream.reloading.before', 'either'],
  ['upstream.switchTo.after', 'either'],
  ['journal.switched.after', 'either'],
  ['records.writeDrain.after', 'either'],
  ['records.save.after', 'new'],
  ['drain.finish.after', 'new'],
];

test('the power fails, and what was not synced is lost: the old or the new release comes back, whole', {skip: root || (whyNoReboot() ?? false), timeout: 300_000}, async t => {
  const disk = makeDisk(t);
  const site = await makeSite(t);
  const place = join(site.dir, 'disk');
  const conf = dirname(site.nginx.upstreamFile);
  let image = join(site.dir, 'image-0');
  const bind = (name: string, where: string): void => void execFileSync('mount', ['--bind', join(place, name), where]);
  const plug = (): boolean => {
    if (!disk.mount(place, image)) return false;
    for (const name of ['state', 'conf.d']) mkdirSync(join(place, name), {recursive: true});
    return true;
  };
  const unplug = (): void => {
    for (const where of [site.stateDir, conf]) execFileSync('umount', ['-l', where]);
    disk.unmount();
  };
  if (!plug()) return t.skip('no loop device here');
  mkdirSync(site.stateDir, {recursive: true});
  cpSync(conf, join(place, 'conf.d'), {recursive: true});
  bind('state', site.stateDir);
  bind('conf.d', conf);
  let bound = true;
  try {
    await site.deployed();
    for (const [number, [point, serves]] of CUTS.entries()) {
      const old = await site.version();
      const fresh = `after ${point}`;
      await site.release(fresh);
      const barrier = raiseBarrier(site.dir, point);
      const command = site.start(['now', '--json'], barrier.options);
      assert.ok(await barrier.reached(command), `${point}: ${command.stdout()}${command.stderr()}`);
      // The device as it is now: what the kernel has not written to it is lost.
      const cut = join(site.dir, `image-${number + 1}`);
      execFileSync('cp', ['--sparse=always', image, cut]);
      command.child.kill('SIGKILL');
      await command.ended;
      await reboot(site, () => {
        unplug();
        rmSync(image);
        image = cut;
        bound = false;
        assert.ok(plug());
        bind('state', site.stateDir);
        bind('conf.d', conf);
        bound = true;
      });
      const start = await site.run(['start', '--json']);
      assert.equal(start.exit, 0, `${point}: ${start.stdout}${start.stderr}`);
      const version = await site.version();
      assert.ok(serves === 'either' ? [old, fresh].includes(version) : version === (serves === 'old' ? old : fresh), `${point}: ${version} serves`);
      await site.settled({version});
      await site.release(`next ${number}`);
      await site.deployed();
      await site.settled({version: `next ${number}`});
    }
  } finally {
    if (bound) for (const where of [site.stateDir, conf]) execFileSync('umount', ['-l', where]);
  }
});
