import assert from 'node:assert/strict';
import {execFile, execFileSync, spawn} from 'node:child_process';
import {closeSync, existsSync, mkdirSync, openSync, readFileSync, readdirSync, readlinkSync, rmSync, writeFileSync, writeSync} from 'node:fs';
import {join} from 'node:path';
import {describe, test, type TestContext} from 'node:test';
import {setTimeout as pause} from 'node:timers/promises';
import {leasePorts} from '../support/free-ports.ts';
import {makeGate} from '../support/gate.ts';
import {isAlive, parentOf, processesOf} from '../support/leftovers.ts';
import {listens} from '../support/nginx-rig.ts';
import {ownName} from '../support/own-account.ts';
import {run, spawnBound, endChild} from '../support/run.ts';
import {scrubbedEnv} from '../support/scrubbed-env.ts';
import {makeSite, type HistoryLine, type Site, type SiteOptions} from '../support/site.ts';
import {waitUntil} from '../support/wait-until.ts';

const root = process.getuid?.() === 0;
const ROOT_ONLY = {skip: !root && 'needs root: the committer is another account'};
const NOBODY = 65_534;
const PATIENCE = {withinMs: 120_000};

/** A site whose commits deploy themselves; version 1 serves. */
async function makeHookedSite(t: TestContext, options: SiteOptions = {}, install: readonly string[] = []): Promise<Site> {
  const site = await makeSite(t, options);
  await site.deployed();
  const end = await site.run(['hook', 'install', '--repository', (options.vcs === 'svn' ? site.svn : site.git).repository, ...install]);
  assert.equal(end.exit, 0, end.stdout + end.stderr);
  return site;
}

/** Until nothing is to be done any more: no deploy, no drain, nothing in the spool, nobody who waits. */
async function atRest(site: Site): Promise<void> {
  await waitUntil('the site to come to rest', async () => {
    const {deploy, draining, pending} = await site.status();
    return deploy === null && draining.length === 0 && pending === null && deployers(site).length === 0;
  }, PATIENCE);
}

const deployers = (site: Site) => processesOf(site.dir).filter(({command}) => command.includes('now --requested'));
/** Who waits for its turn stands at flock(1), a child with nothing of the site's in its arguments or environment. */
function waitersOf(site: Site): number {
  const waiting = deployers(site).map(({pid}) => pid);
  return readdirSync('/proc').filter(pid => /^\d+$/.test(pid) && waiting.includes(parentOf(Number(pid))) && argumentsOf(pid) === 'flock --exclusive 3').length;
}

function argumentsOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' ').trim();
  } catch {
    return ''; // gone meanwhile
  }
}

const spooled = (site: Site) => readdirSync(join(site.stateDir, 'spool')).filter(name => !name.startsWith('.'));
const linesOf = (lines: readonly HistoryLine[], revision: string) => lines.filter(line => line.revision === revision).map(({outcome}) => outcome);

/** The journal as it is now; the lines of a deploy that runs or ran last. */
const journal = (site: Site) => readFileSync(join(site.stateDir, 'journal.ndjson'), 'utf8');

