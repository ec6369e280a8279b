// Makes this machine ready for `npm run demo` and `npm test`: npm packages, Debian packages, the bundle. Nothing to do takes no time.
// Plain JavaScript without a package: in a fresh clone there is nothing but Node and npm.
import {spawnSync} from 'node:child_process';
import {createHash} from 'node:crypto';
import {existsSync, readdirSync, rmSync, statSync, writeFileSync} from 'node:fs';
import {createServer} from 'node:net';
import {join} from 'node:path';
import {setTimeout as pause} from 'node:timers/promises';
import {fileURLToPath} from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));

const SEARCHED = ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'];
const found = (name) => () => SEARCHED.some((dir) => existsSync(join(dir, name)));
/** What the tests and the demo run, and the Debian package that brings it. */
const TOOLS = [
  {is: 'nginx', has: () => existsSync('/usr/sbin/nginx'), from: 'nginx-light'},
  {is: 'svn', has: found('svn'), from: 'subversion'},
  {is: 'svnadmin', has: found('svnadmin'), from: 'subversion'},
  {is: 'svnserve', has: found('svnserve'), from: 'subversion'},
  {is: 'git', has: found('git'), from: 'git'},
  {is: '/usr/bin/python3', has: () => existsSync('/usr/bin/python3'), from: 'python3'},
  {is: 'bottle for /usr/bin/python3', has: () => python('bottle'), from: 'python3-bottle'},
  {is: 'strace', has: found('strace'), from: 'strace'},
  // For tests that are root's alone.
  {is: 'sudo', has: () => process.getuid() !== 0 || found('sudo')(), from: 'sudo'},
  {is: 'systemd', has: () => process.getuid() !== 0 || existsSync('/lib/systemd/systemd'), from: 'systemd'},
  {is: 'lsof', has: found('lsof'), from: 'lsof'},
  {is: 'logrotate', has: found('logrotate'), from: 'logrotate'},
  {is: 'busybox', has: found('busybox'), from: 'busybox'},
  {is: 'gevent for /usr/bin/python3', has: () => python('gevent'), from: 'python3-gevent'},
];

await setUp();

async function setUp() {
  if (missingTools().length > 0) await alone('apt', installTools);
  if (packagesAreStale() || bundleIsStale()) {
    await alone(createHash('sha256').update(root).digest('hex').slice(0, 16), () => {
      if (packagesAreStale()) installPackages();
      if (bundleIsStale()) run(process.execPath, [join(root, 'test/build.mjs')], 'the bundle could not be built');
    });
  }
}

// --- Debian packages

function missingTools() {
  return TOOLS.filter((tool) => !tool.has());
}

function python(module) {
  // Where Debian puts it; looking there costs nothing, starting Python does.
  const debian = '/usr/lib/python3/dist-packages';
  if (existsSync(join(debian, module)) || existsSync(join(debian, `${module}.py`))) return true;
  return spawnSync('/usr/bin/python3', ['-c', `import ${module}`], {stdio: 'ignore'}).status === 0;
}

function installTools() {
  const missing = missingTools();
  if (missing.length === 0) return;
  const packages = [...new Set(missing.map((tool) => tool.from))];
  const line = `apt-get update && apt-get install -y --no-install-recommends ${packages.join(' ')}`;
  const names = missing.map((tool) => tool.is).join(', ');
  if (process.getuid() !== 0) fail(`missing: ${names}. Run this once:\n\n    sudo sh -c '${line}'\n`);
  if (!found('apt-get')()) fail(`missing: ${names}. There is no apt-get here; install what brings them (on Debian: ${line}).`);

  console.log(`set-up: installs ${packages.join(', ')}`);
  const allowServices = forbidServices();
  try {
    const env = {...process.env, DEBIAN_FRONTEND: 'noninteractive'};
    const patience = ['-o', 'DPkg::Lock::Timeout=600'];
    run('apt-get', ['-q', ...patience, 'update'], `could not be done: ${line}`, {env});
    run('apt-get', ['-q', ...patience, 'install', '-y', '--no-install-recommends', ...packages], `could not be done: ${line}`, {env});
  } finally {
    allowServices();
  }
  const still = missingTools();
  if (still.length > 0) fail(`still missing after ${line}: ${still.map((tool) => tool.is).join(', ')}`);
}

/** Debian starts a service that it installs; here nginx must not take port 80. Returns the way to undo it. */
function forbidServices() {
  const policy = '/usr/sbin/policy-rc.d';
  if (existsSync(policy)) return () => {};
  const allow = () => rmSync(policy, {force: true});
  writeFileSync(policy, '#!/bin/sh\nexit 101\n', {mode: 0o755});
  // `fail` ends the process; the guard must not outlive it.
  process.once('exit', allow);
  return allow;
}

// --- npm packages and the bundle

function packagesAreStale() {
  return timeOf('node_modules/.package-lock.json') < timeOf('package-lock.json');
}

function installPackages() {
  console.log('set-up: npm ci');
  run('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'], 'npm ci failed');
}

function bundleIsStale() {
  if (!existsSync(join(root, 'src/main.ts'))) return false;
  const sources = ['package.json', 'package-lock.json', 'test/build.mjs', 'hooks/hook.sh', ...readdirSync(join(root, 'src'), {recursive: true}).map((path) => join('src', path))];
  const built = Math.min(timeOf('dist/osyw-deploy.cjs'), timeOf('dist/osyw-deploy.schema.json'));
  return sources.some((path) => timeOf(path) > built);
}

/** When it was last changed; what is not there is older than everything. */
function timeOf(path) {
  return statSync(join(root, path), {throwIfNoEntry: false})?.mtimeMs ?? 0;
}

// --- running

/** One set-up at a time: the kernel frees the name with the process that holds it. */
async function alone(name, work) {
  const lock = createServer();
  for (let waited = false; !(await holds(lock, `\0osyw-deploy-setup-${name}`)); waited = true) {
    if (!waited) console.log('set-up: waits for another set-up');
    await pause(200);
  }
  try {
    work();
  } finally {
    lock.close();
  }
}

function holds(lock, path) {
  return new Promise((resolve, reject) => {
    lock.once('error', (error) => (error.code === 'EADDRINUSE' ? resolve(false) : reject(error)));
    lock.listen(path, () => resolve(true));
  });
}

function run(file, args, complaint, options = {}) {
  const {status, error} = spawnSync(file, args, {cwd: root, stdio: ['ignore', 'inherit', 'inherit'], ...options});
  if (status !== 0) fail(`${complaint}${error ? ` (${error.message})` : ''}`);
}

function fail(message) {
  console.error(`set-up: ${message}`);
  process.exit(1);
}
