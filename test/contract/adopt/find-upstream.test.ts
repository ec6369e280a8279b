import assert from 'node:assert/strict';
import {appendFileSync} from 'node:fs';
import {basename} from 'node:path';
import {test} from 'node:test';
import {findLocalUpstream} from '../../../src/adopt/find-upstream.ts';
import {startNginx} from '../../support/nginx-rig.ts';
import {makeTempDir, removeTempDir} from '../../support/temp-dir.ts';

test("another site's nginx that refuses its configuration is no obstacle", async t => {
  const [mine, other] = [makeTempDir(), makeTempDir()];
  // Others may run on the machine: this name is nobody else's.
  const upstream = basename(mine);
  const rig = await startNginx(mine, {inline: true, upstream: `upstream myweb { server 127.0.0.1:40002; }\nupstream ${upstream} { server 127.0.0.1:40001; }\n`});
  const broken = await startNginx(other);
  t.after(async () => {
    await Promise.all([rig.stop(), broken.stop()]);
    for (const dir of [mine, other]) removeTempDir(dir);
  });
  appendFileSync(broken.conf, 'no_such_directive;\n');
  const found = await findLocalUpstream({upstream, nginx: undefined, cwd: '/'});
  assert.deepEqual([found.name, found.file, found.ports, found.oneOfSeveral], [upstream, rig.conf, [40_001], true]);
  await assert.rejects(findLocalUpstream({upstream, nginx: broken.conf, cwd: '/'}), /no_such_directive/);
});