for (const vcs of ['svn', 'git'] as const) {
  test(`${vcs}: a commit deploys itself, and is in the history with its sender`, async t => {
    const site = await makeHookedSite(t, {vcs});
    const revision = await site.release('2');
    await waitUntil('version 2', async () => await site.version() === '2', PATIENCE);
    await atRest(site);
    await site.settled({version: '2', revision, outcome: 'deployed'});
    const [newest] = await site.history();
    assert.equal(newest?.trigger, 'hook');
    assert.equal(newest.requested_by, ownName);
    assert.deepEqual(spooled(site), []);
  });

  test(`${vcs}: 50 commits in 5 seconds: the newest is live, each is in the history, one deploys and one waits, no request fails`, async t => {
    const site = await makeHookedSite(t, {vcs});
    const traffic = site.traffic();
    const revisions: string[] = [];
    let waiting = 0;
    let committing = true;
    const watching = (async () => {
      while (committing) {
        waiting = Math.max(waiting, waitersOf(site));
        await pause(20);
      }
    })();
    const began = performance.now();
    for (let n = 1; n <= 50; n++) {
      await waitUntil('the time of the next commit', () => performance.now() - began >= n * 90);
      revisions.push(await site.release(`${n + 1}`));
    }
    committing = false;
    await watching;
    await waitUntil('the newest', async () => await site.version() === '51', PATIENCE);
    await atRest(site);
    await site.settled({version: '51', revision: revisions.at(-1) ?? '', traffic});
    const lines = await site.history();
    for (const revision of revisions) assert.ok(linesOf(lines, revision).some(outcome => ['deployed', 'superseded', 'unchanged'].includes(outcome)), `${revision} is not in the history`);
    assert.equal(new Set(lines.map(({id}) => id)).size, lines.length);
    assert.equal(waiting, 1, 'so many waited at a time, at most');
    const deployed = lines.filter(({outcome}) => outcome === 'deployed').map(({started_at: at, phases}) => ({from: Date.parse(at), to: Date.parse(at) + ['update', 'build', 'start', 'check', 'switch'].reduce((sum, phase) => sum + (phases[phase] ?? 0), 0)}))
      .sort((a, b) => a.from - b.from);
    for (const [i, {from}] of deployed.entries()) assert.ok(i === 0 || from >= (deployed[i - 1]?.to ?? 0) - 5, 'two deploys at a time');
    assert.ok(deployed.length < 50, 'bursts coalesce');
  });

  describe(`${vcs}: a commit during`, () => {
    for (const phase of ['update', 'build', 'start', 'check', 'switch', 'bake', 'drain'] as const) {
      test(`${phase} of a running deploy goes live after it`, async t => {
        const site = await makeHookedSite(t, {vcs, behaviour: {boot_ms: 150, stop_ms: 400}, config: {bake: {for: '300ms'}, release: {build: [['/bin/sh', '-c', 'read -r x </dev/null; exit 0']]}}});
        const began = () => {
          if (phase === 'drain') return readdirSync(join(site.stateDir, 'drains')).some(name => !name.startsWith('.'));
          return journal(site).includes(`"phase":"${phase}"`) && !journal(site).includes('"closed"');
        };
        const traffic = site.traffic();
        await site.release('2', {boot_ms: 150, stop_ms: 400});
        await waitUntil(`phase ${phase}`, began, {...PATIENCE, everyMs: 1});
        const revision = await site.release('3');
        await waitUntil('version 3', async () => await site.version() === '3', PATIENCE);
        await atRest(site);
        await site.settled({version: '3', revision, traffic});
      });
    }
  });

  test(`${vcs}: the committer and the deploy are killed right after the commit, and the next run finds the request`, async t => {
    const site = await makeHookedSite(t, {vcs});
    for (const version of ['2', '3', '4']) {
      await site.release(version);
      for (const {pid, command} of processesOf(site.dir)) if (!/nginx: |svnserve |worker\.py/.test(command) && isAlive(pid)) process.kill(pid, 'SIGKILL');
      const end = await site.run(['now', '--requested']);
      assert.equal(end.exit, 0, end.stderr);
      await atRest(site);
      await site.settled({version});
      const [newest] = await site.history();
      assert.equal(newest?.trigger, 'hook', 'it is the request that was answered');
    }
  });

  for (const phase of ['update', 'build', 'start', 'check', 'switch'] as const) {
    test(`${vcs}: kill -9 of the deployer in ${phase}: it is seen, and whoever looks next deploys`, async t => {
      const site = await makeHookedSite(t, {vcs, behaviour: {boot_ms: 150}});
      const traffic = site.traffic();
      await site.release('2', {boot_ms: 150});
      await waitUntil(`phase ${phase}`, () => journal(site).includes(`"phase":"${phase}"`) && !journal(site).includes('"closed"'), {...PATIENCE, everyMs: 1});
      for (const {pid, command} of deployers(site)) if (command.startsWith(process.execPath) && isAlive(pid)) process.kill(pid, 'SIGKILL');
      await waitUntil('its end', () => deployers(site).length === 0, PATIENCE);
      if (journal(site).includes('"closed"')) return; // It was quicker.
      const status = await site.run(['status']);
      assert.match(status.stdout, /was killed in .*recover/);
      const end = await site.run(['now', '--requested']);
      assert.equal(end.exit, 0, end.stderr);
      await atRest(site);
      await site.settled({version: '2', traffic});
      assert.deepEqual(linesOf(await site.history(), (await site.status()).serving?.revision ?? '').filter(outcome => outcome === 'deployed').length, 1);
    });
  }

  test(`${vcs}: nginx is down at the commit: the request stands`, async t => {
    const site = await makeHookedSite(t, {vcs});
    await site.nginx.stop();
    await site.release('2');
    await waitUntil('a line for it', async () => (await site.history())[0]?.outcome === 'aborted', PATIENCE);
    await waitUntil('the end of its process', () => deployers(site).length === 0, PATIENCE);
    assert.equal(spooled(site).length, 1);
    assert.equal((await site.history()).length, 2, 'it is not tried over and over');
    await site.nginx.start();
    const end = await site.run(['now', '--requested']);
    assert.equal(end.exit, 0, end.stderr);
    await atRest(site);
    await site.settled({version: '2'});
  });

  test(`${vcs}: a broken revision never goes live, and is not tried again for a commit elsewhere`, async t => {
    const site = await makeHookedSite(t, {vcs});
    await site.release('2', {health_status: 500});
    await waitUntil('a line for it', async () => (await site.history())[0]?.outcome === 'aborted', PATIENCE);
    await atRest(site);
    await site.settled({version: '1', outcome: 'aborted', code: 'NEVER_HEALTHY'});
    await commitElsewhere(site, vcs);
    await waitUntil('a line for that', async () => (await site.history())[0]?.outcome === 'unchanged', PATIENCE);
    await atRest(site);
    await site.settled({version: '1', outcome: 'unchanged'});
  });

  test(`${vcs}: only a change of source.paths counts`, async t => {
    const site = await makeHookedSite(t, {vcs, config: {source: {paths: ['behaviour.json', 'lib/**']}}});
    await site.commit({'docs/readme.txt': 'text'});
    await waitUntil('a line for it', async () => (await site.history())[0]?.outcome === 'unchanged', PATIENCE);
    await site.release('2');
    await waitUntil('version 2', async () => await site.version() === '2', PATIENCE);
    await atRest(site);
    await site.settled({version: '2'});
  });

  test(`${vcs}: with hook.supersede a newer commit takes the place of a deploy that has not switched`, async t => {
    const site = await makeHookedSite(t, {vcs, config: {hook: {supersede: true}}});
    const gate = makeGate(t, site);
    site.configure({release: {build: [gate.build]}});
    const second = await site.release('2');
    await gate.reached();
    const third = await site.release('3');
    await waitUntil('the first to give way', async () => linesOf(await site.history(), second).includes('superseded'), PATIENCE);
    await gate.reached();
    gate.open();
    await waitUntil('version 3', async () => await site.version() === '3', PATIENCE);
    await atRest(site);
    await site.settled({version: '3', revision: third});
    assert.deepEqual((await site.history()).filter(({outcome}) => outcome === 'deployed').map(({revision}) => revision).includes(second), false);
  });

  test(`${vcs}: one commit after the other does not keep everything from going live`, async t => {
    const site = await makeHookedSite(t, {vcs, config: {hook: {supersede: true}}});
    const gate = makeGate(t, site);
    site.configure({release: {build: [gate.build]}});
    const revisions = [await site.release('2')];
    for (let version = 3; version <= 7; version++) {
      await gate.reached();
      revisions.push(await site.release(String(version)));
      const before = revisions.at(-2) ?? '';
      await waitUntil('the one before to give way', async () => linesOf(await site.history(), before).includes('superseded'), PATIENCE);
    }
    await gate.reached();
    revisions.push(await site.release('8'));
    await waitUntil('its request', () => spooled(site).length > 0, PATIENCE);
    gate.open();
    await waitUntil('version 7', async () => await site.version() === '7', PATIENCE);
    // Not the reader of before.
    await waitUntil('the last to be built', () => journal(site).includes(`"revision":"${revisions.at(-1)}"`) && journal(site).includes('"phase":"build"'), PATIENCE);
    await gate.reached();
    gate.open();
    await waitUntil('version 8', async () => await site.version() === '8', PATIENCE);
    await atRest(site);
    await site.settled({version: '8', revision: revisions.at(-1) ?? ''});
  });

  test(`${vcs}: what waits is seen in the status`, async t => {
    const site = await makeHookedSite(t, {vcs});
    const gate = makeGate(t, site);
    site.configure({release: {build: [gate.build]}});
    const second = await site.release('2');
    await gate.reached();
    const third = await site.release('3');
    const status = await waitUntil('the pending one', async () => (await site.status()).pending && site.status(), PATIENCE);
    assert.equal(status.deploy?.revision, second);
    assert.equal(status.pending?.revision, third);
    gate.open();
    await waitUntil('the second to go on', async () => (await site.status()).deploy?.revision === third, PATIENCE);
    await gate.reached();
    gate.open();
    await atRest(site);
    await site.settled({version: '3'});
  });
}

