import assert from 'node:assert/strict';
import {after, test} from 'node:test';
import {pruneReleases} from '../../../src/cli/turn.ts';
import type {Config} from '../../../src/config/config.ts';
import {deploy} from '../../../src/deploy/deploy.ts';
import type {DeployTools} from '../../../src/deploy/tools.ts';
import {makeStateDir} from '../../../src/state/state-file.ts';
import {World} from '../../fakes/world.ts';
import {makeTempDir, removeTempDir} from '../../support/temp-dir.ts';

const stateDir = makeTempDir();
makeStateDir(stateDir);
after(() => removeTempDir(stateDir));
const config = {stateDir} as Config;
const now = (revision: string) => (tools: DeployTools) => deploy({trigger: 'manual', requestedBy: 'ann', target: {kind: 'revision', wanted: revision}, force: false, filed: []}, tools, new AbortController().signal, {historyNow: true});

test('what a killed deploy made is not pruned before it is settled: it may serve', async () => {
  for (let killBefore = 1; ; killBefore++) {
    const world = new World();
    await world.live(now('r1'));
    const {end, effects} = await world.live(now('r2'), {killBefore});
    if (end !== 'killed') break;
    const before = [...world.disk.releases.keys()];
    await world.live(tools => pruneReleases(config, tools));
    assert.deepEqual([...world.disk.releases.keys()], before, `killed after "${effects.at(-1) ?? 'nothing'}"`);
  }
});

test('what is kept no longer goes, from the state too', async () => {
  const world = new World({keep: 2});
  for (const revision of ['r1', 'r2', 'r3']) await world.live(now(revision));
  world.disk.drains.clear();
  await world.live(tools => pruneReleases(config, tools));
  assert.deepEqual([...world.disk.releases.keys()], ['000002', '000003']);
  assert.deepEqual(world.state.served.map(({id}) => id), ['000002', '000003']);
});
