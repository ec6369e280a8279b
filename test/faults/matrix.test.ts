import assert from 'node:assert/strict';
import {test} from 'node:test';
import {makeSite} from '../support/site.ts';
import {waitUntil} from '../support/wait-until.ts';
import {makeControlGroup} from './control-group.ts';

// What the other suites cannot do at every point: a fault that needs the kernel's help, or an nginx that it is done to. One test for each.

const root = process.getuid?.() === 0 ? false : 'needs root';

for (const [how, lasts] of [['for a moment', false], ['for long', true]] as const) {
  test(`nginx cannot fork its workers, ${how}: it is told the old configuration at once, and nobody is stopped`, {skip: root}, async t => {
    const site = await makeSite(t);
    const group = makeControlGroup(t, 'pids');
    if (typeof group === 'string') return t.skip(group);
    await site.deployed();
    await site.release('2');
    group.join(site.nginx.masterPid());
    group.limit(1);
    const command = site.start(['now', '--json']);
    const failed = (): number => site.nginx.logs().error.split('fork() failed').length - 1;
    await waitUntil('a reload without workers', () => failed() > 0, {withinMs: 20_000, everyMs: 1});
    if (!lasts) group.unlimit();
    const began = performance.now();
    const end = await command.ended;
    assert.ok(performance.now() - began < 8000, `it took ${performance.now() - began} ms`);
    if (lasts) {
      assert.equal(end.exit, 12, end.stdout + end.stderr);
      assert.match(end.result?.error ?? '', /starts no workers/);
      assert.equal(site.processes().length, 4, 'the old workers and the new run');
      group.unlimit();
      assert.equal((await site.run(['recover'])).exit, 0);
      await site.settled();
    } else {
      assert.equal(end.exit, 9, end.stdout + end.stderr);
      await site.settled({version: '1', outcome: 'aborted', code: 'SWITCH_REFUSED'});
    }
    await site.deployed();
    await site.settled({version: '2'});
  });
}