async function commitElsewhere(site: Site, vcs: 'svn' | 'git'): Promise<void> {
  if (vcs === 'git') {
    await site.git.commit({'notes.txt': 'text'}, 'another branch', 'topic');
    return;
  }
  await site.svn.svn(['mkdir', '-q', '-m', 'elsewhere', `file://${site.svn.repository}/branches/other`]);
}

test('git: a branch named like an option, a tag named like the branch, a deleted branch: nothing is deployed but the branch', async t => {
  const site = await makeHookedSite(t, {vcs: 'git'});
  const {git} = site.git;
  await git(['push', '-q', 'origin', 'HEAD:refs/heads/-x', 'HEAD:refs/heads/HEAD', 'HEAD:refs/tags/main']);
  await git(['push', '-q', 'origin', ':refs/heads/-x']);
  const revision = await site.release('2');
  await waitUntil('version 2', async () => await site.version() === '2', PATIENCE);
  await atRest(site);
  await site.settled({version: '2', revision});
});

test('git: a rewritten history is followed', async t => {
  const site = await makeHookedSite(t, {vcs: 'git'});
  await site.release('2');
  await waitUntil('version 2', async () => await site.version() === '2', PATIENCE);
  await atRest(site);
  const revision = await site.git.forcePush({'behaviour.json': '{"version": "3"}\n'});
  await waitUntil('version 3', async () => await site.version() === '3', PATIENCE);
  await atRest(site);
  await site.settled({version: '3', revision});
});

