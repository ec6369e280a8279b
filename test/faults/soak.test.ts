import {randomInt} from 'node:crypto';
import {test} from 'node:test';
import {soak, soakTable} from './soak-run.ts';

/** For about a minute. `npm run soak` does the same for hours. */
const DEPLOYS = 25;

test(`${DEPLOYS} deploys with random faults at random times: no request fails, all recovers, nothing is left`, {timeout: 300_000}, async (t) => {
  const seed = Number(process.env['OSYW_SOAK_SEED'] ?? randomInt(2 ** 31));
  const report = await soak(t, {seed, deploys: DEPLOYS, say: (line) => t.diagnostic(line)});
  t.diagnostic(`\n${soakTable(report)}`);
});
