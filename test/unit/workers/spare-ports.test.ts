import assert from 'node:assert/strict';
import {createServer} from 'node:net';
import {once} from 'node:events';
import {after, before, test} from 'node:test';
import {DeployError} from '../../../src/errors.ts';
import {leasePorts} from '../../../src/workers/spare-ports.ts';
import {leasePorts as leaseRange, type PortLease} from '../../support/free-ports.ts';

let lease: PortLease;
let first: number;
before(async () => {
  lease = await leaseRange(6);
  ({first} = lease);
});
after(() => lease.release());
const wanted = (count: number, {taken = [] as number[], after: last = undefined as number | undefined, host = '127.0.0.1'} = {}) =>
  leasePorts({range: {first, last: first + 5}, host, count, taken: new Set(taken), after: last});
const isStartFailed = (error: unknown) => error instanceof DeployError && error.code === 'START_FAILED';

test('from the beginning, then behind the last one, then around', async () => {
  assert.deepEqual(await wanted(2), [first, first + 1]);
  assert.deepEqual(await wanted(2, {after: first + 1}), [first + 2, first + 3]);
  assert.deepEqual(await wanted(3, {after: first + 3}), [first + 4, first + 5, first]);
  assert.deepEqual(await wanted(1, {after: first + 5}), [first]);
  assert.deepEqual(await wanted(1, {after: first + 100}), [first], 'the range was another one');
  assert.deepEqual(await wanted(1, {after: first - 1}), [first]);
});

test('taken ones are left out, also those that somebody listens on, be it on every address', async () => {
  for (const host of ['127.0.0.1', '0.0.0.0', '::']) {
    const server = createServer().listen({host, port: first + 1});
    await once(server, 'listening');
    assert.deepEqual(await wanted(2, {taken: [first + 2]}), [first, first + 3], host);
    await new Promise(resolve => server.close(resolve));
  }
});

test('the whole range, and one more', async () => {
  assert.equal((await wanted(6)).length, 6);
  await assert.rejects(wanted(6, {taken: [first]}), error => isStartFailed(error) && new RegExp(`6 needed in ${first}-${first + 5}, 5 free`).test(String(error)));
});

test('an address that is not of this machine is named', async () => {
  await assert.rejects(wanted(1, {host: '192.0.2.1'}), error => isStartFailed(error) && /192\.0\.2\.1/.test(String(error)));
});
