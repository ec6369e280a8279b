import assert from 'node:assert/strict';
import type {ChildProcess} from 'node:child_process';
import {readFileSync} from 'node:fs';
import {join} from 'node:path';
import type {TestContext} from 'node:test';
import {spawnBound} from '../support/run.ts';
import {makeTempDir, removeTempDir} from '../support/temp-dir.ts';
import {waitUntil} from '../support/wait-until.ts';

/** Looks like a worker to whoever goes by the name: the same program, account and command line. Every signal that it gets it writes down. */
const SENTINEL = `
import os, signal, sys
record = open(sys.argv[1], 'a', buffering=1)
for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
    signal.signal(number, lambda got, _: record.write(signal.Signals(got).name + '\\n'))
record.write('ready\\n')
while True:
    signal.pause()
`;

export interface Sentinels {
  /** Errors: an assertion, when one of them ever got a signal, was stopped or killed. */
  unharmed(): void;
}

/** Innocent processes, not of the site, that nobody may signal. Gone with the test. */
export async function postSentinels(test: TestContext, count = 3): Promise<Sentinels> {
  const dir = makeTempDir();
  const posted = Array.from({length: count}, (_, i): {child: ChildProcess; record: string} => {
    const record = join(dir, `signals-${i}`);
    return {record, child: spawnBound('/usr/bin/python3', ['-S', '-E', '-c', SENTINEL, record, 'worker.py'], {cwd: '/', env: {}, stdio: 'ignore', detached: i > 0})};
  });
  test.after(() => {
    for (const {child} of posted) child.kill('SIGKILL');
    removeTempDir(dir);
  });
  await waitUntil('the sentinels to be ready', () => posted.every(({record}) => readText(record) === 'ready\n'));
  return {
    unharmed: () => {
      for (const {child, record} of posted) {
        assert.equal(readText(record), 'ready\n', `a process that is not ours got a signal (pid ${child.pid})`);
        assert.match(readText(`/proc/${child.pid}/status`), /^State:\s+[SR]/m, `a process that is not ours was stopped or killed (pid ${child.pid})`);
      }
    },
  };
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return ''; // Not there yet, or gone.
  }
}
