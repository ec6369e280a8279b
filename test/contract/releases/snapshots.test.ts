import assert from 'node:assert/strict';
import {execFileSync, spawn} from 'node:child_process';
import {appendFileSync, chmodSync, existsSync, linkSync, lstatSync, mkdirSync, readdirSync, readFileSync, readlinkSync, renameSync, rmSync, statSync, symlinkSync, utimesSync, writeFileSync} from 'node:fs';
import {dirname, join} from 'node:path';
import {describe, it} from 'node:test';
import type {Config} from '../../../src/config/config.ts';
import {DeployError} from '../../../src/errors.ts';
import type {Releases, WorkingCopy} from '../../../src/deploy/tools.ts';
import {openReleases} from '../../../src/releases/open-releases.ts';
import {openWorkingCopy} from '../../../src/working-copy/open-working-copy.ts';
import {failure} from '../working-copy/expect-failure.ts';
import {BOTH, configFor, createRepository, isRoot, never, scratch, treeOf, type ConfigParts, type Op, type Vcs} from '../working-copy/repositories.ts';

interface Rig {
  readonly root: string;
  readonly config: Config;
  readonly releases: Releases;
  readonly workingCopy: WorkingCopy;
  readonly commit: (...ops: readonly Op[]) => string;
  readonly expected: (revision: string) => Record<string, string>;
  /** Updates and builds release `number`; its directory. */
  readonly build: (number: number, parts?: ConfigParts, onOutput?: (line: string) => void) => Promise<string>;
}

const id = (number: number) => String(number).padStart(6, '0');

function rig(t: {after(fn: () => void): void}, vcs: Vcs, parts: ConfigParts = {}): Rig {
  const root = scratch(t);
  const repository = createRepository(vcs, root);
  const config = configFor(root, repository, parts);
  const workingCopy = openWorkingCopy(config);
  let exported = 0;
  return {
    root, config, workingCopy, releases: openReleases(config), commit: repository.commit,
    expected: revision => {
      const directory = join(root, `expected-${exported++}`);
      mkdirSync(directory);
      repository.exportBy(revision, directory);
      return treeOf(directory);
    },
    build: async (number, more, onOutput = () => {}) => {
      const releases = openReleases(more === undefined ? config : {...config, release: {...config.release, ...more.release}});
      const revision = await workingCopy.resolve(undefined, never);
      releases.lookAhead(workingCopy, revision, never);
      await workingCopy.update(revision, never);
      const dir = releases.dirOf(id(number));
      await releases.build({id: id(number), revision, dir}, workingCopy, onOutput, never);
      return dir;
    },
  };
}

const spareTree = (config: Config) => join(config.stateDir, 'spare/tree');

