import assert from 'node:assert/strict';
import {readFileSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {test} from 'node:test';
import {setTimeout as pause} from 'node:timers/promises';
import {identify} from '../../src/workers/process-identity.ts';
import type {RunningCommand} from '../support/osyw.ts';
import {establishedTo, isAlive, processesOf} from '../support/leftovers.ts';
import {makeSite, type Site, type SiteOptions} from '../support/site.ts';
import {ask} from '../support/raw-http.ts';
import {endChild, spawnBound} from '../support/run.ts';
import {waitUntil} from '../support/wait-until.ts';

// Every phase takes long enough here to be met by a signal: a build that sleeps, workers that boot slowly, a bake.
const SLOW: SiteOptions = {config: {release: {build: [['/bin/sleep', '0.4']]}, bake: {for: '300ms'}}, behaviour: {boot_ms: 300}};

async function began(command: RunningCommand, phase: string): Promise<void> {
  await waitUntil(`phase ${phase} to begin`, () => command.stdout().split('\n').some((line) => line.includes(`"${phase}"`) && line.includes('"began"')), {withinMs: 20_000, everyMs: 1});
}

for (const [signal, phase] of [['SIGTERM', 'update'], ['SIGINT', 'build'], ['SIGHUP', 'start'], ['SIGINT', 'check']] as const) {
  test(`${signal} in ${phase}: 13, nothing is left, the old release serves`, async (t) => {
    const site = await makeSite(t, SLOW);
    await site.deployed();
    await site.release('2', {boot_ms: 300});
    const command = site.start(['now', '--json']);
    await began(command, phase);
    command.child.kill(signal);
    const end = await command.ended;
    assert.equal(end.exit, 13, end.stdout + end.stderr);
    assert.equal(end.result?.code, 'INTERRUPTED');
    assert.equal(end.result.outcome, 'aborted');
    await site.settled({version: '1', outcome: 'aborted', code: 'INTERRUPTED'});
    await site.deployed();
    await site.settled({version: '2'});
  });
}

test('a signal after the switch: the deploy is finished first', async (t) => {
  const site = await makeSite(t, SLOW);
  await site.deployed();
  await site.release('2');
  const command = site.start(['now', '--json']);
  await began(command, 'bake');
  command.child.kill('SIGTERM');
  const end = await command.ended;
  assert.equal(end.exit, 0, end.stdout + end.stderr);
  await site.settled({version: '2', outcome: 'deployed'});
});

test('a second signal leaves at once, and recover goes on where that was', async (t) => {
  const site = await makeSite(t);
  await site.deployed();
  await site.release('2');
  site.configure({bake: {for: '40s'}});
  const command = site.start(['now', '--json']);
  await began(command, 'bake');
  command.child.kill('SIGINT');
  // Two that are pending at a time would be one.
  await waitUntil('the first to be taken', () => !isPending(command.pid, 2));
  command.child.kill('SIGINT');
  const end = await command.ended;
  assert.equal(end.signal, 'SIGINT', end.stdout + end.stderr);
  assert.ok(end.ms < 30_000, `${end.ms} ms: not at the end of the bake`);
  assert.equal(await site.version(), '2');
  assert.match((await site.run(['status'])).stdout, /was killed in bake/, 'the journal stays');
  site.configure({bake: {for: '50ms'}});
  assert.equal((await site.run(['recover'])).exit, 0);
  await site.settled({version: '2', outcome: 'deployed'});
});

/** Whether a signal waits to be handled. Source: proc(5), SigPnd and ShdPnd. */
function isPending(pid: number, signal: number): boolean {
  return [...readFileSync(`/proc/${pid}/status`, 'utf8').matchAll(/^(?:Sig|Shd)Pnd:\s*([0-9a-f]+)/gm)].some(([, set]) => (BigInt(`0x${set}`) >> BigInt(signal - 1) & 1n) === 1n);
}

/** Gives a command a terminal of its own, as its controlling one; the terminal is gone with this process. */
const ON_A_TERMINAL = `
import os, pty, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
while True:
    try:
        os.write(1, os.read(terminal, 65536))
    except OSError:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
`;

for (const [phase, serves, outcome] of [['build', '1', 'aborted'], ['bake', '2', 'deployed']] as const) {
  test(`the terminal is closed in ${phase}: ${outcome}, as with any signal`, async (t) => {
    const site = await makeSite(t, SLOW);
    await site.deployed();
    await site.release('2');
    const command = site.start(['now'], {wrap: ['/usr/bin/python3', '-S', '-E', '-c', ON_A_TERMINAL]});
    const journal = join(site.stateDir, 'journal.ndjson');
    await waitUntil(`phase ${phase}`, () => readFileSync(journal, 'utf8').includes(`"phase":"${phase}"`) && !readFileSync(journal, 'utf8').includes('"closed"'), {withinMs: 20_000, everyMs: 1});
    assert.match(command.stdout(), /\x1b\[/, 'it is a terminal that is drawn on');
    command.child.kill('SIGKILL');
    await command.ended;
    await waitUntil('the deploy to end', () => processesOf(site.dir).every(({command: line}) => !line.includes('osyw-deploy.cjs')), {withinMs: 20_000});
    await site.settled({version: serves, outcome});
  });
}

// Longer than a check may take, and in the check phase longer than all of them together.
for (const [phase, stoppedMs] of [['check', 4500], ['bake', 1500]] as const) {
  test(`a deployer that stood still in the middle of a check, in ${phase}, blames no worker for it`, async (t) => {
    const slow = {health_delay_ms: 150};
    const site = await makeSite(t, {behaviour: slow, config: {check: {timeout: '1s', deadline: '4s', consecutive: 3}, bake: {for: '1s'}}});
    await site.deployed();
    await site.release('2', slow);
    const command = site.start(['now', '--json']);
    await began(command, phase);
    // Nobody but the checks asks the workers for anything.
    const ports = Array.from({length: site.ports.last - site.ports.first + 1}, (_, i) => site.ports.first + i);
    await waitUntil('a check to be under way', () => establishedTo(ports) > 0, {everyMs: 1});
    command.child.kill('SIGSTOP');
    await pause(stoppedMs);
    command.child.kill('SIGCONT');
    const end = await command.ended;
    assert.equal(end.exit, 0, end.stdout + end.stderr);
    await site.settled({version: '2', outcome: 'deployed'});
  });
}

for (const [what, phase, thrown, serves] of [
  ['throws in a timer', 'check', 'throw new Error("a bug of ours")', '1'],
  ['leaves a rejection to nobody', 'bake', 'void Promise.reject(new Error("a bug of ours"))', '2'],
] as const) {
  test(`a deployer that ${what}, in ${phase}: 1, with a result, and recover settles it`, async (t) => {
    const site = await makeSite(t, SLOW);
    await site.deployed();
    await site.release('2', {boot_ms: 300});
    const [script, mark] = [join(site.dir, 'bug.cjs'), join(site.dir, 'now')];
    writeFileSync(script, `setInterval(() => { if (require('node:fs').existsSync(${JSON.stringify(mark)})) ${thrown}; }, 2).unref();\n`);
    const traffic = site.traffic();
    const command = site.start(['now', '--json'], {env: {NODE_OPTIONS: `--require=${script}`}});
    await began(command, phase);
    writeFileSync(mark, '');
    const end = await command.ended;
    assert.equal(end.exit, 1, end.stdout + end.stderr);
    assert.equal(end.result?.code, 'INTERNAL');
    assert.match(end.result.error ?? '', /a bug of ours/);
    assert.match(readFileSync(join(site.stateDir, 'log', 'osyw-deploy.log'), 'utf8'), /a bug of ours/, 'who started it may not read what it says');
    assert.equal((await site.run(['recover'])).exit, 0);
    await site.settled({version: serves, traffic});
  });
}

test('what the lock says of a holder that is dead is believed by nobody, whoever has its pid now', async (t) => {
  const site = await makeSite(t);
  await site.deployed();
  await site.release('2');
  const innocent = spawnBound('/bin/sleep', ['600'], {stdio: 'ignore'});
  t.after(() => endChild(innocent));
  writeFileSync(join(site.stateDir, 'lock'), JSON.stringify({process: identify(innocent.pid ?? 0), command: 'now', since: new Date().toISOString()}));
  assert.equal((await site.status()).deploy, null);
  await site.deployed();
  assert.ok(isAlive(innocent.pid ?? 0));
  await site.settled({version: '2'});
});

interface Kill {
  readonly name: string;
  readonly at: (site: Site, command: RunningCommand) => Promise<void>;
  /** Which version serves after `recover`; undefined where both are right. */
  readonly serves: '1' | '2' | undefined;
}

const KILLS: readonly Kill[] = [
  ...(['update', 'build', 'start', 'check'] as const).map((phase): Kill => ({name: `when ${phase} began`, at: (_, command) => began(command, phase), serves: '1'})),
  {name: 'when workers run', at: (site) => waitUntil('four workers', () => site.processes().filter(({command}) => command.includes('worker.py')).length === 4, {withinMs: 20_000, everyMs: 1}).then(() => {}), serves: '1'},
  {name: 'when switch began', at: (_, command) => began(command, 'switch'), serves: undefined},
  {
    name: 'when the file is written',
    at: (site) => {
      const before = readFileSync(site.nginx.upstreamFile, 'utf8');
      return waitUntil('the new file', () => readFileSync(site.nginx.upstreamFile, 'utf8') !== before, {withinMs: 20_000, everyMs: 1}).then(() => {});
    },
    serves: undefined,
  },
  {
    name: 'when nginx reloads',
    at: (site) => {
      const before = reloads(site);
      return waitUntil('the reload', () => reloads(site) > before, {withinMs: 20_000, everyMs: 1}).then(() => {});
    },
    serves: undefined,
  },
  {name: 'when bake began', at: (_, command) => began(command, 'bake'), serves: '2'},
  {name: 'when drain began', at: (_, command) => began(command, 'drain'), serves: '2'},
];

function reloads(site: Site): number {
  return site.nginx.logs().error.split('reconfiguring').length;
}

for (const {name, at, serves} of KILLS) {
  test(`kill -9 ${name}: requests go on, recover settles it, and the next deploy works`, {timeout: 240_000}, async (t) => {
    const site = await makeSite(t, SLOW);
    await site.deployed();
    await site.release('2', {boot_ms: 300});
    const traffic = site.traffic({slowMs: 1500});
    const command = site.start(['now', '--json']);
    await at(site, command);
    command.child.kill('SIGKILL');
    assert.equal((await command.ended).signal, 'SIGKILL');

    const recovered = await site.run(['recover', '--json']);
    assert.equal(recovered.exit, 0, recovered.stdout + recovered.stderr);
    await site.settled(serves === undefined ? {} : {version: serves});
    const [line] = await site.history();
    const forward = (await site.version()) === '2';
    // Killed before it had anything on record, a deploy has left nothing to be told.
    const recorded = line?.release !== '000001';
    if (!name.includes('update')) assert.ok(recorded, JSON.stringify(line));
    if (recorded) assert.equal(line?.outcome, forward ? 'deployed' : 'aborted', JSON.stringify(line));
    if (recorded && !forward) {
      assert.equal(line?.code, 'INTERNAL');
      assert.match(line?.error ?? '', /interrupted in /);
    }
    const count = (await site.history()).length;
    const again = await site.run(['recover', '--json']);
    assert.equal(again.exit, 0);
    assert.equal((await site.history()).length, count, 'a second recover changes nothing');

    await site.release('3');
    await site.deployed();
    await site.settled({version: '3', traffic});
  });
}

test('now settles by itself what a killed deploy left', async (t) => {
  const site = await makeSite(t, SLOW);
  await site.deployed();
  await site.release('2', {boot_ms: 300});
  const command = site.start(['now', '--json']);
  await began(command, 'check');
  command.child.kill('SIGKILL');
  await command.ended;
  await site.deployed();
  await site.settled({version: '2', outcome: 'deployed'});
});

test('a first deploy that is killed leaves nothing after recover', async (t) => {
  const site = await makeSite(t, SLOW);
  const before = readFileSync(site.nginx.upstreamFile, 'utf8');
  const command = site.start(['now', '--json']);
  await began(command, 'check');
  command.child.kill('SIGKILL');
  await command.ended;
  assert.equal((await site.run(['recover'])).exit, 0);
  await site.nothingRuns();
  assert.equal(readFileSync(site.nginx.upstreamFile, 'utf8'), before);
});

test('a second now leaves with 4 and names the holder', async (t) => {
  const site = await makeSite(t);
  await site.deployed();
  await site.release('2');
  const gate = join(site.dir, 'gate');
  site.configure({release: {build: [['/bin/sh', '-c', `until [ -e ${gate} ]; do sleep 0.05; done`]]}});
  const first = site.start(['now', '--json']);
  await began(first, 'build');
  const second = await site.now();
  assert.equal(second.exit, 4, second.stdout);
  assert.equal(second.result?.code, 'BUSY');
  assert.match(second.result.error ?? '', new RegExp(`\\b${first.pid}\\b`), 'the holder\'s pid');
  const during = await site.status();
  assert.equal(during.deploy?.phase, 'build');
  assert.equal(during.serving?.workers.length, 2);
  writeFileSync(gate, '');
  assert.equal((await first.ended).exit, 0);
  await site.settled({version: '2', outcome: 'deployed'});
});

test('a deploy goes on beside the drain of the one before', async (t) => {
  const site = await makeSite(t);
  await site.deployed();
  await site.release('2');
  const slow = ask({port: site.nginx.port, path: '/slow?ms=4000'});
  const first = site.start(['now', '--json']);
  await began(first, 'drain');
  await site.release('3');
  const second = await site.now(['--no-wait']);
  assert.equal(second.exit, 0, second.stdout + second.stderr);
  assert.equal(await site.version(), '3');
  const answer = await slow;
  assert.ok(answer.kind === 'answer' && answer.headers['x-osyw-version'] === '1');
  assert.equal((await first.ended).exit, 0);
  await waitUntil('the drains to end', async () => (await site.status()).draining.length === 0, {withinMs: 15_000, everyMs: 200});
  await waitUntil('nobody to work for the site but its workers', () => site.processes().length === 2);
  await site.settled({version: '3'});
});

for (const [name, wrap] of [
  ['closed', ['/bin/sh', '-c', 'exec "$@" >&-', 'sh']],
  ['full', ['/bin/sh', '-c', 'exec "$@" >/dev/full 2>/dev/full', 'sh']],
  ['a pipe that nobody reads any more', ['/bin/bash', '-c', '"$@" | true; exit ${PIPESTATUS[0]}', 'bash']],
] as const) {
  test(`a deploy goes on when its output is ${name}`, async (t) => {
    const site = await makeSite(t);
    await site.deployed();
    await site.release('2');
    const end = await site.run(['now'], {wrap});
    assert.notEqual(end.signal, 'SIGPIPE');
    await site.settled({version: '2', outcome: 'deployed'});
  });
}
