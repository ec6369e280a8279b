import assert from 'node:assert/strict';
import {spawn, type ChildProcess} from 'node:child_process';
import {randomUUID} from 'node:crypto';
import {connect} from 'node:net';
import {test, type TestContext} from 'node:test';
import {portOwner} from '../../../src/health/port-owner.ts';
import {identify} from '../../../src/workers/process-identity.ts';
import {WORKER_MARK} from '../../../src/workers/worker-tree.ts';
import {leasePorts} from '../../support/free-ports.ts';
import {waitUntil} from '../../support/wait-until.ts';

const LISTENS = `
import socket, sys
s = socket.socket(socket.AF_INET6 if ':' in sys.argv[2] else socket.AF_INET)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
s.bind((sys.argv[2], int(sys.argv[1])))
s.listen()
print('ready', flush=True)
while True:
    connection, _ = s.accept()
    connection.sendall(sys.argv[2].encode())
    connection.close()
`;

/** A process with a worker's mark that shares its port with whoever wants it, as some servers do. */
async function listening(t: TestContext, port: number, address = '127.0.0.1'): Promise<{id: string; child: ChildProcess}> {
  const id = `osyw/test/0/${randomUUID()}`;
  const child = spawn('/usr/bin/python3', ['-S', '-E', '-c', LISTENS, String(port), address], {env: {[WORKER_MARK]: id}, stdio: ['ignore', 'pipe', 'inherit']});
  t.after(() => child.kill('SIGKILL'));
  let said = '';
  child.stdout.on('data', part => (said += String(part)));
  await waitUntil('it to listen', () => said.includes('ready'));
  return {id, child};
}

test('a worker of before that listens on the port of a fresh one is a stranger, alone or beside it', async t => {
  const lease = await leasePorts(1);
  t.after(() => lease.release());
  const port = lease.first;
  const old = await listening(t, port);
  const worker = {id: `osyw/test/1/${randomUUID()}`, process: undefined};
  assert.equal(portOwner('127.0.0.1', port, worker).kind, 'stranger');
  assert.equal(portOwner('127.0.0.1', port, {id: old.id, process: undefined}).kind, 'worker');
  const fresh = await listening(t, port);
  const process = identify(fresh.child.pid ?? 0);
  assert.equal(portOwner('127.0.0.1', port, {id: fresh.id, process}).kind, 'stranger', 'the kernel may send any connection to the old one');
  old.child.kill('SIGKILL');
  await waitUntil('the old one to be gone', () => portOwner('127.0.0.1', port, {id: fresh.id, process}).kind === 'worker');
});

test('the one on the very address has the port, whatever a stranger has on a wildcard of either family', async t => {
  const lease = await leasePorts(2);
  t.after(() => lease.release());
  for (const [i, wildcard] of ['0.0.0.0', '::'].entries()) {
    const port = lease.first + i;
    const [general, exact] = [await listening(t, port, wildcard), await listening(t, port)];
    for (let n = 0; n < 20; n++) assert.equal(await answerFrom(port), '127.0.0.1');
    for (const [one, kind] of [[exact, 'worker'], [general, 'stranger']] as const) {
      assert.equal(portOwner('127.0.0.1', port, {id: one.id, process: identify(one.child.pid ?? 0)}).kind, kind, wildcard);
    }
    exact.child.kill('SIGKILL');
    await waitUntil('the other one to have it', () => portOwner('127.0.0.1', port, {id: general.id, process: undefined}).kind === 'worker');
  }
});

async function answerFrom(port: number): Promise<string> {
  const socket = connect({host: '127.0.0.1', port});
  let text = '';
  for await (const part of socket) text += String(part);
  return text;
}
