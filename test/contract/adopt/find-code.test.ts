import assert from 'node:assert/strict';
import {chownSync, existsSync, mkdirSync, readFileSync, realpathSync, rmSync, symlinkSync, utimesSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {test} from 'node:test';
import {asOfRelease, findCode, subdirectoryOf} from '../../../src/adopt/find-code.ts';
import type {FoundWorker} from '../../../src/adopt/find-workers.ts';
import {DeployError} from '../../../src/errors.ts';
import {BOTH, createRepository, git, scratch, svn, type Repository} from '../working-copy/repositories.ts';

const START = '2026-01-01T00:00:00.000Z';

function worker(more: Partial<Omit<FoundWorker, 'environment'>> & {environment?: Record<string, string>} = {}): FoundWorker {
  return {
    port: 8811, process: {pid: 4711, startTime: 1, bootId: 'boot'}, uid: 0, user: 'root', startedAt: new Date(Date.now() + 60_000).toISOString(), words: ['python3', 'osyw.py', '8811'],
    executable: '/usr/bin/env', directory: '/', ...more, environment: new Map(Object.entries(more.environment ?? {})),
  };
}

function checkout({vcs, url}: Repository, directory: string): string {
  if (vcs === 'svn') svn('/', 'checkout', '-q', url, directory);
  else git('/', 'clone', '-q', url, directory);
  return realpathSync(directory);
}

for (const vcs of BOTH) {
  const make = (t: {after(fn: () => void): void}) => {
    const dir = scratch(t);
    const repository = createRepository(vcs, dir);
    const revision = repository.commit({write: 'osyw.py', text: 'x\n'}, {write: 'app/run.py', text: 'x\n'}, {write: 'app/8811.ini', text: 'x\n'}, {write: 'server', text: '#!/bin/sh\n', executable: true}, {write: 'settings.ini', text: 'x\n'});
    return {dir, repository, revision, top: checkout(repository, join(dir, 'copy'))};
  };

  test(`${vcs}: by the directory, an absolute path, the directory of the start`, async t => {
    const {top, revision, dir} = make(t);
    for (const [one, because] of [
      [worker({directory: top}), /run in it/],
      [worker({directory: join(top, 'app')}), /run in it/],
      [worker({words: ['python3', join(top, 'osyw.py'), '8811']}), /command line names/],
      [worker({words: ['python3', 'osyw.py', '8811'], environment: {PWD: top}}), /started from it/],
      [worker({directory: dir, words: [join(top, 'server'), '8811']}), /command line names/],
    ] as const) {
      const code = await findCode([one], undefined);
      assert.deepEqual([code.source.vcs, code.source.workingCopy, code.revision, code.newer, code.edited], [vcs, top, revision, [], []]);
      assert.match(code.because, because);
    }
  });

  test(`${vcs}: no working copy, two of them, one that is named`, async t => {
    const {top, dir, repository, revision} = make(t);
    const refused = (workers: readonly FoundWorker[], given: string | undefined, message: RegExp) => assert.rejects(findCode(workers, given), error => error instanceof DeployError && error.code === 'USAGE' && message.test(error.message));
    await refused([worker({directory: dir})], undefined, /port 8811 is in no Subversion or git working copy; looked at/);
    await refused([worker({environment: {PWD: top}, words: ['server']}), worker({words: ['gone.py'], environment: {PWD: top}})], undefined, /is in no/);
    await refused([worker()], dir, /--working-copy: .* is in no/);
    const other = checkout(repository, join(dir, 'other'));
    await refused([worker({directory: top}), worker({directory: other, port: 8812})], undefined, new RegExp(`port 8811 runs from ${top}, the one on port 8812 from ${other}`));
    assert.equal((await findCode([worker({directory: top}), worker({directory: other})], other)).revision, revision);
  });

  test(`${vcs}: the revision is that of the copy, not the newest; what is edited, newer and unversioned`, async t => {
    const {top, revision, repository} = make(t);
    repository.commit({write: 'osyw.py', text: 'y\n'});
    writeFileSync(join(top, 'settings.ini'), 'edited\n');
    mkdirSync(join(top, 'data'));
    writeFileSync(join(top, 'data/x.db'), 'x');
    const code = await findCode([worker({directory: top, startedAt: START}), worker({directory: top})], undefined);
    assert.equal(code.revision, revision);
    assert.deepEqual(code.edited, ['settings.ini']);
    assert.deepEqual([...code.newer].sort(), ['app/8811.ini', 'app/run.py', 'osyw.py', 'server', 'settings.ini'], 'newer than the oldest worker');
    assert.deepEqual(code.unversioned, ['data']);
  });

  test(`${vcs}: the command as a release runs it`, async t => {
    const {top, dir} = make(t);
    mkdirSync(join(top, 'venv/bin'), {recursive: true});
    symlinkSync('/usr/bin/env', join(top, 'venv/bin/python3'));
    writeFileSync(join(top, 'local.ini'), 'not versioned\n');
    symlinkSync(top, join(dir, 'link'));
    mkdirSync(join(top, 'data'));
    for (const path of ['data/8811.db', 'data/all.db', 'app/8811.db']) writeFileSync(join(top, path), 'not versioned\n');
    const code = await findCode([worker({directory: top})], undefined);
    const command = (words: string, more: Parameters<typeof worker>[0] = {}) => asOfRelease(words.split(' '), worker(more), code).join(' ');
    assert.equal(command('env osyw.py {port}', {environment: {PWD: top}}), '/usr/bin/env osyw.py {port}');
    assert.equal(command(`env ${top}/osyw.py {port}`), '/usr/bin/env osyw.py {port}', 'not that of the working copy');
    assert.equal(command(`env ${dir}/link/osyw.py {port}`), '/usr/bin/env osyw.py {port}', 'whatever link leads there');
    assert.equal(command(`env --config=${top}/settings.ini --root=${top} --log=/var/log/{port}.log {port}`), '/usr/bin/env --config=settings.ini --root=. --log=/var/log/{port}.log {port}');
    assert.equal(command('env -c local.ini {port}', {directory: top}), `/usr/bin/env -c ${top}/local.ini {port}`, 'what is in no release stays where it is');
    assert.equal(command('env --db=data/{port}.db data/all.db {port}', {directory: top}), `/usr/bin/env --db=${top}/data/{port}.db ${top}/data/all.db {port}`, 'nor does it with the port in its name');
    assert.equal(command('env data/{port}/x.db data/new.db {port}', {directory: top}), `/usr/bin/env ${top}/data/{port}/x.db ${top}/data/new.db {port}`, 'so for what is not there yet');
    assert.equal(command('env app/{port}.db app/all.db {port}', {directory: top}), `/usr/bin/env ${top}/app/{port}.db app/all.db {port}`, 'the file counts, not its directory');
    assert.equal(command('env app/{port}.ini osyw:app.{port} {port}', {directory: top}), '/usr/bin/env app/{port}.ini osyw:app.{port} {port}', 'versioned, and no path at all');
    assert.equal(command('env run.py {port}', {directory: join(top, 'app')}), '/usr/bin/env app/run.py {port}');
    assert.equal(command('./server {port}', {directory: top}), './server {port}');
    assert.equal(command(`${top}/server {port}`), './server {port}');
    assert.equal(command('venv/bin/python3 osyw.py {port}', {directory: top}), `${top}/venv/bin/python3 osyw.py {port}`);
    assert.equal(command('python3 osyw.py {port}', {directory: top, environment: {PATH: `${top}/venv/bin:/usr/bin`}}), `${top}/venv/bin/python3 osyw.py {port}`, 'as the PATH of the start finds it');
    assert.equal(subdirectoryOf(worker({directory: join(top, 'app')}), code), 'app');
    assert.equal(subdirectoryOf(worker({directory: top}), code), undefined);
    assert.equal(subdirectoryOf(worker({directory: dir}), code), undefined);
  });
}

test('svn: of a mixed working copy the newest revision in it', async t => {
  const dir = scratch(t);
  const repository = createRepository('svn', dir);
  repository.commit({write: 'osyw.py', text: 'x\n'}, {write: 'app/run.py', text: 'x\n'});
  const top = checkout(repository, join(dir, 'copy'));
  assert.equal((await findCode([worker({directory: top})], undefined)).mixed, false);
  writeFileSync(join(top, 'app/run.py'), 'y\n');
  svn(top, 'commit', '-q', '-m', 'from the working copy');
  writeFileSync(join(top, 'new.py'), 'x\n');
  svn(top, 'add', '-q', 'new.py');
  const code = await findCode([worker({directory: top})], undefined);
  assert.deepEqual([code.revision, code.mixed, code.edited], [`r${Number(svn(top, 'info', '--show-item', 'last-changed-revision', repository.url).trim())}`, true, ['new.py']]);
  assert.notEqual(svn(top, 'info', '--show-item', 'last-changed-revision', top).trim(), code.revision.slice(1), 'the top of the copy has an older one');
});

test('git: what was only touched is not edited', async t => {
  const dir = scratch(t);
  const repository = createRepository('git', dir);
  repository.commit({write: 'osyw.py', text: 'x\n'}, {write: 'settings.ini', text: 'x\n'});
  const top = checkout(repository, join(dir, 'copy'));
  utimesSync(join(top, 'osyw.py'), 1, 1);
  writeFileSync(join(top, 'settings.ini'), 'edited\n');
  const index = readFileSync(join(top, '.git/index'));
  assert.deepEqual((await findCode([worker({directory: top})], undefined)).edited, ['settings.ini']);
  assert.deepEqual(readFileSync(join(top, '.git/index')), index, 'nothing was refreshed');
});

test('git: no filter of another account is run', {skip: process.getuid?.() !== 0 && 'needs root: a repository of another account'}, async t => {
  const dir = scratch(t);
  const repository = createRepository('git', dir);
  repository.commit({write: 'osyw.py', text: 'x\n'}, {write: '.gitattributes', text: '*.py filter=odd\n'});
  const top = checkout(repository, join(dir, 'copy'));
  const ran = join(dir, 'ran');
  git(top, 'config', 'filter.odd.clean', `touch ${ran}; cat`);
  git(top, 'config', 'filter.odd.required', 'true');
  utimesSync(join(top, 'osyw.py'), 1, 1);
  assert.deepEqual((await findCode([worker({directory: top})], undefined)).edited, []);
  assert.ok(existsSync(ran), 'our own one is');
  rmSync(ran);
  chownSync(join(top, '.git'), 65_534, 65_534);
  assert.deepEqual((await findCode([worker({directory: top})], undefined)).edited, []);
  assert.ok(!existsSync(ran));
});
