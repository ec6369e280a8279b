import assert from 'node:assert/strict';
import {spawnSync} from 'node:child_process';
import {readdirSync, readFileSync, rmSync, statSync, writeFileSync} from 'node:fs';
import {createServer} from 'node:net';
import {join} from 'node:path';
import {test} from 'node:test';
import {makeGate} from '../support/gate.ts';
import {establishedTo} from '../support/leftovers.ts';
import {runCommand} from '../support/osyw.ts';
import {makeSite, type Site} from '../support/site.ts';
import {waitUntil} from '../support/wait-until.ts';

interface Plan {
  readonly revision: string;
  readonly from: {readonly release: string; readonly revision: string} | null;
  readonly outcome: string;
  readonly release: {readonly id: string; readonly dir: string} | null;
  readonly build: readonly (readonly string[])[];
  readonly changed: {readonly commits: number; readonly files: number} | null;
  readonly ports: readonly number[];
  readonly nginx: {readonly file: string; readonly diff: string; readonly test: {readonly ok: boolean; readonly output: string} | null; readonly untested: string | null};
  readonly stops: readonly {readonly port: number; readonly pid: number}[];
  readonly draining: readonly {readonly port: number; readonly pid: number; readonly release: string}[];
  readonly hook: {readonly state: string; readonly problems: readonly string[]};
  readonly deploy: {readonly phase: string; readonly revision: string} | null;
}

async function planned(site: Site, args: readonly string[] = []): Promise<Plan> {
  const end = await site.run(['plan', '--json', ...args]);
  assert.equal(end.exit, 0, end.stdout + end.stderr);
  return JSON.parse(end.stdout) as Plan;
}

/** Every file below the directory, with all that a write would change; nginx's access log is written by requests alone. */
function footprint(dir: string): string[] {
  return readdirSync(dir, {recursive: true, encoding: 'utf8'}).sort().map((name) => {
    const {size, mtimeMs, ctimeMs, ino, uid, gid, mode} = statSync(join(dir, name), {throwIfNoEntry: false}) ?? {};
    return `${name} ${size} ${mtimeMs} ${ctimeMs} ${ino} ${uid}:${gid} ${mode}`;
  });
}

/** The ports that a diff adds and takes away. */
function portsOf(diff: string, sign: '+' | '-'): number[] {
  return diff.split('\n').filter((line) => line.startsWith(sign) && !line.startsWith(sign.repeat(3))).flatMap((line) => /server \S+:(\d+)/.exec(line)?.[1] ?? []).map(Number);
}

/** The text with a unified diff carried out. */
function patched(before: string, diff: string): string {
  const old = before.split('\n');
  const lines: string[] = [];
  let at = 0;
  for (const line of diff.split('\n').slice(2, -1)) {
    const [, begin, length] = /^@@ -(\d+)(?:,(\d+))? /.exec(line) ?? [];
    if (begin !== undefined) {
      const first = length === '0' ? Number(begin) : Number(begin) - 1;
      while (at < first) lines.push(old[at++] ?? '');
    } else if (line.startsWith('+')) {
      lines.push(line.slice(1));
    } else if (!line.startsWith('\\')) {
      assert.equal(line.slice(1), old[at], 'the diff is of this text');
      if (line.startsWith(' ')) lines.push(old[at] ?? '');
      at++;
    }
  }
  return [...lines, ...old.slice(at)].join('\n');
}

