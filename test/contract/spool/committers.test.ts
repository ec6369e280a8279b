import assert from 'node:assert/strict';
import {execFile, execFileSync} from 'node:child_process';
import {chownSync, existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync, symlinkSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {test, type TestContext} from 'node:test';
import type {FiledRequest} from '../../../src/deploy/events.ts';
import {openCommitters} from '../../../src/trigger/committers.ts';
import {readSpool} from '../../../src/trigger/request-spool.ts';
import {makeTempDir, removeTempDir} from '../../support/temp-dir.ts';
import {waitUntil} from '../../support/wait-until.ts';

const root = process.getuid?.() === 0;

function makeSpool(t: TestContext): {stateDir: string; pipe(name: string): string; request(name: string): FiledRequest} {
  const stateDir = makeTempDir();
  t.after(() => removeTempDir(stateDir));
  const spool = join(stateDir, 'spool');
  mkdirSync(spool);
  return {stateDir, pipe: name => {
    execFileSync('mkfifo', [join(spool, `.${name}.said`)]);
    return join(spool, `.${name}.said`);
  }, request: name => {
    writeFileSync(join(spool, `${name}.json`), '{"version":1,"app":"osyw"}');
    const found = readSpool(stateDir, 'osyw').requests.find(({file}) => file === `${name}.json`);
    assert.ok(found);
    return found;
  }};
}

const heard = (pipe: string) => new Promise<string>((resolve, reject) => {
  execFile('timeout', ['20', 'cat', pipe], (error, stdout) => error === null ? resolve(stdout) : reject(error));
});

function opened(pid: string): string[] {
  try {
    return readdirSync(`/proc/${pid}/fd`).map(fd => readlinkSync(`/proc/${pid}/fd/${fd}`));
  } catch {
    return []; // It is gone, or somebody else's.
  }
}

test('who waits hears it line by line, then how it ended, and the pipe is gone', async t => {
  const {stateDir, pipe, request} = makeSpool(t);
  const path = pipe('1');
  const committers = openCommitters(stateDir);
  committers.join([request('1')]);
  committers.join([request('1')]);
  committers.say('update  12 ms\n');
  const reader = heard(path);
  committers.say('build   3 ms\n');
  // A reader that has come is one that will read to the end.
  await waitUntil('the reader', () => readdirSync('/proc').some(pid => /^\d+$/.test(pid) && Number(pid) !== process.pid && opened(pid).includes(path)));
  committers.end(8);
  assert.equal(await reader, 'update  12 ms\nbuild   3 ms\n= 8\n');
  assert.ok(!existsSync(path));
  committers.say('nobody is there\n');
});

test('who does not read is left out, and never waited for', t => {
  const {stateDir, pipe, request} = makeSpool(t);
  pipe('1');
  const committers = openCommitters(stateDir);
  committers.join([request('1')]);
  for (let i = 0; i < 300; i++) committers.say('x'.repeat(1000));
  committers.end(0);
});

test('what is no pipe of the sender is not written to', {skip: !root && 'needs root'}, t => {
  const {stateDir, pipe, request} = makeSpool(t);
  const secret = join(stateDir, 'secret');
  writeFileSync(secret, 'as it was');
  symlinkSync(secret, join(stateDir, 'spool', '.link.said'));
  writeFileSync(join(stateDir, 'spool', '.file.said'), '');
  chownSync(pipe('foreign'), 65_534, 65_534);
  const committers = openCommitters(stateDir);
  committers.join(['link', 'file', 'foreign', 'none'].map(request));
  committers.say('to nobody');
  committers.end(0);
  assert.equal(readFileSync(secret, 'utf8'), 'as it was');
  assert.equal(readFileSync(join(stateDir, 'spool', '.file.said'), 'utf8'), '');
  assert.ok(existsSync(join(stateDir, 'spool', '.foreign.said')));
});
