import assert from 'node:assert/strict';
import {chmodSync, existsSync, lstatSync, mkdirSync, readFileSync, readlinkSync, rmSync, symlinkSync, writeFileSync} from 'node:fs';
import {dirname, join} from 'node:path';
import {describe, it} from 'node:test';
import {DeployError} from '../../../src/errors.ts';
import {openReleases} from '../../../src/releases/open-releases.ts';
import {openWorkingCopy} from '../../../src/working-copy/open-working-copy.ts';
import {failure} from '../working-copy/expect-failure.ts';
import {BOTH, configFor, createRepository, git, never, scratch, svn, treeOf, type Vcs} from '../working-copy/repositories.ts';

const ROUNDS = 16;
const PATHS = ['a', 'b', 'd/x', 'd/e/f', 'n', 'm/o'];
const id = (number: number) => String(number).padStart(6, '0');

/** A small generator of our own, so that a failure can be repeated from its seed. */
function dice(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return below => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** What is versioned in a working copy, as it stands there: told by svn or git, not by the deployer. */
function versioned(vcs: Vcs, wc: string): Record<string, string> {
  const paths = vcs === 'git' ? git(wc, 'ls-files', '-z').split('\0').filter(path => path !== '')
    : [...svn(wc, 'status', '-v', '--xml', '.').matchAll(/<entry\s+path="([^"]*)">\s*<wc-status([^>]*)>/g)]
      .filter(([, , attributes = '']) => !/item="(?:unversioned|ignored|deleted|missing|none)"/.test(attributes)).map(([, path = '']) => path).filter(path => path !== '.');
  const tree: Record<string, string> = {};
  for (const path of paths) {
    const stat = lstatSync(join(wc, path), {throwIfNoEntry: false});
    if (stat === undefined) continue;
    for (let parent = dirname(path); parent !== '.'; parent = dirname(parent)) tree[parent] = 'directory 755';
    if (stat.isDirectory()) tree[path] = 'directory 755';
    else if (stat.isSymbolicLink()) tree[path] = `link ${readlinkSync(join(wc, path))}`;
    else tree[path] = `file ${(stat.mode & 0o100) === 0 ? '644' : '755'} ${readFileSync(join(wc, path), 'latin1')}`;
  }
  return tree;
}

function inodeOf(path: string): number | undefined {
  return lstatSync(path, {throwIfNoEntry: false})?.ino;
}

function start(t: {after(fn: () => void): void}, vcs: Vcs) {
  const root = scratch(t);
  const repository = createRepository(vcs, root);
  const config = configFor(root, repository, {watch: {edits: true}});
  const wc = config.source.workingCopy;
  const releases = openReleases(config);
  return {
    repository, config, wc, releases,
    run: (...args: string[]) => vcs === 'svn' ? svn(wc, ...args) : git(wc, ...args),
    isSpare: () => existsSync(join(config.stateDir, 'spare/tree')),
    /** As a deploy does it, by a process of its own. */
    build: async (number: number) => {
      const copy = openWorkingCopy(config);
      const asked = await copy.resolve(undefined, never);
      releases.lookAhead(copy, asked, never);
      const revision = await copy.update(asked, never);
      const dir = releases.dirOf(id(number));
      await releases.build({id: id(number), revision, dir}, copy, () => undefined, never);
      return {revision, dir};
    },
  };
}

for (const vcs of BOTH) {
  describe(`releases from edits of ${vcs}`, () => {
    it('are what is versioned, as it stands there, whatever the tree was that they are made out of', async t => {
      const seed = Number(process.env['OSYW_TEST_SEED'] ?? (vcs === 'svn' ? 5 : 6));
      const roll = dice(seed);
      const {repository, config, wc, releases, run, build} = start(t, vcs);
      repository.commit({write: 'a', text: '1'}, {write: 'b', text: '1'}, {write: 'd/x', text: '1'}, {write: 'd/e/f', text: '1'}, {write: 'keep', text: '1'});
      const at = (path: string) => join(wc, path);
      const remove = (path: string, kept: boolean) => vcs === 'svn' ? run('rm', '-q', '--force', ...(kept ? ['--keep-local'] : []), path) : run('rm', '-q', '-f', '-r', ...(kept ? ['--cached'] : []), path);
      const revert = () => {
        if (vcs === 'svn') run('revert', '-q', '-R', '.');
        else run('reset', '-q', '--hard');
      };
      const write = (path: string) => {
        if (existsSync(at(path)) && !lstatSync(at(path)).isFile()) rmSync(at(path), {recursive: true});
        mkdirSync(dirname(at(path)), {recursive: true});
        writeFileSync(at(path), `${roll(1e6)}`);
      };
      const told: string[] = [];
      const act = (number: number): void => {
        const path = PATHS[roll(PATHS.length)] ?? 'a';
        const tree = versioned(vcs, wc);
        const isFile = tree[path]?.startsWith('file') === true;
        const kind = roll(9);
        told.push(`${number}: ${kind} ${path}`);
        if (kind <= 2 && (isFile || tree[dirname(path)] === undefined)) write(path);
        if (kind === 2 && !isFile && existsSync(at(path))) run('add', ...(vcs === 'svn' ? ['-q', '--parents', '--force'] : []), path);
        if (kind === 3 && isFile) remove(path, roll(2) === 0);
        if (kind === 4 && isFile) rmSync(at(path));
        if (kind === 5 && tree['d'] !== undefined && existsSync(at('d'))) remove('d', roll(2) === 0);
        if (kind === 6 && isFile) {
          if (vcs === 'svn') svn(wc, 'propset', '-q', 'svn:executable', 'x', path);
          else chmodSync(at(path), 0o755);
        }
        if (kind === 7) repository.commit({write: roll(2) === 0 ? 'other' : path, text: `${roll(1e6)}`});
        if (kind === 8) revert();
        if (kind === 0 && vcs === 'git' && isFile && roll(2) === 0) {
          rmSync(at(path));
          symlinkSync('keep', at(path));
        }
      };
      let recycled = 0;
      let edited = 0;
      for (let number = 1; number <= ROUNDS; number++) {
        const seen = () => `seed ${seed}, ${told.join(', ')}`;
        if (number > 1) for (let i = 0; i <= roll(3); i++) act(number);
        if (number > 1) writeFileSync(at('unversioned'), 'mine');
        await releases.prune(number > 1 ? [id(number - 1)] : []);
        const spare = inodeOf(join(config.stateDir, 'spare/tree/keep'));
        let built: Awaited<ReturnType<typeof build>>;
        try {
          built = await build(number);
        } catch (error) {
          // A commit, or an unversioned file, that clashes with the edits: they are given up.
          assert.ok(error instanceof DeployError && error.code === 'UPDATE_FAILED', seen());
          assert.doesNotMatch(error.message, /meanwhile/, seen());
          revert();
          for (const path of PATHS) if (versioned(vcs, wc)[path] === undefined) rmSync(at(path), {recursive: true, force: true});
          built = await build(number);
        }
        recycled += spare !== undefined && spare === inodeOf(join(built.dir, 'keep')) ? 1 : 0;
        edited += /\+edits:/.test(built.revision) ? 1 : 0;
        assert.deepEqual(treeOf(built.dir), versioned(vcs, wc), seen());
      }
      assert.ok(recycled >= 4 && edited >= 4, `${recycled} made out of a retired one, ${edited} with edits`);
    });

    it('leave no byte of an edit behind in the tree that is made out of them', async t => {
      const {repository, wc, releases, run, isSpare, build} = start(t, vcs);
      const revision = repository.commit({write: 'a', text: '1'}, {write: 'd/x', text: '1'}, {write: 'keep', text: '1'});
      const {dir} = await build(1);
      const clean = treeOf(dir);
      for (const taken of ['reverted', 'left where it was'] as const) {
        writeFileSync(join(wc, 'a'), 'edited');
        rmSync(join(wc, 'd/x'));
        writeFileSync(join(wc, 'fresh'), 'edited');
        run('add', 'fresh');
        const number = taken === 'reverted' ? 2 : 4;
        const edited = await build(number);
        assert.deepEqual(treeOf(edited.dir), {a: 'file 644 edited', fresh: 'file 644 edited', keep: 'file 644 1', ...(vcs === 'svn' ? {d: 'directory 755'} : {})});
        if (vcs === 'svn') run('revert', '-q', '-R', '.');
        else run('reset', '-q', '--hard');
        if (taken === 'left where it was') writeFileSync(join(wc, 'fresh'), 'edited');
        else rmSync(join(wc, 'fresh'), {force: true});
        await releases.prune([]);
        assert.equal(isSpare(), true);
        const after = await build(number + 1);
        assert.equal(after.revision, revision);
        assert.deepEqual(treeOf(after.dir), clean);
        rmSync(join(wc, 'fresh'), {force: true});
        await releases.prune([id(number + 1)]);
      }
    });

    it('have a directory back whole that was away', async t => {
      const {repository, releases, run, build} = start(t, vcs);
      repository.commit({write: 'a', text: '1'}, {write: 'd/x', text: '1'}, {write: 'd/e/f', text: '1'});
      const clean = treeOf((await build(1)).dir);
      if (vcs === 'svn') run('rm', '-q', 'd');
      else run('rm', '-q', '-r', 'd');
      assert.deepEqual(treeOf((await build(2)).dir), {a: 'file 644 1'});
      await releases.prune([]);
      if (vcs === 'svn') run('revert', '-q', '-R', '.');
      else run('reset', '-q', '--hard');
      assert.deepEqual(treeOf((await build(3)).dir), clean);
    });

    it('are not made of a copy that is edited meanwhile', async t => {
      const {repository, config, wc, releases} = start(t, vcs);
      repository.commit({write: 'a', text: '1'}, {write: 'b', text: '1'});
      const copy = openWorkingCopy(config);
      const revision = await copy.update(await copy.resolve(undefined, never), never);
      writeFileSync(join(wc, 'b'), 'edited');
      await assert.rejects(releases.build({id: id(1), revision, dir: releases.dirOf(id(1))}, copy, () => undefined, never), failure('UPDATE_FAILED', 'edited meanwhile'));
      assert.equal(await releases.isComplete(id(1)), false);
    });
  });
}