test('git: a work tree that people commit in is deployed from, too', async t => {
  const site = await makeSite(t, {vcs: 'git'});
  site.configure({source: {url: site.git.workingCopy}});
  await site.deployed();
  const installed = await site.run(['hook', 'install']);
  assert.equal(installed.exit, 0, installed.stderr);
  writeFileSync(join(site.git.workingCopy, 'behaviour.json'), '{"version": "2"}\n');
  await site.git.git(['commit', '-q', '-am', 'version 2']);
  await waitUntil('version 2', async () => await site.version() === '2', PATIENCE);
  await atRest(site);
  await site.git.git(['checkout', '-q', '-b', 'topic']);
  writeFileSync(join(site.git.workingCopy, 'behaviour.json'), '{"version": "3"}\n');
  await site.git.git(['commit', '-q', '-am', 'version 3']);
  await site.git.git(['checkout', '-q', 'main']);
  await site.git.git(['merge', '-q', 'topic']);
  await waitUntil('version 3', async () => await site.version() === '3', PATIENCE);
  await atRest(site);
  await site.settled({version: '3'});
});

test('git: over git daemon', async t => {
  const site = await makeHookedSite(t, {vcs: 'git'});
  const lease = await leasePorts(1);
  const daemon = spawnBound('/usr/lib/git-core/git-daemon', ['--reuseaddr', '--export-all', '--enable=receive-pack', '--listen=127.0.0.1', `--port=${lease.first}`, `--base-path=${join(site.dir, 'git')}`, join(site.dir, 'git')],
    {env: scrubbedEnv(site.dir, {GIT_CONFIG_GLOBAL: join(site.dir, 'git', 'gitconfig')}), stdio: 'ignore'});
  try {
    await waitUntil('git daemon to listen', () => listens(lease.first));
    writeFileSync(join(site.git.workingCopy, 'behaviour.json'), '{"version": "2"}\n');
    await site.git.git(['commit', '-q', '-am', 'version 2']);
    await site.git.git(['push', '-q', `git://127.0.0.1:${lease.first}/repository.git`, 'HEAD:refs/heads/main']);
    await waitUntil('version 2', async () => await site.version() === '2', PATIENCE);
    await atRest(site);
  } finally {
    await endChild(daemon);
    await lease.release();
  }
  await site.settled({version: '2'});
});

