import assert from 'node:assert/strict';
import {chmodSync, chownSync, copyFileSync, existsSync, linkSync, lstatSync, mkdirSync, readdirSync, readFileSync, readlinkSync, renameSync, rmSync, statSync, symlinkSync, unlinkSync, utimesSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {describe, test, type TestContext} from 'node:test';
import {parseHook, renderHook} from '../../../src/trigger/hook-script.ts';
import {makeGit} from '../../support/git-rig.ts';
import {CLI, runCommand} from '../../support/osyw.ts';
import {run} from '../../support/run.ts';
import {scrubbedEnv} from '../../support/scrubbed-env.ts';
import {makeSvn} from '../../support/svn-rig.ts';
import {GAMES, isRoot, MAIL, needsRoot, osyw, scratch, TEMPLATE, writeConfig, writeExecutable} from './hooked.ts';

type Kind = 'svn' | 'git-bare' | 'git-work-tree';
const KINDS: readonly Kind[] = ['svn', 'git-bare', 'git-work-tree'];

interface Place {
  readonly dir: string;
  readonly repository: string;
  readonly hooksDir: string;
  /** The hooks' full names. */
  readonly files: readonly string[];
  /** The first of them. */
  readonly file: string;
  readonly before: string;
  readonly config: string;
  readonly spool: string;
  /** What everybody writes who commits. */
  readonly data: string;
}

/** A repository and the configuration of an application that comes from it. */
async function place(t: TestContext, kind: Kind, more: Parameters<typeof writeConfig>[2] = {}): Promise<Place> {
  const dir = scratch(t);
  const env = scrubbedEnv(dir);
  const repository = join(dir, 'the repository');
  if (kind === 'svn') await run('svnadmin', ['create', repository], {env});
  else await run('git', ['init', '-q', ...(kind === 'git-bare' ? ['--bare'] : []), repository], {env});
  const git = kind === 'git-work-tree' ? join(repository, '.git') : repository;
  const hooksDir = join(git, 'hooks');
  const files = (kind === 'svn' ? ['post-commit'] : kind === 'git-bare' ? ['post-receive'] : ['post-commit', 'post-merge']).map(name => join(hooksDir, name));
  const url = kind === 'svn' ? `file://${repository.replaceAll(' ', '%20')}/trunk` : kind === 'git-bare' ? repository : `file://${repository.replaceAll(' ', '%20')}`;
  const [file = ''] = files;
  return {dir, repository, hooksDir, files, file, before: `${file}.before-osyw-deploy`, config: writeConfig(dir, {url, vcs: kind === 'svn' ? 'svn' : 'git'}, more), spool: join(dir, more.state ?? 'state', 'spool'), data: join(git, kind === 'svn' ? 'db' : 'objects')};
}

/** All that a rename or a rewrite would change; the change time and the count of names are the kernel's. */
function identity(file: string): object {
  const {ino, mode, uid, gid, mtimeMs, size} = lstatSync(file);
  return {ino, mode, uid, gid, mtimeMs, size, content: lstatSync(file).isSymbolicLink() ? readlinkSync(file) : readFileSync(file, 'latin1')};
}

/** Everything in the directory of hooks. */
function picture(dir: string): object {
  return Object.fromEntries(readdirSync(dir).sort().map(name => [name, identity(join(dir, name))]));
}

/** A hook of before, with bytes and times that nobody would make by chance. */
function oldHook(file: string, ...lines: readonly string[]): void {
  writeExecutable(file, ...(lines.length === 0 ? ['# \u00e9\r', `echo "$@" >>"${file}.ran"`] : lines));
  chmodSync(file, 0o754);
  utimesSync(file, 1_000_000_000, 1_100_000_000);
}

for (const kind of KINDS) {
  describe(kind, () => {
    test('is found and hooked, and the second time changes nothing', async t => {
      const {dir, repository, hooksDir, files, spool, config} = await place(t, kind);
      const others = picture(hooksDir);
      const first = await osyw(dir, 'hook', 'install', '--json');
      assert.deepEqual(first.json, {repository: {kind, path: repository}, hooks: files.map(file => ({file, changed: true})), spool: {path: spool, mode: isRoot ? '0700' : '2700'}});
      assert.equal(first.exit, 0);
      for (const file of files) {
        assert.equal(statSync(file).mode & 0o7777, 0o755);
        const read = parseHook(readFileSync(file, 'utf8'), TEMPLATE);
        assert.equal(read.kind, 'ours');
        if (read.kind === 'ours') assert.deepEqual(read.applications.map(({app, spool: to, config: by, node, umask, waitSeconds}) => [app, to, by, node, umask, waitSeconds]), [['site', spool, config, process.execPath, isRoot ? '077' : '027', 0]]);
      }
      assert.deepEqual([statSync(join(dir, 'state')).mode & 0o7777, statSync(spool).mode & 0o7777, statSync(join(dir, 'state/waiting')).mode & 0o7777, statSync(join(dir, 'state/waiting')).size], [0o711, isRoot ? 0o700 : 0o2700, 0o600, 0]);

      const installed = [picture(hooksDir), identity(join(dir, 'state/waiting')), statSync(spool).mtimeMs, statSync(hooksDir).mtimeMs];
      const second = await osyw(dir, 'hook', 'install', '--json');
      assert.deepEqual(second.json['hooks'], files.map(file => ({file, changed: false})));
      assert.deepEqual([picture(hooksDir), identity(join(dir, 'state/waiting')), statSync(spool).mtimeMs, statSync(hooksDir).mtimeMs], installed);

      const away = await osyw(dir, 'hook', 'uninstall');
      assert.equal(away.exit, 0, away.err);
      assert.deepEqual(picture(hooksDir), others);
      assert.ok(!existsSync(spool));
      assert.equal((await osyw(dir, 'hook', 'uninstall')).exit, 0, 'a second time, too');
    });

    test('keeps the hook of before, and puts it back byte for byte', async t => {
      const {dir, hooksDir, files} = await place(t, kind);
      for (const file of files) oldHook(file);
      const old = picture(hooksDir);
      const olds = files.map(identity);
      const said = await osyw(dir, 'hook', 'install');
      assert.equal(said.exit, 0, said.err);
      for (const file of files) assert.match(said.out, new RegExp(`${file}.before-osyw-deploy`));
      assert.deepEqual(files.map(file => identity(`${file}.before-osyw-deploy`)), olds);
      assert.deepEqual(files.map(file => parseHook(readFileSync(file, 'utf8'), TEMPLATE).kind), files.map(() => 'ours'));
      const installed = picture(hooksDir);
      assert.equal((await osyw(dir, 'hook', 'install')).exit, 0);
      assert.deepEqual(picture(hooksDir), installed);
      assert.equal((await osyw(dir, 'hook', 'uninstall')).exit, 0);
      assert.deepEqual(picture(hooksDir), old);
      assert.deepEqual(files.map(file => statSync(file).nlink), files.map(() => 1));
    });
  });
}

describe('a hook of before', () => {
  for (const [what, target] of [['a link to a script', '../kept-elsewhere'], ['a link that leads nowhere', '/nowhere/at/all'], ['a link in a circle', 'post-commit']] as const) {
    test(`that is ${what}`, async t => {
      const {dir, repository, hooksDir, file, before} = await place(t, 'svn');
      writeExecutable(join(repository, 'kept-elsewhere'), 'exit 0');
      symlinkSync(target, file);
      const old = picture(hooksDir);
      assert.equal((await osyw(dir, 'hook', 'install')).exit, 0);
      assert.equal(readlinkSync(before), target);
      assert.ok(lstatSync(file).isFile());
      assert.equal((await osyw(dir, 'hook', 'install')).exit, 0);
      assert.equal((await osyw(dir, 'hook', 'uninstall')).exit, 0);
      assert.deepEqual(picture(hooksDir), old);
    });
  }

  test('that nobody may execute stays so', async t => {
    const {dir, hooksDir, file, before} = await place(t, 'svn');
    oldHook(file);
    chmodSync(file, 0o644);
    const old = picture(hooksDir);
    assert.equal((await osyw(dir, 'hook', 'install')).exit, 0);
    assert.equal(statSync(before).mode & 0o7777, 0o644);
    assert.equal((await osyw(dir, 'hook', 'uninstall')).exit, 0);
    assert.deepEqual(picture(hooksDir), old);
  });

  test('beside another one of before is refused, and nothing is touched', async t => {
    const {dir, hooksDir, file, before} = await place(t, 'svn');
    oldHook(file);
    assert.equal((await osyw(dir, 'hook', 'install')).exit, 0);
    unlinkSync(file);
    oldHook(file, 'echo another');
    const both = picture(hooksDir);
    const said = await osyw(dir, 'hook', 'install');
    assert.deepEqual([said.code, said.exit], ['USAGE', 2]);
    assert.ok(said.err.includes(`${file}, and ${before}`) && said.err.includes('then run `osyw-deploy hook install` again'), said.err);
    assert.deepEqual(picture(hooksDir), both);
    const away = await osyw(dir, 'hook', 'uninstall');
    assert.equal(away.exit, 0);
    assert.match(away.out, /is not ours and stays/);
    assert.deepEqual(picture(hooksDir), both);
    rmSync(before);
    assert.equal((await osyw(dir, 'hook', 'install')).exit, 0);
  });

  test('that another name is a link to is refused: the link would lead to ours', async t => {
    const {dir, hooksDir, files: [commit = '', merge = '']} = await place(t, 'git-work-tree');
    oldHook(commit);
    symlinkSync('post-commit', merge);
    symlinkSync(commit, join(hooksDir, 'post-rewrite'));
    const all = picture(hooksDir);
    const said = await osyw(dir, 'hook', 'install');
    assert.equal(said.code, 'USAGE');
    assert.match(said.err, /post-merge, post-rewrite in .* are links to the hook post-commit[^]*mv post-commit our-hook && ln -s our-hook post-commit && ln -sf our-hook post-merge && ln -sf our-hook post-rewrite/);
    assert.deepEqual(picture(hooksDir), all);
    renameSync(commit, join(hooksDir, 'our-hook'));
    for (const name of [commit, merge, join(hooksDir, 'post-rewrite')]) {
      rmSync(name, {force: true});
      symlinkSync('our-hook', name);
    }
    assert.equal((await osyw(dir, 'hook', 'install')).exit, 0);
  });

  test('that is refused is refused before the spool is made', async t => {
    const {dir, file} = await place(t, 'svn');
    mkdirSync(file);
    const said = await osyw(dir, 'hook', 'install');
    assert.equal(said.exit, 2);
    assert.match(said.err, /post-commit is a directory/);
    assert.ok(!existsSync(join(dir, 'state')));
  });
});

describe('an install that was killed', () => {
  const interrupted: readonly (readonly [string, (place: Place) => void])[] = [
    ['when the old hook had two names', ({file, before}) => linkSync(file, before)],
    ['when ours was written under its unfinished name', ({file, before, hooksDir}) => {
      linkSync(file, before);
      writeFileSync(join(hooksDir, '.post-commit.new'), '#!/bin/sh\nhalf of it', {mode: 0o600});
    }],
    ['when the old hook had only its second name (no hard links)', ({file, before}) => renameSync(file, before)],
    ['when the directories were made', ({spool}) => mkdirSync(spool, {recursive: true})],
  ];
  for (const [when, happens] of interrupted) {
    test(`${when} is finished by the next`, async t => {
      const at = await place(t, 'svn');
      oldHook(at.file);
      const [old, all] = [identity(at.file), picture(at.hooksDir)];
      happens(at);
      assert.equal((await osyw(at.dir, 'hook', 'install')).exit, 0);
      assert.deepEqual(identity(at.before), old);
      assert.equal(parseHook(readFileSync(at.file, 'utf8'), TEMPLATE).kind, 'ours');
      assert.deepEqual(readdirSync(at.hooksDir).filter(name => name.startsWith('.')), []);
      assert.equal((await osyw(at.dir, 'hook', 'uninstall')).exit, 0);
      assert.deepEqual(picture(at.hooksDir), all);
    });
  }
  test('is taken back by an uninstall', async t => {
    const {dir, hooksDir, file, before} = await place(t, 'svn');
    oldHook(file);
    const all = picture(hooksDir);
    linkSync(file, before);
    assert.equal((await osyw(dir, 'hook', 'uninstall')).exit, 0);
    assert.deepEqual(picture(hooksDir), all);
  });
  test('before any hook was there leaves nothing after an uninstall', async t => {
    const {dir, hooksDir} = await place(t, 'svn');
    const all = picture(hooksDir);
    writeFileSync(join(hooksDir, '.post-commit.new'), '#!/bin/sh\nhalf of it', {mode: 0o600});
    assert.equal((await osyw(dir, 'hook', 'uninstall')).exit, 0);
    assert.deepEqual(picture(hooksDir), all);
  });
  test('between the two hooks of a work tree', async t => {
    const {dir, hooksDir, files} = await place(t, 'git-work-tree');
    const all = picture(hooksDir);
    assert.equal((await osyw(dir, 'hook', 'install')).exit, 0);
    rmSync(files[1] ?? '');
    const kept = identity(files[0] ?? '');
    assert.deepEqual((await osyw(dir, 'hook', 'install', '--json')).json['hooks'], [{file: files[0], changed: false}, {file: files[1], changed: true}]);
    assert.deepEqual(identity(files[0] ?? ''), kept);
    assert.equal((await osyw(dir, 'hook', 'uninstall')).exit, 0);
    assert.deepEqual(picture(hooksDir), all);
  });
});

describe('changed by hand', () => {
  for (const kind of ['svn', 'git-work-tree'] as const) {
    test(`${kind}: refused by install and uninstall, by name and with the remedy`, async t => {
      const {dir, hooksDir, files} = await place(t, kind);
      assert.equal((await osyw(dir, 'hook', 'install')).exit, 0);
      const file = files.at(-1) ?? '';
      writeFileSync(file, `${readFileSync(file, 'utf8')}echo mine\n`);
      const all = picture(hooksDir);
      for (const word of ['install', 'uninstall']) {
        const said = await osyw(dir, 'hook', word);
        assert.equal(said.code, 'USAGE');
        assert.ok(said.err.includes(`${file} was written by`) && said.err.includes(`${file}.before-osyw-deploy`), said.err);
        assert.deepEqual(picture(hooksDir), all);
      }
    });
  }

  test('a link by hand to a hook of ours', async t => {
    const {dir, files: [commit = '', merge = '']} = await place(t, 'git-work-tree');
    assert.equal((await osyw(dir, 'hook', 'install')).exit, 0);
    rmSync(merge);
    symlinkSync('post-commit', merge);
    const said = await osyw(dir, 'hook', 'install');
    assert.ok(said.code === 'USAGE' && said.err.includes(merge) && !said.err.includes(`${commit} was`), said.err);
  });

  test('its mode alone is put right', async t => {
    const {dir, file} = await place(t, 'svn');
    await osyw(dir, 'hook', 'install');
    chmodSync(file, 0o644);
    assert.deepEqual((await osyw(dir, 'hook', 'install', '--json')).json['hooks'], [{file, changed: true}]);
    assert.equal(statSync(file).mode & 0o7777, 0o755);
  });

  test('written by another version, it is rewritten', async t => {
    const {dir, file} = await place(t, 'svn');
    await osyw(dir, 'hook', 'install');
    const [text, read] = [readFileSync(file, 'utf8'), parseHook(readFileSync(file, 'utf8'), TEMPLATE)];
    assert.ok(read.kind === 'ours');
    writeFileSync(file, renderHook(TEMPLATE.replace('sleep 1 ', 'sleep 9 '), read.applications));
    assert.deepEqual((await osyw(dir, 'hook', 'install', '--json')).json['hooks'], [{file, changed: true}]);
    assert.equal(readFileSync(file, 'utf8'), text);
  });
});

describe('several applications on one repository', () => {
  test('two lines; uninstalling one leaves the other, the last brings back what was there', async t => {
    const {dir, hooksDir, file, before, repository} = await place(t, 'svn');
    oldHook(file);
    const all = picture(hooksDir);
    const url = `file://${repository.replaceAll(' ', '%20')}/trunk`;
    const second = writeConfig(dir, {url}, {app: 'other', state: 'state2', file: 'other.yaml', hook: {wait: true, wait_timeout: '1500ms'}});
    // The same name in another place is another application.
    const third = writeConfig(dir, {url}, {app: 'site', state: 'state3', file: 'third.yaml'});
    for (const config of [join(dir, 'osyw-deploy.yaml'), second, third]) assert.equal((await osyw(dir, 'hook', 'install', '--config', config)).exit, 0);
    const lines = () => {
      const read = parseHook(readFileSync(file, 'utf8'), TEMPLATE);
      return read.kind === 'ours' ? read.applications.map(({app, stateDir, waitSeconds}) => `${app} ${stateDir.slice(dir.length)} ${waitSeconds}`) : read.kind;
    };
    assert.deepEqual(lines(), ['site /state 0', 'other /state2 2', 'site /state3 0']);
    writeConfig(dir, {url}, {app: 'other', state: 'state2', file: 'other.yaml'});
    assert.equal((await osyw(dir, 'hook', 'install', '--config', second)).exit, 0);
    assert.deepEqual(lines(), ['site /state 0', 'other /state2 0', 'site /state3 0'], 'a new setting, in its place');

    assert.match((await osyw(dir, 'hook', 'uninstall')).out, /goes on for other, site/);
    assert.deepEqual(lines(), ['other /state2 0', 'site /state3 0']);
    assert.ok(!existsSync(join(dir, 'state/spool')) && existsSync(join(dir, 'state2/spool')) && existsSync(before));
    assert.match((await osyw(dir, 'hook', 'uninstall')).out, /knows nothing of this application/);
    await osyw(dir, 'hook', 'uninstall', '--config', second);
    await osyw(dir, 'hook', 'uninstall', '--config', third);
    assert.deepEqual(picture(hooksDir), all);
  });

  test('a configuration whose state has moved keeps one line', async t => {
    const {dir, file, repository} = await place(t, 'svn');
    await osyw(dir, 'hook', 'install');
    writeConfig(dir, {url: `file://${repository.replaceAll(' ', '%20')}`}, {state: 'moved'});
    await osyw(dir, 'hook', 'install');
    const read = parseHook(readFileSync(file, 'utf8'), TEMPLATE);
    assert.deepEqual(read.kind === 'ours' && read.applications.map(({stateDir}) => stateDir), [join(dir, 'moved')]);
  });
});

test('uninstall keeps a spool that is not empty, and says so', async t => {
  const {dir, spool, file} = await place(t, 'svn');
  await osyw(dir, 'hook', 'install');
  writeFileSync(join(spool, '1-r7.json'), '{"version":1,"app":"site","revision":"r7"}\n');
  const said = await osyw(dir, 'hook', 'uninstall');
  assert.equal(said.exit, 0);
  assert.match(said.out, /spool stays, for a file is still in it/);
  assert.ok(!existsSync(file) && existsSync(join(spool, '1-r7.json')));
  assert.deepEqual((await osyw(dir, 'hook', 'uninstall', '--json')).json['spool'], {path: spool, left: 1});
});

describe('the repository', () => {
  for (const url of ['svn://127.0.0.1/osyw/trunk', 'https://svn.example.org/osyw', 'svn+ssh://svn.example.org/osyw', 'git@example.org:osyw.git', 'ssh://example.org/osyw.git', 'git://example.org/osyw.git'] as const) {
    test(`that is not named by a path is asked for: ${url}`, async t => {
      const dir = scratch(t);
      writeConfig(dir, {url, vcs: url.includes('svn') ? 'svn' : 'git'});
      const said = await osyw(dir, 'hook', 'install');
      assert.deepEqual([said.code, said.exit], ['USAGE', 2]);
      for (const word of [`source.url is ${url}`, '--repository PATH', 'another machine', 'osyw-deploy now --quiet']) assert.ok(said.err.includes(word), said.err);
      assert.ok(!existsSync(join(dir, 'state')));
    });
  }

  test('is taken from --repository, relative to where one stands', async t => {
    const {dir, files: [file]} = await place(t, 'svn');
    writeConfig(dir, {url: 'svn://127.0.0.1/osyw/trunk'});
    assert.deepEqual((await osyw(dir, 'hook', 'install', '--json', '--repository', 'the repository')).json['hooks'], [{file, changed: true}]);
    assert.deepEqual((await osyw(dir, 'hook', 'status', '--repository', 'the repository')).exit, 0);
  });

  test('is what the svn working copy says, or the remote of the git one', async t => {
    const dir = scratch(t);
    const [svn, git] = [await makeSvn(join(dir, 'svn')), await makeGit(join(dir, 'git'))];
    await svn.commit({a: '1'});
    await git.commit({a: '1'});
    writeConfig(dir, {working_copy: svn.workingCopy});
    assert.deepEqual((await osyw(dir, 'hook', 'install', '--json')).json['repository'], {kind: 'svn', path: svn.repository});
    writeConfig(dir, {working_copy: git.workingCopy}, {state: 'state2', file: 'git.yaml'});
    const said = await osyw(dir, 'hook', 'install', '--json', '--config', 'git.yaml');
    assert.deepEqual(said.json['repository'], {kind: 'git-bare', path: git.repository});
    await git.git(['remote', 'set-url', 'origin', 'git@example.org:x.git']);
    assert.match((await osyw(dir, 'hook', 'status', '--config', 'git.yaml')).err, /the working copy .*committer is git@example\.org:x\.git[^]*--repository PATH/);
    await git.git(['remote', 'remove', 'origin']);
    assert.deepEqual((await osyw(dir, 'hook', 'status', '--json', '--config', 'git.yaml')).json['repository'], {kind: 'git-work-tree', path: git.workingCopy});
  });

  test('of the other system, or none at all, is refused', async t => {
    const {dir, repository} = await place(t, 'git-bare');
    writeConfig(dir, {vcs: 'svn', url: 'svn://127.0.0.1/x'});
    assert.match((await osyw(dir, 'hook', 'install', '--repository', repository)).err, /is a git repository, but the application comes from svn/);
    assert.match((await osyw(dir, 'hook', 'install', '--repository', dir)).err, /there is no Subversion or git repository in/);
    assert.match((await osyw(dir, 'hook', 'install', '--repository', 'nowhere')).err, /there is no Subversion or git repository in/);
  });

  test('git: a linked work tree and a submodule have their hooks where git looks for them', async t => {
    const dir = scratch(t);
    const git = await makeGit(join(dir, 'git'));
    await git.commit({a: '1'});
    await git.git(['worktree', 'add', '-q', join(dir, 'linked'), '-b', 'linked']);
    writeConfig(dir, {url: join(dir, 'linked')});
    assert.deepEqual((await osyw(dir, 'hook', 'install', '--json')).json['hooks'], ['post-commit', 'post-merge'].map(name => ({file: join(git.workingCopy, '.git/hooks', name), changed: true})));
    await git.git(['-c', 'protocol.file.allow=always', 'submodule', '--quiet', 'add', git.repository, 'sub']);
    writeConfig(dir, {url: join(git.workingCopy, 'sub')}, {file: 'sub.yaml', state: 'state2'});
    assert.deepEqual((await osyw(dir, 'hook', 'install', '--json', '--config', 'sub.yaml')).json['hooks'], ['post-commit', 'post-merge'].map(name => ({file: join(git.workingCopy, '.git/modules/sub/hooks', name), changed: true})));
  });

  test('git: core.hooksPath of its own is honoured, one outside of it is refused', async t => {
    const {dir, repository} = await place(t, 'git-work-tree');
    const set = (value: string) => run('git', ['-C', repository, 'config', 'core.hooksPath', value], {env: scrubbedEnv(dir)});
    await set('.githooks');
    const said = await osyw(dir, 'hook', 'install', '--json');
    assert.deepEqual(said.json['hooks'], ['post-commit', 'post-merge'].map(name => ({file: join(repository, '.githooks', name), changed: true})));
    await set(join(dir, 'shared'));
    const refused = await osyw(dir, 'hook', 'install');
    assert.equal(refused.code, 'USAGE');
    assert.match(refused.err, /outside of it: other repositories may run a hook there[^]*config core\.hooksPath/);
    assert.ok(!existsSync(join(dir, 'shared')));
  });

  test('svn: hooks that are a link to those of many repositories are refused', async t => {
    const {dir, hooksDir} = await place(t, 'svn');
    renameSync(hooksDir, join(dir, 'shared'));
    symlinkSync(join(dir, 'shared'), hooksDir);
    assert.match((await osyw(dir, 'hook', 'install')).err, /outside of it[^]*a directory of its own/);
    assert.ok(!existsSync(join(dir, 'shared/post-commit')));
  });

  test('git: without a directory of hooks one is made', async t => {
    const {dir, hooksDir} = await place(t, 'git-bare');
    rmSync(hooksDir, {recursive: true});
    assert.equal((await osyw(dir, 'hook', 'install')).exit, 0);
    assert.equal(statSync(hooksDir).mode & 0o777, 0o755);
  });
});

describe('the spool', {skip: needsRoot}, () => {
  const setup = async (t: TestContext, {data, deployer}: {data: {uid: number; gid: number; mode: number}; deployer?: {uid: number; gid: number}}) => {
    const at = await place(t, 'svn');
    chownSync(at.data, data.uid, data.gid);
    chmodSync(at.data, data.mode);
    if (deployer !== undefined) {
      mkdirSync(join(at.dir, 'state'));
      chownSync(join(at.dir, 'state'), deployer.uid, deployer.gid);
    }
    const install = async (...options: string[]) => {
      const said = await osyw(at.dir, 'hook', 'install', ...options);
      assert.equal(said.exit, 0, said.err);
      const {uid, gid, mode} = statSync(at.spool);
      const read = parseHook(readFileSync(at.file, 'utf8'), TEMPLATE);
      assert.ok(read.kind === 'ours');
      return {spool: [(mode & 0o7777).toString(8), uid, gid], line: read.applications.map(one => [one.umask, one.uid, one.gid])[0], said: said.out};
    };
    const refused = async (...options: string[]) => (await osyw(at.dir, 'hook', 'install', ...options)).err;
    return {at, install, refused};
  };
  const cases: readonly (readonly [string, Parameters<typeof setup>[1], string[], {spool: unknown; line: unknown}, RegExp])[] = [
    ['root writes, root deploys', {data: {uid: 0, gid: 0, mode: 0o755}}, [], {spool: ['700', 0, 0], line: ['077', 0, 0]}, /only root may file requests/],
    ['the group root may write, too', {data: {uid: 0, gid: 0, mode: 0o2775}}, [], {spool: ['700', 0, 0], line: ['077', 0, 0]}, /only root/],
    ['one account writes, root deploys', {data: {...GAMES, mode: 0o755}}, [], {spool: ['3770', 0, GAMES.gid], line: ['027', 0, 0]}, /the group games may file requests.*the account games/],
    ['a group writes, root deploys', {data: {uid: 0, gid: MAIL.gid, mode: 0o2775}}, [], {spool: ['3770', 0, MAIL.gid], line: ['027', 0, 0]}, /the group mail may file requests: it may write/],
    ['a group and an owner who is in it', {data: {...MAIL, mode: 0o2775}}, [], {spool: ['3770', 0, MAIL.gid], line: ['027', 0, 0]}, /the group mail/],
    ['a group and an owner who is not in it', {data: {uid: GAMES.uid, gid: MAIL.gid, mode: 0o2775}}, [], {spool: ['1733', 0, 0], line: ['022', 0, 0]}, /no group holds both/],
    ['everybody writes', {data: {uid: 0, gid: 0, mode: 0o777}}, [], {spool: ['1733', 0, 0], line: ['022', 0, 0]}, /every account of this machine/],
    ['an account without a name writes', {data: {uid: 54_321, gid: 54_321, mode: 0o755}}, [], {spool: ['1733', 0, 0], line: ['022', 0, 0]}, /uid 54321 writes/],
    ['the deployer is another account, and writes alone', {data: {...GAMES, mode: 0o755}, deployer: GAMES}, [], {spool: ['2700', GAMES.uid, GAMES.gid], line: ['027', GAMES.uid, GAMES.gid]}, /only root and games may file requests/],
    ['root writes, another account deploys', {data: {uid: 0, gid: 0, mode: 0o755}, deployer: GAMES}, [], {spool: ['2700', GAMES.uid, GAMES.gid], line: ['027', GAMES.uid, GAMES.gid]}, /only root and games/],
    ['one account writes, another deploys', {data: {...MAIL, mode: 0o755}, deployer: GAMES}, [], {spool: ['1733', GAMES.uid, GAMES.gid], line: ['022', GAMES.uid, GAMES.gid]}, /usermod -aG mail games/],
    ['a group writes that the deployer is not in', {data: {uid: 0, gid: MAIL.gid, mode: 0o2775}, deployer: GAMES}, [], {spool: ['1733', GAMES.uid, GAMES.gid], line: ['022', GAMES.uid, GAMES.gid]}, /games is not in it/],
    ['--group', {data: {uid: 0, gid: 0, mode: 0o755}}, ['--group', 'mail'], {spool: ['3770', 0, MAIL.gid], line: ['027', 0, 0]}, /--group/],
    ['--anyone', {data: {uid: 0, gid: 0, mode: 0o755}}, ['--anyone'], {spool: ['1733', 0, 0], line: ['022', 0, 0]}, /--anyone/],
  ];
  for (const [what, given, options, expected, why] of cases) {
    test(what, async t => {
      const {at, install} = await setup(t, given);
      const found = await install(...options);
      assert.deepEqual({spool: found.spool, line: found.line}, expected);
      assert.match(found.said, why);
      const state = statSync(join(at.dir, 'state'));
      for (const name of ['waiting', 'drains']) assert.equal(statSync(join(at.dir, 'state', name)).uid, state.uid);
      // Again with other wishes, which stay until the hook is taken away, and back.
      await install('--anyone');
      await install();
      assert.equal(statSync(at.spool).mode & 0o7777, 0o1733);
      await osyw(at.dir, 'hook', 'uninstall');
      const {spool, line} = await install(...options);
      assert.deepEqual({spool, line}, expected);
    });
  }

  test('a group that there is not, or that the deployer could not read, is refused', async t => {
    const {refused} = await setup(t, {data: {uid: 0, gid: 0, mode: 0o755}, deployer: GAMES});
    assert.match(await refused('--group', 'no-such-group'), /this machine has no group "no-such-group"/);
    assert.match(await refused('--group', 'mail'), /games, who deploys, is not in the group mail[^]*usermod -aG mail games/);
  });

  test('hook.wait is refused where the deployer could not answer, before anything is made', async t => {
    const {at, install, refused} = await setup(t, {data: {...MAIL, mode: 0o755}, deployer: GAMES});
    writeFileSync(at.config, `${readFileSync(at.config, 'utf8')}hook: {wait: true}\n`);
    assert.match(await refused(), /hook\.wait cannot work: games, who deploys, may not answer[^]*--group GROUP/);
    assert.ok(!existsSync(at.spool) && !existsSync(at.file));
    await install('--group', 'games');
  });

  test('a deployer who may not write the hooks is refused before anything is made, and what he is told to do works', async t => {
    const {at} = await setup(t, {data: {uid: 0, gid: 0, mode: 0o755}});
    const cli = join(at.dir, 'osyw-deploy.cjs');
    copyFileSync(CLI, cli);
    chownSync(at.config, GAMES.uid, GAMES.gid);
    // Whose the directory is says where the state may be made.
    mkdirSync(join(at.dir, 'state'));
    chownSync(join(at.dir, 'state'), GAMES.uid, GAMES.gid);
    const said = await runCommand(['hook', 'install', '--config', at.config], {cwd: at.dir, cli, as: GAMES});
    assert.equal(said.exit, 2);
    assert.match(said.stderr, /hooks in .* cannot be changed: EACCES[^]*Nothing was made\. As root, to whom the repository belongs: give games the right to write/);
    assert.ok(!existsSync(at.spool));
    const words = [...said.stderr.matchAll(/^\s*((?:install|chown|osyw-deploy) .*)$/gm)].map(([, word = '']) => word.replaceAll(at.repository, `'${at.repository}'`));
    assert.equal(words.length, 3, said.stderr);
    const done = await run('/bin/sh', ['-ec', words.join('\n').replace('osyw-deploy hook', `'${process.execPath}' '${cli}' hook`)], {env: scrubbedEnv(at.dir)});
    assert.match(done, /now ask for a deploy/);
    assert.deepEqual([statSync(at.spool).uid, statSync(at.spool).mode & 0o7777], [GAMES.uid, 0o2700]);
  });

  test('a link in its place, or in that of the waiting place, is refused', async t => {
    const {at, refused} = await setup(t, {data: {uid: 0, gid: 0, mode: 0o755}, deployer: GAMES});
    writeFileSync(join(at.dir, 'victim'), 'x', {mode: 0o644});
    symlinkSync(at.dir, at.spool);
    assert.match(await refused(), /spool is not a directory/);
    rmSync(at.spool);
    for (const make of [symlinkSync, linkSync]) {
      make(join(at.dir, 'victim'), join(at.dir, 'state/waiting'));
      assert.match(await refused(), /waiting|spool/);
      assert.deepEqual([statSync(join(at.dir, 'victim')).uid, statSync(join(at.dir, 'victim')).mode & 0o777], [0, 0o644]);
      rmSync(join(at.dir, 'state/waiting'));
    }
    assert.ok(!existsSync(at.file));
  });

  test('a hook that root writes belongs to whoever has the directory', async t => {
    const {at, install} = await setup(t, {data: {...GAMES, mode: 0o755}});
    chownSync(at.hooksDir, GAMES.uid, GAMES.gid);
    await install();
    assert.deepEqual([statSync(at.file).uid, statSync(at.file).gid, statSync(at.file).mode & 0o7777], [GAMES.uid, GAMES.gid, 0o755]);
  });
});
