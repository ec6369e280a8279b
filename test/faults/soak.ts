// `npm run soak [-- --deploys 1000 --seed 42]`: deploys under a load, with random faults at random times. Ends 0 only when all held.
import {randomInt} from 'node:crypto';
import {parseArgs} from 'node:util';
import type {TestContext} from 'node:test';
import {endRows, inRow} from '../bench/rig.ts';
import {soak, SoakFailure, soakTable} from './soak-run.ts';

const {values} = parseArgs({options: {deploys: {type: 'string', default: '1000'}, seed: {type: 'string', default: String(randomInt(2 ** 31))}}});
const deploys = wholeNumber('--deploys', values.deploys);
const seed = wholeNumber('--seed', values.seed);

// The rigs leave at once on a signal, as a test may; here all ends in its order, so that nginx takes its workers along.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.removeAllListeners(signal);
  process.once(signal, () => {
    say(`soak: interrupted by ${signal}; seed ${seed}`);
    void endRows().finally(() => process.exit(1));
  });
}

try {
  // The rigs want a test's context for nothing but `after`.
  const report = await inRow((row) => soak(row as unknown as TestContext, {seed, deploys, say}));
  say(`\n${soakTable(report)}`);
} catch (error) {
  say(error instanceof SoakFailure ? `\nsoak: ${error.message}` : `\nsoak: seed ${seed}: ${error instanceof Error ? error.stack : String(error)}`);
  process.exitCode = 1;
}
process.exit();

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

function wholeNumber(name: string, text: string): number {
  if (/^\d{1,10}$/.test(text)) return Number(text);
  say(`${name} is ${text}; expected a whole number`);
  process.exit(2);
}