test('svn: the committer of another account, over svnserve with a password', ROOT_ONLY, async t => {
  const site = await makeSite(t, {vcs: 'svn', svn: {serve: {user: 'ann', password: 'secret of ann'}}});
  const passwordFile = join(site.dir, 'ann.password');
  writeFileSync(passwordFile, 'secret of ann\n', {mode: 0o600});
  site.configure({source: {username: 'ann', password_file: passwordFile}});
  await site.deployed();
  const elsewhere = await site.run(['hook', 'install']);
  assert.equal(elsewhere.exit, 2, 'where svnserve has its repository nobody can know');
  assert.match(elsewhere.stderr, /--repository/);
  const installed = await site.run(['hook', 'install', '--repository', site.svn.repository]);
  assert.equal(installed.exit, 0, installed.stderr);
  const desk = deskOf(site, String(site.svn.url), ['--username', 'ann', '--password', 'secret of ann', '--no-auth-cache']);
  const end = await desk.commit('2');
  assert.deepEqual(end, {code: 0, said: ''});
  await waitUntil('version 2', async () => await site.version() === '2', PATIENCE);
  await atRest(site);
  await site.settled({version: '2', outcome: 'deployed'});
  for (const file of ['history.ndjson', 'journal.ndjson', 'log/osyw-deploy.log']) assert.doesNotMatch(readFileSync(join(site.stateDir, file), 'utf8'), /secret of ann/);
});

test('svn: a committer of another account who may not start a deploy: the request waits for the next run', ROOT_ONLY, async t => {
  const site = await makeHookedSite(t, {vcs: 'svn'}, ['--anyone']);
  const {repository} = site.svn;
  execFileSync('chmod', ['-R', 'a+rwX', join(repository, 'db')]);
  const desk = deskOf(site, `file://${repository}/trunk`);
  await desk.commit('2');
  assert.equal(spooled(site).length, 1);
  assert.equal(await site.version(), '1');
  const end = await site.run(['now', '--requested']);
  assert.equal(end.exit, 0, end.stderr);
  await atRest(site);
  await site.settled({version: '2', outcome: 'deployed'});
  const [newest] = await site.history();
  assert.deepEqual([newest?.trigger, newest?.requested_by], ['hook', 'nobody']);
});

test('svn: a committer of another account whom sudo lets start a deploy', {skip: !root ? 'needs root' : !existsSync('/usr/bin/sudo') && 'needs sudo'}, async t => {
  const site = await makeHookedSite(t, {vcs: 'svn'}, ['--anyone']);
  execFileSync('chmod', ['-R', 'a+rwX', join(site.svn.repository, 'db')]);
  const status = await site.run(['hook', 'status', '--repository', site.svn.repository]);
  const line = /^.*NOPASSWD: .*now --requested.*$/m.exec(status.stdout)?.[0].trim();
  // The machine's own sudoers stay as they are: the committer has others, in a mount namespace of its own.
  const sudoers = join(site.dir, 'sudoers');
  writeFileSync(sudoers, `${(line ?? '').replace(/^\S+/, 'nobody')}\n`, {mode: 0o440});
  const desk = deskOf(site, `file://${site.svn.repository}/trunk`, [], ['unshare', '--mount', '--', 'sh', '-c', 'mount --bind "$0" /etc/sudoers && exec "$@"', sudoers]);
  await desk.commit('2');
  await waitUntil('version 2', async () => await site.version() === '2', PATIENCE);
  await atRest(site);
  await site.settled({version: '2', outcome: 'deployed'});
  assert.equal((await site.history())[0]?.requested_by, 'nobody');
});

