import assert from 'node:assert/strict';
import {appendFileSync, chmodSync, linkSync, lstatSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, statSync, symlinkSync, unlinkSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {test} from 'node:test';
import {CLIENTS_BY_HEADER, keepsEveryClient} from '../support/client-places.ts';
import {get} from '../support/raw-http.ts';
import {makeSite, type Site, type SiteOptions} from '../support/site.ts';
import {isAlive} from '../support/leftovers.ts';
import {waitUntil} from '../support/wait-until.ts';

const BLOCK = `    # die Anwendung: nicht anfassen
    upstream  "myweb"  { # {
\tserver 127.0.0.1:1 weight=4 max_fails=2;   # erste; server 127.0.0.1:2;

      server  '127.0.0.1:1'
          weight=4 fail_timeout=30s;\r
      server 127.0.0.1:1; keepalive 4;
    }
    map $http_x $unused { "~^\\d{3}$" "}"; default "{"; }
`;
const INLINE: SiteOptions = {count: 3, nginx: {inline: true, upstream: BLOCK}};

const contents = (site: Site) => readFileSync(site.nginx.upstreamFile, 'utf8');
/** The text with every address of the slots blanked: what no deploy may change. */
const withoutAddresses = (text: string) => text.replace(/(?<=^[^#]*\bserver\s+["']?)127\.0\.0\.1:\d+/gm, '-');

function onlyAddressesDiffer(site: Site, before: string): void {
  const now = contents(site);
  assert.equal(withoutAddresses(now), withoutAddresses(before));
  const [conf = '', ...more] = readdirSync(site.nginx.prefix).filter(name => name.includes('nginx.conf'));
  assert.equal(conf, 'nginx.conf');
  assert.deepEqual(more, [], 'nothing is left beside it');
}

test('no request fails while three deploys edit the main file under load, and only addresses differ', async (t) => {
  const site = await makeSite(t, INLINE);
  const before = contents(site);
  assert.match(withoutAddresses(before), /server - weight=4 [^\n]*127\.0\.0\.1:2;\n\n[^\n]*'-'\n[^\n]*\n[^\n]*server -; keep/, 'the test sees the addresses');
  await site.deployed();
  const traffic = site.traffic({lanes: {freshGet: 3, freshPost: 2, slow: 1, upload: 1}, everyMs: 5});
  for (const version of ['2', '3', '4']) {
    await site.release(version);
    const plan = await site.run(['plan', '--json']);
    assert.equal(plan.exit, 0, plan.stderr);
    const {ports, nginx: {file, diff}} = JSON.parse(plan.stdout) as {ports: number[]; nginx: {file: string; diff: string}};
    assert.equal(file, site.nginx.conf);
    assert.deepEqual(diff.split('\n').filter(line => /^\+[^+]/.test(line)).flatMap(line => /127\.0\.0\.1:(\d+)/.exec(line)?.[1] ?? []).map(Number), ports, diff);
    await site.deployed();
    onlyAddressesDiffer(site, before);
  }
  const report = await site.settled({version: '4', traffic});
  assert.deepEqual(report?.versions, ['1', '2', '3', '4']);
  assert.equal((await site.now()).result?.outcome, 'unchanged');
  const rollback = await site.run(['rollback', '--json']);
  assert.equal(rollback.exit, 0, rollback.stdout);
  onlyAddressesDiffer(site, before);
  assert.equal(await site.version(), '3');
});

test('ip_hash keeps every client over deploys that edit', async (t) => {
  const site = await makeSite(t, {
    count: 3,
    nginx: {
      inline: true,
      upstream: '    upstream myweb {\n        ip_hash;\n        server 127.0.0.1:1 weight=2;\n        server 127.0.0.1:1; # small\n        server 127.0.0.1:1 weight=3;\n    }\n',
      server: CLIENTS_BY_HEADER,
    },
  });
  await keepsEveryClient(site);
});

test('after a stop nginx answers 502, and the next start finds every line as it was', async (t) => {
  const site = await makeSite(t, INLINE);
  const before = contents(site);
  await site.deployed();
  const running = contents(site);
  assert.equal((await site.run(['stop'])).exit, 0);
  assert.equal((await get(site.nginx.port, '/')).status, 502);
  assert.equal(contents(site), before, 'every address is nowhere, as before the first deploy');
  await site.nothingRuns();
  assert.equal((await site.run(['start'])).exit, 0);
  onlyAddressesDiffer(site, running);
  await site.settled({version: '1'});
});

test('more workers get lines like the last one, fewer lose lines from the end', async (t) => {
  const site = await makeSite(t, {count: 2, nginx: {inline: true, upstream: '    upstream myweb {\n        server 127.0.0.1:1;\n        server 127.0.0.1:1 weight=2; # last\n        keepalive 2;\n    }\n'}});
  await site.deployed();
  const two = contents(site);
  site.configure({workers: {count: 3}});
  await site.deployed();
  assert.match(contents(site), /weight=2; # last\n {8}server 127\.0\.0\.1:\d+ weight=2;\n {8}keepalive 2;/);
  await site.settled({version: '1', workers: 3});
  site.configure({workers: {count: 2}});
  await site.deployed();
  onlyAddressesDiffer(site, two);
  await site.settled({version: '1'});
});

test('the block is found through includes and a link, and the link stays', async (t) => {
  const site = await makeSite(t, INLINE);
  const {prefix, conf} = site.nginx;
  mkdirSync(join(prefix, 'sites-available'));
  mkdirSync(join(prefix, 'sites-enabled'));
  const [available, enabled] = [join(prefix, 'sites-available', 'app'), join(prefix, 'sites-enabled', 'app')];
  writeFileSync(available, BLOCK, {mode: 0o640});
  symlinkSync('../sites-available/app', enabled);
  const main = contents(site).replace(BLOCK, '    include sites-enabled/*;\n');
  writeFileSync(conf, main);
  await site.nginx.reload();
  await site.deployed();
  assert.equal(contents(site), main, 'the main file stays');
  assert.ok(lstatSync(enabled).isSymbolicLink());
  assert.equal(statSync(available).mode & 0o777, 0o640);
  assert.equal(withoutAddresses(readFileSync(available, 'utf8')), withoutAddresses(BLOCK));
  assert.equal(await site.version(), '1');
  const {serving, upstream} = await site.status();
  assert.deepEqual(upstream, {name: 'myweb', file: enabled, ports: serving?.workers.map(({port}) => port)});
});

/** Deploys version 2 up to its reload, which never comes, and is killed there: the file names the new ports, nginx has loaded the old ones. */
async function killedBeforeItsReload(site: Site): Promise<void> {
  await site.release('2');
  const reached = join(site.dir, 'reached');
  site.configure({nginx: {reload: ['/bin/sh', '-c', `echo >${reached}; exec sleep 60`]}});
  const command = site.start(['now', '--json']);
  await waitUntil('the reload to be asked for', () => readIfThere(reached) !== '', {withinMs: 20_000, everyMs: 1});
  const sleeper = site.processes().filter(({command: line}) => line.startsWith('sleep 60')).map(({pid}) => pid);
  command.child.kill('SIGKILL');
  await command.ended;
  for (const pid of sleeper) process.kill(pid, 'SIGKILL');
  await waitUntil('the reload to be gone', () => sleeper.every(pid => !isAlive(pid)));
  site.configure({nginx: {reload: null}});
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

test('kill -9 in the switch: recover puts the old addresses back, and what somebody else wrote meanwhile stays', async (t) => {
  const site = await makeSite(t, INLINE);
  await site.deployed();
  const before = contents(site);
  const traffic = site.traffic();
  await killedBeforeItsReload(site);
  assert.notEqual(contents(site), before);
  appendFileSync(site.nginx.conf, '# a line of somebody else\n');
  const recovered = await site.run(['recover', '--json']);
  assert.equal(recovered.exit, 0, recovered.stdout + recovered.stderr);
  assert.equal(contents(site), `${before}# a line of somebody else\n`);
  await site.settled({version: '1', outcome: 'aborted'});
  await site.deployed();
  onlyAddressesDiffer(site, `${before}# a line of somebody else\n`);
  await site.settled({version: '2', traffic});
});

test('kill -9 in the switch, nginx reloaded by somebody: recover goes forward, and what was written meanwhile stays', async (t) => {
  const site = await makeSite(t, INLINE);
  await site.deployed();
  await killedBeforeItsReload(site);
  const written = contents(site);
  appendFileSync(site.nginx.conf, '# a line of somebody else\n');
  await site.nginx.reload();
  const recovered = await site.run(['recover', '--json']);
  assert.equal(recovered.exit, 0, recovered.stdout + recovered.stderr);
  assert.equal(contents(site), `${written}# a line of somebody else\n`);
  await site.settled({version: '2', outcome: 'deployed'});
});

test('kill -9 in the switch, and the block is gone: nothing is stopped, 12, until it is back', async (t) => {
  const site = await makeSite(t, INLINE);
  await site.deployed();
  await killedBeforeItsReload(site);
  const written = contents(site);
  writeFileSync(site.nginx.conf, written.replace(/ {4}upstream[^}]*}/, ''));
  const uncertain = await site.run(['recover', '--json']);
  assert.equal(uncertain.exit, 12, uncertain.stdout);
  assert.match(uncertain.result?.error ?? '', /somebody changed it/);
  assert.equal(site.processes().filter(({command}) => command.includes('worker.py')).length, 6, 'the old and the new workers run');
  assert.equal(await site.version(), '1');
  writeFileSync(site.nginx.conf, written);
  assert.equal((await site.run(['recover'])).exit, 0);
  await site.settled({version: '1', outcome: 'aborted'});
});

test('kill -9 in the switch, and the link leads elsewhere: nothing is stopped, 12, until it leads back', async (t) => {
  const site = await makeSite(t, INLINE);
  const {prefix, conf} = site.nginx;
  const [first, second, link] = [join(prefix, 'first'), join(prefix, 'second'), join(prefix, 'conf.d', 'app.conf')];
  writeFileSync(first, BLOCK);
  symlinkSync(first, link);
  writeFileSync(conf, contents(site).replace(BLOCK, ''));
  await site.nginx.reload();
  await site.deployed();
  const before = readFileSync(first, 'utf8');
  await killedBeforeItsReload(site);
  writeFileSync(second, before);
  unlinkSync(link);
  symlinkSync(second, link);
  const uncertain = await site.run(['recover', '--json']);
  assert.equal(uncertain.exit, 12, uncertain.stdout);
  assert.match(uncertain.result?.error ?? '', new RegExp(`changed ${first}, and the upstream file is ${second} now`));
  assert.equal(site.processes().filter(({command}) => command.includes('worker.py')).length, 6, 'the old and the new workers run');
  unlinkSync(link);
  symlinkSync(first, link);
  assert.equal((await site.run(['recover'])).exit, 0);
  assert.equal(readFileSync(first, 'utf8'), before);
  assert.equal(await site.version(), '1');
  assert.equal(site.processes().filter(({command}) => command.includes('worker.py')).length, 3);
});

test('addresses of somebody else in the bake, which fails: they stay, and 12', async (t) => {
  const site = await makeSite(t, INLINE);
  await site.deployed();
  site.configure({bake: {for: '20s'}});
  await site.release('2', {unhealthy_when_named: join(site.dir, 'named')});
  writeFileSync(join(site.dir, 'named'), '');
  const command = site.start(['now', '--json']);
  await waitUntil('the bake', () => command.stdout().includes('"bake"'), {withinMs: 20_000});
  const theirs = contents(site).replace('    }\n    map', '      server 127.0.0.1:7999 weight=9; # theirs\n    }\n    map');
  writeFileSync(site.nginx.conf, theirs);
  writeFileSync(join(site.dir, 'named'), theirs);
  const end = await command.ended;
  assert.equal(end.exit, 12, end.stdout);
  assert.match(end.result?.error ?? '', /somebody changed/);
  assert.equal(contents(site), theirs);
  assert.equal(site.processes().filter(({command: line}) => line.includes('worker.py')).length, 6, 'nothing is stopped');
});

test('a new release that fails in the bake: the old addresses are back, and what somebody wrote meanwhile stays', async (t) => {
  const site = await makeSite(t, INLINE);
  await site.deployed();
  const before = contents(site);
  site.configure({bake: {for: '20s'}});
  await site.release('2', {unhealthy_when_named: join(site.dir, 'named')});
  writeFileSync(join(site.dir, 'named'), '');
  const command = site.start(['now', '--json']);
  await waitUntil('the bake', () => command.stdout().includes('"bake"'), {withinMs: 20_000});
  appendFileSync(site.nginx.conf, '# a line of somebody else\n');
  writeFileSync(join(site.dir, 'named'), contents(site));
  const end = await command.ended;
  assert.equal(end.exit, 11, end.stdout);
  assert.equal(contents(site), `${before}# a line of somebody else\n`);
  await site.settled({version: '1', outcome: 'rolled_back'});
});

test('what cannot be edited safely is refused before anything is started, with the reason and the lines to write instead', async (t) => {
  const site = await makeSite(t, INLINE);
  const good = contents(site);
  const refused = async (says: RegExp) => {
    const before = contents(site);
    const end = await site.now();
    assert.equal(end.exit, 9, end.stdout);
    assert.match(end.result?.error ?? '', says);
    assert.match(end.stdout + end.stderr, /`include \S+\/site\.upstream\.conf;`.*`proxy_pass http:\/\/myweb;`/);
    assert.equal(contents(site), before);
    await site.nothingRuns();
  };
  for (const [from, to, says] of [
    ['"myweb"', 'other', /`upstream myweb` stands neither in it nor in/],
    ['upstream  "myweb"', 'upstream myweb { server 127.0.0.1:1; } upstream "myweb"', /twice, in lines/],
    ['server 127.0.0.1:1;', 'server unix:/run/a.sock;', /`server unix:\/run\/a\.sock` is no port of `workers\.host`/],
    ['server 127.0.0.1:1;', 'server localhost:8811;', /`server localhost:8811` is no port/],
    ['keepalive 4;', 'include servers;', /with `include`/],
  ] as const) {
    writeFileSync(site.nginx.conf, good.replace(from, to));
    await refused(says);
  }
  writeFileSync(site.nginx.conf, good);
  const second = join(site.dir, 'second');
  linkSync(site.nginx.conf, second);
  await refused(/a second name/);
  rmSync(second);
  await site.deployed();
  await site.settled({version: '1'});
});

test('a file that nginx does not read is refused, and stays', async (t) => {
  const site = await makeSite(t, INLINE);
  const stray = join(site.dir, 'stray.conf');
  writeFileSync(stray, BLOCK);
  site.configure({nginx: {edit: stray}});
  const end = await site.now();
  assert.equal(end.exit, 9, end.stdout);
  assert.match(end.result?.error ?? '', /nginx does not read/);
  assert.equal(readFileSync(stray, 'utf8'), BLOCK);
});

test('an ordinary user edits a file of his own; one that he may not write is refused', {skip: process.getuid?.() === 0 ? false : 'only root can become another account'}, async (t) => {
  const site = await makeSite(t, {...INLINE, as: {uid: 65_534, gid: 65_534}});
  const before = contents(site);
  await site.deployed();
  onlyAddressesDiffer(site, before);
  await site.release('2');
  chmodSync(site.nginx.conf, 0o444);
  const end = await site.now();
  assert.equal(end.exit, 9, end.stdout);
  assert.match(end.result?.error ?? '', /cannot be edited: it cannot be written/);
  chmodSync(site.nginx.conf, 0o644);
  await site.deployed();
  await site.settled({version: '2'});
});

test('a change by somebody who writes a new file in its place is seen', async (t) => {
  const site = await makeSite(t, INLINE);
  await site.deployed();
  const changed = contents(site).replace('weight=4 max_fails=2', 'weight=5 max_fails=2');
  writeFileSync(`${site.nginx.conf}.edited`, changed);
  renameSync(`${site.nginx.conf}.edited`, site.nginx.conf);
  await site.release('2');
  await site.deployed();
  onlyAddressesDiffer(site, changed);
  await site.settled({version: '2'});
});
