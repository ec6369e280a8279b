import assert from 'node:assert/strict';
import {createHash} from 'node:crypto';
import {existsSync, lstatSync, readdirSync, readFileSync, readlinkSync, renameSync, rmSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {describe, test, type TestContext} from 'node:test';
import {stringify} from 'yaml';
import {makeByHand, type ByHand} from '../support/by-hand.ts';
import {isAlive, processesOf} from '../support/leftovers.ts';
import {ownName, ownUser} from '../support/own-account.ts';
import type {CommandEnd, RunningCommand} from '../support/osyw.ts';
import {run, spawnBound, endChild} from '../support/run.ts';
import {waitUntil} from '../support/wait-until.ts';

const root = process.getuid?.() === 0;
const PATIENCE = {withinMs: 60_000};

interface Shown {
  readonly workers: readonly {readonly port: number; readonly pid: number; readonly user: string; readonly command: readonly string[]}[];
  readonly source: {readonly working_copy: string; readonly revision: string; readonly newer: number; readonly edited: readonly string[]};
  readonly command: readonly string[] | null;
  readonly pid_files: readonly {readonly port: number; readonly pid: number; readonly right: boolean}[];
  readonly old: readonly {readonly what: string; readonly remedy: string}[];
  readonly hooks: readonly {readonly file: string; readonly lines: readonly number[]}[];
  readonly config: {readonly file: string; readonly written: boolean};
  readonly outcome: string | null;
  readonly release: string | null;
}

async function adopted(site: ByHand, args: readonly string[] = []): Promise<Shown> {
  const end = await site.adopt(['--json', ...args]);
  assert.equal(end.exit, 0, end.stdout + end.stderr);
  assert.equal(end.lines.length, 1, 'one object');
  return end.lines[0] as Shown;
}

async function deployed(site: ByHand): Promise<CommandEnd> {
  const end = await site.run(['now', '--json']);
  assert.equal(end.exit, 0, end.stdout + end.stderr);
  return end;
}

/** Until no deploy runs and nothing drains. */
async function atRest(site: ByHand): Promise<void> {
  await waitUntil('the site to come to rest', async () => {
    const {deploy, draining, pending} = await site.status();
    return deploy === null && draining.length === 0 && pending === null && !processesOf(site.dir).some(({command}) => command.includes('now --requested'));
  }, PATIENCE);
}

/** Everything that a deploy must leave behind; `ports` of the workers that serve. */
async function settled(site: ByHand, version: string, release: string): Promise<void> {
  const {serving, upstream, draining, deploy} = await site.status();
  assert.equal(serving?.release, release);
  assert.deepEqual(serving.workers.map(({state}) => state), ['healthy', 'healthy', 'healthy']);
  assert.deepEqual(upstream.ports, serving.workers.map(({port}) => port));
  assert.deepEqual([draining, deploy], [[], null]);
  assert.equal(await site.version(), version);
}

/** A process that looks like a worker and is none: the same program, started by the same shell, on a port that nginx does not name. */
async function bystander(t: TestContext, site: ByHand): Promise<number> {
  const port = (site.ports[0] ?? 0) + 25;
  const child = spawnBound('/usr/bin/python3', ['osyw.py', String(port)], {cwd: site.workingCopy, stdio: 'ignore', env: {PATH: '/usr/bin:/bin', OSYW_TEST_SITE: site.dir}});
  t.after(() => endChild(child, 'SIGKILL'));
  return child.pid ?? 0;
}

/** As `adopt` says: the old script and the old hook are taken away, ours takes the hook's place. */
async function takeOldSetUpAway(site: ByHand): Promise<void> {
  rmSync(site.script);
  rmSync(site.hook);
  const end = await site.run(['hook', 'install']);
  assert.equal(end.exit, 0, end.stdout + end.stderr);
}

test('the set-up by hand, from its running state to the third deploy by commit: no request fails', async t => {
  const site = await makeByHand(t);
  const old = site.pids();
  const conf = readFileSync(site.nginxConf, 'utf8');
  const stranger = await bystander(t, site);
  const traffic = site.traffic();
  await waitUntil('load', () => traffic.count() > 20);

  const end = await site.adopt();
  assert.equal(end.exit, 0, end.stdout + end.stderr);
  const [a, b, c] = site.ports;
  for (const [i, port] of site.ports.entries()) assert.match(end.stdout, new RegExp(`^worker +${port}: pid ${old[i]}, ${ownUser}, since .*, in /: python3 osyw.py ${port}$`, 'm'));
  assert.match(end.stdout, new RegExp(`^code +${site.workingCopy} \\(svn; the workers were started from it\\)$`, 'm'));
  assert.match(end.stdout, /^revision +r2$/m);
  assert.match(end.stdout, /^command +\/usr\/bin\/python3 osyw\.py \{port\}$/m);
  assert.match(end.stdout, /^variables OSYW_LOG_DIR, OSYW_PID_DIR, OSYW_STATUS, OSYW_TEST_SITE: theirs alone/m);
  assert.match(end.stdout, /adopted: release 000001 \(r2\) serves/);
  assert.match(end.stdout, new RegExp(`then drains and stops pids ${old.join(', ')}`));
  assert.match(end.stdout, new RegExp(`${site.hook}: lines 6, 7, which update or restart`));
  assert.equal(readFileSync(site.nginxConf, 'utf8'), conf, 'nginx.conf is as it was');
  const text = readFileSync(site.configFile, 'utf8');
  assert.match(text, new RegExp(`^  edit: ${site.nginxConf} `, 'm'));
  assert.match(text, new RegExp(`^  ports: ${a}-\\d+ `, 'm'));
  assert.match(text, /^  http: \/ /m);
  assert.match(text, /^ +# +OSYW_STATUS$/m, 'variables are named');
  assert.ok(!text.includes('online') && !end.stdout.includes('online'), 'and what they hold is not');
  assert.deepEqual(site.pids(), old, 'nobody was started or stopped');
  const status = await site.status();
  assert.deepEqual(status.serving?.workers.map(({port, pid, state}) => [port, pid, state]), [[a, old[0], 'healthy'], [b, old[1], 'healthy'], [c, old[2], 'healthy']]);
  assert.deepEqual((await site.history()).map(({trigger, release, revision, outcome, exit, requested_by: by}) => [trigger, release, revision, outcome, exit, by]), [['manual', '000001', 'r2', 'deployed', 0, ownName]]);

  await takeOldSetUpAway(site);
  for (const [i, version] of ['2', '3', '4'].entries()) {
    await site.commit({VERSION: `${version}\n`});
    await waitUntil(`version ${version}`, async () => await site.version() === version, PATIENCE);
    await atRest(site);
    await settled(site, version, `00000${i + 2}`);
    assert.deepEqual(old.filter(isAlive), [], 'the adopted workers are gone');
  }
  const report = await traffic.stop();
  assert.deepEqual(report.failures, []);
  assert.deepEqual(report.versions, ['1', '2', '3', '4']);
  assert.ok(isAlive(stranger), 'nobody else was signalled');
  assert.deepEqual((await site.history()).map(({trigger, outcome}) => `${trigger} ${outcome}`), ['hook deployed', 'hook deployed', 'hook deployed', 'manual deployed']);
  const ports = (await site.status()).upstream.ports;
  assert.equal(ports.reduce((all, port, i) => all.replace(`127.0.0.1:${port} `, `127.0.0.1:${site.ports[i]} `), readFileSync(site.nginxConf, 'utf8')), conf, 'nothing but the addresses changed');
});

test('a dry run leaves no trace at all, in nginx\'s prefix neither', {skip: process.getuid?.() === 0 ? false : 'only root has a shadow for nginx -T'}, async t => {
  const site = await makeByHand(t);
  // nginx -T opens what the configuration names, and makes what is not there.
  rmSync(join(site.dir, 'nginx/nginx.pid'));
  renameSync(join(site.dir, 'nginx/access.log'), join(site.dir, 'nginx/access.log.1'));
  const before = treeOf(site);
  const end = await site.adopt(['--dry-run']);
  assert.equal(end.exit, 0, end.stdout + end.stderr);
  assert.deepEqual(treeOf(site), before);
});

/** Everything of a site: type, rights and owner, and what files hold. What its running programs write as they answer is left out. */
function treeOf({dir}: ByHand): Record<string, string> {
  return Object.fromEntries(readdirSync(dir, {recursive: true, encoding: 'utf8'}).filter(path => !path.startsWith('log/')).toSorted().map(path => {
    const at = join(dir, path);
    const stat = lstatSync(at);
    const content = stat.isFile() ? createHash('sha256').update(readFileSync(at)).digest('hex') : stat.isSymbolicLink() ? readlinkSync(at) : '';
    return [path, `${stat.mode.toString(8)} ${stat.uid}:${stat.gid} ${content}`];
  }));
}

test('a dry run changes nothing, a second adoption is unchanged, and what is deployed is not adopted', async t => {
  const site = await makeByHand(t);
  writeFileSync(join(site.workingCopy, 'guests.db'), 'precious');
  const dry = await site.adopt(['--dry-run']);
  assert.equal(dry.exit, 0, dry.stdout + dry.stderr);
  assert.match(dry.stdout, /^left out +(?:.*, )?guests\.db(?:, .*)?: not versioned, so in no release; .* release\.shared before the first deploy$/m);
  assert.match(dry.stdout, /would be written; nothing was changed/);
  assert.match(dry.stdout, /^workers:$/m);
  assert.ok(!existsSync(site.configFile) && !existsSync(site.stateDir));
  const dryJson = await adopted(site, ['--dry-run']);
  assert.deepEqual([dryJson.outcome, dryJson.release, dryJson.config.written], [null, null, false]);
  assert.ok(!existsSync(site.configFile) && !existsSync(site.stateDir));

  const first = await adopted(site);
  assert.deepEqual([first.outcome, first.release, first.config], ['deployed', '000001', {file: site.configFile, written: true}]);
  assert.deepEqual(first.workers.map(({pid}) => pid), site.pids());
  assert.deepEqual(first.workers.map(({user}) => user), [ownUser, ownUser, ownUser]);
  const written = readFileSync(site.configFile);
  const second = await adopted(site);
  assert.deepEqual([second.outcome, second.release, second.config.written], ['unchanged', '000001', false]);
  assert.deepEqual(readFileSync(site.configFile), written);
  assert.equal((await site.history()).length, 1);
  rmSync(join(site.stateDir, 'history.ndjson'));
  assert.equal((await site.run(['recover'])).exit, 0);
  assert.deepEqual((await site.history()).map(({release, outcome}) => [release, outcome]), [['000001', 'deployed']], 'the line that a kill had kept from the history is there');
  const plan = await site.run(['plan', '--json']);
  assert.equal(plan.exit, 0, plan.stderr);
  const {outcome, stops} = plan.lines[0] as {outcome: string; stops: unknown};
  assert.deepEqual([outcome, stops], ['deployed', first.workers.map(({port, pid}) => ({port, pid}))], 'the same revision is deployed once more');

  await deployed(site);
  await settled(site, '1', '000002');
  const third = await site.adopt();
  assert.equal(third.exit, 2, third.stdout);
  assert.match(third.stderr, /release 000002 \(r2\) of bottle serves already/);
  renameSync(site.configFile, join(site.dir, 'elsewhere.yaml'));
  const fourth = await site.adopt();
  assert.equal(fourth.exit, 2, fourth.stdout);
  assert.match(fourth.stderr, /was not set up by hand: it carries the mark of a deploy, bottle\//);
  renameSync(join(site.dir, 'elsewhere.yaml'), site.configFile);
  for (const to of [[], ['--to', '1']]) {
    const back = await site.run(['rollback', ...to]);
    assert.equal(back.exit, 2, 'no rollback to what was adopted');
    if (to.length > 0) assert.match(back.stderr, /was set up by hand and adopted/);
  }
  await settled(site, '1', '000002');
});

test('killed once the configuration is written, it can be run again', async t => {
  const site = await makeByHand(t);
  const first = site.start(['adopt', '--nginx', site.nginxConf, '--state-dir', site.stateDir]);
  await waitUntil('the configuration', () => existsSync(site.configFile), {...PATIENCE, everyMs: 1});
  first.child.kill('SIGKILL');
  await first.ended;
  const again = await adopted(site);
  assert.equal(again.config.written, false);
  assert.equal(again.release, '000001');
  assert.deepEqual((await site.history()).map(({release, outcome}) => [release, outcome]), [['000001', 'deployed']]);
  await deployed(site);
  await settled(site, '1', '000002');
});

test('goes by a configuration that is there, and refuses one that contradicts what runs', async t => {
  const site = await makeByHand(t, {nginxConf: (text, prefix) => text.replace(/upstream myweb \{[^}]*\}/, block => {
    writeFileSync(join(prefix, 'myweb.conf'), block);
    return 'include myweb.conf;';
  })});
  const write = (more: Record<string, unknown>, nginx: Record<string, unknown> = {}) => writeFileSync(site.configFile, stringify({
    app: 'osyw', source: {working_copy: site.workingCopy, url: site.svn.url},
    workers: {command: ['/usr/bin/python3', 'osyw.py', '{port}'], count: 3, ports: `${site.ports[0]}-${(site.ports[0] ?? 0) + 20}`},
    check: {http: '/healthz'},
    nginx: {upstream: 'myweb', file: join(site.dir, 'nginx/myweb.conf'), conf: site.nginxConf, prefix: join(site.dir, 'nginx'), ...nginx},
    state_dir: site.stateDir, run_dir: join(site.dir, 'run'), ...more,
  }), {mode: 0o600});
  for (const [more, nginx, message] of [
    [{source: {working_copy: join(site.dir, 'other')}}, {}, /source\.working_copy is .*\/other, but the workers run from/],
    [{}, {file: join(site.dir, 'nginx/other.conf')}, /nginx\.file is .*other\.conf, but upstream myweb stands in/],
    [{}, {upstream: 'other'}, /has no upstream other/],
    [{workers: {command: ['x', '{port}'], count: 3, ports: '20000-20010', host: '127.0.0.2'}}, {}, /workers\.host is 127\.0\.0\.2, but the servers of upstream myweb are at 127\.0\.0\.1/],
  ] as const) {
    write(more, nginx);
    const end = await site.adopt();
    assert.ok(end.exit === 3 || end.exit === 2, end.stdout + end.stderr);
    assert.match(end.stderr, message);
    assert.ok(!existsSync(site.stateDir));
  }
  write({});
  const elsewhere = await site.run(['adopt', '--nginx', site.nginxConf, '--state-dir', join(site.dir, 'elsewhere')]);
  assert.equal(elsewhere.exit, 2, elsewhere.stdout);
  assert.match(elsewhere.stderr, new RegExp(`--state-dir is ${site.dir}/elsewhere, but ${site.configFile} is there and says state_dir: ${site.stateDir}`));
  assert.ok(!existsSync(site.stateDir) && !existsSync(join(site.dir, 'elsewhere')));
  const {outcome, config} = await adopted(site);
  assert.deepEqual([outcome, config.written], ['deployed', false]);
  const old = site.pids();
  await deployed(site);
  await settled(site, '1', '000002');
  assert.deepEqual(old.filter(isAlive), []);
});

describe('what is not clear is refused, and nothing is written', () => {
  async function refused(site: ByHand, message: RegExp, args: readonly string[] = []): Promise<void> {
    const end = await site.adopt(args);
    assert.equal(end.exit, 2, end.stdout + end.stderr);
    assert.match(end.stderr, message);
    assert.ok(!existsSync(site.configFile) && !existsSync(site.stateDir), 'nothing was written');
  }

  test('a port on which nobody listens', async t => {
    const site = await makeByHand(t, {cold: true});
    await refused(site, new RegExp(`nobody listens on 127.0.0.1:${site.ports.join(', ')}`));
    await refused(site, /no nginx runs with the main file \/none/, ['--nginx', '/none']);
  });

  for (const [what, change, message] of [
    ['a server of another machine', (text: string) => text.replace('    server 127', '    server 192.0.2.1:8811;\n        server 127'), /192\.0\.2\.1:8811 is not on this machine, so upstream myweb cannot be adopted/],
    ['a backup', (text: string) => text.replace(/max_fails=2 fail_timeout=30s;(?= +#)/, 'backup;'), /is a `backup` on this machine, which would go on to run what it runs/],
    ['two addresses', (text: string) => text.replace('server 127.0.0.1', 'server 127.0.0.2'), /its servers have several addresses: 127\.0\.0\.2, 127\.0\.0\.1/],
  ] as const) {
    test(what, async t => refused(await makeByHand(t, {cold: true, nginxConf: change}), message));
  }

  test('several upstreams, until one is named; one that has none of our ports does not count', async t => {
    const site = await makeByHand(t, {nginxConf: text => text.replace('    upstream myweb', '    upstream far { server 192.0.2.1:80; }\n    upstream other { server 127.0.0.1:1; }\n    upstream myweb')});
    await refused(site, /it cannot be told which upstream is meant:\n {2}other: ports 1 in .*\n {2}myweb: ports/);
    await refused(site, /nobody listens on 127\.0\.0\.1:1,/, ['--upstream', 'other']);
    await refused(site, /has no upstream far with a server on this machine/, ['--upstream', 'far']);
    assert.equal((await adopted(site, ['--upstream', 'myweb'])).outcome, 'deployed');
  });

  test('code that is under no version control', async t => {
    const site = await makeByHand(t);
    renameSync(join(site.workingCopy, '.svn'), join(site.dir, 'svn-elsewhere'));
    await refused(site, /the code of the worker on port \d+ is in no Subversion or git working copy; looked at /);
    await refused(site, /--working-copy: .* is in no Subversion or git working copy/, ['--working-copy', site.workingCopy]);
    renameSync(join(site.dir, 'svn-elsewhere'), join(site.workingCopy, '.svn'));
    assert.equal((await adopted(site, ['--working-copy', site.workingCopy])).source.working_copy, site.workingCopy);
  });

  test('another program on one of the ports', async t => {
    const site = await makeByHand(t);
    const [, , pid = 0] = site.pids();
    process.kill(pid, 'SIGKILL');
    await waitUntil('its end', () => !isAlive(pid));
    const other = spawnBound('/usr/bin/python3', ['-m', 'http.server', '--bind', '127.0.0.1', String(site.ports[2])], {cwd: site.workingCopy, stdio: 'ignore'});
    t.after(() => endChild(other, 'SIGKILL'));
    await waitUntil('it to listen', () => site.pids().includes(other.pid ?? 0));
    await refused(site, /the workers were not started by one command: with \{port\} for their ports they are\n {2}python3 osyw\.py \{port\}\n {2}\/usr\/bin\/python3 -m http\.server --bind 127\.0\.0\.1 \{port\}/);
  });

  test('workers of two accounts', {skip: !root && 'needs root: a worker of another account'}, async t => {
    const site = await makeByHand(t);
    const [, , pid = 0] = site.pids();
    process.kill(pid, 'SIGKILL');
    await waitUntil('its end', () => !isAlive(pid));
    // Not below the test's directory, which is root's alone.
    const other = spawnBound('/usr/bin/setpriv', ['--reuid', '65534', '--clear-groups', '/usr/bin/python3', '-m', 'http.server', '--bind', '127.0.0.1', String(site.ports[2])], {cwd: '/usr/share', stdio: 'ignore'});
    t.after(() => endChild(other, 'SIGKILL'));
    await waitUntil('it to listen', () => site.pids().includes(other.pid ?? 0));
    await refused(site, new RegExp(`the worker on port ${site.ports[0]} runs as root, the one on port ${site.ports[2]} as nobody`));
  });
});

test('an ordinary account adopts what is its own, and nothing else', {skip: !root && 'needs root: everything is another account\'s'}, async t => {
  const site = await makeByHand(t, {as: {uid: 65_534, gid: 65_534}});
  const [, , pid = 0] = site.pids();
  process.kill(pid, 'SIGKILL');
  await waitUntil('its end', () => !isAlive(pid));
  const roots = spawnBound('/usr/bin/python3', ['osyw.py', String(site.ports[2])], {cwd: site.workingCopy, stdio: 'ignore', env: {PATH: '/usr/bin:/bin', PYTHONDONTWRITEBYTECODE: '1'}});
  t.after(() => endChild(roots, 'SIGKILL'));
  await waitUntil('it to listen', () => site.pids().includes(roots.pid ?? 0), PATIENCE);
  const end = await site.adopt();
  assert.equal(end.exit, 2, end.stdout);
  assert.match(end.stderr, new RegExp(`the process that listens on port ${site.ports[2]} cannot be seen: it runs as root, or in a container`));
  assert.ok(!existsSync(site.configFile) && !existsSync(site.stateDir));
  await endChild(roots, 'SIGKILL');

  await site.old('start');
  await waitUntil('the third worker', () => site.pids().length === 3, PATIENCE);
  const old = site.pids();
  const shown = await adopted(site);
  assert.deepEqual(shown.workers.map(({user}) => user), ['nobody', 'nobody', 'nobody']);
  assert.ok(!/^ +user:/m.test(readFileSync(site.configFile, 'utf8')));
  await deployed(site);
  await settled(site, '1', '000002');
  assert.deepEqual(old.filter(isAlive), []);
});

test('a pid file that lies is told, and nobody is signalled for it', async t => {
  const site = await makeByHand(t);
  const old = site.pids();
  const stranger = await bystander(t, site);
  writeFileSync(join(site.pidDir, `osyw_${site.ports[1]}.pid`), `${stranger}\n`);
  const {pid_files: files} = await adopted(site, ['--pid-file', join(site.pidDir, 'osyw_{port}.pid')]);
  assert.deepEqual(files.map(({port, pid, right}) => [port, pid, right]), [[site.ports[0], old[0], true], [site.ports[1], stranger, false], [site.ports[2], old[2], true]]);
  assert.match(readFileSync(site.configFile, 'utf8'), /^ +# pid_file: .*osyw_\{port\}\.pid/m);
  await deployed(site);
  await settled(site, '1', '000002');
  assert.deepEqual(old.filter(isAlive), []);
  assert.ok(isAlive(stranger));
});

test('code that is newer than the workers, and edits, are told', async t => {
  const site = await makeByHand(t, {script: text => text.replace('python3 osyw.py', `python3 ${'$code'}/osyw.py`)});
  await run('svn', ['update', '-q', '--non-interactive', site.workingCopy]);
  // The old hook would restart them.
  rmSync(site.hook);
  await site.commit({VERSION: '2\n'});
  await run('svn', ['update', '-q', '--non-interactive', site.workingCopy]);
  writeFileSync(join(site.workingCopy, 'oscore/health.txt'), 'not versioned\n');
  writeFileSync(join(site.workingCopy, 'README.md'), 'edited\n');
  const end = await site.adopt();
  assert.equal(end.exit, 0, end.stderr);
  assert.match(end.stdout, /^ +README\.md, VERSION are newer than the oldest worker: what runs may be older than r3$/m);
  assert.match(end.stdout, /^ +edited there: README\.md; a deploy refuses that/m);
  assert.match(end.stdout, /^code .*\(svn; the command line names .*osyw\.py\)$/m);
  assert.match(end.stdout, /^command +\/usr\/bin\/python3 osyw\.py \{port\}$/m, 'an absolute path into the working copy would run that, whatever the release');
  assert.equal((await site.run(['now'])).exit, 5, 'the edit stops the deploy');
  assert.equal(await site.version(), '1');
});

test('restarted by the old script: the first deploy is refused until what runs is adopted', async t => {
  const site = await makeByHand(t);
  await adopted(site);
  await site.old('restart');
  await waitUntil('the three workers', () => site.pids().length === 3, PATIENCE);
  const restarted = site.pids();
  const end = await site.run(['now']);
  assert.equal(end.exit, 2, end.stdout + end.stderr);
  assert.match(end.stderr, new RegExp(`the adopted workers are dead, and other processes listen on their ports ${site.ports.join(', ')}`));
  assert.match(end.stderr, /Run `osyw-deploy adopt` again/);
  assert.deepEqual(site.pids(), restarted);
  assert.deepEqual((({outcome, release}) => [outcome, release])(await adopted(site)), ['deployed', '000002']);
  await deployed(site);
  await settled(site, '1', '000003');
  assert.deepEqual(restarted.filter(isAlive), []);
});

test('an adopted worker that dies: the first deploy goes on without it', async t => {
  const site = await makeByHand(t);
  await adopted(site);
  const old = site.pids();
  process.kill(old[1] ?? 0, 'SIGKILL');
  await waitUntil('its end', () => !isAlive(old[1] ?? 0));
  assert.deepEqual((await site.status()).serving?.workers.map(({state}) => state), ['healthy', 'dead', 'healthy']);
  const traffic = site.traffic();
  await deployed(site);
  await settled(site, '1', '000002');
  assert.deepEqual(old.filter(isAlive), []);
  assert.deepEqual((await traffic.stop()).failures, []);
});

test('an adopted worker that dies under a watch is started from the working copy, on its port', async t => {
  const site = await makeByHand(t);
  await adopted(site);
  await takeOldSetUpAway(site);
  const old = site.pids();
  const watch = site.start(['watch']);
  await waitUntil('the watch', async () => (await site.status()).watch !== null, PATIENCE);
  process.kill(old[1] ?? 0, 'SIGKILL');
  await waitUntil('it to serve again', async () => {
    const worker = (await site.status()).serving?.workers[1];
    return worker?.restarts === 1 && worker.state === 'healthy' && worker.pid !== old[1];
  }, PATIENCE);
  const {serving} = await site.status();
  assert.deepEqual(serving?.workers.map(({port}) => port), site.ports);
  assert.equal(serving.release, '000001');
  assert.equal(serving.workers[0]?.pid, old[0]);
  await site.commit({VERSION: '2\n'});
  await waitUntil('version 2', async () => await site.version() === '2', PATIENCE);
  await atRest(site);
  await settled(site, '2', '000002');
  assert.deepEqual([...old, ...serving.workers.map(({pid}) => pid)].filter(isAlive), [], 'the one that was started again is gone, too');
  watch.child.kill('SIGTERM');
  assert.equal((await watch.ended).exit, 0);
});

test('a first deploy that is broken leaves the adopted workers and their code', async t => {
  const site = await makeByHand(t);
  await adopted(site);
  await takeOldSetUpAway(site);
  rmSync(site.hook);
  const old = site.pids();
  const traffic = site.traffic();
  await site.commit({VERSION: '2\n', 'oscore/health.py': 'import not_there\n', 'osyw.py': 'import not_there\n'});
  const end = await site.run(['now', '--json']);
  assert.equal(end.exit, 7, end.stdout + end.stderr);
  await settled(site, '1', '000001');
  assert.deepEqual(site.pids(), old);
  assert.equal(readFileSync(join(site.workingCopy, 'VERSION'), 'utf8'), '1\n', 'the code that they run from is back');
  assert.deepEqual((await traffic.stop()).failures, []);
});

test('kill -9 of the first deploy in its switch: recover settles it, and no request fails', async t => {
  const site = await makeByHand(t);
  await adopted(site);
  const old = site.pids();
  const traffic = site.traffic();
  const command = site.start(['now', '--json']);
  await began(command, 'switch');
  command.child.kill('SIGKILL');
  await command.ended;
  const recovered = await site.run(['recover']);
  assert.equal(recovered.exit, 0, recovered.stdout + recovered.stderr);
  const [line] = await site.history();
  const forward = line?.outcome === 'deployed';
  await settled(site, '1', forward ? '000002' : '000001');
  assert.equal(old.filter(isAlive).length, forward ? 0 : 3, 'all of them serve, or none');
  assert.equal((await site.run(['now', '--force', '--json'])).exit, 0);
  assert.deepEqual(old.filter(isAlive), []);
  assert.deepEqual((await traffic.stop()).failures, []);
});

async function began(command: RunningCommand, phase: string): Promise<void> {
  await waitUntil(`phase ${phase} to begin`, () => command.stdout().split('\n').some(line => line.includes(`"${phase}"`) && line.includes('"began"')), {withinMs: 30_000, everyMs: 1});
}

test('stop ends the adopted workers, start brings them back from the working copy', async t => {
  const site = await makeByHand(t);
  await adopted(site);
  const old = site.pids();
  assert.equal((await site.run(['stop'])).exit, 0);
  assert.deepEqual(old.filter(isAlive), []);
  const start = await site.run(['start']);
  assert.equal(start.exit, 0, start.stdout + start.stderr);
  await settled(site, '1', '000001');
  const {serving} = await site.status();
  assert.deepEqual(processesOf(site.workingCopy).filter(({pid}) => serving?.workers.some(worker => worker.pid === pid)).length, 3, 'they run in the working copy');
  await deployed(site);
  await settled(site, '1', '000002');
  assert.equal((await site.run(['rollback'])).exit, 2, 'that it was started again gives it no tree to go back to');
});