/** A small generator of our own, so that a failure can be repeated from its seed. */
function dice(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return below => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

const PATHS = ['a', 'b', 'd/x', 'd/y', 'd/e/f', 'd/e/g', 'sp ace/é', 'a@b', 'n', 'n/m', 'n/o/p', '-v'];

function randomOps(current: Record<string, string>, roll: (below: number) => number): Op[] {
  const ops: Op[] = [];
  const present = new Set(Object.keys(current));
  for (let i = 0; i < 1 + roll(4); i++) {
    const path = PATHS[roll(PATHS.length)] ?? 'a';
    const clashing = [...present].filter(other => path.startsWith(`${other}/`) && !current[other]?.startsWith('directory') || other.startsWith(`${path}/`) || (other === path && current[other]?.startsWith('directory')));
    const tops = new Set(clashing.map(other => other.startsWith(`${path}/`) ? path : other));
    for (const top of tops) ops.push({remove: top});
    for (const other of clashing) present.delete(other);
    const isThere = present.has(path);
    const kind = roll(5);
    if (kind === 0 && isThere && present.size > 3) {
      ops.push({remove: path});
      present.delete(path);
      continue;
    }
    if (isThere && (kind === 1) !== (current[path]?.startsWith('link') ?? false)) ops.push({remove: path});
    if (kind === 1) {
      if (isThere && current[path]?.startsWith('link') === true) continue;
      ops.push({link: path, to: 'target'});
    } else if (isThere && current[path]?.startsWith('link') === true && kind !== 1) {
      ops.push({write: path, text: `${roll(1e6)}`});
    } else {
      ops.push({write: path, text: `${roll(1e6)}`, ...(kind === 2 ? {executable: roll(2) === 0} : {})});
    }
    present.add(path);
    // Each path once a commit: what stands there after the first is not known here.
    break;
  }
  return ops;
}

for (const vcs of BOTH) {
  describe(`releases from ${vcs}`, () => {
    it('are complete copies of the revision, without the unversioned', async t => {
      const {config, releases, commit, expected, build} = rig(t, vcs);
      const revision = commit({write: 'a', text: '1'}, {write: 'bin/run', text: '1', executable: true}, {link: 'l', to: 'a'});
      mkdirSync(config.source.workingCopy);
      const dir = await build(1);
      assert.deepEqual(treeOf(dir), expected(revision));
      assert.equal(await releases.isComplete(id(1)), true);
      assert.equal(await releases.isComplete(id(2)), false);
      assert.equal(statSync(config.stateDir).mode & 0o777, 0o711);
      assert.equal(statSync(join(config.stateDir, 'manifests')).mode & 0o777, 0o700);
    });

    it('made out of a retired one are the same as made anew, whatever was committed and whatever was done to it', async t => {
      const seed = Number(process.env['OSYW_TEST_SEED'] ?? (vcs === 'svn' ? 11 : 22));
      const roll = dice(seed);
      const {config, releases, commit, expected, build} = rig(t, vcs);
      commit({write: 'a', text: '1'}, {write: 'b', text: '1'}, {write: 'd/x', text: '1'}, {write: 'd/e/f', text: '1'}, {write: 'keep', text: '1'});
      let number = 1;
      let current = treeOf(await build(number));
      let recycled = 0;
      for (let round = 0; round < 14; round++) {
        const revision = commit(...randomOps(current, roll));
        if (round % 2 === 1) tamper(join(config.stateDir, 'releases', id(number)), roll);
        // A file that git ignores or svn does not know must not get in.
        writeFileSync(join(config.source.workingCopy, 'unversioned'), 'mine');
        await releases.prune(number > 1 ? [id(number)] : []);
        if (number > 1 && round % 3 === 0) await releases.discard(id(number));
        recycled += existsSync(spareTree(config)) ? 1 : 0;
        number++;
        const dir = await build(number);
        current = treeOf(dir);
        assert.deepEqual(current, expected(revision), `seed ${seed}, round ${round}`);
        assert.deepEqual(treeOf(join(config.stateDir, 'releases', id(number))), current);
      }
      assert.ok(recycled >= 5, `only ${recycled} releases were made out of a retired one`);
    });

    it('copy only what changed', async t => {
      const {config, releases, commit, build} = rig(t, vcs);
      const many = Array.from({length: 150}, (_, i) => ({write: `d${i % 5}/f${i}`, text: 'x'.repeat(20_000)}));
      commit({write: 'changed', text: '1'}, ...many);
      await build(1);
      commit({write: 'changed', text: '2'});
      await build(2);
      await releases.prune([id(2)]);
      const inodes = new Map(many.map(({write}) => [write, lstatSync(join(spareTree(config), write)).ino]));
      commit({write: 'changed', text: '3'});
      const dir = await build(3);
      assert.equal(readFileSync(join(dir, 'changed'), 'utf8'), '3');
      assert.equal(existsSync(spareTree(config)), false);
      // What was written in the very tick in which the tree was read is copied again.
      const kept = many.filter(({write}) => lstatSync(join(dir, write)).ino === inodes.get(write));
      assert.ok(kept.length > 20, `${kept.length} of ${many.length} files were kept`);
    });
  });
}

function tamper(dir: string, roll: (below: number) => number): void {
  const files = Object.entries(treeOf(dir)).filter(([, line]) => line.startsWith('file')).map(([path]) => path);
  const path = join(dir, files[roll(files.length)] ?? 'keep');
  const stat = statSync(path);
  switch (roll(7)) {
    case 0: appendFileSync(path, 'x'); break;
    case 1: {
      // Same size, and its time set back: only inode and ctime tell.
      writeFileSync(path, 'z'.repeat(stat.size));
      utimesSync(path, stat.atime, stat.mtime);
      break;
    }
    case 2: rmSync(path); break;
    case 3: chmodSync(path, 0o600); break;
    case 4: {
      mkdirSync(join(dir, 'artefact/deep'), {recursive: true});
      writeFileSync(join(dir, 'artefact/deep/file'), 'x');
      break;
    }
    case 5: {
      rmSync(path);
      symlinkSync('/etc/passwd', path);
      break;
    }
    default: {
      rmSync(path);
      mkdirSync(path);
      writeFileSync(join(path, 'inside'), 'x');
    }
  }
}

describe('releases', () => {
  it('share paths: the first gives the content, later ones link to it', async t => {
    const {config, releases, commit, build} = rig(t, 'git', {release: {shared: ['data/uploads', 'empty', 'conf.ini']}});
    commit({write: 'a', text: '1'}, {write: 'data/uploads/first', text: 'initial'}, {write: 'conf.ini', text: 'k=v'});
    const first = await build(1);
    assert.ok(lstatSync(join(first, 'data/uploads')).isSymbolicLink());
    assert.equal(readFileSync(join(first, 'data/uploads/first'), 'utf8'), 'initial');
    writeFileSync(join(first, 'data/uploads/of-a-user'), 'precious');
    writeFileSync(join(first, 'empty/x'), 'precious');
    for (let n = 2; n < 5; n++) {
      commit({write: 'data/uploads/first', text: `changed ${n}`}, {write: 'a', text: String(n)});
      const next = await build(n);
      assert.equal(readFileSync(join(next, 'data/uploads/of-a-user'), 'utf8'), 'precious');
      assert.equal(readFileSync(join(next, 'data/uploads/first'), 'utf8'), 'initial');
      assert.equal(readFileSync(join(next, 'empty/x'), 'utf8'), 'precious');
      assert.equal(readFileSync(join(next, 'conf.ini'), 'utf8'), 'k=v');
      await releases.prune([id(n)]);
    }
    // Neither what is retired, nor what is thrown away, nor a change of versioned files there reaches the users' own.
    await releases.prune([]);
    commit({remove: 'data'}, {write: 'a', text: 'last'});
    await build(9);
    assert.equal(readFileSync(join(config.stateDir, 'shared/data/uploads/of-a-user'), 'utf8'), 'precious');
    assert.equal(readFileSync(join(config.stateDir, 'shared/data/uploads/first'), 'utf8'), 'initial');
  });

  it('refuse to begin without what the working copy keeps unversioned at a shared path', async t => {
    const {config, commit, build} = rig(t, 'git', {release: {shared: ['data', 'settings.ini', 'cache']}});
    commit({write: 'a', text: '1'}, {write: 'data/of-the-repository', text: 'versioned'});
    await build(1);
    const {workingCopy} = config.source;
    const shared = join(config.stateDir, 'shared');
    rmSync(shared, {recursive: true});
    mkdirSync(join(workingCopy, 'cache/empty'), {recursive: true});
    for (const path of ['data/deep/guests.db', 'settings.ini']) {
      mkdirSync(dirname(join(workingCopy, path)), {recursive: true});
      writeFileSync(join(workingCopy, path), 'precious');
      await assert.rejects(build(2), (error: unknown) => {
        assert.ok(error instanceof DeployError);
        assert.equal(error.code, 'BUILD_FAILED');
        assert.ok(error.message.includes(join(workingCopy, path)), error.message);
        const [, command = ''] = /have it: (.*?)\. To begin without/.exec(error.hint) ?? [];
        execFileSync('sh', ['-c', command]);
        return true;
      });
      // As the hint says: where it was it is still found.
      assert.equal(readFileSync(join(workingCopy, path), 'utf8'), 'precious');
    }
    const dir = await build(2);
    assert.equal(readFileSync(join(dir, 'data/deep/guests.db'), 'utf8'), 'precious');
    assert.equal(readFileSync(join(dir, 'settings.ini'), 'utf8'), 'precious');
    assert.deepEqual(readdirSync(join(dir, 'cache')), []);
  });

  it('refuse versioned links that lead out', async t => {
    for (const [path, to] of [['l', '/etc/passwd'], ['d/l', '../../etc'], ['l', '..'], ['d/l', 'x/../../../y']] as const) {
      const {releases, commit, build} = rig(t, 'git');
      commit({write: 'a', text: '1'}, {link: path, to});
      await assert.rejects(build(1), failure('BUILD_FAILED', path, to));
      assert.equal(await releases.isComplete(id(1)), false);
    }
    const {commit, build} = rig(t, 'git');
    commit({write: 'a', text: '1'}, {link: 'd/l', to: '../a'}, {link: 'dangling', to: 'nowhere'});
    await build(1);
  });

  it('are built by the commands, in order, in a clean environment', async t => {
    const {root, config, commit, build} = rig(t, 'git');
    commit({write: 'a', text: '1'});
    process.env['OSYW_LEAK'] = 'leak';
    t.after(() => delete process.env['OSYW_LEAK']);
    const lines: string[] = [];
    const dir = await build(1, {release: {build: [['sh', '-c', 'env > env.txt; echo one'], ['sh', '-c', 'echo two >&2; cat env.txt | wc -l > n']]}}, line => lines.push(line));
    assert.deepEqual(lines, ['one', 'two']);
    const environment = readFileSync(join(dir, 'env.txt'), 'utf8');
    assert.match(environment, /^OSYW_RELEASE=000001$/m);
    assert.match(environment, /^OSYW_REVISION=[0-9a-f]{40}$/m);
    assert.doesNotMatch(environment, /leak/);
    assert.match(readFileSync(join(config.stateDir, 'log/build-000001.log'), 'utf8'), /one\n.*two/s);
    assert.ok(existsSync(root));
  });

  it('fail with the command, its end, its last lines and the log', async t => {
    const {config, releases, commit, build} = rig(t, 'git');
    commit({write: 'a', text: '1'});
    const log = join(config.stateDir, 'log/build-000001.log');
    const cases: readonly (readonly [string[], readonly string[]])[] = [
      [['sh', '-c', 'seq 1 30; exit 3'], ['exit code 3', '\n30', log]],
      [['/nonexistent/tool'], ['/nonexistent/tool', 'not found']],
      [['sh', '-c', 'kill -TERM $$'], ['SIGTERM']],
      [['sh', '-c', 'mkfifo pipe'], ['FIFO', 'pipe']],
    ];
    for (const [command, words] of cases) {
      await assert.rejects(build(1, {release: {build: [command]}}), failure('BUILD_FAILED', ...words));
      assert.equal(await releases.isComplete(id(1)), false);
      await releases.discard(id(1));
      await releases.discard(id(1));
      assert.equal(existsSync(join(config.stateDir, 'releases', id(1))), false);
    }
    await build(1);
    assert.equal(await releases.isComplete(id(1)), true);
  });

  it('stop a build that hangs, with all it started', async t => {
    const {commit, build} = rig(t, 'git');
    commit({write: 'a', text: '1'});
    const begun = performance.now();
    await assert.rejects(build(1, {release: {buildTimeoutMs: 700, build: [['sh', '-c', 'setsid sleep 4711.1 & sleep 4711.2']]}}), failure('BUILD_FAILED', 'build_timeout'));
    assert.ok(performance.now() - begun < 15_000);
    assert.deepEqual(processesWith('4711.'), []);
  });

  it('leave no daemon of a build behind, and do not wait for it', async t => {
    const {releases, commit, build} = rig(t, 'git');
    commit({write: 'a', text: '1'});
    await build(1, {release: {build: [['sh', '-c', 'setsid sleep 4712.1 & sleep 4712.2 & echo done']]}});
    assert.deepEqual(processesWith('4712.'), []);
    assert.equal(await releases.isComplete(id(1)), true);
  });

  it('cut the log of a build that floods', async t => {
    const {config, commit, build} = rig(t, 'git');
    commit({write: 'a', text: '1'});
    await build(1, {release: {build: [['sh', '-c', 'yes 0123456789012345678901234567890123456789 | head -c 20000000; head -c 5000000 /dev/zero']]}});
    const log = join(config.stateDir, 'log/build-000001.log');
    assert.ok(statSync(log).size < 10.1 * 1024 * 1024);
    assert.match(readFileSync(log, 'utf8').slice(-100), /\[cut: more than 10 MB of output\]/);
  });

  it('are given to the build account, and made out of retired ones all the same', {skip: !isRoot && 'needs root'}, async t => {
    const {config, commit, expected, build, releases} = rig(t, 'git', {release: {build: [['sh', '-c', 'id -u > who; chmod u+s who']], buildUser: 'nobody'}});
    commit({write: 'a', text: '1'}, {write: 'd/b', text: '1'});
    await build(1);
    commit({write: 'a', text: '2'});
    await build(2);
    await releases.prune([id(2)]);
    assert.equal(statSync(join(spareTree(config), 'd/b')).uid, 65534);
    const revision = commit({write: 'a', text: '3'});
    const dir = await build(3);
    const {who, ...rest} = treeOf(dir);
    assert.equal(who, 'file 644 65534\n', 'built as nobody, without the setuid bit');
    assert.deepEqual(rest, expected(revision));
    assert.equal(statSync(join(dir, 'a')).uid, 65534);
    assert.equal(existsSync(spareTree(config)), false);
  });

  it('need room', async t => {
    const {config, commit, build} = rig(t, 'git');
    commit({write: 'a', text: '1'});
    await build(1);
    const marker = join(config.stateDir, 'manifests/000001.json');
    const known: unknown = JSON.parse(readFileSync(marker, 'utf8'));
    writeFileSync(marker, JSON.stringify({...(known as object), bytes: 2 ** 50}));
    await assert.rejects(build(2), failure('BUILD_FAILED', 'MB are free', 'MB are needed'));
  });

  it('keep what is kept or lived in, and one retired tree', async t => {
    const {root, config, releases, commit, build} = rig(t, 'git');
    for (let n = 1; n <= 5; n++) {
      commit({write: 'a', text: String(n)});
      await build(n);
    }
    const directory = join(config.stateDir, 'releases');
    const living = spawn('sleep', ['60'], {cwd: join(directory, id(2)), stdio: 'ignore'});
    t.after(() => living.kill('SIGKILL'));
    await new Promise<void>(resolve => living.once('spawn', resolve));
    // A release that is a link must not lead the removal astray.
    mkdirSync(join(root, 'victim'));
    writeFileSync(join(root, 'victim/precious'), 'x');
    symlinkSync(join(root, 'victim'), join(directory, id(6)));
    mkdirSync(join(directory, id(7)));
    for (let i = 0; i < 2; i++) {
      await releases.prune([id(5), id(4)]);
      assert.deepEqual(readdirSync(directory).toSorted(), [id(2), id(4), id(5)]);
    }
    assert.equal(readFileSync(join(spareTree(config), 'a'), 'utf8'), '3');
    assert.equal(existsSync(join(root, 'victim/precious')), true);
    assert.deepEqual([await releases.isComplete(id(1)), await releases.isComplete(id(5))], [false, true]);
    const ended = new Promise(resolve => living.once('close', resolve));
    living.kill('SIGKILL');
    await ended;
    await releases.prune([id(5), id(4)]);
    assert.deepEqual(readdirSync(directory).toSorted(), [id(4), id(5)]);
  });

  it('survive a torn manifest, a lost spare tree and half a release', async t => {
    const {config, releases, commit, expected, build} = rig(t, 'git');
    const damages = [
      () => writeFileSync(join(config.stateDir, 'spare/manifest'), readFileSync(join(config.stateDir, 'spare/manifest')).subarray(0, 200)),
      () => rmSync(join(config.stateDir, 'spare/manifest')),
      () => rmSync(spareTree(config), {recursive: true}),
      () => writeFileSync(join(config.stateDir, 'spare/manifest'), ''),
      () => {
        // As a crash between the two renames leaves it: an older manifest beside another tree.
        rmSync(spareTree(config), {recursive: true});
        mkdirSync(join(spareTree(config), 'x'), {recursive: true});
        linkSync(join(config.source.workingCopy, 'a'), join(spareTree(config), 'a'));
      },
      () => renameSync(join(spareTree(config), 'd'), join(spareTree(config), 'e')),
    ];
    let n = 1;
    commit({write: 'a', text: '0'}, {write: 'd/b', text: '1'});
    await build(n);
    for (const damage of damages) {
      const revision = commit({write: 'a', text: String(n)});
      await releases.discard(id(n));
      assert.equal(existsSync(spareTree(config)), true);
      damage();
      n++;
      mkdirSync(join(config.stateDir, 'releases', id(n)));
      writeFileSync(join(config.stateDir, 'releases', id(n), 'half'), 'x');
      const dir = await build(n);
      assert.deepEqual(treeOf(dir), expected(revision));
      assert.equal(readFileSync(join(config.source.workingCopy, 'a'), 'utf8'), String(n - 1));
    }
  });

  it('in place run where the working copy is', async t => {
    const {config, releases, commit, build} = rig(t, 'git', {release: {tree: 'in_place', build: [['sh', '-c', 'echo $PWD > built']]}});
    commit({write: 'a', text: '1'});
    const dir = await build(1);
    assert.equal(dir, config.source.workingCopy);
    assert.equal(readFileSync(join(dir, 'built'), 'utf8').trim(), dir);
    assert.equal(await releases.isComplete(id(1)), true);
    await releases.prune([]);
    assert.equal(await releases.isComplete(id(1)), false);
    assert.equal(existsSync(join(dir, 'a')), true);
    await build(2);
    await releases.discard(id(2));
    assert.equal(existsSync(join(dir, 'a')), true);
  });

  it('end with the reason of an abort in the middle of a build', async t => {
    const {releases, config, workingCopy, commit} = rig(t, 'git', {release: {build: [['sh', '-c', 'echo begun; sleep 4713']]}});
    commit({write: 'a', text: '1'});
    const revision = await workingCopy.resolve(undefined, never);
    await workingCopy.update(revision, never);
    const controller = new AbortController();
    const reason = new Error('stopped');
    await assert.rejects(releases.build({id: id(1), revision, dir: releases.dirOf(id(1))}, workingCopy, () => controller.abort(reason), controller.signal), reason);
    assert.deepEqual(processesWith('4713'), []);
    await releases.discard(id(1));
    assert.deepEqual(readdirSync(join(config.stateDir, 'releases')), []);
    assert.equal(existsSync(spareTree(config)), true);
  });

  it('keep relative links to what is shared', async t => {
    const {commit, build} = rig(t, 'git', {release: {shared: ['data']}});
    commit({write: 'a', text: '1'});
    const dir = await build(1);
    assert.equal(readlinkSync(join(dir, 'data')), '../../shared/data');
  });
});

function processesWith(argument: string): string[] {
  return readdirSync('/proc').filter(pid => {
    if (!/^\d+$/.test(pid) || Number(pid) === process.pid) return false;
    try {
      return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').some(arg => arg.startsWith(argument));
    } catch {
      return false;
    }
  });
}
