import assert from 'node:assert/strict';
import {spawn} from 'node:child_process';
import {chmodSync, copyFileSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync} from 'node:fs';
import {dirname, join} from 'node:path';
import {test, type TestContext} from 'node:test';
import {fileURLToPath} from 'node:url';
import {leasePorts} from '../support/free-ports.ts';
import {makeGit} from '../support/git-rig.ts';
import {isAlive, processesOf} from '../support/leftovers.ts';
import {startNginx, type NginxRig} from '../support/nginx-rig.ts';
import {CLI, runCommand, type CommandEnd} from '../support/osyw.ts';
import {get} from '../support/raw-http.ts';
import {run} from '../support/run.ts';
import {scrubbedEnv} from '../support/scrubbed-env.ts';
import {makeSvn} from '../support/svn-rig.ts';
import {makeTempDir, removeTempDir} from '../support/temp-dir.ts';
import {waitUntil} from '../support/wait-until.ts';

const FIXTURE = fileURLToPath(new URL('../../fixtures/osyw', import.meta.url));
const ROOT = process.getuid?.() === 0;
/** The defaults of an ordinary user stay below his home, so the proposal can be used as it is. */
const NOBODY = {uid: 65_534, gid: 65_534};

type Tree = Readonly<Record<string, {readonly text: string; readonly mode: number}>>;

const file = (text: string, mode = 0o644) => ({text, mode});

function fixture(): Tree {
  return Object.fromEntries(readdirSync(FIXTURE, {recursive: true, withFileTypes: true}).filter((entry) => entry.isFile() && !entry.parentPath.includes('__pycache__'))
    .map((entry) => [join(entry.parentPath, entry.name).slice(FIXTURE.length + 1), file(readFileSync(join(entry.parentPath, entry.name), 'utf8'))]));
}

const KINDS: readonly {readonly kind: string; readonly tree: Tree; readonly made: RegExp; readonly answer: RegExp}[] = [
  {kind: 'Bottle with gevent', tree: fixture(), made: /workers\.command: made for Bottle with gevent \(osyw\.py\)/, answer: /./},
  {
    kind: 'Node', made: /made for Node \(package\.json\)/, answer: /^node says hello$/,
    tree: {
      'package.json': file('{"name": "shop", "scripts": {"start": "NODE_ENV=production node lib/web.js"}}\n'),
      'lib/web.js': file("require('http').createServer((request, response) => response.end(process.env.NODE_ENV === 'production' ? 'node says hello' : '?')).listen(process.env.PORT, '127.0.0.1');\n"),
    },
  },
  {
    kind: 'a single program', made: /made for a script \(server\)/, answer: /^a program says hello$/,
    tree: {server: file("#!/usr/bin/python3 -SE\nimport os, http.server\nclass Answer(http.server.BaseHTTPRequestHandler):\n    def do_GET(self):\n        self.send_response(200)\n        self.end_headers()\n        self.wfile.write(b'a program says hello')\n    def log_message(self, *_):\n        pass\nhttp.server.ThreadingHTTPServer(('127.0.0.1', int(os.environ['PORT'])), Answer).serve_forever()\n", 0o755)},
  },
];

interface Project {
  readonly dir: string;
  readonly copy: string;
  readonly nginx: NginxRig;
  command(args: readonly string[]): Promise<CommandEnd>;
  own(): Promise<void>;
}

