import assert from 'node:assert/strict';
import {execFileSync} from 'node:child_process';
import {chmodSync, chownSync, copyFileSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, utimesSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {describe, test, type TestContext} from 'node:test';
import {parseHook, renderHook} from '../../../src/trigger/hook-script.ts';
import type {HookStatus} from '../../../src/trigger/hook-status.ts';
import {addToHistory} from '../../../src/state/history.ts';
import {CLI, runCommand} from '../../support/osyw.ts';
import {run} from '../../support/run.ts';
import {ownName as me} from '../../support/own-account.ts';
import {scrubbedEnv} from '../../support/scrubbed-env.ts';
import {GAMES, MAIL, isRoot, needsRoot, osyw, scratch, TEMPLATE, writeConfig, writeExecutable} from './hooked.ts';

async function site(t: TestContext, kind: 'svn' | 'git' = 'svn') {
  const dir = scratch(t);
  const repository = join(dir, 'repository');
  if (kind === 'svn') await run('svnadmin', ['create', repository], {env: scrubbedEnv(dir)});
  else await run('git', ['init', '-q', repository], {env: scrubbedEnv(dir)});
  const hooks = join(repository, kind === 'svn' ? 'hooks' : '.git/hooks');
  const config = writeConfig(dir, {url: `file://${repository}`, vcs: kind});
  const stateDir = join(dir, 'state');
  const file = join(hooks, 'post-commit');
  return {
    dir, repository, hooks, config, stateDir, file, before: `${file}.before-osyw-deploy`, spool: join(stateDir, 'spool'),
    install: async (...options: string[]) => {
      const said = await osyw(dir, 'hook', 'install', ...options);
      assert.equal(said.exit, 0, said.err);
    },
    status: async () => {
      const said = await osyw(dir, 'hook', 'status', '--json');
      const json = said.json as unknown as HookStatus;
      const text = await osyw(dir, 'hook', 'status');
      assert.equal(text.exit, said.exit);
      for (const problem of json.problems) assert.ok(text.out.includes(`→ ${problem}`), 'the problems are told to people, too');
      return {exit: said.exit, ...json, text: text.out};
    },
  };
}

describe('the state of a hook', () => {
  test('installed', async t => {
    const {status, install, repository, file, spool} = await site(t);
    await install();
    const {exit, text, ...json} = await status();
    assert.deepEqual({exit, ...json}, {
      exit: 0, app: 'site', repository: {kind: 'svn', path: repository}, hooks: [{file, state: 'installed', before: null}],
      spool: {path: spool, mode: isRoot ? '0700' : '2700', owner: me, group: statSync(spool).gid === 0 ? 'root' : json.spool?.group, waiting: 0},
      accounts: [{account: me, files: true, starts: true}], last: null, problems: [],
    });
    assert.match(text, /post-commit: installed\n[^]*0 requests wait\n[^]*can file requests, and starts the deploy at once[^]*last request: none\n$/);
  });

  test('not installed: nothing there, somebody else\'s, another application\'s', async t => {
    const {dir, status, install, file, repository} = await site(t);
    const nothing = await status();
    assert.deepEqual([nothing.exit, nothing.hooks[0]?.state, nothing.spool, nothing.accounts], [3, 'not_installed', null, []]);
    writeExecutable(file, 'exit 0');
    const foreign = await status();
    assert.deepEqual([foreign.exit, foreign.hooks[0]?.state], [3, 'not_installed']);
    assert.match(foreign.problems.join(), /somebody else's hook: `osyw-deploy hook install` keeps it and runs it first/);
    await install();
    writeConfig(dir, {url: `file://${repository}`}, {app: 'other', state: 'state2', file: 'other.yaml'});
    const other = await osyw(dir, 'hook', 'status', '--config', 'other.yaml');
    assert.equal(other.exit, 3);
    assert.match(other.out, /serves site, not this application/);
  });

  test('with a hook of before', async t => {
    const {status, install, file, before} = await site(t);
    writeExecutable(file, 'exit 0');
    await install();
    const {exit, hooks, text} = await status();
    assert.deepEqual([exit, hooks], [0, [{file, state: 'installed', before}]]);
    assert.match(text, /post-commit\.before-osyw-deploy runs first/);
  });

  test('changed by hand, replaced, removed, not executable', async t => {
    const {status, install, file, before} = await site(t);
    writeExecutable(file, 'exit 0');
    await install();
    const text = readFileSync(file, 'utf8');
    const states: unknown[] = [];
    const look = async () => {
      const {exit, hooks, problems} = await status();
      states.push([exit, hooks[0]?.state, problems.length > 0]);
    };
    writeFileSync(file, `${text}echo mine\n`);
    await look();
    writeExecutable(file, 'echo another');
    await look();
    rmSync(file);
    await look();
    writeFileSync(file, text, {mode: 0o644});
    chmodSync(file, 0o644);
    await look();
    chmodSync(file, 0o755);
    await look();
    assert.deepEqual(states, [[1, 'changed', true], [1, 'replaced', true], [3, 'not_installed', true], [1, 'installed', true], [0, 'installed', false]]);
    rmSync(before);
    assert.equal((await status()).exit, 0);
  });

  test('outdated: another version, another setting', async t => {
    const {dir, status, install, file, repository} = await site(t);
    await install();
    const read = parseHook(readFileSync(file, 'utf8'), TEMPLATE);
    assert.ok(read.kind === 'ours');
    writeFileSync(file, renderHook(TEMPLATE.replace('sleep 1 ', 'sleep 2 '), read.applications));
    const version = await status();
    assert.deepEqual([version.exit, version.hooks[0]?.state], [1, 'outdated']);
    assert.match(version.problems.join(), /another version: run `osyw-deploy hook install`/);
    await install();
    writeConfig(dir, {url: `file://${repository}`}, {hook: {wait: true}});
    const setting = await status();
    assert.deepEqual([setting.exit, setting.hooks[0]?.state], [1, 'outdated']);
    assert.match(setting.problems.join(), /another waitSeconds than/);
    await install();
    assert.equal((await status()).exit, 0);
  });

  test('one of the two hooks of a work tree is gone', async t => {
    const {status, install, hooks} = await site(t, 'git');
    await install();
    assert.deepEqual((await status()).hooks.map(({state}) => state), ['installed', 'installed']);
    rmSync(join(hooks, 'post-merge'));
    const {exit, hooks: found} = await status();
    assert.deepEqual([exit, found.map(({state}) => state)], [1, ['installed', 'not_installed']]);
  });
});

describe('the spool', () => {
  test('of another mode, or gone', async t => {
    const {status, install, spool} = await site(t);
    await install();
    chmodSync(spool, 0o755);
    const mode = await status();
    assert.equal(mode.exit, 1);
    assert.match(mode.problems.join(), isRoot ? /has mode 0755, not 0700: run/ : /has mode 0755, not 2700 or 3770: run/);
    renameSync(spool, `${spool}-away`);
    const gone = await status();
    assert.deepEqual([gone.exit, gone.spool], [1, null]);
    assert.match(gone.problems.join(), /spool .* is not there/);
    await install();
    assert.equal((await status()).exit, 0);
  });

  test('in which a deployer may not answer who waits', {skip: needsRoot}, async t => {
    const {status, install, stateDir, config} = await site(t);
    mkdirSync(stateDir, {mode: 0o711});
    chownSync(stateDir, MAIL.uid, MAIL.gid);
    await install('--anyone');
    writeFileSync(config, `${readFileSync(config, 'utf8')}hook: {wait: true}\n`);
    assert.match((await status()).problems.join('\n'), /hook\.wait cannot work: mail may not answer/);
    await install('--group', 'mail');
    assert.doesNotMatch((await status()).problems.join('\n'), /hook\.wait/);
  });

  test('of another owner', {skip: needsRoot}, async t => {
    const {status, install, spool} = await site(t);
    await install();
    chownSync(spool, GAMES.uid, GAMES.gid);
    assert.match((await status()).problems.join(), /belongs to games, not to root/);
  });

  test('what waits, and what came last', async t => {
    const {status, install, spool, stateDir} = await site(t);
    await install();
    const ended = {id: 'd1', trigger: 'hook', requested_by: 'ann', revision: 'r6', release: '000001', outcome: 'deployed', exit: 0, code: 'OK', error: null, phases: {}, started_at: '2026-01-02T03:04:05.000Z', ended_at: '2026-01-02T03:04:06.000Z'} as const;
    addToHistory(stateDir, ended);
    addToHistory(stateDir, {...ended, id: 'd2', trigger: 'manual', revision: 'r9', started_at: '2026-01-03T03:04:05.000Z'});
    assert.deepEqual((await status()).last, {at: ended.started_at, by: 'ann', revision: 'r6', outcome: 'deployed'});
    assert.match((await status()).text, /last request: 2026-01-02 03:04:05 by ann, r6, deployed\n/);
    for (const n of [7, 8]) writeFileSync(join(spool, `1-r${n}.json`), `{"version":1,"app":"site","revision":"r${n}"}\n`, {mode: 0o600});
    writeFileSync(join(spool, '.1-r9'), '');
    utimesSync(join(spool, '1-r8.json'), 1, 1);
    const {exit, spool: found, last, text} = await status();
    assert.deepEqual([exit, found?.waiting, last?.by, last?.revision, last?.outcome], [0, 2, me, 'r8', null]);
    assert.match(text, /2 requests wait\n/);
  });
});

describe('who runs it', {skip: needsRoot}, () => {
  test('an account that can file and not start: the line for sudo', async t => {
    const {dir, repository, status, install, spool, stateDir, config} = await site(t);
    chownSync(join(repository, 'db'), GAMES.uid, GAMES.gid);
    await install();
    const {exit, accounts, problems, spool: found} = await status();
    assert.deepEqual([exit, accounts, found?.mode, found?.group], [1, [{account: 'games', files: true, starts: false}], '3770', 'games']);
    const line = problems.join().split('\n').at(-1)?.trim();
    assert.equal(line, `games ALL=(root) NOPASSWD: /usr/bin/flock --nonblock --conflict-exit-code 100 --no-fork ${stateDir}/waiting ${process.execPath} ${join(process.argv[1] ?? '')} now --requested --quiet --config ${config}`);
    // sudo itself takes that line; its configuration is replaced for nobody but this command.
    writeFileSync(join(dir, 'sudoers'), `${line}\n`, {mode: 0o440});
    assert.match(execFileSync('/usr/sbin/visudo', ['-c', '-f', join(dir, 'sudoers')], {encoding: 'utf8'}), /parsed OK/);
    chmodSync(spool, 0o700);
    assert.deepEqual((await status()).accounts, [{account: 'games', files: false, starts: false}]);
  });

  test('with that line it starts', {skip: existsSync('/usr/bin/sudo') ? false : 'there is no sudo'}, async t => {
    const {dir, repository, config} = await site(t);
    chownSync(join(repository, 'db'), GAMES.uid, GAMES.gid);
    const options = {cwd: dir};
    const cli = join(dir, 'a:copy,of=it#.cjs');
    copyFileSync(CLI, cli);
    assert.equal((await runCommand(['hook', 'install', '--config', config], {...options, cli})).exit, 0);
    const asked = await runCommand(['hook', 'status', '--json', '--config', config], {...options, cli});
    const status = JSON.parse(asked.stdout) as HookStatus;
    assert.deepEqual(status.accounts, [{account: 'games', files: true, starts: false}]);
    const sudoers = join(dir, 'sudoers');
    writeFileSync(sudoers, `root ALL=(ALL) ALL\n${status.problems.join().split('\n').at(-1)?.trim()}\n`, {mode: 0o440});
    const wrap = ['/usr/bin/unshare', '--mount', '--propagation', 'private', '/bin/sh', '-c', 'mount --bind "$0" /etc/sudoers && exec "$@"', sudoers];
    const now = await runCommand(['hook', 'status', '--json', '--config', config], {...options, cli, wrap});
    assert.deepEqual([now.exit, (JSON.parse(now.stdout) as HookStatus).accounts], [0, [{account: 'games', files: true, starts: true}]], now.stdout + now.stderr);
  });

  test('no line where a word has a blank, at which sudo would not tell it from two', async t => {
    const {dir, repository, config} = await site(t);
    chownSync(join(repository, 'db'), GAMES.uid, GAMES.gid);
    const cli = join(dir, 'a copy.cjs');
    copyFileSync(CLI, cli);
    assert.equal((await runCommand(['hook', 'install', '--config', config], {cwd: dir, cli})).exit, 0);
    const said = await runCommand(['hook', 'status', '--config', config], {cwd: dir, cli});
    assert.equal(said.exit, 1);
    assert.doesNotMatch(said.stdout, /NOPASSWD/);
    assert.match(said.stdout, /games commits and may not start the deploy[^]*a copy\.cjs has a blank, at which sudo[^]*give it a path without blanks/);
  });

  test('root can become a deployer without a name', async t => {
    const {repository, stateDir, status, install, config} = await site(t);
    mkdirSync(stateDir);
    chownSync(stateDir, 54_321, 54_321);
    chmodSync(config, 0o644);
    await install();
    const {accounts, problems} = await status();
    assert.equal(statSync(join(repository, 'db')).uid, 0);
    assert.deepEqual(accounts.map(({account}) => account), ['root']);
    assert.doesNotMatch(problems.join('\n'), /cannot become/);
  });

  test('a group, an account outside of everything, and root', async t => {
    const {dir, repository, status, install} = await site(t);
    chownSync(join(repository, 'db'), 0, MAIL.gid);
    chmodSync(join(repository, 'db'), 0o2775);
    await install();
    assert.deepEqual((await status()).accounts, [{account: 'root', files: true, starts: true}, {account: 'mail', files: true, starts: false}]);
    chmodSync(join(repository, 'db'), 0o777);
    await install();
    assert.deepEqual((await status()).accounts.map(({account, files}) => [account, files]), [['root', true], ['mail', true], ['nobody', true]]);
    chmodSync(dir, 0o700);
    assert.deepEqual((await status()).accounts.map(({account, files}) => [account, files]), [['root', true], ['mail', false], ['nobody', false]]);
  });

  test('a deployer that cannot run the command', async t => {
    const {repository, stateDir, status, install, config} = await site(t);
    mkdirSync(stateDir);
    for (const path of [stateDir, join(repository, 'db')]) chownSync(path, GAMES.uid, GAMES.gid);
    await install();
    const {exit, accounts, problems} = await status();
    assert.equal(exit, 1);
    assert.deepEqual(accounts, [{account: 'games', files: true, starts: false}]);
    assert.ok(problems.some(problem => problem.startsWith(`games, who deploys, cannot read ${config}`)), problems.join('\n'));
    chownSync(config, 0, GAMES.gid);
    chmodSync(config, 0o640);
    assert.ok(!(await status()).problems.some(problem => problem.includes(config)));
  });

  test('asked by somebody else it is judged by the modes', async t => {
    const {dir, repository, install} = await site(t);
    chownSync(join(repository, 'db'), GAMES.uid, GAMES.gid);
    await install();
    const config = writeConfig(dir, {url: `file://${repository}`, vcs: 'svn'});
    chmodSync(config, 0o644);
    const cli = join(dir, 'osyw-deploy.cjs');
    copyFileSync(CLI, cli);
    assert.equal((await runCommand(['hook', 'install', '--config', config], {cwd: dir, cli})).exit, 0);
    const said = await runCommand(['hook', 'status', '--json', '--config', config], {cwd: dir, cli, as: MAIL});
    const status = JSON.parse(said.stdout) as HookStatus;
    assert.deepEqual([status.accounts, status.spool?.waiting, status.last], [[{account: 'games', files: true, starts: false}], null, null]);
    const text = await runCommand(['hook', 'status', '--config', config], {cwd: dir, cli, as: MAIL});
    assert.match(text.stdout, /judged by the modes; as root it would be tried/);
    assert.match((await runCommand(['hook', 'install', '--config', config], {cwd: dir, cli, as: MAIL})).stderr, /belongs to root, and this is mail\n→ Run it as root/);
  });
});
