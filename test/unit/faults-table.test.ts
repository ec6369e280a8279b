import assert from 'node:assert/strict';
import {readFileSync} from 'node:fs';
import {test} from 'node:test';

const TEST = new URL('..', import.meta.url);

interface Row {
  readonly number: number;
  readonly shown: string;
}

const rows = [...readFileSync(new URL('faults/README.md', TEST), 'utf8').matchAll(/^\| (\d+) \| [^|]+ \| ([^|]+) \|$/gm)].map(([, number, shown = '']): Row => ({number: Number(number), shown}));

test('the table of faults has every row once', () => {
  assert.deepEqual(rows.map(({number}) => number), Array.from({length: 93}, (_, i) => i + 1));
});

test('the tests that it names are there', () => {
  const missing: string[] = [];
  let named = 0;
  for (const {number, shown} of rows) {
    for (const [, file = '', names = ''] of shown.matchAll(/`([\w/-]+\.test\.ts)`: ((?:\*[^*]+\*(?:, )?)+)/g)) {
      const text = readFileSync(new URL(file, TEST), 'utf8');
      for (const [, name = ''] of names.matchAll(/\*([^*]+)\*/g)) {
        named++;
        if (!text.includes(name)) missing.push(`${number}: ${file} has no "${name}"`);
      }
    }
  }
  assert.deepEqual(missing, []);
  assert.ok(named > 93, `only ${named} were found`);
});
