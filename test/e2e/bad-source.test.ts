import assert from 'node:assert/strict';
import {chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {test} from 'node:test';
import {makeSite, type Site} from '../support/site.ts';
import {run} from '../support/run.ts';
import {processesOf} from '../support/leftovers.ts';
import {waitUntil} from '../support/wait-until.ts';

async function refused(site: Site, args: readonly string[], exit: number, code: string, says: RegExp): Promise<string> {
  const end = await site.now(args);
  assert.equal(end.exit, exit, end.stdout + end.stderr);
  assert.equal(end.result?.code, code);
  assert.equal(end.result.outcome, 'aborted');
  assert.match(end.result.error ?? '', says);
  return end.result.error ?? '';
}

for (const vcs of ['svn', 'git'] as const) {
  test(`${vcs}: what cannot be updated is refused with the file's name, and nothing of the user's is lost`, {timeout: 120_000}, async (t) => {
    const site = await makeSite(t, {vcs, files: {'a.txt': 'one\n', 'b.txt': 'two\n'}});
    await site.deployed();
    const copy = site.workingCopy;

    await t.test('an unknown revision', async () => {
      await refused(site, ['--revision', vcs === 'svn' ? 'r999' : 'f'.repeat(40)], 5, 'UPDATE_FAILED', vcs === 'svn' ? /999/ : /ffff/);
    });
    for (const malformed of ['--upload-pack=x', '-1', 'abc;touch x', '$(id)', 'r1:r2', 'HEAD^{/x}', '']) {
      await t.test(`a malformed revision: ${JSON.stringify(malformed)}`, async () => {
        await refused(site, [`--revision=${malformed}`], 2, 'USAGE', /./);
      });
    }
    await t.test('a local edit', async () => {
      writeFileSync(join(copy, 'a.txt'), 'edited by hand\n');
      await site.release('2');
      await refused(site, [], 5, 'UPDATE_FAILED', /a\.txt/);
      assert.equal(readFileSync(join(copy, 'a.txt'), 'utf8'), 'edited by hand\n');
      await site.settled({version: '1', outcome: 'aborted'});
      await run(vcs, vcs === 'svn' ? ['revert', '-q', 'a.txt'] : ['checkout', '-q', '--', 'a.txt'], {cwd: copy});
    });
    await t.test('an obstruction: an unversioned file where a new one comes', async () => {
      writeFileSync(join(copy, 'new.txt'), 'mine\n');
      await site.commit({'new.txt': 'theirs\n'});
      await refused(site, [], 5, 'UPDATE_FAILED', /new\.txt/);
      assert.equal(readFileSync(join(copy, 'new.txt'), 'utf8'), 'mine\n');
      rmSync(join(copy, 'new.txt'));
    });
    await t.test('missing files, locks of dead commands and unversioned files are no obstacle', async () => {
      rmSync(join(copy, 'b.txt'));
      writeFileSync(join(copy, 'unversioned.txt'), 'stays\n');
      if (vcs === 'git') writeFileSync(join(copy, '.git', 'index.lock'), '');
      await site.deployed();
      assert.equal(readFileSync(join(copy, 'b.txt'), 'utf8'), 'two\n');
      assert.equal(readFileSync(join(copy, 'unversioned.txt'), 'utf8'), 'stays\n');
      const release = (await site.status()).serving?.release ?? '';
      assert.equal(existsSync(join(site.stateDir, 'releases', release, 'unversioned.txt')), false, 'unversioned files never enter a snapshot');
      await site.settled({version: '2', outcome: 'deployed'});
    });
    await t.test('the repository cannot be reached', async () => {
      await site.release('3');
      const url = vcs === 'svn' ? 'svn://127.0.0.1:1/none' : 'git://127.0.0.1:1/none';
      site.configure({source: {url, working_copy: join(site.dir, 'another-copy')}});
      await refused(site, [], 5, 'UPDATE_FAILED', /127\.0\.0\.1/);
      await site.settled({version: '2'});
    });
  });
}

test('svn: a copy that is switched elsewhere, and a conflict, are refused', async (t) => {
  const site = await makeSite(t, {vcs: 'svn', files: {'a.txt': 'one\n'}});
  await site.deployed();
  await site.svn.svn(['copy', '-q', '-m', 'aside', `file://${site.svn.repository}/trunk`, `file://${site.svn.repository}/branches/aside`]);
  await run('svn', ['switch', '-q', `file://${site.svn.repository}/branches/aside`, '.'], {cwd: site.workingCopy});
  await site.release('2');
  await refused(site, [], 5, 'UPDATE_FAILED', /aside/);
  await run('svn', ['switch', '-q', `file://${site.svn.repository}/trunk`, '.'], {cwd: site.workingCopy});
  writeFileSync(join(site.workingCopy, 'a.txt'), 'mine\n');
  await site.commit({'a.txt': 'theirs\n'});
  await run('svn', ['update', '-q', '--accept', 'postpone', '.'], {cwd: site.workingCopy});
  await refused(site, [], 5, 'UPDATE_FAILED', /a\.txt/);
  await site.settled({version: '1', outcome: 'aborted'});
});

test('git: a deleted branch is refused', async (t) => {
  const site = await makeSite(t, {vcs: 'git'});
  await site.git.commit({'behaviour.json': '{"version": "aside"}\n'}, 'aside', 'aside');
  site.configure({source: {branch: 'aside'}});
  await site.deployed();
  await site.git.deleteBranch('aside');
  await refused(site, [], 5, 'UPDATE_FAILED', /aside/);
  await site.settled({version: 'aside', outcome: 'aborted'});
});

test('names made to inject an option or a command are names', async (t) => {
  const site = await makeSite(t, {vcs: 'git', files: {'-rf': 'a\n', '--config=x': 'b\n', 'with space and $(touch pwned)': 'c\n', 'ünïcode\nnewline': 'd\n', 'a@b': 'e\n'}});
  await site.deployed();
  const release = (await site.status()).serving?.release ?? '';
  const names = readdirSync(join(site.stateDir, 'releases', release));
  for (const name of ['-rf', '--config=x', 'with space and $(touch pwned)', 'ünïcode\nnewline', 'a@b']) assert.ok(names.includes(name), name);
  assert.equal(existsSync(join(site.dir, 'pwned')), false);
  await site.settled({version: '1'});
});

test('a build that fails, hangs or floods: 6, with its last lines, and nothing of it is left', {timeout: 120_000}, async (t) => {
  const site = await makeSite(t, {files: {'build.sh': 'exit 0\n'}, config: {release: {build: [['/bin/sh', 'build.sh']], build_timeout: '1s'}}});
  await site.deployed();
  const traffic = site.traffic({lanes: {upload: 0}, everyMs: 25});
  await t.test('fails', async () => {
    await site.release('2', {}, {'build.sh': 'echo compiling; echo line 7: syntax error >&2; exit 3\n'});
    await refused(site, [], 6, 'BUILD_FAILED', /line 7: syntax error/);
    await site.settled({version: '1', outcome: 'aborted', code: 'BUILD_FAILED'});
  });
  await t.test('hangs', async () => {
    await site.release('3', {}, {'build.sh': 'echo waiting for a lock; sleep 600 & sleep 600\n'});
    await refused(site, [], 6, 'BUILD_FAILED', /did not end within 1/);
    await site.settled({version: '1', outcome: 'aborted', code: 'BUILD_FAILED'});
  });
  await t.test('floods', async () => {
    await site.release('4', {}, {'build.sh': 'head -c 60000000 /dev/zero | tr "\\0" x; echo; yes | head -n 300000; echo the last words; exit 1\n'});
    site.configure({release: {build_timeout: '30s'}});
    const error = await refused(site, [], 6, 'BUILD_FAILED', /the last words/);
    assert.ok(error.length < 100_000, 'the report does not flood, too');
    await site.settled({version: '1', outcome: 'aborted', code: 'BUILD_FAILED'});
  });
  await t.test('is not there', async () => {
    site.configure({release: {build: [['/not/there']]}});
    await refused(site, [], 6, 'BUILD_FAILED', /\/not\/there/);
  });
  const left = readdirSync(join(site.stateDir, 'releases')).filter((name) => /^\d{6}$/.test(name));
  assert.equal(left.length, 1, `only the serving release is there: ${left.join(', ')}`);
  site.configure({release: {build: null}});
  await site.deployed();
  await site.settled({version: '4', traffic});
});

test('a versioned link out of the tree is refused with its name, and nothing is written where it leads', async (t) => {
  const site = await makeSite(t, {vcs: 'git'});
  await site.deployed();
  mkdirSync(join(site.dir, 'outside'));
  writeFileSync(join(site.dir, 'outside', 'file'), 'untouched');
  symlinkSync(join(site.dir, 'outside'), join(site.git.workingCopy, 'out'));
  await site.release('2');
  await refused(site, [], 6, 'BUILD_FAILED', /\bout\b/);
  await site.settled({version: '1', outcome: 'aborted'});
  // The link becomes a directory: what is left of it must not lead the new file astray.
  await site.git.git(['rm', '-q', 'out']);
  await site.release('3', {}, {'out/file': 'inside'});
  await site.deployed();
  assert.equal(readFileSync(join(site.dir, 'outside', 'file'), 'utf8'), 'untouched');
  await site.settled({version: '3'});
});

test('svn: a wrong password is 5, and no password ever stands in an argument, a log or an error', async (t) => {
  const password = 's3cret-pässword $(id)';
  const site = await makeSite(t, {vcs: 'svn', svn: {serve: {user: 'deploy', password}}});
  const file = join(site.dir, 'password');
  writeFileSync(file, 'wrong-s3cret\n', {mode: 0o600});
  chmodSync(file, 0o600);
  site.configure({source: {username: 'deploy', password_file: file}});
  const error = await refused(site, [], 5, 'UPDATE_FAILED', /./);
  assert.doesNotMatch(error, /wrong-s3cret/);

  writeFileSync(file, `${password}\n`);
  const seen = new Set<string>();
  const command = site.start(['now', '--json']);
  let watching = true;
  const watch = waitUntil('the deploy to end', () => {
    for (const process of processesOf(site.dir)) seen.add(process.command + process.environ);
    return !watching;
  }, {withinMs: 30_000, everyMs: 2});
  const end = await command.ended;
  watching = false;
  await watch;
  assert.equal(end.exit, 0, end.stdout + end.stderr);
  assert.ok([...seen].some((line) => line.includes('svn')), 'svn was seen at work');
  for (const line of seen) assert.ok(!line.includes('s3cret'), `a password in ${line}`);
  const leaks = await run('/bin/sh', ['-c', `grep -rla s3cret "$0" | grep -v -e /svn/ -e "^$0/password$" || true`, site.dir]);
  assert.equal(leaks, '', 'no file holds the password but those that the operator wrote');
  await site.settled({version: '1'});
});