/** A repository with this tree, a working copy of it, and an nginx: all of one account's, which has never heard of osyw-deploy. */
async function makeProject(t: TestContext, vcs: 'svn' | 'git', tree: Tree, {asRoot = !ROOT}: {asRoot?: boolean} = {}): Promise<Project> {
  const dir = makeTempDir();
  const rig = await (vcs === 'svn' ? makeSvn(join(dir, 'svn')) : makeGit(join(dir, 'git')));
  const copy = join(dir, 'shop');
  const cli = join(dir, 'osyw-deploy.cjs');
  copyFileSync(CLI, cli);
  const own = async (): Promise<void> => {
    if (!asRoot) await run('chown', ['-R', `${NOBODY.uid}:${NOBODY.gid}`, dir]);
  };
  const nginx = await startNginx(join(dir, 'nginx'), asRoot ? {} : {as: NOBODY});
  const command = (args: readonly string[]) => runCommand(args, {cwd: copy, cli, env: {HOME: dir}, ...(!asRoot && {as: NOBODY})});
  t.after(async () => {
    for (const {pid, command: words} of processesOf(dir)) if (!words.startsWith('nginx: ') && isAlive(pid)) process.kill(pid, 'SIGKILL');
    await nginx.stop();
    await rig.stop();
    await waitUntil('the processes of the test to end', () => processesOf(dir).length === 0);
    removeTempDir(dir);
  });
  for (const [name, {text, mode}] of Object.entries(tree)) {
    mkdirSync(dirname(join(rig.workingCopy, name)), {recursive: true});
    writeFileSync(join(rig.workingCopy, name), text);
    chmodSync(join(rig.workingCopy, name), mode);
  }
  await rig.commit({}, 'all of it');
  await own();
  const checkOut = vcs === 'svn' ? ['svn', 'checkout', '--quiet', '--config-dir', join(dir, '.subversion'), rig.url, copy] : ['git', '-c', 'safe.directory=*', 'clone', '--quiet', rig.url, copy];
  await run(checkOut[0] ?? '', checkOut.slice(1), {cwd: dir, env: scrubbedEnv(dir, {GIT_CONFIG_GLOBAL: join(dir, 'git', 'gitconfig')})});
  await own();
  return {dir, copy, nginx, command, own};
}

async function leadTo(project: Project): Promise<number> {
  const {first, release} = await leasePorts(1);
  await release();
  project.nginx.foreignFile(`server { listen 127.0.0.1:${first}; location / { proxy_pass http://shop; } }\n`);
  await project.nginx.reload();
  return first;
}

