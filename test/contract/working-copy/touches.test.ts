import assert from 'node:assert/strict';
import {execFileSync, spawn} from 'node:child_process';
import {existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, writeFileSync} from 'node:fs';
import {createServer} from 'node:net';
import {join} from 'node:path';
import {describe, it} from 'node:test';
import {DeployError} from '../../../src/errors.ts';
import {openWorkingCopy} from '../../../src/working-copy/open-working-copy.ts';
import {failure} from './expect-failure.ts';
import {BOTH, configFor, createRepository, git, isRoot, never, scratch, sh, svn, treeOf, type Repository, type Vcs} from './repositories.ts';

const start = (t: {after(fn: () => void): void}, vcs: Vcs) => {
  const root = scratch(t);
  const repository = createRepository(vcs, root);
  const config = configFor(root, repository);
  const wc = config.source.workingCopy;
  const open = (paths: readonly string[], source: Partial<typeof config.source> = {}) => openWorkingCopy({...config, source: {...config.source, ...source, paths}});
  const deploy = async (copy = open([])) => {
    const revision = await copy.resolve(undefined, never);
    await copy.update(revision, never);
    return revision;
  };
  /** As a deploy asks: of the newest revision, after `resolve` and before `update`. */
  const touched = async (from: string, ...paths: readonly string[]) => {
    const copy = open(paths);
    return copy.touches(from, await copy.resolve(undefined, never), never);
  };
  return {root, repository, config, wc, open, deploy, touched};
};

function rename(repository: Repository, from: string, to: string): string {
  mkdirSync(join(repository.dev, to, '..'), {recursive: true});
  if (repository.vcs === 'svn') svn(repository.dev, 'move', '-q', '--parents', '--', `${from}@`, to);
  else git(repository.dev, 'mv', '--', from, to);
  return repository.commit();
}

