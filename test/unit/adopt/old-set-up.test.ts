import assert from 'node:assert/strict';
import {readFileSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {test} from 'node:test';
import {fileURLToPath} from 'node:url';
import {findOldHands, oldLinesIn, scriptsNaming, unitIn} from '../../../src/adopt/old-set-up.ts';
import {ownVariables, rangeAround} from '../../../src/adopt/render-adopted-config.ts';
import type {FoundWorker} from '../../../src/adopt/find-workers.ts';
import {isManager, supervisorRemedy} from '../../../src/adopt/starters.ts';
import {identify} from '../../../src/workers/process-identity.ts';
import {endChild, spawnBound} from '../../support/run.ts';
import {makeTempDir, removeTempDir} from '../../support/temp-dir.ts';

test('a parent that may start a worker again is told', async () => {
  const child = spawnBound('/bin/sleep', ['600'], {stdio: 'ignore'});
  try {
    const identity = identify(child.pid ?? 0);
    assert.ok(identity);
    const hands = await findOldHands([{process: identity} as unknown as FoundWorker]);
    const parent = hands.find(({what}) => what.includes(`pid ${process.pid} `));
    assert.match(parent?.what ?? '', /^their parent pid \d+ \(.*\); if it starts them again when they end, it has to go$/);
    assert.match(parent?.remedy ?? '', new RegExp(`^After the first .*: end ${process.pid},`));
  } finally {
    await endChild(child, 'SIGKILL');
  }
});

test('who starts programs is known by its name or title, not by an argument', () => {
  const words = (line: string) => line.split(' ');
  for (const line of ['/usr/bin/python3 /usr/bin/supervisord -n', 'supervisord', '/usr/bin/runsv osyw', 'runsv osyw', 's6-supervise osyw', 'python3 -u -m circus.circusd c.ini']) assert.ok(supervisorRemedy(words(line)), line);
  assert.match(supervisorRemedy(['PM2 v5.3.0: God Daemon (/root/.pm2)']) ?? '', /pm2 delete/);
  for (const line of ['python3 app.py --log supervisord.log', '/srv/supervisord/server 8811', 'python3 runsv.py 8811']) assert.equal(supervisorRemedy(words(line)), undefined, line);
  assert.deepEqual(['/lib/systemd/systemd --user', 'init [2]', 'python3 systemd.py'].map(line => isManager(words(line))), [true, true, false]);
});

test('the unit that a control group is of', () => {
  assert.equal(unitIn('/system.slice/osyw.service'), 'osyw.service');
  assert.equal(unitIn('/system.slice/osyw@8811.service/workers'), 'osyw@8811.service');
  assert.equal(unitIn('/user.slice/user-1000.slice/user@1000.service/app.slice/osyw.service'), '--user osyw.service');
  for (const none of ['/', '/user.slice/user-1000.slice/session-3.scope', '/user.slice/user-1000.slice/user@1000.service/init.scope', '/system.slice/-x.service', '/a b.service']) assert.equal(unitIn(none), undefined, none);
});

test('lines of a hook that update or restart by themselves', t => {
  const dir = makeTempDir();
  t.after(() => removeTempDir(dir));
  const hook = join(dir, 'post-commit');
  writeFileSync(hook, ['#!/bin/sh', '# svn update', 'REPOS="$1"', 'svn --non-interactive update /var/bottle', 'mailer "$REPOS"', '/etc/init.d/osyw restart', 'git -C /srv/x pull', 'kill -9 $(cat x.pid)', 'echo updated'].join('\n'));
  assert.deepEqual(oldLinesIn(hook), [4, 6, 7, 8]);
  assert.deepEqual(oldLinesIn(join(dir, 'none')), []);
  assert.deepEqual(oldLinesIn(fileURLToPath(new URL('../../../fixtures/by-hand/post-commit', import.meta.url))), [6, 7]);
});

test('scripts that name the ports', t => {
  const dir = makeTempDir();
  t.after(() => removeTempDir(dir));
  const fixture = readFileSync(fileURLToPath(new URL('../../../fixtures/by-hand/osyw.init', import.meta.url)));
  for (const [name, text] of [['osyw', fixture], ['other', 'ports="8811 8812"'], ['far', '18811 88121 8813']] as const) writeFileSync(join(dir, name), text);
  assert.deepEqual(scriptsNaming([8811, 8812, 8813], [join(dir, 'none'), dir]), [join(dir, 'osyw')]);
  assert.deepEqual(scriptsNaming([8811, 8812], [dir]).sort(), [join(dir, 'osyw'), join(dir, 'other')]);
});

test('the range of ports', () => {
  assert.deepEqual(rangeAround([8811, 8812, 8813], new Set([8811, 8812, 8813])), {first: 8811, last: 8830});
  assert.deepEqual(rangeAround([8812, 8811], new Set([8811, 8812, 8815, 8816])), {first: 8811, last: 8832}, 'ports of others do not count');
  const many = Array.from({length: 12}, (_, i) => 9000 + i);
  assert.deepEqual(rangeAround(many, new Set(many)), {first: 9000, last: 9023}, 'twice as many as there are');
  assert.equal(rangeAround([80], new Set([80])), undefined);
  assert.equal(rangeAround([65_530], new Set([65_530])), undefined);
});

test('variables that only the workers have, by name', () => {
  const worker = (environment: Record<string, string>) => ({environment: new Map(Object.entries(environment))}) as unknown as FoundWorker;
  assert.deepEqual(ownVariables([worker({PATH: '/bin', SECRET: 'x', LC_ALL: 'C', SSH_TTY: '/dev/pts/1', PORT: '8811'}), worker({OSYW_STATUS: 'online', 'BASH_FUNC_x%%': '() { :; }', _: '/usr/bin/env'})]), ['OSYW_STATUS', 'SECRET']);
});
