import assert from 'node:assert/strict';
import {spawn} from 'node:child_process';
import {closeSync, copyFileSync, existsSync, mkdirSync, openSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync, writeSync} from 'node:fs';
import {createServer} from 'node:net';
import {join} from 'node:path';
import {describe, it} from 'node:test';
import {liveCommands} from '../../../src/working-copy/live-commands.ts';
import {openWorkingCopy} from '../../../src/working-copy/open-working-copy.ts';
import {failure} from './expect-failure.ts';
import {configFor, createRepository, never, scratch, sh, svn, treeOf} from './repositories.ts';

const sql = (wc: string, text: string) => sh('python3', ['-c', 'import sqlite3,sys; c=sqlite3.connect(sys.argv[1]); c.executescript(sys.argv[2]); c.commit()', join(wc, '.svn/wc.db'), text]);

describe('svn working copy', () => {
  const set = (t: {after(fn: () => void): void}) => {
    const root = scratch(t);
    const repository = createRepository('svn', root);
    const config = configFor(root, repository);
    const open = () => openWorkingCopy(config);
    const deploy = async (copy = open(), wanted?: string) => {
      const revision = await copy.resolve(wanted, never);
      await copy.update(revision, never);
      return revision;
    };
    return {root, repository, config, wc: config.source.workingCopy, open, deploy};
  };

  it('names a revision by the last change of the URL, wherever else somebody commits', async t => {
    const {root, repository, config, deploy} = set(t);
    const asking = () => openWorkingCopy(config, {onlyAsks: true});
    const first = repository.commit({write: 'a', text: '1'});
    assert.equal(await deploy(), first);
    svn(root, 'mkdir', '-q', '-m', 'elsewhere', repository.url.replace('trunk', 'elsewhere'));
    assert.equal(await asking().resolve(undefined, never), first);
    assert.equal(await asking().resolve(`r${Number(first.slice(1)) + 1}`, never), first, 'the same tree under a later number');
    await assert.rejects(asking().resolve(`r${Number(first.slice(1)) + 2}`, never), failure('UPDATE_FAILED', `r${Number(first.slice(1)) + 2}`));
    assert.equal(config.source.url, repository.url);
  });

  it('leaves nothing running behind a refusal', async t => {
    const {repository, wc, deploy, open} = set(t);
    repository.commit(...Array.from({length: 300}, (_, i) => ({write: `d${i % 9}/f${i}`, text: 'x'})));
    await deploy();
    await assert.rejects(open().resolve('r99', never), failure('UPDATE_FAILED', 'r99'));
    assert.deepEqual(liveCommands('svn', wc), []);
  });

  it('brings a tree whose parent directory was moved later', async t => {
    const {root, repository, config} = set(t);
    const revision = repository.commit({write: 'a', text: '1'});
    const top = repository.url.slice(0, -'/trunk'.length);
    svn(root, 'mkdir', '-q', '-m', 'group', `${top}/group`);
    svn(root, 'move', '-q', '-m', 'into the group', `${top}/trunk`, `${top}/group/trunk`);
    svn(root, 'move', '-q', '-m', 'rename the group', `${top}/group`, `${top}/moved`);
    const moved = {...config, source: {...config.source, url: `${top}/moved/trunk`}};
    const copy = openWorkingCopy(moved);
    const found = await copy.resolve(undefined, never);
    assert.notEqual(found, revision);
    await copy.update(found, never);
    assert.deepEqual(Object.keys(treeOf(config.source.workingCopy)), ['a']);
  });

  it('heals a lock that a dead svn left', async t => {
    const {repository, wc, deploy} = set(t);
    repository.commit({write: 'sub/a', text: '1'});
    await deploy();
    sql(wc, 'insert into wc_lock (wc_id, local_dir_relpath, locked_levels) values (1, \'\', -1);');
    const next = repository.commit({write: 'sub/a', text: '2'});
    assert.equal(await deploy(), next);
    sql(wc, 'insert into wc_lock (wc_id, local_dir_relpath, locked_levels) values (1, \'sub\', 0);');
    repository.commit({write: 'sub/a', text: '3'});
    await deploy();
    assert.equal(readFileSync(join(wc, 'sub/a'), 'utf8'), '3');
  });

  it('heals an update that was killed', async t => {
    const {repository, wc, deploy} = set(t);
    repository.commit(...Array.from({length: 150}, (_, i) => ({write: `d${i % 9}/f${i}`, text: 'x'})));
    await deploy();
    const next = repository.commit(...Array.from({length: 150}, (_, i) => ({write: `d${i % 9}/f${i}`, text: 'y'.repeat(4000)})));
    for (const lines of [1, 40, 90]) {
      const child = spawn('svn', ['update', '--non-interactive', wc], {stdio: ['ignore', 'pipe', 'ignore']});
      await new Promise<void>(resolve => {
        let seen = 0;
        child.stdout.on('data', (chunk: Buffer) => {
          seen += chunk.toString().split('\n').length - 1;
          if (seen >= lines) child.kill('SIGKILL');
        });
        child.on('close', () => resolve());
      });
    }
    assert.equal(await deploy(), next);
    assert.equal(readFileSync(join(wc, 'd0/f0'), 'utf8'), 'y'.repeat(4000));
    assert.equal(svn(wc, 'status'), '');
  });

  it('heals mixed revisions, and a file that is set to "not present"', async t => {
    const {repository, wc, deploy} = set(t);
    const first = repository.commit({write: 'a', text: '1'}, {write: 'sub/b', text: '1'});
    const second = repository.commit({write: 'a', text: '2'}, {write: 'sub/b', text: '2'}, {write: 'late', text: '1'});
    await deploy();
    svn(wc, 'update', '-q', '-r', first.slice(1), 'sub');
    await deploy();
    assert.equal(sh('svnversion', [wc]).trim(), second.slice(1));
    svn(wc, 'update', '-q', '-r', first.slice(1), 'late');
    assert.equal(existsSync(join(wc, 'late')), false);
    await deploy();
    assert.equal(existsSync(join(wc, 'late')), true);
  });

  it('refuses conflicts, tree conflicts and edited properties, each by name', async t => {
    const {repository, wc, deploy} = set(t);
    repository.commit({write: 'a', text: '1\n'}, {write: 'b', text: '1\n'}, {write: 'c', text: '1\n'});
    await deploy();
    writeFileSync(join(wc, 'a'), 'mine\n');
    repository.commit({write: 'a', text: 'theirs\n'});
    svn(wc, 'update', '-q');
    await assert.rejects(deploy(), failure('UPDATE_FAILED', 'Conflicts', 'a'));
    svn(wc, 'revert', '-q', 'a');
    writeFileSync(join(wc, 'b'), 'mine\n');
    repository.commit({remove: 'b'});
    svn(wc, 'update', '-q');
    await assert.rejects(deploy(), failure('UPDATE_FAILED', 'b'));
    assert.equal(readFileSync(join(wc, 'b'), 'utf8'), 'mine\n');
    svn(wc, 'resolve', '-q', '--accept', 'working', 'b');
    svn(wc, 'revert', '-q', 'b');
    rmSync(join(wc, 'b'), {force: true});
    svn(wc, 'propset', '-q', 'osyw', 'x', 'c');
    await assert.rejects(deploy(), failure('UPDATE_FAILED', 'c', 'svn revert'));
  });

  it('refuses a copy that is switched, as a whole or in part, and a sparse one', async t => {
    const {root, repository, config, wc, deploy} = set(t);
    repository.commit({write: 'sub/a', text: '1'}, {write: 'b', text: '1'});
    await deploy();
    const branch = repository.url.replace('trunk', 'branch');
    svn(root, 'copy', '-q', '-m', 'branch', repository.url, branch);
    svn(wc, 'switch', '-q', branch);
    await assert.rejects(deploy(), failure('UPDATE_FAILED', branch, repository.url, 'svn switch'));
    svn(wc, 'switch', '-q', repository.url);
    svn(wc, 'switch', '-q', `${branch}/sub`, join(wc, 'sub'));
    await assert.rejects(deploy(), failure('UPDATE_FAILED', 'sub'));
    svn(wc, 'switch', '-q', `${repository.url}/sub`, join(wc, 'sub'));
    svn(wc, 'update', '-q', '--set-depth', 'exclude', 'sub');
    await assert.rejects(deploy(), failure('UPDATE_FAILED', 'sparse', '--set-depth infinity'));
    assert.equal(config.source.url, repository.url);
  });

  it('refuses a damaged copy, and leaves it as it is', async t => {
    const {repository, wc, deploy} = set(t);
    repository.commit({write: 'a', text: '1'});
    await deploy();
    writeFileSync(join(wc, 'mine'), 'mine');
    const fd = openSync(join(wc, '.svn/wc.db'), 'r+');
    writeSync(fd, Buffer.alloc(8192, 0x5a), 0, 8192, 0);
    closeSync(fd);
    await assert.rejects(deploy(), failure('UPDATE_FAILED', 'damaged', 'mv '));
    assert.equal(readFileSync(join(wc, 'mine'), 'utf8'), 'mine');
    renameSync(wc, `${wc}.damaged`);
    await deploy();
    assert.deepEqual(Object.keys(treeOf(wc)), ['a']);
  });

  it('waits for a database that is busy for a moment', async t => {
    const {repository, wc, deploy} = set(t);
    repository.commit({write: 'a', text: '1'});
    await deploy();
    const next = repository.commit({write: 'a', text: '2'});
    const holder = spawn('python3', ['-c', 'import sqlite3,sys,time; c=sqlite3.connect(sys.argv[1],isolation_level=None); c.execute("begin exclusive"); print("held",flush=True); time.sleep(0.7); c.execute("commit")', join(wc, '.svn/wc.db')], {stdio: ['ignore', 'pipe', 'inherit']});
    t.after(() => holder.kill('SIGKILL'));
    await new Promise(resolve => holder.stdout.once('data', resolve));
    assert.equal(await deploy(), next);
  });

  it('gives up on a database that stays busy, and goes on when it is free', async t => {
    const {repository, config, wc, deploy} = set(t);
    repository.commit({write: 'a', text: '1'});
    await deploy();
    const next = repository.commit({write: 'a', text: '2'});
    const holder = spawn('python3', ['-c', 'import sqlite3,sys; c=sqlite3.connect(sys.argv[1],isolation_level=None); c.execute("begin exclusive"); print("held",flush=True); sys.stdin.read()', join(wc, '.svn/wc.db')], {stdio: ['pipe', 'pipe', 'inherit']});
    t.after(() => holder.kill('SIGKILL'));
    await new Promise(resolve => holder.stdout.once('data', resolve));
    const impatient = openWorkingCopy({...config, source: {...config.source, timeoutMs: 1500}});
    await assert.rejects(deploy(impatient), failure('UPDATE_FAILED'));
    assert.equal(readFileSync(join(wc, 'a'), 'utf8'), '1');
    const ended = new Promise(resolve => holder.once('close', resolve));
    holder.stdin.end();
    await ended;
    assert.equal(await deploy(), next);
  });

  it('waits for the lock of a living svn, then names it', async t => {
    const {root, repository, config, wc, deploy} = set(t);
    repository.commit({write: 'a', text: '1'});
    await deploy();
    repository.commit({write: 'a', text: '2'});
    sql(wc, 'insert into wc_lock (wc_id, local_dir_relpath, locked_levels) values (1, \'\', -1);');
    mkdirSync(join(root, 'bin'));
    copyFileSync('/bin/sleep', join(root, 'bin/svn'));
    const living = spawn(join(root, 'bin/svn'), ['60'], {cwd: wc, stdio: 'ignore'});
    t.after(() => living.kill('SIGKILL'));
    const impatient = openWorkingCopy({...config, source: {...config.source, timeoutMs: 1500}});
    await assert.rejects(deploy(impatient), failure('UPDATE_FAILED', String(living.pid)));
    assert.equal(readFileSync(join(wc, 'a'), 'utf8'), '1');
    const ended = new Promise(resolve => living.once('close', resolve));
    living.kill('SIGKILL');
    await ended;
    await deploy();
    assert.equal(readFileSync(join(wc, 'a'), 'utf8'), '2');
  });

  it('expands keywords, and leaves externals out', async t => {
    const {root, repository, wc, open, deploy} = set(t);
    repository.commit({write: 'a', text: '$Rev$ $Author$\n'});
    svn(repository.dev, 'propset', '-q', 'svn:keywords', 'Rev Author', 'a');
    svn(repository.dev, 'propset', '-q', 'svn:externals', `svn+ssh://-oProxyCommand=touch%20${root}/pwned/x ext`, '.');
    const revision = repository.commit();
    await deploy();
    const out = join(root, 'out');
    mkdirSync(out);
    await open().exportTo(out, revision, never);
    const expected = join(root, 'expected');
    sh('svn', ['export', '-q', '--ignore-externals', '-r', revision.slice(1), repository.url, expected]);
    assert.deepEqual(treeOf(out), treeOf(expected));
    assert.match(readFileSync(join(out, 'a'), 'utf8'), /^\$Rev: \d+ \$/);
    assert.equal(existsSync(join(root, 'pwned')), false);
    assert.equal(existsSync(join(wc, 'ext')), false);
  });

  it('does not take the same number of another URL for the same tree', async t => {
    const {root, repository, config, wc} = set(t);
    const first = repository.commit({write: 'a', text: '1'});
    svn(root, 'copy', '-q', '-m', 'branch', repository.url, repository.url.replace('trunk', 'branch'));
    const free = {...config, source: {...config.source, url: undefined}};
    svn(root, 'checkout', '-q', repository.url, wc);
    const copy = openWorkingCopy(free);
    await copy.update(first, never);
    const out = join(root, 'out');
    mkdirSync(out);
    await copy.exportTo(out, first, never);
    const second = repository.commit({write: 'a', text: '2'});
    await copy.update(second, never);
    assert.deepEqual(await copy.changedPaths(first, second, never), ['a']);
    svn(wc, 'switch', '-q', repository.url.replace('trunk', 'branch'));
    const other = await copy.resolve(undefined, never);
    await copy.update(other, never);
    assert.equal(await copy.changedPaths(second, other, never), undefined);
  });

  it('gives the password to svnserve and to nobody else', async t => {
    const {root, repository, config} = set(t);
    const revision = repository.commit({write: 'a', text: '1'});
    writeFileSync(join(root, 'repo/conf/svnserve.conf'), '[general]\nanon-access = none\nauth-access = write\npassword-db = passwd\n');
    writeFileSync(join(root, 'repo/conf/passwd'), '[users]\ndeploy = s3cr3t-xyzzy\n');
    const port = await freePort();
    const server = spawn('svnserve', ['-d', '--foreground', '--listen-host', '127.0.0.1', '--listen-port', String(port), '-r', root], {stdio: 'ignore'});
    t.after(() => server.kill('SIGKILL'));
    const passwordFile = join(root, 'password');
    writeFileSync(passwordFile, 's3cr3t-xyzzy\n', {mode: 0o600});
    const remote = {...config, source: {...config.source, url: `svn://127.0.0.1:${port}/repo/trunk`, username: 'deploy', passwordFile}};

    let seen = false;
    const look = setInterval(() => {
      for (const pid of readdirSync('/proc').filter(name => /^\d+$/.test(name))) {
        for (const file of ['cmdline', 'environ']) {
          try {
            if (readFileSync(`/proc/${pid}/${file}`, 'latin1').includes('s3cr3t-xyzzy')) seen = true;
          } catch {
            continue;
          }
        }
      }
    }, 3);
    t.after(() => clearInterval(look));
    const copy = openWorkingCopy(remote);
    assert.equal(await copy.resolve(undefined, never), revision);
    await copy.update(revision, never);
    clearInterval(look);
    assert.equal(seen, false, 'the password stood in an argument or an environment');
    const kept = sh('grep', ['-rlF', 's3cr3t-xyzzy', root]).trim().split('\n').toSorted();
    assert.deepEqual(kept, [passwordFile, join(root, 'repo/conf/passwd')].toSorted(), 'the password was kept somewhere');

    writeFileSync(passwordFile, 'wrong');
    await assert.rejects(openWorkingCopy(remote).resolve(undefined, never), failure('UPDATE_FAILED', '"deploy"', passwordFile));
    rmSync(passwordFile);
    await assert.rejects(openWorkingCopy(remote).resolve(undefined, never), failure('UPDATE_FAILED', passwordFile));
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
