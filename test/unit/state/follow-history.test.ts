import {appendFileSync, mkdirSync, readFileSync, renameSync, truncateSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {test, type TestContext} from 'node:test';
import {followHistory} from '../../../src/state/follow-history.ts';
import {addToHistory} from '../../../src/state/history.ts';
import {makeTempDir, removeTempDir} from '../../support/temp-dir.ts';
import {waitUntil} from '../../support/wait-until.ts';
import {line} from './samples.ts';

interface Followed {
  readonly dir: string;
  readonly path: string;
  /** Waits until exactly these were told, in this order. */
  told(...ids: readonly string[]): Promise<unknown>;
}

async function followed(t: TestContext, before: readonly string[], act: (followed: Followed) => Promise<void>, limit?: number): Promise<void> {
  const root = makeTempDir();
  t.after(() => removeTempDir(root));
  const dir = join(root, 'state');
  if (before.length > 0) mkdirSync(dir);
  if (before.length > 0) addToHistory(dir, ...before.map(id => line(id)));
  const over = new AbortController();
  const ids: string[] = [];
  const end = followHistory(dir, {limit, signal: over.signal, tell: ({id}) => void ids.push(id)});
  try {
    await act({dir, path: join(dir, 'history.ndjson'), told: (...wanted) => waitUntil(`${wanted.join(' ')} after ${ids.join(' ')}`, () => ids.join(' ') === wanted.join(' '))});
  } finally {
    over.abort();
    await end;
  }
}

test('what is there, oldest first, then each line as it comes', t => followed(t, ['d1', 'd2'], async ({dir, told}) => {
  await told('d1', 'd2');
  addToHistory(dir, line('d3'));
  await told('d1', 'd2', 'd3');
  addToHistory(dir, line('d4'), line('d5'));
  await told('d1', 'd2', 'd3', 'd4', 'd5');
}));

for (const [limit, first] of [[0, []], [1, ['d3']], [9, ['d1', 'd2', 'd3']]] as const) {
  test(`of what is there the last ${limit}, and all that comes`, t => followed(t, ['d1', 'd2', 'd3'], async ({dir, told}) => {
    addToHistory(dir, line('d4'), line('d5'));
    await told(...first, 'd4', 'd5');
  }, limit));
}

test('a directory and a file that are not there yet', t => followed(t, [], async ({dir, told}) => {
  mkdirSync(dir);
  addToHistory(dir, line('d1'));
  await told('d1');
}));

test('moved away with a line that was not read yet, and another file in its place', t => followed(t, ['d1'], async ({dir, path, told}) => {
  await told('d1');
  addToHistory(dir, line('d2'));
  renameSync(path, `${path}.1`);
  addToHistory(dir, line('d3'));
  await told('d1', 'd2', 'd3');
}));

test('cut to nothing, and as long as before when it is read again', t => followed(t, ['d1', 'd2'], async ({dir, path, told}) => {
  await told('d1', 'd2');
  truncateSync(path);
  addToHistory(dir, line('d3'), line('d4'));
  await told('d1', 'd2', 'd3', 'd4');
}));

test('a shorter copy in its place tells nothing twice', t => followed(t, ['d1', 'd2', 'd3'], async ({dir, path, told}) => {
  await told('d1', 'd2', 'd3');
  writeFileSync(`${path}.new`, `${readFileSync(path, 'utf8').split('\n').slice(2).join('\n')}`);
  renameSync(`${path}.new`, path);
  addToHistory(dir, line('d4'));
  await told('d1', 'd2', 'd3', 'd4');
}));

test('a line in two parts is told when it is whole', t => followed(t, ['d1'], async ({path, dir, told}) => {
  await told('d1');
  const text = Buffer.from(`${JSON.stringify(line('d2', 'grüße'))}\n`);
  const cut = text.indexOf('ü') + 1;
  appendFileSync(path, text.subarray(0, cut));
  addToHistory(dir, line('d3'));
  await told('d1', 'd3');
  appendFileSync(path, text);
  await told('d1', 'd3', 'd2');
}));