for (const [vcs, inline] of [['svn', false], ['git', false], ['git', true]] as const) {
  test(`now does exactly what plan said: revision, release, ports, file and stops (${vcs}, ${inline ? 'in a file of the user\'s' : 'in a file of ours'})`, async (t) => {
    const site = await makeSite(t, {vcs, nginx: {inline, upstream: 'upstream myweb {\n    server 127.0.0.1:1;\n    server 127.0.0.1:2;  # the second\n}\n'}, config: {release: {build: [['/usr/bin/true', 'a b']]}}});
    await site.deployed();
    for (const version of ['2', '3', '4', '5']) {
      const revision = await site.release(version, {}, {'more.txt': version});
      // Somebody has the very port that would be next.
      const stranger = createServer();
      const [next = 0] = (await planned(site)).ports;
      await new Promise<void>((resolve, reject) => stranger.once('error', reject).listen(next, '127.0.0.1', resolve));
      try {
        const bytes = readFileSync(site.nginx.upstreamFile, 'utf8');
        const before = footprint(site.dir);
        const plan = await planned(site);
        assert.deepEqual(footprint(site.dir), before, 'nothing was written');
        const {workers} = (await site.status()).serving ?? {workers: []};
        const end = await site.deployed();
        const after = (await site.status()).serving;
        assert.deepEqual([plan.revision, plan.outcome, plan.release?.id], [revision, end.result?.outcome, end.result?.release]);
        assert.equal(plan.from?.release, end.result?.previous);
        assert.deepEqual(plan.ports, after?.workers.map(({port}) => port), 'the ports');
        assert.deepEqual(plan.stops, workers.map(({port, pid}) => ({port, pid})));
        assert.deepEqual([portsOf(plan.nginx.diff, '-'), portsOf(plan.nginx.diff, '+')], [workers.map(({port}) => port), plan.ports]);
        assert.equal(patched(bytes, plan.nginx.diff), readFileSync(site.nginx.upstreamFile, 'utf8'), 'the file, to the byte');
        assert.deepEqual(plan.changed, {commits: 1, files: 2}, 'behaviour.json and more.txt');
        assert.deepEqual(plan.build, [['/usr/bin/true', 'a b']]);
        assert.deepEqual(plan.nginx.test, {ok: true, output: ''}, JSON.stringify(plan.nginx));
      } finally {
        stranger.close();
      }
    }
    const unchanged = await planned(site);
    assert.deepEqual([unchanged.outcome, unchanged.stops, unchanged.nginx.diff, unchanged.release], ['unchanged', [], '', null]);
    await site.settled({version: '5'});
  });
}

const ME = process.getuid?.() ?? 0;

test('nginx -t of a plan leaves no trace: no pid file, no log, no temporary path, no line in a log', {skip: ME !== 0 && 'a shadow of everything needs root'}, async (t) => {
  const site = await makeSite(t);
  await site.deployed();
  await site.release('2');
  // All of it is made by `nginx -t` where it is missing; the running nginx does not need it at the moment.
  rmSync(site.nginx.pidFile);
  for (const name of readdirSync(join(site.nginx.prefix, 'tmp'))) rmSync(join(site.nginx.prefix, 'tmp', name), {recursive: true});
  const other = site.nginx.foreignFile(`server { listen 127.0.0.1:${site.ports.last} ; access_log ${site.nginx.prefix}/logs/new.log; }\n`);
  const before = footprint(site.dir);
  assert.deepEqual((await planned(site)).nginx.test, {ok: true, output: ''});
  assert.deepEqual(footprint(site.dir), before);

  const broken = site.nginx.brokenInclude();
  const withBroken = footprint(site.dir);
  const refused = await planned(site);
  assert.deepEqual(footprint(site.dir), withBroken);
  assert.equal(refused.nginx.test?.ok, false);
  assert.match(refused.nginx.test.output, /unknown directive "this_is_no_directive" in .*somebody-else-2\.conf:1\n(?:.*\n)*The fault is in .*, which is not the file of this deploy/);
  assert.match((await site.run(['plan'])).stdout, /^nginx -t {2}`now` would end with 9 \(SWITCH_REFUSED\):\n.*this_is_no_directive/m);
  broken.remove();
  other.remove();
});

test('a file that nginx does not read yet, that is not ours, or an nginx that does not run: plan says what now would', async (t) => {
  const site = await makeSite(t);
  const elsewhere = join(site.dir, 'elsewhere.conf');
  site.configure({nginx: {file: elsewhere}});
  const unread = (await planned(site)).nginx;
  assert.equal(unread.test?.ok, false);
  assert.match(unread.test.output, new RegExp(`nginx does not read ${elsewhere}: .*\nWrite \`include ${elsewhere};\``));
  assert.deepEqual(portsOf(unread.diff, '-'), [], 'it is new');
  assert.equal((await site.now()).exit, 9);

  site.forget();
  const foreign = site.nginx.foreignFile('# ours\nmap $host $x { default 1; }\n');
  site.configure({nginx: {file: foreign.path}});
  const notOurs = (await planned(site)).nginx;
  assert.match(notOurs.test?.output ?? '', /is not ours to write/);
  assert.equal((await site.now()).exit, 9);
  foreign.remove();

  site.forget();
  await site.nginx.stop();
  assert.match((await planned(site)).nginx.test?.output ?? '', /^nginx is not running/);
  assert.equal((await site.now()).exit, 9);
});

