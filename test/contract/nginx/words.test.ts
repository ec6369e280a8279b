import assert from 'node:assert/strict';
import {test} from 'node:test';
import fc from 'fast-check';
import {parseConfig} from '../../../src/nginx/parse-config.ts';
import {startNginx} from '../../support/nginx-rig.ts';
import {get} from '../../support/raw-http.ts';
import {makeTempDir, removeTempDir} from '../../support/temp-dir.ts';

test('a word is what nginx makes of it: what it answers with', async (t) => {
  const inQuotes = (mark: string) => fc.array(fc.constantFrom('a', 'é', ' ', '\n', ';', '{', '}', '#', '\t', mark === '"' ? "'" : '"', '\\"', "\\'", '\\\\', '\\t', '\\r', '\\n', '\\q', '\\;', '\\ '), {maxLength: 8}).map(pieces => mark + pieces.join('') + mark);
  const bare = fc.array(fc.constantFrom('a', 'é', '"', "'", '#', '}', ')', '\\"', "\\'", '\\\\', '\\t', '\\n', '\\;', '\\{', '\\ ', '\\q'), {maxLength: 8}).map(pieces => `x${pieces.join('')}`);
  const words = fc.sample(fc.oneof(inQuotes('"'), inQuotes("'"), bare), {numRuns: 300, seed: 1});
  const server = words.map((word, i) => `location = /${i} { return 200 ${word}; }`).join('\n');
  const dir = makeTempDir();
  const nginx = await startNginx(dir, {server});
  t.after(async () => {
    await nginx.stop();
    removeTempDir(dir);
  });
  const read = parseConfig(Buffer.from(server)).map(({block}) => block?.[0]?.args[1]?.text);
  for (const [i, word] of words.entries()) assert.equal((await get(nginx.port, `/${i}`)).text, read[i], JSON.stringify(word));
});