describe('hook.wait', () => {
  for (const vcs of ['svn', 'git'] as const) {
    test(`${vcs}: the committer hears how it went`, async t => {
      const site = await makeHookedSite(t, {vcs, config: {hook: {wait: true}}});
      const good = await commitOf(site, vcs, '2');
      assert.equal(await site.version(), '2', 'live when the commit returns');
      assert.equal(good.code, 0);
      if (vcs === 'svn') assert.doesNotMatch(good.said, /osyw|hook|deployed/, 'silence means live');
      else for (const phase of ['update', 'build', 'start', 'check', 'switch', 'deployed']) assert.match(good.said, new RegExp(`^remote: .*${phase}`, 'm'));
      const bad = await commitOf(site, vcs, '3', {die_at_once: 3, say: ['no module of that name']});
      assert.equal(bad.code, 0, 'the commit stands');
      assert.match(bad.said, /START_FAILED \(exit 7\)/);
      assert.match(bad.said, /no module of that name/);
      assert.match(bad.said, vcs === 'svn' ? /post-commit hook failed/ : /^remote: /m);
      assert.doesNotMatch(bad.said, /\x1b/);
      await atRest(site);
      await site.settled({version: '2', outcome: 'aborted', code: 'START_FAILED'});
      assert.deepEqual(readdirSync(join(site.stateDir, 'spool')), []);
    });

    test(`${vcs}: no longer than hook.wait_timeout, and the deploy goes on`, async t => {
      const site = await makeHookedSite(t, {vcs, config: {hook: {wait: true, wait_timeout: '1s'}}});
      const gate = makeGate(t, site);
      site.configure({release: {build: [gate.build]}});
      const end = await commitOf(site, vcs, '2');
      assert.equal(end.code, 0);
      assert.match(end.said, /did not say within 1 s how its deploy went; it may go on/);
      await gate.reached();
      gate.open();
      await waitUntil('version 2', async () => await site.version() === '2', PATIENCE);
      await atRest(site);
      await site.settled({version: '2'});
    });
  }

  test('those whose commits are answered by one deploy hear of that one', async t => {
    const site = await makeHookedSite(t, {vcs: 'git', config: {hook: {wait: true}}});
    const gate = makeGate(t, site);
    site.configure({release: {build: [gate.build]}});
    const first = commitOf(site, 'git', '2');
    await gate.reached();
    site.configure({release: {build: []}});
    const others = await Promise.all([(async () => {
      await waitUntil('a deploy that has begun', () => journal(site).includes('"phase":"build"'), PATIENCE);
      const waiting = commitOf(site, 'git', '3');
      await waitUntil('its request', () => spooled(site).length === 1, PATIENCE);
      gate.open();
      return waiting;
    })(), first]);
    for (const {said} of others) assert.match(said, /remote: deployed/);
    assert.equal(await site.version(), '3');
    await atRest(site);
  });
});

for (const [name, signal] of [['Ctrl-C', 'SIGINT'], ['kill -9', 'SIGKILL']] as const) {
  test(`${name} for the client and all of its group during a push: what was filed is deployed`, async t => {
    const site = await makeHookedSite(t, {vcs: 'git'});
    for (let version = 2; version <= 6; version++) {
      writeFileSync(join(site.git.workingCopy, 'behaviour.json'), `{"version": "${version}"}\n`);
      await site.git.git(['commit', '-q', '-am', `version ${version}`]);
      const push = spawn('git', ['push', '-q', 'origin', 'HEAD:refs/heads/main'], {cwd: site.git.workingCopy, env: scrubbedEnv(site.dir, {GIT_CONFIG_GLOBAL: join(site.dir, 'git', 'gitconfig')}), detached: true, stdio: 'ignore'});
      const ended = new Promise(resolve => push.once('exit', resolve));
      const before = spooled(site).length;
      // At once when the request is there; in the other rounds a little earlier, in the middle of the hook.
      await waitUntil('the hook', () => push.exitCode !== null || (version % 2 === 0 ? spooled(site).length > before : readdirSync(join(site.stateDir, 'spool')).length > before), {...PATIENCE, everyMs: 1});
      if (push.exitCode === null && push.pid !== undefined) process.kill(-push.pid, signal);
      await ended;
    }
    const end = await site.run(['now', '--requested']);
    assert.equal(end.exit, 0, end.stderr);
    await atRest(site);
    assert.ok(!existsSync(join(site.stateDir, 'set-aside')), 'no half request');
    // A hook that died before it could file anything leaves the commit to the next one, or to a person.
    await site.deployed();
    await site.settled({version: '6'});
  });
}

test('junk in the spool is set aside and reported by the deploy that a hook starts', async t => {
  const site = await makeHookedSite(t, {vcs: 'git'});
  writeFileSync(join(site.stateDir, 'spool', 'junk.json'), '{"ver');
  await site.release('2');
  await waitUntil('version 2', async () => await site.version() === '2', PATIENCE);
  await atRest(site);
  assert.match(readFileSync(join(site.stateDir, 'log', 'osyw-deploy.log'), 'utf8'), /junk\.json.*is not JSON.*set aside/);
  assert.equal(readdirSync(join(site.stateDir, 'set-aside')).length, 1);
});

