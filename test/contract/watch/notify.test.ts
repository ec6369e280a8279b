import assert from 'node:assert/strict';
import {spawn} from 'node:child_process';
import {join} from 'node:path';
import {test, type TestContext} from 'node:test';
import {openNotify} from '../../../src/watch/notify.ts';
import {makeTempDir, removeTempDir} from '../../support/temp-dir.ts';
import {waitUntil} from '../../support/wait-until.ts';

/** In systemd's place: prints each message on a line. Descriptors that come along are closed, which ends the sender's wait. */
const LISTENER = `
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
print('listens', flush=True)
while True:
    print(s.recv(4096).decode().strip().replace('\\n', ' '), flush=True)
`;

async function listener(t: TestContext): Promise<{socket: string; heard: () => string[]}> {
  const dir = makeTempDir();
  const socket = join(dir, 'notify');
  const child = spawn('/usr/bin/python3', ['-c', LISTENER, socket], {stdio: ['ignore', 'pipe', 'inherit']});
  let text = '';
  child.stdout.setEncoding('utf8').on('data', (part: string) => (text += part));
  t.after(() => {
    child.kill();
    removeTempDir(dir);
  });
  await waitUntil('the listener', () => text.startsWith('listens\n'));
  const heard = () => text.split('\n').slice(1).filter(line => line !== '' && line !== 'BARRIER=1').map(line => line.replace(`MAINPID=${process.pid} `, '').replace(` MAINPID=${process.pid}`, ''));
  return {socket, heard};
}

const SOON = {withinMs: 20_000};
const nothingSaid = (text: string) => assert.fail(text);

test('what is told, in its order', async t => {
  const {socket, heard} = await listener(t);
  const notify = openNotify({NOTIFY_SOCKET: socket}, nothingSaid);
  const read: string[] = [];
  notify.reloading(() => read.push('before it was ready'));
  notify.ready();
  notify.ready();
  notify.reloading(() => read.push('after'));
  notify.stopping();
  notify.reloading(() => read.push('at the end'));
  notify.ready();
  await notify.close();
  assert.deepEqual(await waitUntil('all of it', () => heard().includes('STOPPING=1') && heard(), SOON), ['READY=1', 'RELOADING=1', 'READY=1', 'STOPPING=1']);
  assert.deepEqual(read, ['before it was ready', 'after', 'at the end']);
});

test('the watchdog hears at half of its time, and before it is ready that the start goes on', async t => {
  const {socket, heard} = await listener(t);
  const notify = openNotify({NOTIFY_SOCKET: socket, WATCHDOG_USEC: '200000', WATCHDOG_PID: String(process.pid)}, nothingSaid);
  await waitUntil('a start that goes on', () => heard().includes('EXTEND_TIMEOUT_USEC=200000'), SOON);
  notify.ready();
  await waitUntil('the watchdog twice', () => heard().filter(word => word === 'WATCHDOG=1').length >= 2, SOON);
  notify.stopping();
  await notify.close();
  await waitUntil('the end', () => heard().includes('STOPPING=1'), SOON);
  assert.equal(heard().at(-1), 'STOPPING=1');
  assert.equal(heard().lastIndexOf('EXTEND_TIMEOUT_USEC=200000') < heard().indexOf('READY=1'), true);
});

test('where nobody asked nothing is started', async () => {
  let said = 0;
  // Were it started, it would say that it cannot be.
  for (const env of [{}, {NOTIFY_SOCKET: ''}, {WATCHDOG_USEC: '2000'}]) {
    const notify = openNotify(env, () => said++);
    notify.ready();
    notify.reloading(() => undefined);
    notify.stopping();
    await notify.close();
  }
  assert.equal(said, 0);
});

test('nobody listens: that is said, and ends nothing', async () => {
  const said: string[] = [];
  const notify = openNotify({NOTIFY_SOCKET: '/nowhere/notify', WATCHDOG_USEC: '1000', WATCHDOG_PID: '1'}, text => said.push(text));
  notify.ready();
  await notify.close();
  assert.match(said.join(), /^systemd could not be told READY=1: /);
});