for (const vcs of BOTH) {
  describe(`what a change touches, ${vcs}`, () => {
    it('is what it changes, adds and removes', async t => {
      const {repository, deploy, touched} = start(t, vcs);
      repository.commit({write: 'src/a.py', text: '1'}, {write: 'src/old/b.py', text: '1'}, {write: 'doc/x', text: '1'}, {write: 'top.py', text: '1'});
      let from = await deploy();
      const expect = async (to: string, named: readonly string[], others: readonly string[]) => {
        for (const glob of named) assert.equal(await touched(from, ...others, glob), true, `${glob} is touched`);
        assert.equal(await touched(from, ...others), false, 'the others are not');
        from = to;
      };
      await expect(repository.commit({write: 'src/a.py', text: '2'}), ['src/**', 'src', 'src/a.py', '**/*.py'], ['doc/**', '*.py', 'a.py', 'sr', 'src/a']);
      await expect(repository.commit({write: 'top.py', text: '2'}, {write: 'doc/new', text: '1'}), ['*.py', 'doc', 'doc/*'], ['src/**', 'doc/x']);
      await expect(repository.commit({remove: 'doc/new'}), ['doc/**', 'doc/new'], ['src/**', '*.py', 'doc/x']);
      await expect(repository.commit({remove: 'src/old'}), ['src/**/*.py', 'src/old'], ['doc/**', 'src/*.py']);
      await expect(repository.commit({write: 'top.py', text: '2', executable: true}), ['*.py'], ['src', 'doc']);
      await expect(repository.commit({write: '.hidden/.x', text: '1'}), ['**', '.hidden/**', '**/.x'], ['src', '*.py']);
    });

    it('is all that lies between, not the last commit, and nothing that was taken back', async t => {
      const {repository, deploy, touched} = start(t, vcs);
      repository.commit({write: 'src/a', text: '1'}, {write: 'doc/x', text: '1'});
      const from = await deploy();
      repository.commit({write: 'src/a', text: '2'});
      repository.commit({write: 'doc/x', text: '2'});
      assert.equal(await touched(from, 'src'), true);
      repository.commit({write: 'src/a', text: '1'});
      assert.equal(await touched(from, 'src'), false);
      assert.equal(await touched(from, 'doc'), true);
      assert.equal(await touched(await deploy(), '**'), false);
    });

    it('is both sides of a rename', async t => {
      const {repository, deploy, touched} = start(t, vcs);
      repository.commit({write: 'src/a', text: 'the same text all along\n'}, {write: 'src/sub/b', text: 'another text\n'}, {write: 'doc/x', text: '1'}, {write: 'etc/y', text: '1'});
      let from = await deploy();
      for (const [old, now] of [['src/a', 'doc/a'], ['doc/a', 'src/a'], ['src/sub', 'doc/sub'], ['doc/sub', 'src/sub']] as const) {
        const to = rename(repository, old, now);
        for (const glob of ['src/**', 'doc/**']) assert.equal(await touched(from, glob), true, `${glob} at ${old} → ${now}`);
        assert.equal(await touched(from, 'etc/**'), false);
        from = to;
      }
    });

    it('is found by its exact name', async t => {
      const {root, repository, deploy, touched} = start(t, vcs);
      const names = ['src/sp ace/é x.txt', 'a@b', 'end@', '-dash', '--output=pwned', '50%25', 'a&b<c>.txt', '$(touch pwned)', 'ü"\'`', 'a\\b'];
      repository.commit(...names.map(name => ({write: name, text: '1'})), {write: 'same', text: '1'});
      const exactly = (name: string) => name.replace(/[\\()]/g, '\\$&');
      let from = await deploy();
      for (const name of names) {
        const to = repository.commit({write: name, text: '2'});
        assert.equal(await touched(from, exactly(name)), true, name);
        assert.equal(await touched(from, 'same', ...names.filter(other => other !== name).map(exactly)), false, `others than ${name}`);
        from = to;
      }
      assert.equal(existsSync(join(root, 'pwned')) || existsSync(join(repository.dev, 'pwned')) || existsSync('pwned'), false);
    });

    it('is asked without a change to the working copy, which follows as before', async t => {
      const {repository, config, wc, open, deploy} = start(t, vcs);
      repository.commit({write: 'a', text: '1'}, {write: 'src/b', text: '1'});
      const from = await deploy();
      writeFileSync(join(wc, 'notes'), 'mine');
      const files = treeOf(wc);
      const at = () => vcs === 'svn' ? sh('svnversion', [wc]) : git(wc, 'rev-parse', 'HEAD', 'main') + readFileSync(join(wc, '.git/index'), 'latin1');
      const before = at();
      const next = repository.commit({write: 'a', text: '2'}, {write: 'new', text: '1'}, {remove: 'src'});
      const copy = open(['src']);
      assert.equal(await copy.resolve(undefined, never), next);
      for (let i = 0; i < 2; i++) assert.equal(await copy.touches(from, next, never), true);
      assert.deepEqual(treeOf(wc), files);
      assert.equal(at(), before);
      await copy.update(next, never);
      assert.deepEqual(Object.keys(treeOf(wc)), ['a', 'new', 'notes']);
      assert.equal(config.source.workingCopy, wc);
    });

    it('sees no edit of the working copy', async t => {
      const {repository, wc, deploy, touched} = start(t, vcs);
      repository.commit({write: 'src/a', text: '1'}, {write: 'doc/x', text: '1'});
      const from = await deploy();
      writeFileSync(join(wc, 'src/a'), 'mine');
      repository.commit({write: 'doc/x', text: '2'});
      assert.equal(await touched(from, 'src'), false);
      assert.equal(readFileSync(join(wc, 'src/a'), 'utf8'), 'mine');
    });

    it('goes back as well as forward', async t => {
      const {repository, open, deploy} = start(t, vcs);
      const first = repository.commit({write: 'a', text: '1'}, {write: 'b', text: '1'});
      repository.commit({write: 'a', text: '2'});
      const from = await deploy();
      const ask = async (glob: string) => {
        const copy = open([glob]);
        return copy.touches(from, await copy.resolve(first, never), never);
      };
      assert.deepEqual([await ask('a'), await ask('b')], [true, false]);
    });

    it('may be anything when it cannot be told', async t => {
      const {root, repository, open, deploy, touched} = start(t, vcs);
      repository.commit({write: 'a', text: '1'});
      const from = await deploy();
      repository.commit({write: 'a', text: '2'});
      assert.equal(await touched(from, 'src'), false);
      for (const unknown of vcs === 'svn' ? ['r9999', 'r0', 'f'.repeat(40), ''] : ['f'.repeat(40), 'f'.repeat(64), 'r1', 'HEAD', '--output=x', '']) {
        assert.equal(await touched(unknown, 'src'), true, unknown);
      }
      const copy = open(['src']);
      await copy.resolve(undefined, never);
      assert.equal(await copy.touches(from, vcs === 'svn' ? 'r9999' : 'f'.repeat(40), never), true);
      // The repository is gone since `resolve`.
      repository.commit({write: 'a', text: '3'});
      const next = await copy.resolve(undefined, never);
      renameSync(vcs === 'svn' ? join(root, 'repo') : repository.url, join(root, 'away'));
      assert.equal(await copy.touches(from, next, never), true);
    });

    it('is not asked when no paths are configured', async t => {
      const {repository, open, deploy} = start(t, vcs);
      repository.commit({write: 'a', text: '1'});
      const from = await deploy();
      // Whatever would be asked now, would be refused.
      assert.equal(await open([]).touches(from, from, AbortSignal.abort()), true);
      await assert.rejects(open(['a']).touches(from, from, AbortSignal.abort()));
    });

    it('ends with the reason of an abort, be it a failure of ours', async t => {
      const {repository, open, deploy} = start(t, vcs);
      repository.commit({write: 'a', text: '1'});
      const from = await deploy();
      repository.commit({write: 'a', text: '2'});
      const copy = open(['src']);
      const to = await copy.resolve(undefined, never);
      const reason = new DeployError('INTERRUPTED', 'interrupted by SIGTERM');
      await assert.rejects(copy.touches(from, to, AbortSignal.abort(reason)), reason);
      const controller = new AbortController();
      const pending = copy.touches(from, to, controller.signal);
      controller.abort(reason);
      await assert.rejects(pending, reason);
    });

    it('is told without a URL, from where the working copy is', async t => {
      const {repository, open, deploy} = start(t, vcs);
      repository.commit({write: 'a', text: '1'});
      const from = await deploy();
      repository.commit({write: 'a', text: '2'});
      for (const resolved of [true, false]) {
        const copy = open(['a'], {url: undefined, branch: undefined});
        const other = open(['b'], {url: undefined, branch: undefined});
        const to = await copy.resolve(undefined, never);
        if (resolved) await other.resolve(undefined, never);
        assert.deepEqual([await copy.touches(from, to, never), await other.touches(from, to, never)], [true, false]);
      }
    });
  });
}