test('the disk of the state is full: the commit stands, nothing spins, and the request is answered later', ROOT_ONLY, async t => {
  const site = await makeHookedSite(t, {vcs: 'git'});
  const ballast = join(site.stateDir, '..', 'state.full');
  // A disk of its own for the journal: the state, as it is, moved onto a small one.
  mkdirSync(ballast);
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=3m', 'tmpfs', ballast]);
  try {
    execFileSync('cp', ['-a', `${site.stateDir}/.`, ballast]);
    execFileSync('mount', ['--bind', ballast, site.stateDir]);
    writeFileSync(join(site.stateDir, 'spool', '1-look.json'), '{"version":1,"app":"site"}');
    fill(join(ballast, 'filler'));
    const end = await site.run(['now', '--requested']);
    assert.equal(end.exit, 5, end.stderr);
    assert.match(end.stderr, /no space is left/);
    assert.equal(spooled(site).length, 1, 'the request stands');
    rmSync(join(ballast, 'filler'));
    const again = await site.run(['now', '--requested']);
    assert.equal(again.exit, 0, again.stderr);
    assert.deepEqual(spooled(site), []);
  } finally {
    execFileSync('umount', ['--lazy', site.stateDir]);
    execFileSync('umount', ['--lazy', ballast]);
  }
});

test('what deploys is the owner of the state, and root is told so', ROOT_ONLY, async t => {
  const site = await makeHookedSite(t, {vcs: 'git'});
  execFileSync('chown', ['-R', 'mail:mail', site.stateDir]);
  for (const words of [['now'], ['now', '--requested'], ['restart'], ['recover']]) {
    const end = await site.run(words);
    assert.equal(end.exit, 2, words.join(' '));
    assert.match(end.stderr, /belongs to mail, who deploys this application[^]*sudo -u 'mail'/);
  }
  execFileSync('chown', ['-R', 'root:root', site.stateDir]);
  await site.settled({version: '1'});
});

/** To the last byte. */
function fill(path: string): void {
  const fd = openSync(path, 'w');
  try {
    for (let size = 65_536; size >= 1; size /= 2) {
      try {
        for (;;) writeSync(fd, Buffer.alloc(size));
      } catch (error) {
        assert.equal((error as NodeJS.ErrnoException).code, 'ENOSPC');
      }
    }
  } finally {
    closeSync(fd);
  }
}

test('hook.wait: `now` by hand answers the committer, too', async t => {
  const site = await makeHookedSite(t, {vcs: 'git', config: {hook: {wait: true}}});
  const gate = makeGate(t, site);
  site.configure({release: {build: [gate.build]}});
  const first = commitOf(site, 'git', '2');
  await gate.reached();
  site.configure({release: {build: []}});
  const second = commitOf(site, 'git', '3');
  await waitUntil('its request', () => spooled(site).length === 1, PATIENCE);
  // Who waited is killed: nobody but a person will answer it.
  for (const {pid} of deployers(site).filter(({pid: one}) => waitsFor(one))) process.kill(pid, 'SIGKILL');
  gate.open();
  assert.match((await first).said, /remote: deployed/);
  await waitUntil('the lock to be free', async () => (await site.status()).deploy === null, PATIENCE);
  const end = await site.run(['now']);
  assert.equal(end.exit, 0, end.stderr);
  assert.match((await second).said, /remote: (deployed|unchanged)/);
  await atRest(site);
});

function waitsFor(pid: number): boolean {
  return readdirSync('/proc').some(child => /^\d+$/.test(child) && parentOf(Number(child)) === pid && argumentsOf(child) === 'flock --exclusive 3');
}

test('two applications on one repository: a commit deploys both', async t => {
  const first = await makeHookedSite(t, {vcs: 'git'});
  const second = await makeSite(t, {vcs: 'git', config: {app: 'second'}});
  second.configure({source: {url: first.git.url}});
  await second.deployed();
  const installed = await second.run(['hook', 'install']);
  assert.equal(installed.exit, 0, installed.stderr);
  await first.release('2');
  for (const site of [first, second]) {
    await waitUntil('version 2', async () => await site.version() === '2', PATIENCE);
    await atRest(site);
  }
});

