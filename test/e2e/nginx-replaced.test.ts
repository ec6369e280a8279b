import assert from 'node:assert/strict';
import {existsSync, readFileSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {test} from 'node:test';
import {isAlive} from '../support/leftovers.ts';
import {NGINX} from '../support/nginx-rig.ts';
import {run} from '../support/run.ts';
import {makeSite} from '../support/site.ts';
import {waitUntil} from '../support/wait-until.ts';

test('in the middle of a binary upgrade the switch is refused: a HUP to the old master would load nothing', async (t) => {
  const site = await makeSite(t);
  const {conf, pidFile, prefix} = site.nginx;
  // nginx takes the signal only as a daemon of its own.
  await site.nginx.stop();
  writeFileSync(conf, readFileSync(conf, 'utf8').replace('daemon off;', 'daemon on;'));
  await run(NGINX, ['-p', prefix, '-c', conf]);
  const old = await waitUntil('nginx', () => masterIn(pidFile));
  let successor: number | undefined;
  try {
    await site.deployed();
    await site.release('2');
    process.kill(old, 'SIGUSR2');
    successor = await waitUntil('the new master and its workers', () => {
      const pid = masterIn(pidFile);
      return pid !== undefined && pid !== old && readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim() !== '' ? pid : undefined;
    });
    const end = await site.now();
    assert.equal(end.exit, 9, end.stdout + end.stderr);
    assert.match(end.result?.error ?? '', /binary upgrade/);
    assert.equal(await site.version(), '1');
    process.kill(successor, 'SIGQUIT');
    await waitUntil('the new master to end', () => successor !== undefined && !isAlive(successor));
    await site.deployed();
    assert.equal(await site.version(), '2');
  } finally {
    for (const pid of [successor, old]) if (pid !== undefined && isAlive(pid)) process.kill(pid, 'SIGTERM');
    await waitUntil('nginx to end', () => !isAlive(old));
  }
});

function masterIn(pidFile: string): number | undefined {
  const pid = existsSync(pidFile) ? Number(readFileSync(pidFile, 'utf8')) : 0;
  return pid > 1 ? pid : undefined;
}

test('an nginx that is restarted in the middle of a switch does not keep the ports of a release that is given up', {timeout: 180_000}, async (t) => {
  const site = await makeSite(t);
  await site.deployed();
  const restarted = join(site.dir, 'restarted');
  const pidFile = site.nginx.pidFile;
  const script = join(site.dir, 'somebody.sh');
  // The first time somebody restarts nginx where a reload was wanted; the new master reads the new file.
  writeFileSync(script, `[ -e ${restarted} ] && exec kill -HUP "$(cat ${pidFile})"
: > ${restarted}
old=$(cat ${pidFile})
kill -TERM "$old"
while [ -e ${pidFile} ]; do :; done
setsid ${NGINX} -p ${site.nginx.prefix} -c ${site.nginx.conf} </dev/null >/dev/null 2>&1 &
until [ -s ${pidFile} ]; do :; done
`);
  site.configure({nginx: {reload: ['/bin/sh', script]}});
  await site.release('2');
  const end = await site.now();
  const master = Number(readFileSync(pidFile, 'utf8'));
  try {
    assert.equal(end.exit, 9, end.stdout + end.stderr);
    for (let i = 0; i < 20; i++) assert.equal(await site.version(), '1', 'the old workers answer, and they live');
  } finally {
    process.kill(master, 'SIGTERM');
    await waitUntil('the new nginx to end', () => !isAlive(master));
  }
});
