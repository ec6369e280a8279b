import assert from 'node:assert/strict';
import type {ChildProcess} from 'node:child_process';
import {writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {after, before, describe, test} from 'node:test';
import {findWorkers} from '../../../src/adopt/find-workers.ts';
import {DeployError} from '../../../src/errors.ts';
import {bootId, identify} from '../../../src/workers/process-identity.ts';
import {leasePorts, type PortLease} from '../../support/free-ports.ts';
import {childrenOf, isAlive} from '../../support/leftovers.ts';
import {listens} from '../../support/nginx-rig.ts';
import {ownUser} from '../../support/own-account.ts';
import {endChild, run, spawnBound} from '../../support/run.ts';
import {makeTempDir, removeTempDir} from '../../support/temp-dir.ts';
import {waitUntil} from '../../support/wait-until.ts';

const HOST = '127.0.0.1';
let lease: PortLease;
const children: ChildProcess[] = [];
before(async () => {
  lease = await leasePorts(16);
});
after(async () => {
  for (const child of children) {
    for (const {pid} of childrenOf(child.pid ?? 0)) process.kill(pid, 'SIGKILL');
    await endChild(child, 'SIGKILL');
  }
  await lease.release();
});

const LISTEN = `
import os, signal, socket, sys, time
def listen(port):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    s.bind(('127.0.0.1', port))
    s.listen(8)
    return s
`;

/** A program of python, with ports as its arguments, which says "ready" when it stands. */
async function python(text: string, ...args: readonly (string | number)[]): Promise<number> {
  const child = spawnBound('/usr/bin/python3', ['-S', '-E', '-c', `${LISTEN}${text}`, ...args.map(String)], {stdio: ['ignore', 'pipe', 'inherit'], env: {PATH: '/usr/bin:/bin', COLOUR: 'green', PORT: String(args[0])}});
  return ready(child);
}

async function ready(child: ChildProcess): Promise<number> {
  children.push(child);
  let said = '';
  child.stdout?.setEncoding('utf8').on('data', (part: string) => (said += part));
  await waitUntil('the program to stand', () => said.includes('ready'));
  return child.pid ?? 0;
}

function refused(ports: readonly number[], message: RegExp): void {
  assert.throws(() => findWorkers(HOST, ports), error => error instanceof DeployError && error.code === 'USAGE' && message.test(error.message));
}

const FOREVER = 'print("ready", flush=True)\nsignal.pause()\n';

test('a process of its own on each port', async () => {
  const [a, b] = [lease.first, lease.first + 1];
  const pids = [await python(`s = listen(int(sys.argv[1]))\n${FOREVER}`, a), await python(`s = listen(int(sys.argv[1]))\n${FOREVER}`, b)];
  const found = findWorkers(HOST, [a, b]);
  assert.deepEqual(found.map(({port, process: {pid}}) => [port, pid]), [[a, pids[0]], [b, pids[1]]]);
  const [first] = found;
  assert.ok(first);
  assert.deepEqual(first.process, identify(first.process.pid));
  assert.equal(first.process.bootId, bootId());
  assert.equal(first.user, ownUser);
  assert.equal(first.directory, process.cwd());
  assert.equal(first.words.at(-1), String(a));
  assert.equal(first.environment.get('COLOUR'), 'green');
  assert.ok(Math.abs(Date.parse(first.startedAt) - Date.now()) < 60_000, first.startedAt);
});

test('nobody listens: the port is named', async () => {
  assert.equal(await listens(lease.last), false);
  refused([lease.last], new RegExp(`nobody listens on 127.0.0.1:${lease.last}`));
});

describe('who is above', () => {
  test('a master that listens, with the children that have its socket', async () => {
    const port = lease.first + 2;
    const pid = await python(`s = listen(int(sys.argv[1]))\nif os.fork() == 0:\n    signal.pause()\n${FOREVER}`, port);
    assert.deepEqual(findWorkers(HOST, [port]).map(({process}) => process.pid), [pid]);
  });

  test('a parent with the same command line, whose child listens: a reloader', async () => {
    const port = lease.first + 3;
    const pid = await python(`if os.fork() == 0:\n    s = listen(int(sys.argv[1]))\n    ${FOREVER.replaceAll('\n', '\n    ')}\nos.wait()\n`, port);
    assert.deepEqual(findWorkers(HOST, [port]).map(({process}) => process.pid), [pid]);
  });

  test('two children that each open the port, below such a parent', async () => {
    const port = lease.first + 4;
    const pid = await python(`for i in range(2):\n    if os.fork() == 0:\n        s = listen(int(sys.argv[1]))\n        signal.pause()\nwhile sum(int(l.split()[1].split(":")[1], 16) == int(sys.argv[1]) for l in list(open("/proc/net/tcp"))[1:]) < 2:\n    time.sleep(0.01)\n${FOREVER}`, port);
    assert.deepEqual(findWorkers(HOST, [port]).map(({process}) => process.pid), [pid]);
  });
});

test('two programs that share a port: both are shown', async () => {
  const port = lease.first + 5;
  const pids = [await python(`s = listen(int(sys.argv[1]))\n${FOREVER}`, port), await python(`s = listen(int(sys.argv[1]))\n${FOREVER}`, port, 'another')];
  for (const pid of pids) refused([port], new RegExp(`port ${port} belongs to several programs[^]*pid ${pid} `));
});

test('one program on two ports', async () => {
  const [a, b] = [lease.first + 6, lease.first + 7];
  const pid = await python(`s = [listen(int(p)) for p in sys.argv[1:]]\n${FOREVER}`, a, b);
  refused([a, b], new RegExp(`ports ${a} and ${b} are served by one program: pid ${pid} `));
});

test('a worker that started the other', async () => {
  const [a, b] = [lease.first + 8, lease.first + 9];
  const pid = await python(`if os.fork() == 0:\n    s = listen(int(sys.argv[2]))\n    signal.pause()\ns = listen(int(sys.argv[1]))\nwhile sum(int(l.split()[1].split(":")[1], 16) == int(sys.argv[2]) for l in list(open("/proc/net/tcp"))[1:]) < 1:\n    time.sleep(0.01)\n${FOREVER}`, a, b);
  refused([a, b], new RegExp(`ports ${a} and ${b} are served by one program: pid ${pid} `));
  assert.ok(isAlive(pid));
});

describe('a port that the upstream does not name', () => {
  test('of the program itself', async () => {
    const [a, b] = [lease.first + 10, lease.first + 11];
    const pid = await python(`s = [listen(int(p)) for p in sys.argv[1:]]\n${FOREVER}`, a, b);
    refused([a], new RegExp(`pid ${pid} .* serves on port ${a}, and it or what it started listens on 127\\.0\\.0\\.1:${b}, too`));
  });

  test('of what it started', async () => {
    const [a, b] = [lease.first + 12, lease.first + 13];
    const pid = await python(`if os.fork() == 0:\n    s = listen(int(sys.argv[2]))\n    signal.pause()\ns = listen(int(sys.argv[1]))\nwhile sum(int(l.split()[1].split(":")[1], 16) == int(sys.argv[2]) for l in list(open("/proc/net/tcp"))[1:]) < 1:\n    time.sleep(0.01)\n${FOREVER}`, a, b);
    refused([a], new RegExp(`pid ${pid} .* listens on 127\\.0\\.0\\.1:${b}, too`));
  });
});

describe('who hands its socket to what it starts', () => {
  const HANDS_ON = `s = listen(int(sys.argv[1]))\nif os.fork() == 0:\n    os.execv("/usr/bin/python3", ["python3", "-c", "import signal; signal.pause()"])\n${FOREVER}`;

  test('a supervisor', async t => {
    const dir = makeTempDir();
    t.after(() => removeTempDir(dir));
    const script = join(dir, 'supervisord');
    writeFileSync(script, `${LISTEN}${HANDS_ON}`);
    const port = lease.first + 14;
    const pid = await ready(spawnBound('/usr/bin/python3', ['-S', '-E', script, String(port)], {stdio: ['ignore', 'pipe', 'inherit'], env: {PATH: '/usr/bin:/bin'}}));
    refused([port], new RegExp(`the socket of port ${port} belongs to pid ${pid} \\(.*supervisord ${port}\\), which starts other programs`));
  });

  test('pid 1', {skip: process.getuid?.() !== 0 && 'needs root: a pid namespace'}, async () => {
    const port = lease.first + 15;
    const look = `import {findWorkers} from ${JSON.stringify(new URL('../../../src/adopt/find-workers.ts', import.meta.url).href)};\ntry { findWorkers('127.0.0.1', [${port}]); console.log('found'); } catch (error) { console.log(error.message); }`;
    const asks = `import subprocess\ns = listen(int(sys.argv[1]))\nsubprocess.run(sys.argv[2:])\n`;
    const said = await run('/usr/bin/unshare', ['--pid', '--fork', '--mount-proc', '/usr/bin/python3', '-S', '-E', '-c', `${LISTEN}${asks}`, String(port), process.execPath, '--import', 'tsx', '--input-type=module', '-e', look]);
    assert.match(said, new RegExp(`the socket of port ${port} belongs to pid 1 `));
  });
});
