import assert from 'node:assert/strict';
import {test} from 'node:test';
import {runProgram} from '../../../src/cli/program.ts';
import {DeployError} from '../../../src/errors.ts';

async function run(...words: string[]): Promise<{exit: number | string; out: string; message: string}> {
  let out = '';
  const output = {out: (text: string) => void (out += text), err: (text: string) => void (out += text), terminal: false, colour: false};
  try {
    const exit = await runProgram(words, {output, env: {}, cwd: '/', signal: new AbortController().signal, onHangup: () => undefined, version: '1.2.3', hookScript: ''});
    return {exit, out, message: ''};
  } catch (error) {
    assert.ok(error instanceof DeployError, String(error));
    return {exit: error.code, out, message: `${error.message}\n${error.hint}`};
  }
}

test('the version and the help', async () => {
  assert.deepEqual(await run('--version'), {exit: 0, out: '1.2.3\n', message: ''});
  const help = await run('--help');
  assert.equal(help.exit, 0);
  for (const word of ['init', 'hook', 'now', 'plan', 'rollback', 'recover', 'status', 'history', 'logs', 'doctor', 'start', 'stop', 'restart', 'reload', '--config', '--json', '--quiet', '--verbose', '--app']) assert.match(help.out, new RegExp(word));
  assert.doesNotMatch(help.out, /\bdrain\b.*hidden/);
  assert.match((await run('now', '--help')).out, /--revision[^]*--force[^]*--no-wait/);
});

for (const [situation, words, says] of [
  ['no command', [], /no command/],
  ['an unknown command', ['deploy'], /unknown command 'deploy'/],
  ['an unknown option', ['now', '--port=1'], /unknown option '--port=1'/],
  ['an option before the command', ['--frobnicate', 'now'], /unknown option/],
  ['a word too many', ['now', 'r41'], /too many arguments/],
  ['an option without its value', ['now', '--revision'], /argument missing/],
  ['a number that is none', ['history', '--limit', '-3'], /whole number/],
  ['a number with words', ['logs', '--lines', '3; id'], /whole number/],
  ['a revision beside what hooks asked for', ['now', '--requested', '--revision', 'r41'], /--requested.*cannot be used with.*--revision/],
  ['an option as a command', ['-rf'], /unknown option '-rf'/],
] as const) {
  test(`${situation} is USAGE, and says how to get help`, async () => {
    const {exit, out, message} = await run(...words);
    assert.deepEqual([exit, out], ['USAGE', '']);
    assert.match(message, says);
    assert.match(message, /--help|Usage:/);
  });
}
