import assert from 'node:assert/strict';
import {existsSync, readFileSync} from 'node:fs';
import {join} from 'node:path';
import {test} from 'node:test';
import {openLog} from '../../src/log.ts';
import {makeTempDir, removeTempDir} from '../support/temp-dir.ts';
import {waitUntil} from '../support/wait-until.ts';

test('what is waited for is in the log once a second, however often it is looked at', async (t) => {
  const dir = makeTempDir();
  t.after(() => removeTempDir(dir));
  const log = openLog(dir);
  const file = join(dir, 'log', 'osyw-deploy.log');
  const lines = (): string[] => (existsSync(file) ? readFileSync(file, 'utf8').split('\n').filter((line) => line !== '') : []);
  const began = performance.now();
  for (let round = 0; round < 200; round++) {
    log.info({event: 'note', text: 'release 000001 drains'});
    log.info({event: 'note', text: `worker ${round % 2} on 8811: refused`});
  }
  for (let round = 0; round < 3; round++) log.info({event: 'output', line: 'the same line of a build'});
  await waitUntil('the log', () => lines().length >= 6);
  assert.deepEqual(lines().map((line) => (JSON.parse(line) as {text?: string; line?: string}).text ?? 'output'), ['release 000001 drains', 'worker 0 on 8811: refused', 'worker 1 on 8811: refused', 'output', 'output', 'output']);
  await waitUntil('another second', () => performance.now() - began > 1100);
  log.info({event: 'note', text: 'release 000001 drains'});
  await waitUntil('the note again', () => lines().length === 7);
});
