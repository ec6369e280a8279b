import assert from 'node:assert/strict';
import {writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {test} from 'node:test';
import {makeSite} from '../support/site.ts';
import {waitUntil} from '../support/wait-until.ts';

const DAY_MS = 86_400_000;

// The machine's own clock is everybody's. Node asks it for `Date` alone, and there it goes wrong; what counts time has the monotonic one.
const WRONG_CLOCK = `
const {existsSync} = require('node:fs');
const [by, jump, mark] = JSON.parse(process.env.OSYW_TEST_CLOCK);
const RealDate = Date;
const now = () => RealDate.now() + by + (existsSync(mark) ? jump : 0);
globalThis.Date = class extends RealDate {
  constructor(...given) { given.length === 0 ? super(now()) : super(...given); }
  static now() { return now(); }
};
`;

test('a clock that is wrong, or jumps by a day in the middle: every deploy goes live, and comes back as the one before', {timeout: 120_000}, async (t) => {
  const site = await makeSite(t, {config: {bake: {for: '300ms'}}});
  const script = join(site.dir, 'clock.cjs');
  writeFileSync(script, WRONG_CLOCK);
  await site.deployed();
  const traffic = site.traffic();
  let version = 1;
  for (const [by, jump] of [[DAY_MS, 0], [0, 0], [0, DAY_MS], [0, -DAY_MS], [-DAY_MS, 2 * DAY_MS]] as const) {
    for (const phase of jump === 0 ? ['none'] : ['check', 'bake', 'drain']) {
      const mark = join(site.dir, `jump-${++version}`);
      await site.release(String(version));
      const command = site.start(['now', '--json'], {env: {NODE_OPTIONS: `--require=${script}`, OSYW_TEST_CLOCK: JSON.stringify([by, jump, mark])}});
      if (phase !== 'none') {
        await waitUntil(`phase ${phase}`, () => command.stdout().includes(`"phase":"${phase}","state":"began"`), {withinMs: 20_000, everyMs: 1});
        writeFileSync(mark, '');
      }
      const end = await command.ended;
      const what = `${by / DAY_MS} days off, ${jump / DAY_MS} in ${phase}`;
      assert.equal(end.exit, 0, `${what}: ${end.stdout}${end.stderr}`);
      assert.ok(Object.values(end.result?.phases ?? {}).every((ms) => ms >= 0 && ms < DAY_MS / 2), `${what}: ${JSON.stringify(end.result?.phases)}`);
      assert.equal(end.result?.release, String(version).padStart(6, '0'), 'releases are counted, not dated');
      assert.equal(await site.version(), String(version));
      const lines = await site.history();
      assert.equal(lines[0]?.release, end.result.release, 'the newest is first, whatever its time');
      assert.ok(Math.abs(Date.parse(lines[0].started_at) - Date.now() - by) < 120_000, `${what}: it was off`);
      assert.equal(new Set(lines.map(({id}) => id)).size, lines.length);
    }
  }
  const back = await site.run(['rollback', '--json']);
  assert.equal(back.exit, 0, back.stdout + back.stderr);
  assert.equal(await site.version(), String(version - 1), 'the one before in the order of the deploys');
  assert.deepEqual((await site.status()).draining, []);
  assert.deepEqual((await traffic.stop()).failures, []);
});
