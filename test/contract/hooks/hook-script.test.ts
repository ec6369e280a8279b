import assert from 'node:assert/strict';
import {type ChildProcess, execFileSync, spawn, type StdioOptions} from 'node:child_process';
import {chmodSync, chownSync, closeSync, constants, existsSync, lstatSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, watch, writeFileSync, writeSync} from 'node:fs';
import {join} from 'node:path';
import {describe, test, type TestContext} from 'node:test';
import type {HookedApplication} from '../../../src/trigger/hook-script.ts';
import {makeGit} from '../../support/git-rig.ts';
import {processesOf} from '../../support/leftovers.ts';
import {run} from '../../support/run.ts';
import {scrubbedEnv} from '../../support/scrubbed-env.ts';
import {makeSvn, type SvnRig} from '../../support/svn-rig.ts';
import {bootSystemd, SYSTEMD} from '../../support/systemd-rig.ts';
import {waitUntil} from '../../support/wait-until.ts';
import {type Deployed, GAMES, MAIL, makeDeployed, needsRoot, putHook, scratch, writeExecutable} from './hooked.ts';

/** The promise is 1 s, which the fastest of a few shows; one alone may take its time on a busy machine, and a hook that waits for what hangs takes for ever. */
const AT_MOST_MS = 8000;

interface End {
  readonly exit: number | null;
  readonly out: string;
  readonly ms: number;
}

interface Call {
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  readonly input?: string;
  /** Instead of the hook itself: a shell that reads it, an account that runs it. */
  readonly wrap?: readonly string[];
  readonly as?: {readonly uid: number; readonly gid: number};
  readonly descriptors?: readonly number[];
}

/** The hook as svn or git calls it. It has ended when all that can write to its output has. */
function call(hook: string, {args = ['/repository', '7', '6-6'], env = {}, cwd = '/', input, wrap = [], as, descriptors = []}: Call = {}): Promise<End> {
  const account = as === undefined ? [] : ['setpriv', '--reuid', String(as.uid), '--regid', String(as.gid), '--clear-groups', '--'];
  const [file = '', ...rest] = [...account, ...wrap, hook, ...args];
  const stdio: StdioOptions = [input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe', ...descriptors];
  const began = performance.now();
  const child: ChildProcess = spawn(file === 'setpriv' ? '/usr/bin/setpriv' : file, rest, {env: {...env}, cwd, stdio});
  let out = '';
  for (const stream of [child.stdout, child.stderr]) stream?.setEncoding('utf8').on('data', (part: string) => (out += part));
  child.stdin?.on('error', () => {}).end(input);
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', exit => resolve({exit, out, ms: performance.now() - began}));
  });
}

function silent({exit, out, ms}: End): void {
  assert.deepEqual({exit, out}, {exit: 0, out: ''});
  assert.ok(ms < AT_MOST_MS, `it took ${ms} ms`);
}

/** A hook of one application in a directory of its own. */
function alone(dir: string, name = 'post-commit', line: Partial<HookedApplication> = {}): {hook: string; deployed: Deployed} {
  const deployed = makeDeployed(dir, line);
  const hooks = join(dir, 'hooks');
  mkdirSync(hooks, {recursive: true});
  putHook(join(hooks, name), deployed.line);
  return {hook: join(hooks, name), deployed};
}

/** As /proc/sys/kernel/random/uuid has it. */
const UUID = '[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}';

const requestIn = (spool: string) => readdirSync(spool).sort().map(name => readFileSync(join(spool, name), 'utf8'));
const revisionsIn = (spool: string) => requestIn(spool).map(text => (JSON.parse(text) as {revision: string}).revision);
const untilStarted = (deployed: Deployed, count = 1) => waitUntil(`${count} to be started`, () => deployed.started().length >= count && deployed.started());