for (const vcs of ['svn', 'git'] as const) {
  for (const {kind, tree, made, answer} of KINDS) {
    test(`init in a fresh ${vcs} working copy of ${kind}, then plan and now: it serves`, async (t) => {
      const project = await makeProject(t, vcs, tree);
      const init = await project.command(['init', '--nginx', project.nginx.conf]);
      assert.equal(init.exit, 0, init.stdout + init.stderr);
      assert.match(init.stdout, made);
      const path = join(project.copy, 'osyw-deploy.yaml');
      const proposal = readFileSync(path, 'utf8');
      assert.equal(statSync(path).mode & 0o777, 0o644);
      for (const line of proposal.split('\n').filter((one) => /^ *[a-z_]+: \S|^ +- \[/.test(one))) assert.match(line, / # \S/, 'each line has its reason');
      assert.match(proposal, new RegExp(`^  vcs: ${vcs} [^]*^  working_copy: ${project.copy} `, 'm'));
      assert.doesNotMatch(init.stdout + proposal, /CHANGE/, 'nothing has to be changed');
      const again = await project.command(['init', '--nginx', project.nginx.conf]);
      assert.equal(again.exit, 2);
      assert.equal(readFileSync(path, 'utf8'), proposal, 'never overwritten');

      const plan = await project.command(['plan', '--json']);
      assert.equal(plan.exit, 0, plan.stdout + plan.stderr);
      const {nginx} = JSON.parse(plan.stdout) as {nginx: {test: {ok: boolean; output: string} | null}};
      assert.notEqual(nginx.test?.ok, false, plan.stdout);
      const now = await project.command(['now', '--json']);
      assert.equal(now.exit, 0, now.stdout + now.stderr);
      const port = await leadTo(project);
      const served = await get(port, '/');
      assert.equal(served.status, 200);
      assert.match(served.text, answer);
      assert.equal((await project.command(['check'])).exit, 0);
      assert.equal((await project.command(['stop'])).exit, 0);
    });
  }
}

test('as root the workers run as the account of web programs', {skip: !ROOT && 'the test must be root'}, async (t) => {
  const project = await makeProject(t, 'git', KINDS[1]?.tree ?? {}, {asRoot: true});
  assert.equal((await project.command(['init', '--nginx', project.nginx.conf])).exit, 0);
  const path = join(project.copy, 'osyw-deploy.yaml');
  const proposal = readFileSync(path, 'utf8');
  assert.match(proposal, /^ {2}user: www-data /m);
  assert.match(proposal, /^state_dir: \/var\/lib\/osyw-deploy\/shop .*\nrun_dir: \/run\/osyw-deploy\/shop /m);
  // The one thing that is the test's own: it leaves nothing on the machine.
  writeFileSync(path, proposal.replace(/^(state|run)_dir: \S+/gm, `$1_dir: ${project.dir}/$1`));
  const now = await project.command(['now', '--json']);
  assert.equal(now.exit, 0, now.stdout + now.stderr);
  assert.equal((await get(await leadTo(project), '/')).text, 'node says hello');
  const [worker] = processesOf(project.dir).filter(({command}) => command.includes('lib/web.js'));
  assert.match(readFileSync(`/proc/${worker?.pid ?? 0}/status`, 'utf8'), /^Uid:\s+33\s/m);
  assert.equal((await project.command(['stop'])).exit, 0);
});

test('where nginx includes no directory that may be written, what init says is to be done is enough', {skip: !ROOT && 'the test must be root to take the directory away'}, async (t) => {
  const project = await makeProject(t, 'git', KINDS[2]?.tree ?? {});
  await run('chown', ['0:0', join(project.nginx.prefix, 'conf.d')]);
  assert.equal((await project.command(['init', '--nginx', project.nginx.conf])).exit, 0);
  const proposal = readFileSync(join(project.copy, 'osyw-deploy.yaml'), 'utf8');
  const include = /^# {3}(include \S+;)$/m.exec(proposal)?.[1] ?? '';
  const mkdir = /mkdir -p (\S+)/.exec(proposal)?.[1] ?? '';
  assert.match(include, /\*\.conf;$/);
  assert.ok(mkdir.startsWith(project.dir), proposal);
  assert.equal((await project.command(['now'])).exit, 9, 'nginx does not read it yet');
  mkdirSync(mkdir, {recursive: true});
  await run('chown', ['-R', `${NOBODY.uid}:${NOBODY.gid}`, join(project.dir, '.local')]);
  project.nginx.foreignFile(`${include}\n`);
  await project.nginx.reload();
  const now = await project.command(['now']);
  assert.equal(now.exit, 0, now.stdout + now.stderr);
  assert.match((await get(await leadTo(project), '/')).text, /^a program says hello$/);
  assert.equal((await project.command(['stop'])).exit, 0);
});

test('what runs out of the working copy already, and nginx leads to, is said, with the way to take it over', async (t) => {
  const project = await makeProject(t, 'git', KINDS[2]?.tree ?? {});
  const {first, release} = await leasePorts(1);
  await release();
  writeFileSync(project.nginx.upstreamFile, `upstream myweb {\n    server 127.0.0.1:${first};\n}\n`);
  const running = spawn('/usr/bin/python3', ['-SE', 'server'], {cwd: project.copy, env: {PORT: String(first)}, stdio: 'ignore'});
  t.after(() => running.kill('SIGKILL'));
  await waitUntil('the server to listen', () => get(first, '/').then(({status}) => status === 200, () => false));
  // As the account whose process it is: nobody else may see where another works.
  const end = await runCommand(['init', '--json', '--nginx', project.nginx.conf], {cwd: project.copy});
  assert.equal(end.exit, 0, end.stdout + end.stderr);
  const said = JSON.parse(end.stdout) as {file: string; look: string[]; adopt: string | null};
  assert.match(said.adopt ?? '', new RegExp(`it runs here already: pid ${running.pid} on port ${first} \\(/usr/bin/python3 -SE server\\), and nginx's upstream myweb in ${project.nginx.upstreamFile} sends requests there`));
  assert.match(said.adopt ?? '', /`osyw-deploy adopt`/);
  const proposal = readFileSync(said.file, 'utf8');
  assert.ok(proposal.includes(`# ${said.adopt}`));
  const [, from = '0', to = '0'] = /^ {2}ports: (\d+)-(\d+)/m.exec(proposal) ?? [];
  assert.ok(first < Number(from) || first > Number(to), 'its port is none of ours');
});

test('a disk that takes only half of the proposal leaves none, and that is said', async (t) => {
  const dir = makeTempDir();
  t.after(() => removeTempDir(dir));
  const end = await runCommand(['init'], {cwd: dir, wrap: ['sh', '-c', 'ulimit -f 1; exec "$@"', 'sh']});
  assert.equal(end.exit, 2, end.stdout + end.stderr);
  assert.match(end.stderr, /cannot write \S+\/osyw-deploy\.yaml: .*EFBIG/);
  assert.deepEqual(readdirSync(dir), []);
  assert.equal((await runCommand(['init'], {cwd: dir})).exit, 0);
  assert.match((await runCommand(['init'], {cwd: dir})).stderr, /is there already and is never overwritten/);
});
