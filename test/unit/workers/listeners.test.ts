import assert from 'node:assert/strict';
import {createServer, type Server, connect} from 'node:net';
import {once} from 'node:events';
import {after, test} from 'node:test';
import {openConnections} from '../../../src/workers/connections.ts';
import {identify} from '../../../src/workers/process-identity.ts';
import {allListenersOn, listeners, listenersOn, ownerAmong} from '../../../src/workers/listeners.ts';
import {waitUntil} from '../../support/wait-until.ts';

const servers: Server[] = [];
after(() => servers.forEach(server => server.close()));

async function listen(host: string, port = 0): Promise<number> {
  const server = createServer(socket => void socket.on('error', () => undefined));
  servers.push(server);
  server.listen({host, port, ipv6Only: host === '::1'});
  await once(server, 'listening');
  const address = server.address();
  assert.ok(typeof address === 'object' && address !== null);
  return address.port;
}
const addresses = (host: string, port: number) => listenersOn(host, port).map(({address}) => address);

test('the address itself', async () => {
  const port = await listen('127.0.0.1');
  assert.deepEqual(addresses('127.0.0.1', port), ['127.0.0.1']);
  assert.deepEqual(addresses('localhost', port), ['127.0.0.1']);
  assert.deepEqual(addresses('127.0.0.2', port), []);
  assert.deepEqual(addresses('::1', port), []);
  const [listener] = listenersOn('127.0.0.1', port);
  assert.ok(listener);
  assert.equal(listener.uid, process.getuid?.());
  assert.ok(listeners().some(({inode}) => inode === listener.inode));
  const self = identify(process.pid);
  const parent = identify(process.ppid);
  assert.ok(self && parent);
  assert.equal(ownerAmong([parent, self], listener.inode)?.pid, process.pid);
  assert.equal(ownerAmong([parent], listener.inode), undefined);
  assert.equal(ownerAmong([{pid: 2 ** 22 + 1, startTime: 1, bootId: 'x'}], listener.inode), undefined);
});

test('IPv6', async () => {
  const port = await listen('::1');
  assert.deepEqual(addresses('::1', port), ['::1']);
  assert.deepEqual(addresses('localhost', port), ['::1']);
  assert.deepEqual(addresses('127.0.0.1', port), []);
});

test('a wildcard answers for every address', async () => {
  const four = await listen('0.0.0.0');
  for (const host of ['127.0.0.1', '127.0.0.2', 'localhost']) assert.deepEqual(addresses(host, four), ['0.0.0.0']);
  const both = await listen('::');
  for (const host of ['127.0.0.1', '::1', 'localhost']) assert.deepEqual(addresses(host, both), ['::']);
});

test('an address and another one on the same port are told apart', async () => {
  const port = await listen('127.0.0.2');
  assert.deepEqual(addresses('127.0.0.1', port), []);
  await listen('127.0.0.1', port);
  assert.deepEqual(addresses('127.0.0.1', port), ['127.0.0.1']);
  assert.deepEqual(addresses('127.0.0.2', port), ['127.0.0.2']);
});

test('beside a socket of IPv4, one for IPv6 of the same account may share its port', async () => {
  const port = await listen('127.0.0.1');
  const server = createServer();
  servers.push(server);
  server.listen({host: '::', port, ipv6Only: true});
  await once(server, 'listening');
  assert.deepEqual(allListenersOn('127.0.0.1', port).map(({address}) => address), ['127.0.0.1', '::'], 'the table does not say which families it is for');
  assert.deepEqual(addresses('127.0.0.1', port), ['127.0.0.1'], 'that one gets the connections');
  assert.deepEqual(addresses('127.0.0.2', port), ['::']);
  assert.deepEqual(addresses('::1', port), ['::']);
});

test('nobody', async () => {
  const port = await listen('127.0.0.1');
  const server = servers.pop();
  await new Promise(resolve => server?.close(resolve));
  assert.deepEqual(addresses('127.0.0.1', port), []);
});

test('connections are counted on the side that listens, until they are closed', async () => {
  const port = await listen('127.0.0.1');
  assert.deepEqual(await openConnections([port]), new Map());
  const clients = [connect(port, '127.0.0.1'), connect(port, '127.0.0.1')];
  await Promise.all(clients.map(client => once(client, 'connect')));
  assert.deepEqual(await openConnections([port, 1]), new Map([[port, 2]]));
  for (const client of clients) client.resetAndDestroy();
  await waitUntil('both to be closed', async () => (await openConnections([port])).size === 0);
});
