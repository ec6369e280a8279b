import assert from 'node:assert/strict';
import {spawn} from 'node:child_process';
import {once} from 'node:events';
import {test, type TestContext} from 'node:test';
import {childrenOf, identify, readProcFile, signalProcess} from '../../../src/workers/process-identity.ts';
import {usageMeter} from '../../../src/workers/usage.ts';
import type {ProcessIdentity} from '../../../src/deploy/deployment.ts';
import {present} from '../../support/site.ts';
import {waitUntil} from '../../support/wait-until.ts';

const SOON = {withinMs: 20_000};

/** A shell that does nothing but wait for the one that it started, which runs `script`. */
async function tree(t: TestContext, script: string): Promise<{parent: ProcessIdentity; child: ProcessIdentity; end(): Promise<void>}> {
  const shell = spawn('sh', ['-c', `sh -c '${script}' & wait`], {stdio: 'ignore', detached: true});
  const end = async () => {
    if (shell.exitCode !== null || shell.signalCode !== null) return;
    const ended = once(shell, 'exit');
    process.kill(-present(shell.pid, 'shell'), 'SIGKILL');
    await ended;
  };
  t.after(end);
  const parent = present(identify(present(shell.pid, 'shell')), 'shell');
  const child = await waitUntil('the child', () => childrenOf(parent.pid).flatMap(pid => identify(pid) ?? [])[0], SOON);
  return {parent, child, end};
}

test('memory and CPU are those of the whole tree', async t => {
  const {parent, child, end} = await tree(t, 'while :; do :; done');
  const meter = usageMeter();
  await waitUntil('the child to be busy', () => (usageMeter()(parent)?.cpu ?? 0) > 0.05, SOON);
  const rss = ({pid}: ProcessIdentity) => Number(/VmRSS:\s*(\d+)/.exec(String(readProcFile(`/proc/${pid}/status`)))?.[1]) * 1024;
  const usage = present(meter(parent), 'usage');
  assert.ok(rss(parent) > 100_000 && rss(child) > 100_000);
  assert.equal(usage.memory, rss(parent) + rss(child));
  await end();
  assert.equal(meter(parent), undefined, 'it is gone');
});

test('the first look tells of its life, each later one of the time since', async t => {
  const {parent, child} = await tree(t, 'while :; do :; done');
  await waitUntil('the child to be busy', () => (usageMeter()(parent)?.cpu ?? 0) > 0.05, SOON);
  const meter = usageMeter();
  assert.ok(signalProcess(child, 'SIGSTOP'));
  await waitUntil('the stop', () => /^State:\s*T/m.test(String(readProcFile(`/proc/${child.pid}/status`))), SOON);
  assert.ok(present(meter(parent), 'usage').cpu > 0);
  assert.equal(present(meter(parent), 'usage').cpu, 0, 'stopped, it uses nothing');
  assert.ok(present(usageMeter()(parent), 'usage').cpu > 0, 'another meter has not looked before');
});
