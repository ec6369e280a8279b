import assert from 'node:assert/strict';
import {randomBytes} from 'node:crypto';
import {existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync} from 'node:fs';
import {createServer as createHttpServer, type IncomingMessage, type ServerResponse} from 'node:http';
import {createServer as createHttpsServer} from 'node:https';
import {connect, createServer, type Socket} from 'node:net';
import {join} from 'node:path';
import {describe, it} from 'node:test';
import {openWorkingCopy} from '../../../src/working-copy/open-working-copy.ts';
import {leasePorts} from '../../support/free-ports.ts';
import {listens} from '../../support/nginx-rig.ts';
import {endChild, spawnBound} from '../../support/run.ts';
import {waitUntil} from '../../support/wait-until.ts';
import {failure} from './expect-failure.ts';
import {BOTH, configFor, createRepository, git, never, scratch, sh, svn, treeOf, type Repository, type Vcs} from './repositories.ts';

for (const vcs of BOTH) {
  describe(`working copy of ${vcs}`, () => {
    const set = (t: {after(fn: () => void): void}) => {
      const root = scratch(t);
      const repository = createRepository(vcs, root);
      const config = configFor(root, repository);
      return {root, repository, config, wc: config.source.workingCopy, open: () => openWorkingCopy(config)};
    };
    const deploy = async (copy: ReturnType<typeof openWorkingCopy>, wanted?: string) => {
      const revision = await copy.resolve(wanted, never);
      await copy.update(revision, never);
      return revision;
    };
    const assertTree = (repository: Repository, revision: string, root: string, directory: string) => {
      const expected = join(root, `expected-${revision}`);
      mkdirSync(expected);
      repository.exportBy(revision, expected);
      assert.deepEqual(treeOf(directory), treeOf(expected));
    };

    it('is checked out when it is missing, and exports exactly the revision', async t => {
      const {root, repository, config} = set(t);
      const revision = repository.commit(
        {write: 'a.txt', text: 'one\n'}, {write: 'bin/run', text: '#!/bin/sh\n', executable: true}, {link: 'current', to: 'bin/run'},
        {write: 'sp ace/é@x.txt', text: 'odd\n'}, {write: '-x', text: 'dash\n'}, {write: 'a@b', text: 'peg\n'}, {write: '$(touch pwned)', text: 'x\n'}, {write: 'end@', text: 'x\n'},
      );
      const deep = {...config, source: {...config.source, workingCopy: join(root, 'deep/er/wc')}};
      const copy = openWorkingCopy(deep);
      assert.equal(await deploy(copy), revision);
      assertTree(repository, revision, root, deep.source.workingCopy);
      const out = join(root, 'out');
      mkdirSync(out);
      await copy.exportTo(out, revision, never);
      assert.deepEqual(treeOf(out), treeOf(deep.source.workingCopy));
      assert.equal(existsSync(join(root, 'pwned')), false);
    });

    it('is checked out into an empty directory, and follows commits', async t => {
      const {root, repository, wc, open} = set(t);
      mkdirSync(wc);
      const first = repository.commit({write: 'a', text: '1'}, {write: 'gone/b', text: '1'});
      assert.equal(await deploy(open()), first);
      const second = repository.commit({write: 'a', text: '2'}, {remove: 'gone'}, {write: 'new/c', text: '1'});
      const copy = open();
      assert.equal(await deploy(copy), second);
      assertTree(repository, second, root, wc);
      assert.notEqual(first, second);
    });

    it('tells what changed between two revisions, in both directions', async t => {
      const {repository, open} = set(t);
      const first = repository.commit({write: 'same', text: '1'}, {write: 'a@b', text: '1'}, {write: 'gone/é x', text: '1'});
      const copy = open();
      await deploy(copy);
      await copy.changedPaths(first, first, never); // The first release of all asks for nothing else.
      const second = repository.commit({write: 'a@b', text: '2'}, {remove: 'gone'}, {write: 'new', text: '1'});
      await deploy(copy);
      const files = (paths: readonly string[] | undefined) => paths?.filter(path => path !== 'gone').toSorted();
      if (vcs === 'svn') {
        const out = join(scratch(t), 'out');
        mkdirSync(out);
        await copy.exportTo(out, second, never);
      }
      const known = await copy.changedPaths(first, second, never);
      if (vcs === 'git') assert.deepEqual(files(known), ['a@b', 'gone/é x', 'new']);
      else assert.ok(known === undefined || files(known)?.join() === 'a@b,gone/é x,new');
      assert.equal(await copy.changedPaths(vcs === 'svn' ? 'r9999' : 'f'.repeat(40), second, never), undefined);
    });

    it('brings an older revision back, and then the newest again', async t => {
      const {root, repository, wc, open} = set(t);
      const first = repository.commit({write: 'a', text: '1'});
      const second = repository.commit({write: 'a', text: '2'});
      await deploy(open());
      const wanted = vcs === 'svn' ? first.slice(1) : first.slice(0, 10);
      assert.equal(await deploy(open(), wanted), first);
      assertTree(repository, first, root, wc);
      assert.equal(await deploy(open()), second);
    });

    it('refuses malformed revisions as usage, unknown ones as a failed update', async t => {
      const {repository, open} = set(t);
      repository.commit({write: 'a', text: '1'});
      await deploy(open());
      for (const bad of ['', 'HEAD', '-r1', '--upload-pack=touch x', 'r', '41;id', '$(id)', 'r-1', 'main', '../x', '1'.repeat(99)]) {
        await assert.rejects(open().resolve(bad, never), failure('USAGE'), bad);
      }
      const unknown = vcs === 'svn' ? ['r99999', '4000'] : ['f'.repeat(40), 'abcdef0'];
      for (const bad of unknown) await assert.rejects(open().resolve(bad, never), failure('UPDATE_FAILED'), bad);
    });

    it('stops at a local edit, even one that would merge; names the file and keeps the edit', async t => {
      const {repository, wc, open} = set(t);
      const text = Array.from({length: 40}, (_, i) => `line ${i}\n`).join('');
      repository.commit({write: 'sub/edited.py', text}, {write: 'other', text: '1'});
      await deploy(open());
      repository.commit({write: 'sub/edited.py', text: `${text}end\n`});
      writeFileSync(join(wc, 'sub/edited.py'), `mine\n${text}`);
      await assert.rejects(deploy(open()), failure('UPDATE_FAILED', 'sub/edited.py', 'diff'));
      assert.equal(readFileSync(join(wc, 'sub/edited.py'), 'utf8'), `mine\n${text}`);
    });

    it('stops at an edit although there is nothing new', async t => {
      const {repository, wc, open} = set(t);
      repository.commit({write: 'a', text: '1'});
      await deploy(open());
      writeFileSync(join(wc, 'a'), 'mine');
      await assert.rejects(deploy(open()), failure('UPDATE_FAILED', 'a'));
    });

    it('stops at what is scheduled: an added file, a deleted one', async t => {
      const {repository, wc, open} = set(t);
      repository.commit({write: 'a', text: '1'}, {write: 'b', text: '1'});
      await deploy(open());
      const run = (...args: string[]) => vcs === 'svn' ? svn(wc, ...args) : git(wc, ...args);
      writeFileSync(join(wc, 'fresh'), 'mine');
      run('add', 'fresh');
      await assert.rejects(deploy(open()), failure('UPDATE_FAILED', 'fresh'));
      if (vcs === 'svn') svn(wc, 'revert', 'fresh');
      else git(wc, 'reset', '-q', '--', 'fresh');
      run('rm', 'b');
      await assert.rejects(deploy(open()), failure('UPDATE_FAILED', 'b'));
      assert.equal(readFileSync(join(wc, 'fresh'), 'utf8'), 'mine');
    });

    it('names ten files at most', async t => {
      const {repository, wc, open} = set(t);
      repository.commit(...Array.from({length: 13}, (_, i) => ({write: `f${i}`, text: '1'})));
      await deploy(open());
      for (let i = 0; i < 13; i++) writeFileSync(join(wc, `f${i}`), 'mine');
      await assert.rejects(deploy(open()), failure('UPDATE_FAILED', 'and 3 more'));
    });

    it('brings missing files and directories back', async t => {
      const {root, repository, wc, open} = set(t);
      const revision = repository.commit({write: 'a', text: '1'}, {write: 'dir/b', text: '1'}, {write: 'dir/sub/c', text: '1'});
      await deploy(open());
      rmSync(join(wc, 'a'));
      rmSync(join(wc, 'dir'), {recursive: true});
      await deploy(open());
      assertTree(repository, revision, root, wc);
      rmSync(join(wc, 'dir'), {recursive: true});
      const next = repository.commit({write: 'dir/b', text: '2'});
      await deploy(open());
      assertTree(repository, next, root, wc);
    });

    it('leaves unversioned files alone and does not export them', async t => {
      const {root, repository, wc, open} = set(t);
      repository.commit({write: 'a', text: '1'}, {write: 'pkg/m.py', text: '1'});
      await deploy(open());
      writeFileSync(join(wc, 'notes.txt'), 'mine');
      mkdirSync(join(wc, 'pkg/__pycache__'));
      writeFileSync(join(wc, 'pkg/__pycache__/m.pyc'), 'x');
      const next = repository.commit({remove: 'pkg'}, {write: 'b', text: '1'});
      const copy = open();
      await deploy(copy);
      assert.equal(readFileSync(join(wc, 'notes.txt'), 'utf8'), 'mine');
      assert.equal(existsSync(join(wc, 'pkg/__pycache__/m.pyc')), true);
      const out = join(root, 'out');
      mkdirSync(out);
      await copy.exportTo(out, next, never);
      assert.deepEqual(Object.keys(treeOf(out)), ['a', 'b']);
    });

    it('refuses an unversioned file in the way of a new one, and goes on once it is moved', async t => {
      const {root, repository, wc, open} = set(t);
      repository.commit({write: 'a', text: '1'});
      await deploy(open());
      writeFileSync(join(wc, 'incoming'), 'mine');
      const next = repository.commit({write: 'incoming', text: 'theirs'});
      for (let i = 0; i < 2; i++) {
        await assert.rejects(deploy(open()), failure('UPDATE_FAILED', 'incoming'));
        assert.equal(readFileSync(join(wc, 'incoming'), 'utf8'), 'mine');
      }
      rmSync(join(wc, 'incoming'));
      await deploy(open());
      assertTree(repository, next, root, wc);
    });

    it('refuses a directory where a versioned file belongs', async t => {
      const {repository, wc, open} = set(t);
      repository.commit({write: 'a', text: '1'}, {write: 'b', text: '1'});
      await deploy(open());
      rmSync(join(wc, 'a'));
      mkdirSync(join(wc, 'a'));
      writeFileSync(join(wc, 'a/mine'), 'mine');
      await assert.rejects(deploy(open()), failure('UPDATE_FAILED', 'a'));
      assert.equal(readFileSync(join(wc, 'a/mine'), 'utf8'), 'mine');
    });

    it('leaves a directory alone that is no working copy, and a file', async t => {
      const {repository, wc, open} = set(t);
      repository.commit({write: 'a', text: '1'});
      mkdirSync(wc);
      writeFileSync(join(wc, 'precious'), 'mine');
      await assert.rejects(deploy(open()), failure('UPDATE_FAILED', wc));
      assert.deepEqual(readdirSync(wc), ['precious']);
      rmSync(wc, {recursive: true});
      writeFileSync(wc, 'a file');
      await assert.rejects(deploy(open()), failure('UPDATE_FAILED', wc));
    });

    it('takes the URL from the working copy when none is configured', async t => {
      const {repository, config, open} = set(t);
      repository.commit({write: 'a', text: '1'});
      await deploy(open());
      const bare = {...config, source: {...config.source, url: undefined, vcs: undefined, branch: undefined}};
      const next = repository.commit({write: 'a', text: '2'});
      assert.equal(await deploy(openWorkingCopy(bare)), next);
    });

    it('says what to do without working copy and URL', async t => {
      const {config} = set(t);
      const bare = {...config, source: {...config.source, url: undefined}};
      await assert.rejects(openWorkingCopy(bare).resolve(undefined, never), failure('UPDATE_FAILED', 'source.url'));
      assert.throws(() => openWorkingCopy({...bare, source: {...bare.source, vcs: undefined}}), failure('CONFIG_INVALID', 'source.url'));
    });

    it('finds the system of a repository on this machine', async t => {
      const {repository, config} = set(t);
      repository.commit({write: 'a', text: '1'});
      assert.equal(openWorkingCopy({...config, source: {...config.source, vcs: undefined}}).vcs, vcs);
      const path = vcs === 'svn' ? repository.url.slice('file://'.length) : `file://${repository.url}`;
      const other = openWorkingCopy({...config, source: {...config.source, vcs: undefined, url: path}});
      assert.equal(other.vcs, vcs);
      await deploy(other);
    });

    it('fails on a repository that is not there', async t => {
      const {root, config} = set(t);
      const lost = {...config, source: {...config.source, url: vcs === 'svn' ? `file://${root}/nowhere/trunk` : join(root, 'nowhere.git')}};
      await assert.rejects(openWorkingCopy(lost).resolve(undefined, never), failure('UPDATE_FAILED'));
    });

    it('writes nothing when it only asks', async t => {
      const {root, repository, config, wc} = set(t);
      repository.commit({write: 'a', text: '1'});
      await openWorkingCopy(config).resolve(undefined, never);
      assert.equal(existsSync(config.stateDir), false);
      assert.equal(existsSync(wc), false);
      mkdirSync(config.stateDir);
      await openWorkingCopy(config).resolve(undefined, never);
      assert.deepEqual(readdirSync(config.stateDir), []);
      assert.deepEqual(readdirSync(root).filter(name => name.startsWith('osyw')), []);
    });

    it('ends at the deadline when the server says nothing', async t => {
      const {config} = set(t);
      const server = createServer(() => {});
      await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
      t.after(() => server.close());
      const address = server.address();
      assert.ok(typeof address === 'object' && address !== null);
      const url = `${vcs}://127.0.0.1:${address.port}/x`;
      const begun = performance.now();
      await assert.rejects(openWorkingCopy({...config, source: {...config.source, url, timeoutMs: 600}}).resolve(undefined, never), failure('UPDATE_FAILED', 'source.timeout'));
      assert.ok(performance.now() - begun < 10_000);
    });

    it('asks a server that refuses a few times, then fails', async t => {
      const {config} = set(t);
      await assert.rejects(openWorkingCopy({...config, source: {...config.source, url: `${vcs}://127.0.0.1:9/x`}}).resolve(undefined, never), failure('UPDATE_FAILED', 'does not answer'));
    });

    it('ends with the reason of an abort', async t => {
      const {repository, open} = set(t);
      repository.commit({write: 'a', text: '1'});
      const reason = new Error('stopped by SIGTERM');
      await assert.rejects(open().resolve(undefined, AbortSignal.abort(reason)), reason);
      const controller = new AbortController();
      const pending = open().resolve(undefined, controller.signal);
      controller.abort(reason);
      await assert.rejects(pending, reason);
    });

    it('completes a checkout that was broken off', async t => {
      const {root, repository, wc, open} = set(t);
      const revision = repository.commit(...Array.from({length: 60}, (_, i) => ({write: `d${i % 7}/f${i}`, text: 'x'.repeat(2000)})));
      for (const ms of [15, 40, 80]) {
        const controller = new AbortController();
        const copy = open();
        await copy.resolve(undefined, never);
        const timer = globalThis.setTimeout(() => controller.abort(new Error('killed')), ms);
        await copy.update(revision, controller.signal).catch(() => {});
        clearTimeout(timer);
      }
      await deploy(open());
      assertTree(repository, revision, root, wc);
    });

    it('completes an update that was broken off', async t => {
      const {root, repository, wc, open} = set(t);
      repository.commit(...Array.from({length: 60}, (_, i) => ({write: `d${i % 7}/f${i}`, text: 'x'})));
      await deploy(open());
      const revision = repository.commit(...Array.from({length: 60}, (_, i) => ({write: `d${i % 7}/f${i}`, text: 'y'.repeat(3000)})));
      for (const ms of [20, 35, 50]) {
        const controller = new AbortController();
        const copy = open();
        await copy.resolve(undefined, never);
        const timer = globalThis.setTimeout(() => controller.abort(new Error('killed')), ms);
        await copy.update(revision, controller.signal).catch(() => {});
        clearTimeout(timer);
      }
      await deploy(open());
      assertTree(repository, revision, root, wc);
    });

    it('takes nothing from the environment that it was started in', async t => {
      const {repository, wc, open} = set(t);
      const revision = repository.commit({write: 'é.txt', text: '1'});
      const hostile = {GIT_DIR: '.', GIT_INDEX_FILE: '/nonexistent/index', GIT_EXEC_PATH: '/nonexistent', GIT_QUARANTINE_PATH: '/x', LC_ALL: 'C', SVN_SSH: 'false', PATH: '/nonexistent'};
      const before = {...process.env};
      Object.assign(process.env, hostile);
      try {
        assert.equal(await deploy(open()), revision);
      } finally {
        for (const key of Object.keys(hostile)) delete process.env[key];
        Object.assign(process.env, before);
      }
      assert.deepEqual(Object.keys(treeOf(wc)), ['é.txt']);
    });

    it('is of the revision that was asked for, whatever is committed meanwhile', async t => {
      const {root, repository, wc, open} = set(t);
      repository.commit({write: 'a', text: '0'});
      await deploy(open());
      const revision = repository.commit({write: 'a', text: '1'}, {write: 'gone', text: '1'});
      const copy = open();
      assert.equal(await copy.resolve(undefined, never), revision);
      repository.commit({write: 'a', text: '2'}, {remove: 'gone'}, {write: 'late', text: '1'});
      await copy.update(revision, never);
      assertTree(repository, revision, root, wc);
      repository.commit({write: 'a', text: '3'});
      const out = join(root, 'out');
      mkdirSync(out);
      await copy.exportTo(out, revision, never);
      assert.deepEqual(treeOf(out), treeOf(wc));
    });

    it('is whole after its connections were cut, in the first checkout and in an update', async t => {
      const {root, repository, config, wc} = set(t);
      const line = await serveBehindWire(t, vcs, root);
      const open = () => openWorkingCopy({...config, source: {...config.source, url: line.url, timeoutMs: 8000}});
      // What does not compress, so that there is much to be cut.
      const files = () => Array.from({length: 40}, (_, i) => ({write: `d${i % 7}/f${i}`, text: randomBytes(6000).toString('base64')}));
      for (const bytes of [30_000, 100_000]) {
        const revision = repository.commit(...files());
        const before = line.cuts();
        line.cutAfter(bytes);
        // It may also get there by itself, a piece in each attempt.
        await deploy(open()).catch(failure('UPDATE_FAILED'));
        assert.ok(line.cuts() > before, 'it was cut');
        line.cutAfter(Infinity);
        assert.equal(await deploy(open()), revision);
        assertTree(repository, revision, root, wc);
      }
    });

    it('ends at the deadline when the server says one byte at a time', async t => {
      const {root, repository, config} = set(t);
      repository.commit({write: 'a', text: '1'});
      const line = await serveBehindWire(t, vcs, root);
      line.trickle(100);
      const begun = performance.now();
      await assert.rejects(deploy(openWorkingCopy({...config, source: {...config.source, url: line.url, timeoutMs: 1000}})), failure('UPDATE_FAILED', 'source.timeout'));
      assert.ok(performance.now() - begun < 10_000);
    });

    it('asks no person for a password or for trust', async t => {
      const {root, config} = set(t);
      sh('openssl', ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', '/CN=localhost', '-keyout', join(root, 'key.pem'), '-out', join(root, 'cert.pem')]);
      const refuse = (_: IncomingMessage, answer: ServerResponse) => answer.writeHead(401, {'WWW-Authenticate': 'Basic realm="osyw"'}).end();
      const servers = [['http', createHttpServer(refuse)], ['https', createHttpsServer({key: readFileSync(join(root, 'key.pem')), cert: readFileSync(join(root, 'cert.pem'))}, refuse)]] as const;
      for (const [scheme, server] of servers) {
        await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
        t.after(() => server.close());
        const address = server.address();
        assert.ok(typeof address === 'object' && address !== null);
        const begun = performance.now();
        const copy = openWorkingCopy({...config, source: {...config.source, url: `${scheme}://127.0.0.1:${address.port}/x`, timeoutMs: 20_000}});
        await assert.rejects(copy.resolve(undefined, never), error => failure('UPDATE_FAILED')(error) && !(error as Error).message.includes('source.timeout'), scheme);
        assert.ok(performance.now() - begun < 15_000, `${scheme}: nobody waited for an answer`);
      }
    });

    it('skips the update at the same revision', async t => {
      const {repository, wc, open} = set(t);
      repository.commit({write: 'a', text: '1'});
      await deploy(open());
      const database = join(wc, vcs === 'svn' ? '.svn/wc.db' : '.git/HEAD');
      const before = statSync(database).mtimeMs;
      await deploy(open());
      assert.equal(statSync(database).mtimeMs, before);
    });
  });
}

interface Wire {
  /** The repository's, behind the wire. */
  readonly url: string;
  /** Every connection is reset after so many bytes of the server's. */
  cutAfter(bytes: number): void;
  cuts(): number;
  /** From now on the server's bytes come singly, so long apart. */
  trickle(everyMs: number): void;
}

/** The repository below `root`, served by the system's own server behind a wire that the test can cut. */
async function serveBehindWire(t: {after(fn: () => Promise<void>): void}, vcs: Vcs, root: string): Promise<Wire> {
  const lease = await leasePorts(1);
  const port = lease.first;
  const [file, args]: [string, string[]] = vcs === 'svn'
    ? ['/usr/bin/svnserve', ['--daemon', '--foreground', '--listen-host', '127.0.0.1', '--listen-port', String(port), '--root', root]]
    : ['/usr/lib/git-core/git-daemon', ['--reuseaddr', '--export-all', '--listen=127.0.0.1', `--port=${port}`, `--base-path=${root}`, root]];
  const child = spawnBound(file, args, {stdio: 'ignore', env: {PATH: '/usr/bin:/bin', HOME: '/nonexistent'}});
  let [most, cuts, everyMs] = [Infinity, 0, 0];
  const sockets = new Set<Socket>();
  const wire = createServer({noDelay: true}, near => {
    const far = connect({port, host: '127.0.0.1', noDelay: true});
    for (const socket of [near, far]) sockets.add(socket.on('error', () => {}).on('close', () => void [near.destroy(), far.destroy()]));
    near.pipe(far);
    let left = most;
    const held: Buffer[] = [];
    far.on('data', (bytes: Buffer) => {
      if (everyMs > 0) {
        held.push(bytes);
        return;
      }
      near.write(bytes.subarray(0, left));
      left -= bytes.length;
      if (left >= 0) return;
      cuts++;
      near.resetAndDestroy();
    });
    if (everyMs === 0) return;
    const timer = setInterval(() => {
      const [first] = held;
      if (first === undefined) return;
      near.write(first.subarray(0, 1));
      if (first.length > 1) held[0] = first.subarray(1);
      else held.shift();
    }, everyMs);
    near.once('close', () => clearInterval(timer));
  });
  t.after(async () => {
    for (const socket of sockets) socket.destroy();
    wire.close();
    await endChild(child);
    await lease.release();
  });
  await waitUntil('the server to listen', () => listens(port));
  await new Promise<void>(resolve => wire.listen(0, '127.0.0.1', resolve));
  const address = wire.address();
  assert.ok(typeof address === 'object' && address !== null);
  return {
    url: `${vcs}://127.0.0.1:${address.port}/${vcs === 'svn' ? 'repo/trunk' : 'repo.git'}`,
    cutAfter: bytes => void (most = bytes),
    cuts: () => cuts,
    trickle: ms => void (everyMs = ms),
  };
}
