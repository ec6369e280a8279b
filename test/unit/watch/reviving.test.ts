import assert from 'node:assert/strict';
import {test} from 'node:test';
import {openReviving} from '../../../src/watch/reviving.ts';

test('nothing begins where no run permits it', async () => {
  const reviving = openReviving();
  assert.equal(reviving.begin(() => Promise.resolve()), undefined);
  const run = {};
  reviving.permit(run);
  assert.equal(await reviving.begin(() => Promise.resolve('done')), 'done');
  await reviving.forbid(run);
  assert.equal(reviving.begin(() => Promise.resolve()), undefined);
});

test('to forbid waits for what is under way, also when it fails', async () => {
  const reviving = openReviving();
  const run = {};
  reviving.permit(run);
  let fail = (): void => undefined;
  const work = reviving.begin(() => new Promise((_, reject) => {
    fail = () => reject(new Error('no port'));
  }));
  let forbidden = false;
  const forbid = reviving.forbid(run).then(() => {
    forbidden = true;
  });
  await new Promise(resolve => {
    setImmediate(resolve);
  });
  assert.equal(forbidden, false);
  fail();
  await assert.rejects(work ?? Promise.resolve(), /no port/);
  await forbid;
  assert.equal(forbidden, true);
});

test('what another run still permits goes on', async () => {
  const reviving = openReviving();
  const [one, other] = [{}, {}];
  reviving.permit(one);
  reviving.permit(other);
  await reviving.forbid(one);
  assert.equal(await reviving.begin(() => Promise.resolve(1)), 1);
});
