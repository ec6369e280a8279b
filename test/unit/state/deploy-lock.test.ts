import assert from 'node:assert/strict';
import {statSync, symlinkSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {after, test} from 'node:test';
import {deployLockPath, isLock, readHolder, tryLock, type HeldLock} from '../../../src/state/deploy-lock.ts';
import {isAlive} from '../../../src/workers/process-identity.ts';
import {makeTempDir, removeTempDir} from '../../support/temp-dir.ts';
import {waitUntil} from '../../support/wait-until.ts';
import {startHolder} from './lock-holder.ts';

const dir = makeTempDir();
after(() => removeTempDir(dir));

function lock(path: string, command = 'now'): HeldLock {
  const result = tryLock(path, command);
  assert.ok(isLock(result), 'the lock is free');
  return result;
}

test('a second one is refused and told who, also within a process', () => {
  const path = join(dir, 'first');
  const held = lock(path, 'rollback');
  const second = tryLock(path, 'now');
  assert.ok(!isLock(second));
  assert.equal(second.heldBy?.command, 'rollback');
  assert.equal(second.heldBy.process?.pid, process.pid);
  assert.ok(isAlive(second.heldBy.process));
  assert.ok(Math.abs(Date.now() - Date.parse(second.heldBy.since)) < 60_000);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  held.release();
  assert.equal(readHolder(path), undefined, 'who is gone is not named');
  lock(path).release();
});

test('another process is refused and told who; SIGKILL frees the lock, though a detached child of the holder lives on', async () => {
  const path = deployLockPath(dir);
  const holder = await startHolder('lock', path);
  try {
    const refused = tryLock(path, 'now');
    assert.ok(!isLock(refused));
    assert.deepEqual([refused.heldBy?.command, refused.heldBy?.process?.pid], ['held by a test', holder.pid]);
    await holder.kill();
    assert.ok(isAlive(holder.child), 'its detached child lives');
    const now = await waitUntil('the lock to be free', () => {
      const result = tryLock(path, 'now');
      return isLock(result) && result;
    });
    now.release();
  } finally {
    await holder.end();
  }
});

test('a holder that wrote nothing readable is unknown, and holds all the same', () => {
  const path = join(dir, 'torn');
  const held = lock(path);
  for (const text of ['', '{"command":', 'null', '7', '[]']) {
    writeFileSync(path, text);
    const refused = tryLock(path, 'now');
    assert.ok(!isLock(refused));
    assert.equal(refused.heldBy, undefined, text);
  }
  held.release();
});

test('a link in place of the lock is refused', () => {
  symlinkSync(join(dir, 'elsewhere'), join(dir, 'link'));
  assert.throws(() => tryLock(join(dir, 'link'), 'now'), {code: 'ELOOP'});
});