describe('what a change touches, svn alone', () => {
  it('is told before there is a working copy', async t => {
    const {repository, wc, config, touched} = start(t, 'svn');
    const from = repository.commit({write: 'a', text: '1'});
    repository.commit({write: 'a', text: '2'});
    assert.deepEqual([await touched(from, 'a'), await touched(from, 'b')], [true, false]);
    assert.deepEqual([existsSync(wc), existsSync(config.stateDir)], [false, false]);
  });

  it('is a property, at its path', async t => {
    const {repository, touched} = start(t, 'svn');
    let from = repository.commit({write: 'src/a', text: '1'}, {write: 'doc/x', text: '1'});
    for (const [path, named] of [['src', ['src', 'src/**', '*']], ['src/a', ['src', 'src/**', 'src/a']], ['.', []]] as const) {
      svn(repository.dev, 'propset', '-q', 'osyw:test', `at ${path}`, path);
      const to = repository.commit();
      for (const glob of ['src', 'src/**', 'src/a', 'doc', '*']) {
        assert.equal(await touched(from, glob), (named as readonly string[]).includes(glob), `${glob} at a property of ${path}`);
      }
      assert.equal(await touched(from, '**'), true, `anything at a property of ${path}`);
      from = to;
    }
  });

  it('may be anything when the top came, went, or was another place', async t => {
    const {root, repository, config, wc, deploy, touched, open} = start(t, 'svn');
    const first = repository.commit({write: 'a', text: '1'});
    const top = repository.url.slice(0, -'/trunk'.length);
    await deploy();
    svn(root, 'copy', '-q', '-m', 'branch', repository.url, `${top}/branch`);
    const later = repository.commit({write: 'a', text: '2'});

    // The branch was not there yet at this revision of ours.
    const branch = open(['src'], {url: `${top}/branch`, workingCopy: join(root, 'other')});
    assert.equal(await branch.touches(first, await branch.resolve(undefined, never), never), true);

    // Its number is known, but as one of trunk.
    const out = mkdtempSync(join(root, 'out-'));
    const copy = open([]);
    await deploy(copy);
    await copy.exportTo(out, later, never);
    assert.equal(await touched(later, 'src'), false);
    svn(root, 'mkdir', '-q', '-m', 'more', `${top}/branch/more`);
    const switched = open(['src'], {url: `${top}/branch`});
    assert.equal(await switched.touches(later, await switched.resolve(undefined, never), never), true);

    // Taken away and put back with the same files: they are what counts.
    svn(root, 'delete', '-q', '-m', 'away', repository.url);
    await assert.rejects(open(['src']).resolve(undefined, never), failure('UPDATE_FAILED'));
    svn(root, 'copy', '-q', '-m', 'back', `${top}/branch`, repository.url);
    assert.equal(await touched(later, 'src'), false);
    assert.deepEqual([await touched(later, 'a'), await touched(later, 'more')], [true, true]);

    svn(root, 'delete', '-q', '-m', 'away', repository.url);
    writeFileSync(join(root, 'file'), 'x');
    svn(root, 'import', '-q', '-m', 'a file', join(root, 'file'), repository.url);
    assert.equal(await touched(later, 'src'), true);
    assert.deepEqual([existsSync(wc), config.source.url], [true, repository.url]);
  });

  it('is told of a place with an odd name, and with the root of the repository for a top', async t => {
    const {root, repository, open} = start(t, 'svn');
    const top = repository.url.slice(0, -'/trunk'.length);
    for (const url of [`${top}/a@b%20c%25`, top]) {
      const at = url === top ? `${top}@` : `${url}@`;
      if (url !== top) svn(root, 'mkdir', '-q', '-m', 'odd', at);
      const ask = async (from: string, ...paths: readonly string[]) => {
        const copy = open(paths, {url, workingCopy: join(root, 'none')});
        return copy.touches(from, await copy.resolve(undefined, never), never);
      };
      const from = await open([], {url, workingCopy: join(root, 'none')}).resolve(undefined, never);
      svn(root, 'mkdir', '-q', '-m', 'new', `${url}/new@`);
      assert.deepEqual([await ask(from, 'new'), await ask(from, 'b'), await ask(from, '**')], [true, false, true], url);
    }
  });

  it('is asked of svnserve, with the password', async t => {
    const {root, repository, open} = start(t, 'svn');
    const from = repository.commit({write: 'src/a', text: '1'}, {write: 'doc/é@x', text: '1'});
    repository.commit({write: 'doc/é@x', text: '2'});
    writeFileSync(join(root, 'repo/conf/svnserve.conf'), '[general]\nanon-access = none\nauth-access = write\npassword-db = passwd\n');
    writeFileSync(join(root, 'repo/conf/passwd'), '[users]\ndeploy = s3cr3t\n');
    const port = await freePort();
    const server = spawn('svnserve', ['-d', '--foreground', '--listen-host', '127.0.0.1', '--listen-port', String(port), '-r', root], {stdio: 'ignore'});
    t.after(() => server.kill('SIGKILL'));
    const passwordFile = join(root, 'password');
    writeFileSync(passwordFile, 's3cr3t\n', {mode: 0o600});
    const source = {url: `svn://127.0.0.1:${port}/repo/trunk`, username: 'deploy', passwordFile};
    const ask = async (...paths: readonly string[]) => {
      const copy = open(paths, source);
      return copy.touches(from, await copy.resolve(undefined, never), never);
    };
    assert.deepEqual([await ask('src'), await ask('doc/**'), await ask('doc/é@x')], [false, true, true]);
    const copy = open(['src'], source);
    const to = await copy.resolve(undefined, never);
    writeFileSync(passwordFile, 'wrong');
    assert.equal(await copy.touches(from, to, never), true);
  });
});

