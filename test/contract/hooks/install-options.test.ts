import assert from 'node:assert/strict';
import {existsSync, readFileSync, statSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {test} from 'node:test';
import {run} from '../../support/run.ts';
import {scrubbedEnv} from '../../support/scrubbed-env.ts';
import {osyw, scratch, writeConfig} from './hooked.ts';

test('what install was told it knows the next time, and so do status and uninstall', async t => {
  const dir = scratch(t);
  const repository = join(dir, 'repository');
  await run('svnadmin', ['create', repository], {env: scrubbedEnv(dir)});
  writeConfig(dir, {url: 'svn://127.0.0.1/repository/trunk', vcs: 'svn'});
  const spool = join(dir, 'state', 'spool');
  assert.equal((await osyw(dir, 'hook', 'install')).exit, 2);
  assert.equal((await osyw(dir, 'hook', 'install', '--repository', 'repository', '--anyone')).exit, 0);
  assert.equal(statSync(spool).mode & 0o7777, 0o1733);
  const again = await osyw(dir, 'hook', 'install', '--json');
  assert.deepEqual([again.exit, again.json['hooks']], [0, [{file: join(repository, 'hooks', 'post-commit'), changed: false}]]);
  assert.equal(statSync(spool).mode & 0o7777, 0o1733);
  assert.notEqual((await osyw(dir, 'hook', 'status')).exit, 2);
  assert.equal((await osyw(dir, 'hook', 'uninstall')).exit, 0);
  assert.ok(!existsSync(join(repository, 'hooks', 'post-commit')) && !existsSync(join(dir, 'state', 'hook-options.json')));
  assert.equal((await osyw(dir, 'hook', 'status')).exit, 2);
});

test('a hook with a line of somebody in front of our mark is changed, not somebody else\'s', async t => {
  const dir = scratch(t);
  const repository = join(dir, 'repository');
  await run('svnadmin', ['create', repository], {env: scrubbedEnv(dir)});
  writeConfig(dir, {url: `file://${repository}`, vcs: 'svn'});
  await osyw(dir, 'hook', 'install');
  const hook = join(repository, 'hooks', 'post-commit');
  writeFileSync(hook, readFileSync(hook, 'utf8').replace('\n', '\n# looked at\n'));
  assert.match((await osyw(dir, 'hook', 'status')).out, /changed by hand/);
  const again = await osyw(dir, 'hook', 'install');
  assert.equal(again.exit, 2);
  assert.ok(!existsSync(`${hook}.before-osyw-deploy`));
});
