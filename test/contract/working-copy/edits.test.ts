import assert from 'node:assert/strict';
import {appendFileSync, chmodSync, existsSync, lstatSync, mkdirSync, readFileSync, readlinkSync, renameSync, rmSync, symlinkSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {describe, it} from 'node:test';
import {splitEdits} from '../../../src/support/edited-revision.ts';
import {openWorkingCopy} from '../../../src/working-copy/open-working-copy.ts';
import {resolveAside} from '../../../src/working-copy/resolve-aside.ts';
import {failure} from './expect-failure.ts';
import {BOTH, configFor, createRepository, git, never, scratch, svn, treeOf, type Op} from './repositories.ts';

const LINES = Array.from({length: 40}, (_, i) => `line ${i}\n`).join('');

for (const vcs of BOTH) {
  describe(`edits in a working copy of ${vcs}`, () => {
    const set = (t: {after(fn: () => void): void}) => {
      const root = scratch(t);
      const repository = createRepository(vcs, root);
      const config = configFor(root, repository, {watch: {edits: true}});
      const wc = config.source.workingCopy;
      let outs = 0;
      const open = () => openWorkingCopy(config);
      const run = (...args: string[]) => vcs === 'svn' ? svn(wc, ...args) : git(wc, ...args);
      const resolve = () => open().resolve(undefined, never);
      /** The name that it has then, and its tree. */
      const deploy = async (copy = open()) => {
        const name = await copy.update(await copy.resolve(undefined, never), never);
        const out = join(root, `out-${outs++}`);
        mkdirSync(out);
        await copy.exportTo(out, name, never);
        await copy.verifyExport(out, name, never);
        return {name, tree: treeOf(out)};
      };
      return {root, repository, config, wc, open, run, resolve, deploy, at: (path: string) => join(wc, path)};
    };

    it('have a name of their own, the same for the same edits, and none when they are taken back', async t => {
      const {repository, resolve, deploy, at, config} = set(t);
      const revision = repository.commit({write: 'a', text: '1'}, {write: 'd/b', text: '1'});
      assert.equal(await resolve(), revision, 'nothing is checked out yet');
      assert.equal((await deploy()).name, revision);
      writeFileSync(at('a'), '2');
      const first = await resolve();
      assert.match(first, new RegExp(`^${revision}\\+edits:[0-9a-f]{12}$`));
      assert.equal(await resolveAside(config, undefined, never), first, 'who only asks is told the same');
      writeFileSync(at('a'), '3');
      const second = await resolve();
      assert.notEqual(second, first);
      writeFileSync(at('d/b'), '3');
      assert.equal(new Set([first, second, await resolve()]).size, 3);
      writeFileSync(at('d/b'), '1');
      writeFileSync(at('a'), '2');
      assert.equal(await resolve(), first);
      writeFileSync(at('a'), '1');
      assert.equal(await resolve(), revision);
      assert.equal((await deploy()).name, revision);
    });

    it('are exported with the rest: modified, added, deleted, missing, of another mode or type; not what is unversioned', async t => {
      const {root, repository, deploy, at, run} = set(t);
      const revision = repository.commit(
        {write: 'same', text: 's'}, {write: 'modified', text: '1'}, {write: 'deleted', text: '1'}, {write: 'missing', text: '1'}, {write: 'd/e/f', text: '1'}, {write: 'd/stays', text: '1'},
        {write: 'run', text: '1'}, {link: 'link', to: 'same'}, {write: 'sp ace/é@x', text: '1'}, {write: 'kept', text: '1'}, {write: '.ignored', text: '1'},
      );
      const {tree: before} = await deploy();
      writeFileSync(at('modified'), '2');
      writeFileSync(at('sp ace/é@x'), '2');
      run('rm', '-q', 'deleted');
      rmSync(at('missing'));
      rmSync(at('d/e'), {recursive: true});
      mkdirSync(at('new/deep'), {recursive: true});
      writeFileSync(at('new/deep/file'), 'added');
      run('add', 'new');
      writeFileSync(at('new/unversioned'), 'mine');
      writeFileSync(at('unversioned'), 'mine');
      symlinkSync('modified', at('fresh-link'));
      run('add', 'fresh-link');
      rmSync(at('link'));
      symlinkSync('modified', at('link'));
      if (vcs === 'svn') svn(at('.'), 'propset', '-q', 'svn:executable', 'x', 'run');
      else chmodSync(at('run'), 0o755);
      if (vcs === 'svn') svn(at('.'), 'rm', '-q', '--keep-local', 'kept');
      else git(at('.'), 'rm', '-q', '--cached', 'kept');
      const {name, tree} = await deploy();
      assert.notEqual(name, revision);
      const {deleted: _1, missing: _2, kept: _3, ...rest} = before;
      const expected: Record<string, string> = {...rest, modified: 'file 644 2', 'sp ace/é@x': 'file 644 2', run: 'file 755 1', link: 'link modified', 'fresh-link': 'link modified', new: 'directory 755', 'new/deep': 'directory 755', 'new/deep/file': 'file 644 added'};
      delete expected['d/e'];
      delete expected['d/e/f'];
      assert.deepEqual(tree, expected);
      const clean = join(root, 'clean');
      mkdirSync(clean);
      repository.exportBy(revision, clean);
      assert.deepEqual(before, treeOf(clean));
      assert.equal(existsSync(at('missing')), false, 'what was removed by hand stays so');
      assert.equal(readFileSync(at('kept'), 'utf8'), '1');
    });

    it('that are copies and moves, with all that is in them', async t => {
      const {repository, deploy, at, run} = set(t);
      repository.commit({write: 'a', text: '1'}, {write: 'd/x', text: 'x'}, {write: 'd/e/y', text: 'y'});
      const {tree: before} = await deploy();
      if (vcs === 'svn') {
        run('copy', '-q', 'd', 'copy');
        run('move', '-q', 'a', 'moved');
        run('rm', '-q', 'copy/e/y');
      } else {
        run('mv', 'a', 'moved');
        mkdirSync(at('copy'));
        writeFileSync(at('copy/x'), 'x');
        run('add', 'copy');
      }
      appendFileSync(at('copy/x'), '2');
      writeFileSync(at('copy/unversioned'), 'mine');
      const {tree} = await deploy();
      const {a, ...rest} = before;
      assert.deepEqual(tree, {...rest, moved: a ?? '', copy: 'directory 755', 'copy/x': 'file 644 x2', ...(vcs === 'svn' ? {'copy/e': 'directory 755'} : {})});
    });

    it('stay when a commit comes to other files', async t => {
      const {repository, deploy, at, run} = set(t);
      repository.commit({write: 'a', text: '1'}, {write: 'b', text: '1'}, {write: 'c', text: '1'});
      await deploy();
      writeFileSync(at('a'), 'mine');
      writeFileSync(at('fresh'), 'mine');
      run('add', 'fresh');
      run('rm', '-q', 'c');
      const {name} = await deploy();
      const next = repository.commit({write: 'b', text: '2'}, {write: 'new', text: '2'});
      const after = await deploy();
      assert.deepEqual(splitEdits(after.name), {revision: next, edits: splitEdits(name).edits});
      assert.deepEqual(after.tree, {a: 'file 644 mine', b: 'file 644 2', fresh: 'file 644 mine', new: 'file 644 2'});
      assert.equal((await deploy()).name, after.name);
    });

    it('are kept, and the commit refused, where it changes the same lines', async t => {
      const {repository, deploy, at} = set(t);
      repository.commit({write: 'a', text: LINES}, {write: 'b', text: '1'});
      const before = await deploy();
      writeFileSync(at('a'), LINES.replace('line 3', 'mine'));
      repository.commit({write: 'a', text: LINES.replace('line 3', 'theirs')}, {write: 'b', text: '2'});
      await assert.rejects(deploy(), failure('UPDATE_FAILED', 'a'));
      assert.deepEqual([readFileSync(at('a'), 'utf8'), readFileSync(at('b'), 'utf8')], [LINES.replace('line 3', 'mine'), '1'], 'nothing was touched');
      writeFileSync(at('a'), LINES);
      const after = await deploy();
      assert.notEqual(after.name, before.name);
      assert.equal(after.tree['b'], 'file 644 2');
    });

    it('are kept, and the commit refused, where it and they add, delete or surround the same', async t => {
      const cases: readonly (readonly [string, (at: (path: string) => string, run: (...args: string[]) => string) => void, readonly Op[]])[] = [
        ['fresh', (at, run) => {
          writeFileSync(at('fresh'), 'mine');
          run('add', 'fresh');
        }, [{write: 'fresh', text: 'theirs'}]],
        ['fresh', at => writeFileSync(at('fresh'), 'unversioned, and in the way'), [{write: 'fresh', text: 'theirs'}]],
        ['d/x', at => writeFileSync(at('d/x'), 'mine'), [{remove: 'd'}]],
        ['d/x', (_at, run) => run('rm', '-q', 'd/x'), [{write: 'd/x', text: 'theirs'}]],
      ];
      for (const [path, edit, ops] of cases) {
        const {repository, deploy, at, run} = set(t);
        repository.commit({write: 'a', text: '1'}, {write: 'd/x', text: '1'}, {write: 'd/y', text: '1'});
        await deploy();
        writeFileSync(at('a'), 'edited');
        edit(at, run);
        const mine = existsSync(at(path)) ? readFileSync(at(path), 'utf8') : undefined;
        repository.commit(...ops);
        await assert.rejects(deploy(), failure('UPDATE_FAILED', vcs === 'svn' && path === 'd/x' && mine === 'mine' ? 'd' : path));
        assert.equal(existsSync(at(path)) ? readFileSync(at(path), 'utf8') : undefined, mine);
        assert.equal(readFileSync(at('a'), 'utf8'), 'edited');
      }
    });

    it('that came after the question are another name: refused, and nothing is lost', async t => {
      const {root, repository, open, at} = set(t);
      repository.commit({write: 'a', text: '1'}, {write: 'b', text: '1'});
      const copy = open();
      await copy.update(await copy.resolve(undefined, never), never);
      writeFileSync(at('a'), '2');
      const asked = open();
      const name = await asked.resolve(undefined, never);
      writeFileSync(at('a'), '3');
      await assert.rejects(asked.update(name, never), failure('UPDATE_FAILED', 'edited meanwhile'));
      assert.equal(readFileSync(at('a'), 'utf8'), '3');
      writeFileSync(at('a'), '2');
      await asked.update(name, never);
      for (const late of [() => writeFileSync(at('b'), 'late'), () => writeFileSync(at('a'), 'late')]) {
        const out = join(root, `late-${Math.random()}`);
        mkdirSync(out);
        await asked.exportTo(out, name, never);
        await asked.verifyExport(out, name, never);
        late();
        await assert.rejects(asked.verifyExport(out, name, never), failure('UPDATE_FAILED', 'edited meanwhile'));
        writeFileSync(at('b'), '1');
        writeFileSync(at('a'), '2');
      }
      // Edited, copied, and taken back again: the copy is what it was, and what was copied is not.
      const out = join(root, 'torn');
      mkdirSync(out);
      writeFileSync(at('a'), 'for a moment');
      await asked.exportTo(out, name, never);
      writeFileSync(at('a'), '2');
      await assert.rejects(asked.verifyExport(out, name, never), failure('UPDATE_FAILED', 'edited meanwhile'));
    });

    it('are nothing that anybody can ask for, nor in the way of a revision that is', async t => {
      const {repository, deploy, open, at} = set(t);
      const revision = repository.commit({write: 'a', text: '1'});
      await deploy();
      writeFileSync(at('a'), '2');
      const {name} = await deploy();
      await assert.rejects(open().resolve(name, never), failure('USAGE', 'not in the repository'));
      assert.equal(await open().resolve(revision, never), revision);
      await assert.rejects(open().update(revision, never), failure('UPDATE_FAILED', 'Local edits', 'a'));
      assert.equal(readFileSync(at('a'), 'utf8'), '2');
    });

    it('read nothing by links', async t => {
      const {repository, root, deploy, at} = set(t);
      repository.commit({write: 'a', text: '1'}, {write: 'd/x', text: '1'});
      await deploy();
      mkdirSync(join(root, 'secret'));
      writeFileSync(join(root, 'secret/x'), 'secret');
      renameSync(at('d'), at('d.moved'));
      symlinkSync(join(root, 'secret'), at('d'));
      await assert.rejects(deploy(), failure('UPDATE_FAILED', 'd'));
      assert.equal(readlinkSync(at('d')), join(root, 'secret'));
      assert.equal(lstatSync(join(root, 'secret/x')).isFile(), true);
    });

    it('are found by a new process, and a commit of them is a revision like any other', async t => {
      const {repository, deploy, resolve, at, run} = set(t);
      repository.commit({write: 'a', text: '1'});
      await deploy();
      writeFileSync(at('a'), '2');
      const {name} = await deploy();
      assert.equal(await resolve(), name);
      if (vcs === 'svn') {
        run('commit', '-q', '-m', 'mine');
      } else {
        run('-c', 'user.name=me', '-c', 'user.email=me@example.org', 'commit', '-q', '-a', '-m', 'mine');
        run('push', '-q', 'origin', 'HEAD:main');
      }
      const after = await deploy();
      assert.equal(splitEdits(after.name).edits, undefined);
      assert.notEqual(after.name, splitEdits(name).revision);
      assert.equal(after.tree['a'], 'file 644 2');
    });

    it('count for source.paths like commits', async t => {
      const {repository, config, deploy, at} = set(t);
      const revision = repository.commit({write: 'src/a', text: '1'}, {write: 'doc/b', text: '1'});
      await deploy();
      const asking = (edits = true) => openWorkingCopy({...config, source: {...config.source, paths: ['src/**']}, watch: {...config.watch, edits}});
      const touches = async (from: string) => {
        const copy = asking();
        return copy.touches(from, await copy.resolve(undefined, never), never);
      };
      writeFileSync(at('doc/b'), '2');
      assert.equal(await touches(revision), false);
      const {name} = await deploy();
      writeFileSync(at('src/a'), '2');
      assert.equal(await touches(revision), true);
      assert.equal(await touches(name), true);
      writeFileSync(at('src/a'), '1');
      writeFileSync(at('doc/b'), '1');
      assert.equal(await touches(name), false, 'taken back, and it was of no account');
      repository.commit({write: 'doc/b', text: '3'});
      assert.equal(await touches(revision), false);
      repository.commit({write: 'src/a', text: '3'});
      assert.equal(await touches(revision), true);
      assert.equal(await touches(`${revision}+edits:0123456789ab`), true, 'edits that nobody knows any more');
    });
  });
}

describe('edits in a working copy of svn', () => {
  const set = (t: {after(fn: () => void): void}) => {
    const root = scratch(t);
    const repository = createRepository('svn', root);
    const config = configFor(root, repository, {watch: {edits: true}});
    const wc = config.source.workingCopy;
    const deploy = async () => {
      const copy = openWorkingCopy(config);
      return copy.update(await copy.resolve(undefined, never), never);
    };
    return {repository, wc, deploy};
  };

  it('are merged with a commit to other lines, and what comes of it has a name of its own', async t => {
    const {repository, wc, deploy} = set(t);
    repository.commit({write: 'a', text: LINES});
    await deploy();
    writeFileSync(join(wc, 'a'), LINES.replace('line 3\n', 'mine\n'));
    const before = await deploy();
    const next = repository.commit({write: 'a', text: LINES.replace('line 33\n', 'theirs\n')});
    const after = await deploy();
    assert.equal(splitEdits(after).revision, next);
    assert.notEqual(splitEdits(after).edits, splitEdits(before).edits);
    assert.equal(readFileSync(join(wc, 'a'), 'utf8'), LINES.replace('line 3\n', 'mine\n').replace('line 33\n', 'theirs\n'));
    assert.equal(await deploy(), after);
  });

  it('do not hide a file that somebody took to before it existed', async t => {
    const {repository, wc, deploy} = set(t);
    const first = repository.commit({write: 'a', text: '1'});
    repository.commit({write: 'late', text: '1'});
    await deploy();
    writeFileSync(join(wc, 'a'), '2');
    svn(wc, 'update', '-q', '-r', first.slice(1), 'late');
    assert.equal(existsSync(join(wc, 'late')), false);
    await deploy();
    assert.equal(readFileSync(join(wc, 'late'), 'utf8'), '1');
    assert.equal(readFileSync(join(wc, 'a'), 'utf8'), '2');
  });

  it('refuse conflicts by name, as ever', async t => {
    const {repository, wc, deploy} = set(t);
    repository.commit({write: 'a', text: '1'});
    await deploy();
    repository.commit({write: 'a', text: '2'});
    writeFileSync(join(wc, 'a'), '3');
    svn(wc, 'update', '-q', '--accept', 'postpone');
    await assert.rejects(deploy(), failure('UPDATE_FAILED', 'Conflicts', 'a'));
    svn(wc, 'resolve', '-q', '--accept', 'working', 'a');
    assert.match(await deploy(), /\+edits:/);
  });
});