test('nothing of the hook reaches the workers: neither its environment nor its descriptors', async t => {
  const site = await makeHookedSite(t, {vcs: 'git'});
  const byHand = descriptorsOf((await site.status()).serving?.workers[0]?.pid ?? 0);
  writeFileSync(join(site.git.workingCopy, 'behaviour.json'), '{"version": "2"}\n');
  await site.git.git(['commit', '-q', '-am', 'version 2']);
  await run('git', ['-c', 'push.default=current', 'push', '-q', 'origin', 'HEAD:refs/heads/main'],
    {cwd: site.git.workingCopy, env: scrubbedEnv(site.dir, {GIT_CONFIG_GLOBAL: join(site.dir, 'git', 'gitconfig'), SECRET_OF_THE_COMMITTER: 'x', NODE_OPTIONS: '--max-old-space-size=999'})});
  await waitUntil('version 2', async () => await site.version() === '2', PATIENCE);
  await atRest(site);
  for (const {pid} of (await site.status()).serving?.workers ?? []) {
    const environment = readFileSync(`/proc/${pid}/environ`, 'latin1');
    assert.doesNotMatch(environment, /GIT_|SECRET_OF|NODE_OPTIONS/);
    assert.deepEqual(descriptorsOf(pid), byHand, 'as those of a worker that `now` started');
  }
});

/** What each descriptor of a process is: `file`, `socket` …, without what tells two of a kind apart. */
function descriptorsOf(pid: number): string[] {
  return readdirSync(`/proc/${pid}/fd`).map(Number).sort((a, b) => a - b).map(fd => `${fd} ${readlinkSync(`/proc/${pid}/fd/${fd}`).replace(/worker-\d+/, 'worker').replace(/\[\d+\]/, '')}`);
}

interface CommitEnd {
  readonly code: number | null;
  /** svn warns on standard output, git shows what comes from there on standard error. */
  readonly said: string;
}

/** A commit, and for git its push, as the committer sees it. */
async function commitOf(site: Site, vcs: 'svn' | 'git', version: string, behaviour: Readonly<Record<string, unknown>> = {}): Promise<CommitEnd> {
  const {workingCopy} = vcs === 'svn' ? site.svn : site.git;
  writeFileSync(join(workingCopy, 'behaviour.json'), `${JSON.stringify({version, ...behaviour})}\n`);
  if (vcs === 'git') await site.git.git(['commit', '-q', '-am', `version ${version}`]);
  const env = scrubbedEnv(site.dir, {GIT_CONFIG_GLOBAL: join(site.dir, 'git', 'gitconfig')});
  return vcs === 'svn' ? ended('svn', ['--non-interactive', 'commit', '-m', `version ${version}`], {cwd: workingCopy, env})
    : ended('git', ['push', 'origin', 'HEAD:refs/heads/main'], {cwd: workingCopy, env});
}

function ended(file: string, args: readonly string[], options: {cwd: string; env: Record<string, string>}): Promise<CommitEnd> {
  return new Promise(resolve => {
    execFile(file, [...args], {...options, timeout: 60_000}, (error, stdout, stderr) => resolve({code: error === null ? 0 : typeof error.code === 'number' ? error.code : null, said: stdout + stderr}));
  });
}

/** A working copy of another account. */
function deskOf(site: Site, url: string, login: readonly string[] = [], wrap: readonly string[] = []): {commit(version: string): Promise<CommitEnd>} {
  const desk = join(site.dir, 'desk');
  mkdirSync(desk);
  execFileSync('chown', [`${NOBODY}:${NOBODY}`, desk]);
  const [file = '', ...rest] = [...wrap, 'setpriv', '--reuid', String(NOBODY), '--regid', String(NOBODY), '--clear-groups', '--', 'svn', '--non-interactive', '--config-dir', join(desk, 'config'), ...login];
  const svn = (args: readonly string[]) => ended(file, [...rest, ...args], {cwd: desk, env: scrubbedEnv(desk)});
  return {
    commit: async version => {
      const tree = join(desk, 'tree');
      if (!existsSync(tree)) await svn(['checkout', '-q', url, tree]);
      writeFileSync(join(tree, 'behaviour.json'), `{"version": "${version}"}\n`);
      return svn(['commit', '-q', '-m', `version ${version}`, tree]);
    },
  };
}