test('beside a running deploy and what drains, plan says so, and writes nothing', async (t) => {
  const site = await makeSite(t);
  await site.deployed();
  await site.release('2');
  // An answer that does not come keeps the first release draining.
  const gone = new AbortController();
  const slow = fetch(`${site.nginx.url}/slow?ms=20000`, {signal: gone.signal}).catch(() => undefined);
  await waitUntil('the slow request to be under way', () => establishedTo(site.nginx.upstreamPorts()) > 0, {everyMs: 2});
  const end = await site.now(['--no-wait']);
  assert.equal(end.exit, 0, end.stdout);
  const [first] = await waitUntil('the first release to drain', async () => (await site.status()).draining);
  const gate = makeGate(t, site);
  site.configure({release: {build: [gate.build]}});
  await site.release('3');
  const running = site.start(['now', '--json']);
  await gate.reached();
  const plan = await planned(site);
  assert.equal(plan.deploy?.phase, 'build');
  assert.deepEqual(plan.draining.map(({port, pid, release}) => ({port, pid, release})), first?.workers.map(({port, pid}) => ({port, pid, release: first.release})));
  const text = (await site.run(['plan'])).stdout;
  assert.match(text, /^beside {4}deploy \S+ of \S+ runs, in build/m);
  assert.match(text, new RegExp(`^drains {4}${first?.workers[0]?.port} \\(pid ${first?.workers[0]?.pid}\\) of release 000001`, 'm'));
  gone.abort();
  await slow;
  gate.open();
  assert.equal((await running.ended).exit, 0, running.stderr());
  await waitUntil('the process that drains to end', () => !site.processes().some(({command}) => command.includes(' drain ')), {withinMs: 60_000});
  await site.settled({version: '3'});
});

test('the hook: not installed, installed, of another application, not to be told', async (t) => {
  const site = await makeSite(t, {vcs: 'svn'});
  assert.equal((await planned(site)).hook.state, 'not_installed');
  assert.equal((await site.run(['hook', 'install'])).exit, 0);
  const installed = await planned(site);
  assert.deepEqual([installed.hook.state, installed.hook.problems], ['installed', []]);
  assert.match((await site.run(['plan'])).stdout, /^hook {6}installed in /m);
  const otherConfig = join(site.dir, 'another.yaml');
  writeFileSync(otherConfig, readFileSync(site.configFile, 'utf8').replace(/^app: .*$/m, 'app: another').replace(/^state_dir: .*$/m, `state_dir: ${site.dir}/state-of-another`), {mode: 0o600});
  const end = await runCommand(['plan', '--json', '--config', otherConfig], {cwd: site.dir});
  const another = JSON.parse(end.stdout) as Plan;
  assert.equal(another.hook.state, 'another');
  assert.match(another.hook.problems[0] ?? '', /serves site, not this application/);
  assert.equal((await site.run(['hook', 'uninstall'])).exit, 0);

  const served = await makeSite(t, {vcs: 'svn', svn: {serve: true}});
  const far = await planned(served);
  assert.equal(far.hook.state, 'unknown');
  assert.match((await served.run(['plan'])).stdout, /^hook {6}cannot be told: source\.url is svn:/m);
});

test('as an ordinary user nginx is asked in a namespace of the user\'s own, or plan says why not', {skip: ME !== 0 && 'the test must be root to become another'}, async (t) => {
  const site = await makeSite(t, {as: {uid: 65_534, gid: 65_534}});
  const before = footprint(site.dir);
  const {nginx} = await planned(site);
  assert.deepEqual(footprint(site.dir), before);
  const may = spawnSync('setpriv', ['--reuid', '65534', '--regid', '65534', '--clear-groups', '--', 'unshare', '--user', '--map-root-user', '--mount', 'true']).status === 0;
  if (!may) assert.match(nginx.untested ?? '', /^no private mount namespace can be had: /);
  else assert.deepEqual(nginx.test, {ok: true, output: ''});
  const broken = site.nginx.brokenInclude();
  const refused = (await planned(site)).nginx;
  assert.equal(refused.test?.ok ?? false, false);
  broken.remove();
  // Where the system lets nobody make another namespace: here, because they are used up.
  if (!may) return;
  const without = footprint(site.dir);
  site.wrap(['unshare', '--user', '--map-root-user', 'sh', '-c', 'echo 0 >/proc/sys/user/max_mnt_namespaces && echo 0 >/proc/sys/user/max_user_namespaces && exec "$@"', 'sh']);
  const none = (await planned(site)).nginx;
  assert.equal(none.test, null);
  assert.match(none.untested ?? '', /^no private mount namespace can be had: unshare: /);
  assert.match((await site.run(['plan'])).stdout, /^nginx -t {2}not tested: no private mount namespace/m);
  assert.deepEqual(footprint(site.dir), without);
});
