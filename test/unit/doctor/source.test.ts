import assert from 'node:assert/strict';
import {execFileSync} from 'node:child_process';
import {appendFileSync} from 'node:fs';
import {join} from 'node:path';
import {test, type TestContext} from 'node:test';
import {passwordInRemote} from '../../../src/doctor/source.ts';
import {scrubbedEnv} from '../../support/scrubbed-env.ts';
import {makeTempDir, removeTempDir} from '../../support/temp-dir.ts';

const signal = new AbortController().signal;

/** What is found in a work tree with these lines in its configuration. */
async function foundIn(t: TestContext, lines: string): Promise<{dir: string; found: string[][]; all: string}> {
  const dir = makeTempDir();
  t.after(() => removeTempDir(dir));
  execFileSync('git', ['init', '-q', dir], {env: scrubbedEnv(dir)});
  appendFileSync(join(dir, '.git', 'config'), lines);
  const findings = await passwordInRemote(dir, signal);
  return {dir, found: findings.map(({level, mend}) => [level, mend ?? '']), all: JSON.stringify(findings)};
}

test('what stands before the @ of a remote is never shown, a token least of all', async t => {
  const urls: readonly (readonly [url: string, level: string, bare: string])[] = [
    ['https://ghp_SECRETTOKEN:x-oauth-basic@github.com/a/b.git', 'problem', 'https://github.com/a/b.git'],
    ['https://SECRETTOKEN:@github.com/a/b.git', 'problem', 'https://github.com/a/b.git'],
    ['https://SECRETTOKEN@github.com/a/b.git', 'warning', 'https://github.com/a/b.git'],
    ['HTTP://SECRETTOKEN@github.com/a@b.git', 'warning', 'HTTP://github.com/a@b.git'],
    ['https://bob:SECRET/TOKEN@github.com/a/b.git', 'problem', 'https://github.com/a/b.git'],
    ['ssh://git:SECRETTOKEN@github.com/a/b.git', 'problem', 'ssh://github.com/a/b.git'],
  ];
  for (const [url, level, bare] of urls) {
    const {dir, found, all} = await foundIn(t, `[remote "origin"]\n\turl = ${url}\n`);
    assert.deepEqual(found, [[level, `git -C ${dir} remote set-url origin ${bare}\nusername: NAME`]], url);
    assert.doesNotMatch(all, /SECRET|TOKEN|bob/, url);
  }
  for (const url of ['ssh://git@github.com/a/b.git', 'git@github.com:a/b.git', 'https://github.com/a@b.git', 'https://github.com:8443/a@b.git', '/srv/git/a.git']) {
    assert.deepEqual((await foundIn(t, `[remote "origin"]\n\turl = ${url}\n`)).found, [['ok', '']], url);
  }
});

test('a password elsewhere in the configuration of git', async t => {
  const replacing = await foundIn(t, '[url "https://bob:SECRETTOKEN@github.com/"]\n\tinsteadOf = https://github.com/\n[remote "origin"]\n\turl = https://github.com/a/b.git\n');
  const config = join(replacing.dir, '.git', 'config');
  assert.deepEqual(replacing.found, [['problem', `git config --file ${config} --edit\n[url "https://github.com/"]\nusername: NAME`]]);
  assert.doesNotMatch(replacing.all, /SECRET|bob/);

  const header = await foundIn(t, '[http "https://github.com/"]\n\textraheader = AUTHORIZATION: basic SECRETTOKEN\n[http]\n\textraHeader = X-Trace: 1\n');
  assert.deepEqual(header.found, [['problem', `git config --file ${join(header.dir, '.git', 'config')} --unset-all http.https://github.com/.extraHeader\nusername: NAME`]]);
  assert.doesNotMatch(header.all, /SECRET/);
  execFileSync('sh', ['-c', header.found[0]?.[1]?.split('\n')[0] ?? ''], {env: scrubbedEnv(header.dir)});
  assert.deepEqual((await passwordInRemote(header.dir, signal)).map(({level}) => level), ['ok'], 'the line mends it');
});