describe('the hook', () => {
  test('files a request and starts the deploy, with an empty environment', async t => {
    const {hook, deployed} = alone(scratch(t));
    silent(await call(hook));
    assert.match(deployed.requests().join(' '), new RegExp(`^\\d+-r7-${UUID}\\.json$`));
    assert.deepEqual(requestIn(deployed.spool), ['{"version":1,"app":"site","revision":"r7"}\n']);
    const [started] = await untilStarted(deployed);
    const {script, config} = deployed.line;
    assert.equal(started?.args, `${script} now --requested --quiet --config ${config}`);
    assert.equal(started?.cwd, '/');
    assert.deepEqual(started?.env, ['LC_ALL=C.UTF-8', 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin']);
  });

  test('lets nothing of the caller get to what it starts, which lives on in a session of its own', async t => {
    const dir = scratch(t);
    const {hook, deployed} = alone(dir);
    const release = deployed.hold();
    const file = openSync(join(dir, 'of-the-caller'), 'w');
    silent(await call(hook, {env: {GIT_DIR: '.', GIT_QUARANTINE_PATH: '/x', PATH: '/nowhere', SECRET: 'x', LC_ALL: 'de_DE'}, descriptors: [file, file, file, file, file, file, file]}));
    closeSync(file);
    const [started] = await untilStarted(deployed);
    assert.deepEqual(started?.env, ['LC_ALL=C.UTF-8', 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin']);
    // 3 is flock's, by which the others know that somebody waits.
    assert.deepEqual(started?.descriptors.filter(one => /^\d /.test(one)), ['0 /dev/null', '1 /dev/null', '2 /dev/null', `3 ${deployed.stateDir}/waiting`]);
    // No shell can name those from 10 on without knowing them: the command closes them itself (main.ts).
    assert.deepEqual(started?.descriptors.filter(one => one.includes('of-the-caller')), []);
    const session = execFileSync('ps', ['-o', 'sid=', '-p', String(process.pid)], {encoding: 'utf8'}).trim();
    assert.notEqual(started?.session, Number(session));
    assert.ok(existsSync(`/proc/${started?.pid}`), 'it lives on');
    // One waits, and is enough: the next files its request, and starts nobody.
    silent(await call(hook, {args: ['/repository', '8', '7-7']}));
    assert.deepEqual(revisionsIn(deployed.spool).sort(), ['r7', 'r8']);
    await waitUntil('the second to give up', () => processesOf(dir).every(({pid}) => pid === started?.pid));
    release();
    await waitUntil('the first to end', () => !existsSync(`/proc/${started?.pid}`));
    assert.equal(deployed.started().length, 1);
  });

  test('runs anywhere, in a directory that is gone, too', async t => {
    const dir = scratch(t);
    const {hook, deployed} = alone(dir);
    const gone = join(dir, 'gone');
    mkdirSync(gone);
    // The shell itself complains there before it reads a line; svn shows no word of a hook that ends well.
    const {exit} = await call('/bin/sh', {args: ['-c', 'rmdir "$PWD"; exec "$0" "$@"', hook, '/repository', '7', '6-6'], cwd: gone});
    assert.equal(exit, 0);
    assert.deepEqual(revisionsIn(deployed.spool), ['r7']);
    assert.equal((await untilStarted(deployed))[0]?.cwd, '/');
  });

  test('works without standard descriptors, and with a caller that ignores signals', async t => {
    const {hook, deployed} = alone(scratch(t));
    for (const [i, closed] of ['2>&-', '<&- >&- 2>&-', '<&-'].entries()) {
      assert.equal((await call('/bin/sh', {args: ['-c', `exec "$0" "$@" ${closed}`, hook, '/repository', String(i + 1), '0-0']})).exit, 0);
    }
    silent(await call('/bin/sh', {args: ['-c', 'trap "" TERM HUP INT PIPE; exec "$0" "$@"', hook, '/repository', '4', '0-0']}));
    assert.deepEqual(revisionsIn(deployed.spool).sort(), ['r1', 'r2', 'r3', 'r4']);
  });

  test('ends at once where TERM is ignored: the timer is not waited for', async t => {
    const {hook} = alone(scratch(t));
    const took: number[] = [];
    for (let i = 0; i < 5; i++) took.push((await call('/bin/sh', {args: ['-c', 'trap "" TERM; exec "$0" "$@"', hook, '/repository', '7', '0-0']})).ms);
    assert.ok(Math.min(...took) < 900, `it took ${took.join(', ')} ms`);
  });

  for (const shell of [['/bin/dash'], ['/bin/bash', '--posix'], ['/bin/busybox', 'sh']] as const) {
    test(`as ${shell.join(' ')}`, {skip: existsSync(shell[0]) ? false : 'it is not here'}, async t => {
      const dir = scratch(t);
      const {hook, deployed} = alone(dir);
      silent(await call(hook, {wrap: shell}));
      const {hook: receive} = alone(dir, 'post-receive');
      const zeros = '0'.repeat(40);
      silent(await call(receive, {wrap: shell, args: [], input: `${zeros} ${'a'.repeat(40)} refs/heads/main\n`}));
      writeExecutable(`${receive}.before-osyw-deploy`, 'cat', 'exit 3');
      const before = await call(receive, {wrap: shell, args: [], input: `${zeros} ${'b'.repeat(40)} refs/heads/main\n`});
      assert.deepEqual([before.exit, before.out], [3, `${zeros} ${'b'.repeat(40)} refs/heads/main\n`]);
      assert.deepEqual(revisionsIn(deployed.spool).sort(), ['a'.repeat(40), 'b'.repeat(40), 'r7']);
      await untilStarted(deployed);
    });
  }

  for (const [umask, mode] of [['077', 0o600], ['027', 0o640], ['022', 0o644]] as const) {
    test(`makes a request of mode ${mode.toString(8)} with umask ${umask}, whatever the caller's is`, async t => {
      const {hook, deployed} = alone(scratch(t), 'post-commit', {umask});
      for (const callers of ['000', '777']) silent(await call('/bin/sh', {args: ['-c', `umask ${callers}; exec "$0" "$@"`, hook, '/repository', '7', '0-0']}));
      assert.deepEqual(deployed.requests().map(name => statSync(join(deployed.spool, name)).mode & 0o7777), [mode, mode]);
    });
  }

  test('files for each application, also when one of them cannot', async t => {
    const dir = scratch(t);
    const [first, second, third] = ['one', 'two', 'three'].map(name => makeDeployed(join(dir, name), {app: name, config: join(dir, `it's ${name}.yaml`)}));
    assert.ok(first && second && third);
    rmSync(second.stateDir, {recursive: true});
    const hook = join(dir, 'post-commit');
    putHook(hook, first.line, second.line, third.line);
    silent(await call(hook));
    assert.deepEqual([first, second, third].map(({requests}) => requests().length), [1, 0, 1]);
    assert.match((await untilStarted(first))[0]?.args ?? '', /it's one\.yaml$/);
    await untilStarted(third);
    assert.equal(second.started().length, 0);
  });

  test('is killed in the middle: what it leaves has a name that begins with a dot, or is a request', async t => {
    const {hook, deployed} = alone(scratch(t));
    const filed = () => deployed.requests().filter(name => !name.startsWith('.'));
    // Later and later, until some came far enough.
    for (let ms = 0; ms < 12 || filed().length < 3; ms++) {
      const child = spawn(hook, ['/repository', String(ms), '0-0'], {env: {}, stdio: 'ignore', detached: true});
      await new Promise(resolve => setTimeout(resolve, ms));
      if (child.pid !== undefined && child.exitCode === null) process.kill(-child.pid, 'SIGKILL');
      await new Promise(resolve => child.exitCode !== null || child.signalCode !== null ? resolve(undefined) : child.once('exit', resolve));
    }
    for (const name of filed()) {
      assert.match(name, new RegExp(`^\\d+-r\\d+-${UUID}\\.json$`));
      assert.match(readFileSync(join(deployed.spool, name), 'utf8'), /^\{"version":1,"app":"site","revision":"r\d+"\}\n$/);
    }
  });
});

describe('a spool that cannot take the request', () => {
  const broken: readonly (readonly [string, (deployed: Deployed) => void])[] = [
    ['is missing', ({spool}) => rmSync(spool, {recursive: true})],
    ['is missing with all of the state', ({stateDir}) => rmSync(stateDir, {recursive: true})],
    ['is a file', ({spool}) => {
      rmSync(spool, {recursive: true});
      writeFileSync(spool, '');
    }],
    ['is a link that leads nowhere', ({spool}) => {
      rmSync(spool, {recursive: true});
      symlinkSync('/nowhere/at/all', spool);
    }],
  ];
  for (const [what, breaks] of broken) {
    test(`${what}: svn and git say nothing, and the commit stands`, async t => {
      const dir = scratch(t);
      const deployed = makeDeployed(dir);
      const [svn, git] = [await makeSvn(join(dir, 'svn')), await makeGit(join(dir, 'git'))];
      putHook(join(svn.repository, 'hooks/post-commit'), deployed.line);
      putHook(join(git.repository, 'hooks/post-receive'), deployed.line);
      breaks(deployed);
      const began = performance.now();
      writeFileSync(join(svn.workingCopy, 'a'), '1');
      await svn.svn(['add', '-q', 'a']);
      assert.match(await svn.svn(['commit', '-m', 'a change']), /^Adding {9}a\nTransmitting file data \.done\nCommitting transaction\.\.\.\nCommitted revision 2\.\n$/);
      await git.commit({a: '1'});
      assert.ok(performance.now() - began < 2 * AT_MOST_MS);
      silent(await call(join(svn.repository, 'hooks/post-commit')));
      silent(await call(join(git.repository, 'hooks/post-receive'), {args: [], input: `${'0'.repeat(40)} ${'a'.repeat(40)} refs/heads/main\n`}));
    });
  }

  test('may not be written by who commits', {skip: needsRoot}, async t => {
    const dir = scratch(t);
    const {hook, deployed} = alone(dir);
    silent(await call(hook, {as: GAMES}));
    assert.deepEqual(deployed.requests(), []);
  });

  test('is full: nothing of half a request stays', {skip: needsRoot}, async t => {
    const dir = scratch(t);
    const {hook, deployed} = alone(dir);
    // A file system of its own, which nobody else sees and which is gone with the shell.
    const script = `set -e
      mount -t tmpfs -o size=8k,nr_inodes=20,mode=700 none "$SPOOL"
      dd if=/dev/zero of="$SPOOL/fill" bs=4096 count=9 2>/dev/null || :
      set +e
      "$@" 2>&1; echo "exit $?"
      ls -A "$SPOOL"`;
    const end = await call('/usr/bin/unshare', {args: ['--mount', '--propagation', 'private', '/bin/sh', '-c', script, 'sh', hook, '/repository', '7', '6-6'], env: {SPOOL: deployed.spool, PATH: '/usr/bin:/bin:/usr/sbin:/sbin'}});
    assert.equal(end.out, 'exit 0\nfill\n');
    assert.ok(end.ms < AT_MOST_MS);
    await untilStarted(deployed); // The deploy that it starts needs no request.
  });

  test('hangs with its disk: the hook returns, and the request is there when the disk is', {skip: needsRoot}, async t => {
    const dir = scratch(t);
    const {hook, deployed} = alone(dir);
    const image = join(dir, 'disk');
    execFileSync('truncate', ['-s', '8M', image]);
    execFileSync('/sbin/mkfs.ext4', ['-q', '-F', image]);
    const script = `mount -o loop "$IMAGE" "$SPOOL" && fsfreeze --freeze "$SPOOL" || { echo cannot; exit; }
      for i in 1 2 3 4 5; do
        began=$(date +%s%3N)
        "$@" >>"$SAID" 2>&1; echo "exit $? $(( $(date +%s%3N) - began ))"
      done
      fsfreeze --unfreeze "$SPOOL"
      i=0; while [ $i -lt 100 ] && [ "$(ls "$SPOOL" | grep -c json)" != 5 ]; do sleep 0.1; i=$((i + 1)); done
      ls "$SPOOL" | sed 's/^[0-9]*-//; s/-.*json/.json/'; cat "$SAID"
      umount --lazy "$SPOOL"`;
    const end = await call('/usr/bin/unshare', {args: ['--mount', '--propagation', 'private', '/bin/sh', '-c', script, 'sh', hook, '/repository', '7', '6-6'], env: {SPOOL: deployed.spool, IMAGE: image, SAID: join(dir, 'said'), PATH: '/usr/bin:/bin:/usr/sbin:/sbin'}});
    if (end.out.includes('cannot')) return t.skip(`no loop device, or no freezing: ${end.out}`);
    const took = [...end.out.matchAll(/^exit 0 (\d+)\n/gm)].map(([, ms]) => Number(ms));
    assert.deepEqual(end.out.replaceAll(/^exit 0 \d+\n/gm, '').split('\n').sort(), ['', 'lost+found', ...Array.from({length: 5}, () => 'r7.json')], end.out);
    assert.ok(took.length === 5 && Math.min(...took) >= 890 && Math.min(...took) < 1500, `while the disk hung: ${end.out}`);
    await untilStarted(deployed);
  });
});

describe('a hook of before', () => {
  const words = `printf '%s|' "$@" >"$0.args"; cat >"$0.input"; env -0 | sort -z | tr '\\0' '\\n' >"$0.env"`;

  test('runs first, with the same arguments and environment; its output and exit status are the hook\'s', async t => {
    const {hook, deployed} = alone(scratch(t));
    const before = `${hook}.before-osyw-deploy`;
    writeExecutable(before, words, `ls -A ${deployed.spool}`, 'echo to the committer >&2', 'exit 9');
    // Names that the script itself might use, exported by the caller.
    const env = {status: 'mine', input: 'mine', revision: 'mine', newline: 'mine', name: 'mine', me: 'mine', timer: 'mine', ended: 'mine', PATH: '/usr/bin:/bin', 'LC_ALL': 'C', PWD: '/'};
    const end = await call(hook, {args: ['/a repository', '7', '$(id)', '', 'last'], env});
    assert.deepEqual([end.exit, end.out], [9, 'to the committer\n']);
    assert.equal(readFileSync(`${before}.args`, 'utf8'), '/a repository|7|$(id)||last|');
    assert.deepEqual(readFileSync(`${before}.env`, 'utf8').trimEnd().split('\n').filter(line => !/^(_|SHLVL)=/.test(line)).sort(), Object.entries(env).map(([name, value]) => `${name}=${value}`).sort());
    assert.equal(deployed.requests().length, 1);
  });

  test('of git gets what git says, byte for byte, read or not', async t => {
    const {hook, deployed} = alone(scratch(t), 'post-receive');
    const before = `${hook}.before-osyw-deploy`;
    const line = (hash: string, ref: string) => `${'0'.repeat(40)} ${hash.repeat(40)} ${ref}\n`;
    writeExecutable(before, words, 'exit 1');
    for (const [input, revision] of [
      [line('a', 'refs/heads/main') + line('b', 'refs/heads/\u00e9"$(id)`x`'), 'b'.repeat(40)],
      [line('c', 'refs/heads/no-newline').trimEnd(), 'c'.repeat(40)],
      ['', ''],
      ['\n\n\n', ''],
    ] as const) {
      for (const name of deployed.requests()) rmSync(join(deployed.spool, name));
      const end = await call(hook, {args: [], input, env: {PATH: '/usr/bin:/bin'}});
      assert.deepEqual([end.exit, end.out], [1, '']);
      assert.equal(readFileSync(`${before}.input`, 'utf8'), input);
      assert.deepEqual(revisionsIn(deployed.spool), [revision]);
    }
    // More than a pipe holds, and nobody reads it; a caller that ignores SIGPIPE makes of that an error of printf's.
    writeExecutable(before, 'exit 0');
    const many = Array.from({length: 2000}, (_, i) => line('d', `refs/heads/x${i}`)).join('');
    silent(await call('/bin/sh', {args: ['-c', 'trap "" PIPE; exec "$0"', hook], input: many}));
  });

  test('that may not be executed, or leads nowhere, does not run, as svn and git do not run it', async t => {
    const {hook, deployed} = alone(scratch(t));
    const before = `${hook}.before-osyw-deploy`;
    writeFileSync(before, '#!/bin/sh\nexit 5\n', {mode: 0o644});
    silent(await call(hook));
    rmSync(before);
    symlinkSync('/nowhere', before);
    silent(await call(hook));
    rmSync(before);
    symlinkSync('a-script', before);
    writeExecutable(join(before, '../a-script'), 'exit 5');
    assert.equal((await call(hook)).exit, 5);
    assert.equal(deployed.requests().length, 3);
  });
});

describe('svn', () => {
  for (const serve of [false, true]) {
    test(`${serve ? 'svnserve' : 'file://'}: the commit returns while what was started lives, and the request names the revision`, async t => {
      const servers: SvnRig[] = [];
      // Registered first, so it runs first: nobody works in the directory then.
      t.after(() => Promise.all(servers.map(one => one.stop())));
      const dir = scratch(t);
      const deployed = makeDeployed(dir);
      const svn = await makeSvn(join(dir, 'svn'), {serve});
      servers.push(svn);
      await svn.svn(['switch', '-q', '--relocate', `file://${svn.repository}/trunk`, svn.url]);
      putHook(join(svn.repository, 'hooks/post-commit'), deployed.line);
      const release = deployed.hold();
      const revision = await svn.commit({a: '1'}, 'message; $(touch x) `id`');
      const [started] = await untilStarted(deployed);
      assert.ok(existsSync(`/proc/${started?.pid}`));
      assert.deepEqual(revisionsIn(deployed.spool), [revision]);
      assert.deepEqual(started?.env, ['LC_ALL=C.UTF-8', 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin']);
      assert.deepEqual([await svn.commit({a: '2'}), await svn.commit({a: '3'})], ['r3', 'r4']);
      assert.equal(deployed.requests().length, 3);
      release();
    });
  }
});

describe('git', () => {
  test('a push returns while what was started lives; its last ref is the hint, a deleted one is none', async t => {
    const dir = scratch(t);
    const deployed = makeDeployed(dir);
    const git = await makeGit(join(dir, 'git'));
    putHook(join(git.repository, 'hooks/post-receive'), deployed.line);
    const release = deployed.hold();
    const hinted = async (happens: () => Promise<unknown>) => {
      for (const name of deployed.requests()) rmSync(join(deployed.spool, name));
      await happens();
      return revisionsIn(deployed.spool);
    };
    let hash = '';
    assert.deepEqual(await hinted(async () => hash = await git.commit({a: '1'})), [hash]);
    const [started] = await untilStarted(deployed);
    assert.ok(existsSync(`/proc/${started?.pid}`), 'it lives on');
    assert.deepEqual(started?.env, ['LC_ALL=C.UTF-8', 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin']);
    assert.deepEqual(await hinted(() => git.git(['push', '-q', 'origin', 'HEAD:refs/heads/one', 'HEAD:refs/heads/a;touch${IFS}x', 'HEAD:refs/tags/v1'])), [hash]);
    assert.deepEqual(await hinted(() => git.deleteBranch('one')), ['']);
    assert.match(deployed.requests().join(' '), new RegExp(`^\\d+-look-${UUID}\\.json$`));
    release();
  });

  test('a commit, an amendment and a merge in a work tree, and in a linked one', async t => {
    const dir = scratch(t);
    const deployed = makeDeployed(dir);
    const git = await makeGit(join(dir, 'git'));
    await git.commit({a: '1'});
    for (const name of ['post-commit', 'post-merge']) putHook(join(git.workingCopy, '.git/hooks', name), deployed.line);
    const hinted = async (...args: string[]) => {
      for (const name of deployed.requests()) rmSync(join(deployed.spool, name));
      await git.git(args);
      return revisionsIn(deployed.spool);
    };
    const head = async () => (await git.git(['rev-parse', 'HEAD'])).trim();
    assert.deepEqual(await hinted('commit', '-q', '--allow-empty', '-m', 'two'), [await head()]);
    assert.deepEqual(await hinted('commit', '-q', '--allow-empty', '--amend', '-m', 'three'), [await head()]);
    await git.git(['checkout', '-q', '-b', 'side', 'HEAD~1']);
    await git.git(['commit', '-q', '--allow-empty', '-m', 'side']);
    assert.deepEqual(await hinted('merge', '-q', '--no-edit', 'main'), [await head()]);
    // Where the branch cannot be read by opening a file the request says "look", which is all that counts.
    assert.deepEqual(await hinted('-c', 'advice.detachedHead=false', 'checkout', '-q', '--detach'), []);
    assert.deepEqual(await hinted('commit', '-q', '--allow-empty', '-m', 'detached'), ['']);
    const linked = join(dir, 'linked');
    await git.git(['worktree', 'add', '-q', linked, '-b', 'linked']);
    assert.deepEqual(await hinted('-C', linked, 'commit', '-q', '--allow-empty', '-m', 'linked'), ['']);
  });

  test('a commit whose hook of before fails, or prints, is as it was', async t => {
    const dir = scratch(t);
    const deployed = makeDeployed(dir);
    const git = await makeGit(join(dir, 'git'));
    await git.commit({a: '1'});
    const hook = join(git.workingCopy, '.git/hooks/post-commit');
    putHook(hook, deployed.line);
    writeExecutable(`${hook}.before-osyw-deploy`, 'echo said; exit 1');
    const said = await run('sh', ['-c', 'git -c user.name=a -c user.email=a@b commit --allow-empty -q -m x 2>&1'], {cwd: git.workingCopy, env: scrubbedEnv(dir)});
    assert.equal(said, 'said\n');
    assert.equal(deployed.requests().length, 1);
  });
});

function tryMkdir(path: string): void {
  try {
    mkdirSync(path);
  } catch (error) {
    assert.equal((error as NodeJS.ErrnoException).code, 'EEXIST');
  }
}

describe('accounts', {skip: needsRoot}, () => {
  for (const [what, deployer] of [['', GAMES], [', though it has no name', {uid: 54_321, gid: 54_321}]] as const) {
    test(`root starts the deploy as its deployer${what}`, async t => {
      const dir = scratch(t);
      const {hook, deployed} = alone(dir, 'post-commit', {umask: '027', ...deployer});
      for (const path of [deployed.stateDir, deployed.spool, join(deployed.stateDir, 'waiting')]) chownSync(path, deployer.uid, deployer.gid);
      silent(await call(hook));
      assert.deepEqual((await untilStarted(deployed)).map(({uid}) => uid), [deployer.uid]);
    });
  }

  test('root commits, waits, and another account deploys: it can read the request, and answer', async t => {
    const dir = scratch(t);
    const {hook, deployed} = alone(dir, 'post-commit', {umask: '027', waitSeconds: 20, ...GAMES});
    for (const path of [deployed.stateDir, deployed.spool, join(deployed.stateDir, 'waiting')]) chownSync(path, GAMES.uid, GAMES.gid);
    chmodSync(deployed.spool, 0o2700);
    writeExecutable(deployed.line.node, `cd ${deployed.spool}; for pipe in .*.said; do { cat *.json; stat -c '%a %u %g' "$pipe"; rm *.json; echo '= 0'; } >"$pipe"; done`);
    const end = await call(hook);
    assert.deepEqual([end.exit, end.out], [0, `{"version":1,"app":"site","revision":"r7"}\n660 0 ${GAMES.gid}\n`]);
  });

  test('nobody of the group may change what another one filed, or take it by a second name', async t => {
    const {hook, deployed} = alone(scratch(t), 'post-commit', {umask: '027'});
    chownSync(deployed.spool, 0, MAIL.gid);
    chmodSync(deployed.spool, 0o3770);
    silent(await call(hook, {as: MAIL}));
    const [name = ''] = deployed.requests();
    const other = {uid: GAMES.uid, gid: MAIL.gid};
    for (const attempt of ['echo x >"$1"', 'echo x >>"$1"', 'ln "$1" "$1.json"', 'mv "$1" x', 'rm -f "$1"']) {
      assert.notEqual((await call('/bin/sh', {args: ['-c', `cd "$0" && ${attempt}`, deployed.spool, name], env: {PATH: '/usr/bin:/bin'}, as: other})).exit, 0, attempt);
    }
    assert.deepEqual(requestIn(deployed.spool), ['{"version":1,"app":"site","revision":"r7"}\n']);
  });

  test('a directory in the place of the name takes no request in', async t => {
    const {hook, deployed} = alone(scratch(t));
    const watcher = watch(deployed.spool, (_, name) => {
      const request = join(deployed.spool, `${(name ?? '').slice(1)}.json`);
      // Where the request is there already, this round was lost.
      if (/^\.\d/.test(name ?? '')) tryMkdir(request);
    });
    t.after(() => watcher.close());
    // Nobody can foresee the name, but who sees it may be fast enough.
    const directories = () => deployed.requests().filter(name => lstatSync(join(deployed.spool, name)).isDirectory());
    for (let i = 0; i < 40 && directories().length === 0; i++) {
      for (const name of deployed.requests()) rmSync(join(deployed.spool, name));
      silent(await call(hook));
    }
    assert.ok(directories().length > 0, 'no round in which the directory came first');
    for (const name of directories()) assert.deepEqual(readdirSync(join(deployed.spool, name)), []);
  });

  for (const [mode, umask, file] of [[0o3770, '027', 0o640], [0o1733, '022', 0o644]] as const) {
    test(`a committer that may not start it files a request in a spool of mode ${mode.toString(8)}, and is told nothing`, async t => {
      const dir = scratch(t);
      const {hook, deployed} = alone(dir, 'post-commit', {umask});
      chownSync(deployed.spool, 0, mode === 0o3770 ? MAIL.gid : 0);
      chmodSync(deployed.spool, mode);
      silent(await call(hook, {as: MAIL}));
      const [name = ''] = deployed.requests();
      const stat = lstatSync(join(deployed.spool, name));
      assert.deepEqual([stat.uid, stat.gid, stat.mode & 0o7777], [MAIL.uid, MAIL.gid, file]);
      assert.equal(deployed.started().length, 0);
    });
  }
});

test('under systemd, what root starts leaves the cgroup of its caller', {skip: needsRoot || (!existsSync(SYSTEMD) && 'there is no systemd')}, async t => {
  const {hook, deployed} = alone(scratch(t));
  const {inside, stop} = await bootSystemd(deployed.dir);
  try {
    deployed.hold();
    // As under svnserve: a service that goes on, and ends with all that is in its cgroup.
    const service = await call(hook, {wrap: [...inside, 'systemd-run', '--quiet', '--unit=svnserve', '--property=DefaultDependencies=no', '--', '/bin/sh', '-c', '"$@"; exec tail -f /dev/null', 'svnserve'], env: {PATH: '/usr/bin:/bin'}});
    assert.equal(service.exit, 0, service.out);
    const started = await waitUntil('the started process', () => deployed.started()[0], {withinMs: 20_000});
    assert.match(started.cgroups.join('\n'), /\/run-[^/]*\.scope$/m);
    assert.doesNotMatch(started.cgroups.join('\n'), /svnserve/);
    assert.equal(deployed.requests().length, 1);
  } finally {
    await stop();
  }
});

test('where no systemd answers, though one seems to run, it is started all the same', {skip: needsRoot || (!existsSync('/usr/bin/systemd-run') && 'there is no systemd-run')}, async t => {
  const {hook, deployed} = alone(scratch(t));
  const script = 'mount -t tmpfs none /run && mkdir -p /run/systemd/system && exec "$@"';
  silent(await call('/usr/bin/unshare', {args: ['--mount', '--propagation', 'private', '/bin/sh', '-c', script, 'sh', hook, '/repository', '7', '6-6'], env: {PATH: '/usr/bin:/bin:/usr/sbin:/sbin'}}));
  const [started] = await untilStarted(deployed);
  assert.deepEqual(started?.env, ['LC_ALL=C.UTF-8', 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin']);
});

describe('hook.wait', () => {
  /** In place of a deployer: `words` run with the pipe as "$1", the request taken. */
  const answers = (deployed: Deployed, words: string) => writeExecutable(deployed.line.node, `rm ${deployed.spool}/*.json; for pipe in ${deployed.spool}/.*.said; do set -- "$pipe"; ${words}; done`);

  /** While somebody else waits. */
  const whileAnotherWaits = async <T>({stateDir}: Deployed, happens: () => Promise<T>): Promise<T> => {
    const waiting = join(stateDir, 'waiting');
    const other = spawn('flock', ['--no-fork', waiting, 'sleep', '60'], {stdio: 'ignore'});
    try {
      await waitUntil('the place to be taken', () => readFileSync('/proc/locks', 'utf8').includes(`:${statSync(waiting).ino} `));
      return await happens();
    } finally {
      other.kill();
    }
  };

  test('of two applications: that the first went well says nothing of the second, nor does what the caller exports', async t => {
    const dir = scratch(t);
    const [first, second] = ['one', 'two'].map(name => makeDeployed(join(dir, name), {app: name, waitSeconds: 20}));
    assert.ok(first && second);
    answers(first, 'echo "= 0" >"$1"');
    answers(second, 'echo "phase one" >"$1"');
    const hook = join(dir, 'post-commit');
    putHook(hook, first.line, second.line);
    const end = await call(hook, {env: {ended: '0'}});
    assert.deepEqual([end.exit, end.out], [1, 'phase one\nosyw-deploy: two did not say within 20 s how its deploy went; it may go on\n']);
    assert.deepEqual([...first.requests(), ...second.requests()], []);
  });

  test('hears a deploy that has ended before the hook looks', async t => {
    const {hook, deployed} = alone(scratch(t), 'post-commit', {waitSeconds: 20});
    // Somebody else waits, and answers at once.
    let exit = 0;
    const watcher = watch(deployed.spool, (_, name) => {
      if (name === null || !name.endsWith('.json') || !existsSync(join(deployed.spool, name))) return;
      const pipe = join(deployed.spool, `.${name.replace(/json$/, 'said')}`);
      const fd = openSync(pipe, constants.O_RDWR | constants.O_NONBLOCK);
      writeSync(fd, `phase one\n= ${exit}\n`);
      rmSync(join(deployed.spool, name));
      rmSync(pipe);
      closeSync(fd);
    });
    t.after(() => watcher.close());
    await whileAnotherWaits(deployed, async () => {
      for (let i = 0; i < 10; i++) {
        exit = i % 2 * 8;
        const end = await call(hook);
        assert.deepEqual([end.exit, end.out], [i % 2, 'phase one\n']);
      }
    });
  });

  describe('is not kept when nobody answers:', () => {
    const nobody = (end: number) => `osyw-deploy: nobody deploys site now, for what this hook started ended with ${end}; its request waits. \`osyw-deploy hook status\` may say why\n`;
    const at = async (t: TestContext, line: Partial<HookedApplication>, how: Call = {}, prepare: (deployed: Deployed) => void = () => undefined) => {
      const {hook, deployed} = alone(scratch(t), 'post-commit', {waitSeconds: 30, ...line});
      prepare(deployed);
      const end = await call(hook, how);
      assert.deepEqual(deployed.requests().map(name => name.endsWith('.json')), [true], 'the request waits, and the pipe is gone');
      return end;
    };
    test('there is no node', async t => {
      const end = await at(t, {node: '/nowhere/node'});
      assert.deepEqual([end.exit, end.out], [1, nobody(69)]);
      assert.ok(end.ms < AT_MOST_MS);
    });
    test('its configuration is wrong', async t => {
      const end = await at(t, {}, {}, ({line: {node}}) => writeExecutable(node, 'exit 3'));
      assert.deepEqual([end.exit, end.out], [1, nobody(3)]);
      assert.ok(end.ms < AT_MOST_MS);
    });
    const open = (mode: number) => ({spool}: Deployed) => chmodSync(spool, mode);
    test('sudo refuses', {skip: needsRoot || (!existsSync('/usr/bin/sudo') && 'there is no sudo')}, async t => {
      const end = await at(t, {umask: '022'}, {as: MAIL}, open(0o1733));
      assert.deepEqual([end.exit, end.out], [1, nobody(1)]);
      assert.ok(end.ms < AT_MOST_MS);
    });
    for (const as of [undefined, ...(needsRoot === false ? [MAIL] : [])]) {
      test(`but another process waits, ${as === undefined ? 'of ours' : 'and sudo refuses'}`, async t => {
        const {hook, deployed} = alone(scratch(t), 'post-commit', {umask: '022', waitSeconds: 2});
        open(0o1733)(deployed);
        const end = await whileAnotherWaits(deployed, () => call(hook, as === undefined ? {} : {as}));
        assert.deepEqual([end.exit, end.out], [1, 'osyw-deploy: site did not say within 2 s how its deploy went; it may go on\n']);
      });
    }
    test('it could not be filed', async t => {
      const {hook, deployed} = alone(scratch(t), 'post-commit', {waitSeconds: 30});
      rmSync(deployed.spool, {recursive: true});
      const end = await call(hook);
      assert.deepEqual([end.exit, end.out], [1, `osyw-deploy: nobody can say how the deploy of site goes, if there is one: nothing can be made in ${deployed.spool}\n`]);
      assert.ok(end.ms < AT_MOST_MS);
    });
  });

  test('tells what the deploy says, and fails when it failed', async t => {
    const dir = scratch(t);
    const deployed = makeDeployed(dir, {waitSeconds: 20});
    // In place of the deployer: it answers into the pipe beside the request.
    answers(deployed, `{ echo "phase one"; echo "= $(cat ${dir}/exit)"; } >"$1"`);
    const hook = join(dir, 'post-commit');
    putHook(hook, deployed.line);
    for (const [exit, expected] of [['0', 0], ['8', 1]] as const) {
      writeFileSync(join(dir, 'exit'), exit);
      const end = await call(hook);
      assert.deepEqual([end.exit, end.out], [expected, 'phase one\n']);
      assert.deepEqual(deployed.requests().filter(name => name.startsWith('.')), []);
    }
  });

  test('waits no longer than it may', async t => {
    const dir = scratch(t);
    const {hook, deployed} = alone(dir, 'post-commit', {waitSeconds: 1});
    const release = deployed.hold();
    const end = await call(hook);
    release();
    // svn shows what a hook says only when that fails.
    assert.deepEqual([end.exit, end.out], [1, 'osyw-deploy: site did not say within 1 s how its deploy went; it may go on\n']);
    assert.ok(end.ms < AT_MOST_MS);
    assert.deepEqual(deployed.requests().filter(name => name.startsWith('.')), []);
  });
});
