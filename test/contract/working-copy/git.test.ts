import assert from 'node:assert/strict';
import {spawn} from 'node:child_process';
import {chmodSync, chownSync, copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {describe, it} from 'node:test';
import {openWorkingCopy} from '../../../src/working-copy/open-working-copy.ts';
import {failure} from './expect-failure.ts';
import {configFor, createRepository, git, isRoot, never, scratch, sh, treeOf} from './repositories.ts';

describe('git working copy', () => {
  const set = (t: {after(fn: () => void): void}) => {
    const root = scratch(t);
    const repository = createRepository('git', root);
    const config = configFor(root, repository);
    const open = (source: Partial<typeof config.source> = {}) => openWorkingCopy({...config, source: {...config.source, ...source}});
    const deploy = async (copy = open(), wanted?: string) => {
      const revision = await copy.resolve(wanted, never);
      await copy.update(revision, never);
      return revision;
    };
    return {root, repository, config, wc: config.source.workingCopy, open, deploy};
  };

  it('removes the locks of dead commands', async t => {
    const {repository, wc, deploy} = set(t);
    repository.commit({write: 'a', text: '1'});
    await deploy();
    const next = repository.commit({write: 'a', text: '2'});
    for (const lock of ['index.lock', 'HEAD.lock', 'shallow.lock', 'packed-refs.lock', 'refs/heads/main.lock', 'refs/osyw/deploy.lock']) writeFileSync(join(wc, '.git', lock), '');
    assert.equal(await deploy(), next);
    assert.equal(readFileSync(join(wc, 'a'), 'utf8'), '2');
  });

  it('waits for the lock of a living git, then names it', async t => {
    const {root, repository, wc, open, deploy} = set(t);
    repository.commit({write: 'a', text: '1'});
    await deploy();
    repository.commit({write: 'a', text: '2'});
    writeFileSync(join(wc, '.git/index.lock'), '');
    mkdirSync(join(root, 'bin'));
    copyFileSync('/bin/sleep', join(root, 'bin/git'));
    const living = spawn(join(root, 'bin/git'), ['60'], {cwd: wc, stdio: 'ignore'});
    t.after(() => living.kill('SIGKILL'));
    await assert.rejects(deploy(open({timeoutMs: 1500})), failure('UPDATE_FAILED', String(living.pid), 'index.lock'));
    assert.equal(existsSync(join(wc, '.git/index.lock')), true);
  });

  it('follows a rewritten history, and keeps commits that were never sent under a name', async t => {
    const {repository, wc, deploy} = set(t);
    repository.commit({write: 'a', text: '1'});
    const gone = repository.commit({write: 'a', text: '2'});
    await deploy();
    git(repository.dev, 'reset', '-q', '--hard', 'HEAD~1');
    writeFileSync(join(repository.dev, 'b'), '1');
    git(repository.dev, 'add', 'b');
    git(repository.dev, 'commit', '-qm', 'other');
    git(repository.dev, 'push', '-qf', 'origin', 'main');
    const rewritten = await deploy();
    assert.notEqual(rewritten, gone);
    assert.deepEqual([readFileSync(join(wc, 'a'), 'utf8'), existsSync(join(wc, 'b'))], ['1', true]);

    writeFileSync(join(wc, 'mine'), 'mine');
    git(wc, 'add', 'mine');
    git(wc, 'commit', '-qm', 'never sent');
    const unsent = git(wc, 'rev-parse', 'HEAD');
    await deploy();
    assert.match(git(wc, 'for-each-ref', 'refs/osyw/saved'), new RegExp(unsent));
    assert.equal(git(wc, 'symbolic-ref', 'HEAD'), 'refs/heads/main');
  });

  it('takes the branch, not a tag of its name, and not another branch that ends like it', async t => {
    const {repository, open, deploy} = set(t);
    const old = repository.commit({write: 'a', text: '1'});
    git(repository.dev, 'push', '-q', 'origin', `${old}:refs/tags/main`, `${old}:refs/heads/x/main`);
    const tip = repository.commit({write: 'a', text: '2'});
    assert.equal(await deploy(), tip);
    git(repository.dev, 'push', '-q', 'origin', `${old}:refs/heads/${tip.slice(0, 8)}`);
    assert.equal(await open().resolve(tip.slice(0, 8), never), tip);
  });

  it('follows a branch that became a directory of branches, and says when it is gone', async t => {
    const {repository, open, deploy} = set(t);
    const sha = repository.commit({write: 'a', text: '1'});
    git(repository.dev, 'push', '-q', 'origin', `${sha}:refs/heads/topic`);
    await deploy(open({branch: 'topic'}));
    git(repository.dev, 'push', '-q', 'origin', ':refs/heads/topic');
    await assert.rejects(open({branch: 'topic'}).resolve(undefined, never), failure('UPDATE_FAILED', '"topic"'));
    git(repository.dev, 'push', '-q', 'origin', `${sha}:refs/heads/topic/a`);
    assert.equal(await open({branch: 'topic/a'}).resolve(undefined, never), sha);
  });

  it('leaves the work tree alone when the branch goes away after the question', async t => {
    const {repository, wc, open, deploy} = set(t);
    repository.commit({write: 'a', text: '1'});
    await deploy();
    const next = repository.commit({write: 'a', text: '2'});
    const copy = open();
    assert.equal(await copy.resolve(undefined, never), next);
    git(repository.url, 'update-ref', '-d', 'refs/heads/main');
    await assert.rejects(copy.update(next, never), failure('UPDATE_FAILED', 'main'));
    assert.equal(readFileSync(join(wc, 'a'), 'utf8'), '1');
    git(repository.url, 'update-ref', 'refs/heads/main', next);
    assert.equal(await deploy(), next);
  });

  it('refuses a commit that the branch does not reach', async t => {
    const {repository, open, deploy} = set(t);
    const base = repository.commit({write: 'a', text: '1'});
    git(repository.dev, 'checkout', '-q', '-b', 'other');
    writeFileSync(join(repository.dev, 'b'), '1');
    git(repository.dev, 'add', 'b');
    git(repository.dev, 'commit', '-qm', 'b');
    git(repository.dev, 'push', '-q', 'origin', 'other');
    const elsewhere = git(repository.dev, 'rev-parse', 'HEAD');
    await deploy();
    await assert.rejects(open().resolve(elsewhere, never), failure('UPDATE_FAILED'));
    assert.equal(await open().resolve(base.slice(0, 7), never), base);
  });

  it('finds an older commit before there is a working copy', async t => {
    const {repository, wc, open} = set(t);
    const base = repository.commit({write: 'a', text: '1'});
    repository.commit({write: 'a', text: '2'});
    assert.equal(await open().resolve(base.slice(0, 9), never), base);
    assert.equal(existsSync(wc), false);
  });

  it('refuses another branch, a detached HEAD, a merge under way, another origin', async t => {
    const {root, repository, wc, deploy} = set(t);
    repository.commit({write: 'a', text: '1\n'});
    await deploy();
    git(wc, 'checkout', '-q', '-b', 'mine');
    await assert.rejects(deploy(), failure('UPDATE_FAILED', '"mine"', '"main"', 'checkout main'));
    writeFileSync(join(wc, 'a'), 'mine\n');
    git(wc, 'commit', '-qam', 'mine');
    git(wc, 'checkout', '-q', 'main');
    writeFileSync(join(wc, 'a'), 'theirs\n');
    git(wc, 'commit', '-qam', 'theirs');
    assert.throws(() => git(wc, 'merge', '-q', 'mine'));
    await assert.rejects(deploy(), failure('UPDATE_FAILED', 'Conflicts', 'a'));
    git(wc, 'merge', '--abort');
    git(wc, 'checkout', '-q', '--detach');
    await assert.rejects(deploy(), failure('UPDATE_FAILED', 'detached'));
    git(wc, 'checkout', '-q', 'main');
    git(wc, 'remote', 'set-url', 'origin', `${root}/other.git`);
    await assert.rejects(deploy(), failure('UPDATE_FAILED', `${root}/other.git`, repository.url));
  });

  it('refuses an ignored file in the way of a new one', async t => {
    const {repository, wc, deploy} = set(t);
    repository.commit({write: '.gitignore', text: '*.log\n'});
    await deploy();
    mkdirSync(join(wc, 'dir'));
    writeFileSync(join(wc, 'dir/x.log'), 'mine');
    writeFileSync(join(wc, 'sub'), 'mine');
    repository.commit({write: 'dir/x.log', text: 'theirs'}, {write: 'sub/y', text: '1'});
    await assert.rejects(deploy(), failure('UPDATE_FAILED', 'dir/x.log', 'sub'));
    assert.equal(readFileSync(join(wc, 'dir/x.log'), 'utf8'), 'mine');
  });

  it('refuses submodules and pointers to large files', async t => {
    const {repository, open, deploy} = set(t);
    const base = repository.commit({write: 'a', text: '1'});
    await deploy();
    git(repository.dev, 'update-index', '--add', '--cacheinfo', `160000,${base},vendor/lib`);
    git(repository.dev, 'commit', '-qm', 'submodule');
    git(repository.dev, 'push', '-q', 'origin', 'main');
    for (let i = 0; i < 2; i++) await assert.rejects(deploy(), failure('UPDATE_FAILED', 'Submodules', 'vendor/lib'));
    git(repository.dev, 'reset', '-q', '--hard', base);
    writeFileSync(join(repository.dev, 'big.bin'), 'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n');
    writeFileSync(join(repository.dev, '.gitattributes'), '*.bin filter=lfs\n');
    git(repository.dev, '-c', 'filter.lfs.clean=cat', 'add', '-A');
    git(repository.dev, '-c', 'filter.lfs.clean=cat', 'commit', '-qm', 'lfs');
    git(repository.dev, 'push', '-qf', 'origin', 'main');
    for (let i = 0; i < 2; i++) await assert.rejects(deploy(), failure('UPDATE_FAILED', 'LFS', 'big.bin'));
    await assert.rejects(deploy(open({workingCopy: join(scratch(t), 'wc')})), failure('UPDATE_FAILED', 'LFS', 'big.bin'));
  });

  it('runs nothing that the repository or the work tree names', async t => {
    const {root, repository, wc, open, deploy} = set(t);
    const trace = join(root, 'trace');
    repository.commit({write: 'a', text: '1'});
    await deploy();
    for (const hook of ['post-checkout', 'post-merge', 'reference-transaction', 'post-index-change', 'pre-auto-gc']) {
      writeFileSync(join(wc, '.git/hooks', hook), `#!/bin/sh\ntouch ${trace}\n`, {mode: 0o755});
    }
    git(wc, 'config', 'core.fsmonitor', `touch ${trace}; false`);
    git(wc, 'config', 'core.sshCommand', `touch ${trace}`);
    git(wc, 'config', 'remote.origin.uploadpack', `touch ${trace}; git-upload-pack`);
    git(wc, 'config', 'diff.external', `touch ${trace}`);
    const next = repository.commit({write: 'a', text: '2'}, {write: '$(touch trace)', text: '1'}, {write: '--output=trace', text: '1'});
    assert.equal(await deploy(), next);
    assert.equal(existsSync(trace), false);

    for (const branch of [`--upload-pack=touch ${trace};git-upload-pack`, `-x`, `a;touch${'$'}{IFS}${trace}`, '`id`']) {
      await assert.rejects(open({branch}).resolve(undefined, never), failure('UPDATE_FAILED'));
    }
    for (const url of [`ext::sh -c touch% ${trace}`, `EXT::sh -c touch% ${trace}`, `--upload-pack=touch ${trace}`, `ssh://-oProxyCommand=touch%20${trace}/x`]) {
      await assert.rejects(open({url}).resolve(undefined, never), failure('CONFIG_INVALID'));
    }
    assert.equal(existsSync(trace), false);
  });

  it('takes a repository and a work tree of another account', {skip: !isRoot && 'needs root'}, async t => {
    const {repository, wc, deploy} = set(t);
    repository.commit({write: 'a', text: '1'});
    sh('chown', ['-R', '65534:65534', repository.url]);
    await deploy();
    sh('chown', ['-R', '65534:65534', wc]);
    repository.commit.bind(repository);
    git(repository.dev, '-c', 'safe.directory=*', 'commit', '-q', '--allow-empty', '-m', 'x');
    chownSync(repository.url, 0, 0);
    git(repository.dev, 'push', '-q', 'origin', 'main');
    sh('chown', ['-R', '65534:65534', repository.url]);
    assert.equal(await deploy(), git(repository.dev, 'rev-parse', 'HEAD'));
  });

  it('takes a shallow clone and a linked work tree', async t => {
    const {root, repository, open, deploy} = set(t);
    repository.commit({write: 'a', text: '1'});
    repository.commit({write: 'a', text: '2'});
    git(root, 'clone', '-q', '--depth', '1', `file://${repository.url}`, join(root, 'shallow'));
    git(root, 'clone', '-q', repository.url, join(root, 'main-tree'));
    git(join(root, 'main-tree'), 'checkout', '-q', '-b', 'elsewhere');
    git(join(root, 'main-tree'), 'worktree', 'add', '-q', join(root, 'linked'), 'main');
    const next = repository.commit({write: 'a', text: '3'});
    for (const name of ['shallow', 'linked']) {
      assert.equal(await deploy(open({workingCopy: join(root, name)})), next);
      assert.equal(readFileSync(join(root, name, 'a'), 'utf8'), '3');
    }
  });

  it('does not take the repository of a parent directory for its own', async t => {
    const {root, repository, open, deploy} = set(t);
    repository.commit({write: 'a', text: '1'});
    git(root, 'init', '-q', root);
    mkdirSync(join(root, 'inside'));
    const workingCopy = join(root, 'inside');
    writeFileSync(join(workingCopy, 'mine'), 'mine');
    await assert.rejects(deploy(open({workingCopy})), failure('UPDATE_FAILED', workingCopy));
    assert.deepEqual(readdirSync(workingCopy), ['mine']);
  });

  it('tells a change of kind and of the executable bit', async t => {
    const {root, repository, open, deploy} = set(t);
    const first = repository.commit({write: 'x', text: '1'}, {write: 'd/f', text: '1'}, {write: 'l', text: '1'});
    await deploy();
    const second = repository.commit({write: 'x', text: '1', executable: true}, {remove: 'd'}, {write: 'd', text: 'file'}, {remove: 'l'}, {link: 'l', to: 'x'});
    await deploy();
    assert.deepEqual((await open().changedPaths(first, second, never))?.toSorted(), ['d', 'd/f', 'l', 'x']);
    chmodSync(join(root, 'wc/x'), 0o644);
    await assert.rejects(deploy(), failure('UPDATE_FAILED', 'x'));
  });

  it('keeps the password out of arguments and environments', async t => {
    const {root, repository, config, open, deploy} = set(t);
    repository.commit({write: 'a', text: '1'});
    const passwordFile = join(root, 'password');
    writeFileSync(passwordFile, 's3cr3t \'"$x\\\n', {mode: 0o600});
    await deploy(open({username: 'o\'brien', passwordFile}));
    const askpass = join(config.stateDir, 'git/askpass');
    assert.equal(sh(askpass, ['Password for \'https://x\': ']), 's3cr3t \'"$x\\\n');
    assert.equal(sh(askpass, ['Username for \'https://x\': ']), 'o\'brien\n');
    assert.equal(readFileSync(askpass, 'utf8').includes('s3cr3t'), false);
    rmSync(passwordFile);
    await assert.rejects(open({passwordFile}).resolve(undefined, never), failure('UPDATE_FAILED', passwordFile));
  });

  it('starts from an empty clone', async t => {
    const {root, repository, wc, open, deploy} = set(t);
    git(root, 'clone', '-q', repository.url, wc);
    await assert.rejects(open().resolve(undefined, never), failure('UPDATE_FAILED', '"main"'));
    const first = repository.commit({write: 'a', text: '1'});
    assert.equal(await deploy(), first);
    assert.deepEqual(Object.keys(treeOf(wc)), ['a']);
    renameSync(wc, `${wc}.old`);
    assert.equal(await deploy(), first);
  });
});