describe('what a change touches, git alone', () => {
  it('may be anything before there is a work tree', async t => {
    const {repository, wc, config, touched} = start(t, 'git');
    const from = repository.commit({write: 'a', text: '1'});
    repository.commit({write: 'a', text: '2'});
    assert.equal(await touched(from, 'src'), true);
    assert.deepEqual([existsSync(wc), existsSync(config.stateDir)], [false, false]);
  });

  it('is told of a rewritten history as long as what was deployed is there', async t => {
    const {repository, wc, deploy, touched} = start(t, 'git');
    const base = repository.commit({write: 'a', text: '1'}, {write: 'b', text: '1'});
    repository.commit({write: 'a', text: '2'});
    const from = await deploy();
    git(repository.dev, 'reset', '-q', '--hard', base);
    git(repository.dev, 'push', '-qf', 'origin', 'main');
    assert.deepEqual([await touched(from, 'a'), await touched(from, 'b')], [true, false]);
    await deploy();
    git(wc, 'for-each-ref', '--format=delete %(refname)', 'refs/osyw/saved', 'refs/remotes').split('\n').filter(Boolean)
      .forEach(line => git(wc, 'update-ref', '-d', line.slice('delete '.length)));
    git(wc, 'reflog', 'expire', '--expire=now', '--all');
    git(wc, 'gc', '-q', '--prune=now');
    assert.equal(await touched(from, 'b'), true);
  });

  it('may be anything when the branch was rewritten since it was asked for', async t => {
    const {repository, open, deploy} = start(t, 'git');
    const base = repository.commit({write: 'a', text: '1'});
    const from = await deploy();
    repository.commit({write: 'a', text: '2'});
    const copy = open(['src']);
    const to = await copy.resolve(undefined, never);
    git(repository.dev, 'reset', '-q', '--hard', base);
    git(repository.dev, 'push', '-qf', 'origin', 'main');
    assert.equal(await copy.touches(from, to, never), true);
    await assert.rejects(copy.update(to, never), failure('UPDATE_FAILED'));
  });

  it('fetches once for the question and the update, also past the locks of dead commands', async t => {
    const {root, repository, wc, open, deploy} = start(t, 'git');
    repository.commit({write: 'a', text: '1'});
    const from = await deploy();
    const next = repository.commit({write: 'a', text: '2'});
    for (const lock of ['index.lock', 'refs/osyw/deploy.lock', 'refs/remotes/origin/main.lock']) writeFileSync(join(wc, '.git', lock), '');
    const copy = open(['src']);
    await copy.resolve(undefined, never);
    assert.equal(await copy.touches(from, next, never), false);
    renameSync(repository.url, join(root, 'away'));
    await copy.update(next, never);
    assert.equal(readFileSync(join(wc, 'a'), 'utf8'), '2');
  });

  it('writes nothing into a work tree of something else', async t => {
    const {root, repository, wc, deploy, touched} = start(t, 'git');
    repository.commit({write: 'a', text: '1'});
    const from = await deploy();
    repository.commit({write: 'a', text: '2'});
    const refs = () => git(wc, 'for-each-ref');
    const before = refs();
    git(wc, 'remote', 'set-url', 'origin', `${root}/other.git`);
    assert.equal(await touched(from, 'src'), true);
    git(wc, 'remote', 'set-url', 'origin', repository.url);
    git(wc, 'checkout', '-q', '--detach');
    assert.equal(await touched(from, 'src'), true);
    assert.equal(refs(), before);
    git(wc, 'checkout', '-q', 'main');
    assert.equal(await touched(from, 'src'), false);
  });

  it('is found by a name with a line break, and may be anything with one that is not UTF-8', async t => {
    const {repository, deploy, touched} = start(t, 'git');
    repository.commit({write: 'a', text: '1'});
    const from = await deploy();
    const to = repository.commit({write: 'doc\nsrc/x', text: '1'}, {write: ' lead', text: '1'});
    assert.deepEqual([await touched(from, 'src/**'), await touched(from, 'doc*/**'), await touched(from, ' lead')], [false, true, true]);
    // By its bytes: a name in Latin 1.
    execFileSync('python3', ['-c', 'import os,sys; open(os.fsencode(sys.argv[1]) + b"/caf\\xe9", "w").close()', repository.dev]);
    repository.commit();
    assert.equal(await touched(to, 'src/**'), true);
  });

  it('runs nothing that the repository or the work tree names, and takes none of its settings', async t => {
    const {root, repository, wc, deploy, touched} = start(t, 'git');
    const trace = join(root, 'trace');
    repository.commit({write: 'src/a.bin', text: 'the same text all along\n'}, {write: '.gitattributes', text: '*.bin diff=x filter=x\n'});
    const from = await deploy();
    for (const [key, value] of [
      ['diff.external', `touch ${trace}`], ['diff.x.command', `touch ${trace}`], ['diff.x.textconv', `touch ${trace}`], ['core.pager', `touch ${trace}`],
      ['core.sshCommand', `touch ${trace}`], ['remote.origin.uploadpack', `touch ${trace}; git-upload-pack`], ['core.fsmonitor', `touch ${trace}; false`],
      ['diff.renames', 'copies'], ['diff.relative', 'true'], ['diff.noprefix', 'true'], ['core.quotePath', 'true'],
    ] as const) git(wc, 'config', key, value);
    writeFileSync(join(wc, '.git/hooks/reference-transaction'), `#!/bin/sh\ntouch ${trace}\n`, {mode: 0o755});
    rename(repository, 'src/a.bin', 'doc/é.bin');
    assert.deepEqual([await touched(from, 'src'), await touched(from, 'doc/é.bin'), await touched(from, 'etc')], [true, true, false]);
    assert.equal(existsSync(trace), false);
  });

  it('is told of a repository of another account', {skip: !isRoot && 'needs root'}, async t => {
    const {repository, wc, deploy, touched} = start(t, 'git');
    repository.commit({write: 'a', text: '1'});
    const from = await deploy();
    repository.commit({write: 'a', text: '2'});
    sh('chown', ['-R', '65534:65534', repository.url, wc]);
    assert.deepEqual([await touched(from, 'src'), await touched(from, 'a')], [false, true]);
  });

  it('is told in a shallow clone', async t => {
    const {root, repository, open} = start(t, 'git');
    repository.commit({write: 'a', text: '1'});
    const from = repository.commit({write: 'a', text: '2'});
    git(root, 'clone', '-q', '--depth', '1', `file://${repository.url}`, join(root, 'shallow'));
    repository.commit({write: 'a', text: '3'});
    const ask = async (glob: string) => {
      const copy = open([glob], {workingCopy: join(root, 'shallow')});
      return copy.touches(from, await copy.resolve(undefined, never), never);
    };
    assert.deepEqual([await ask('src'), await ask('a')], [false, true]);
  });
});

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise(resolve => server.close(resolve));
  assert.ok(typeof address === 'object' && address !== null);
  return address.port;
}
