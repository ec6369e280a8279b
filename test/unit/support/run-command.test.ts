import assert from 'node:assert/strict';
import {test} from 'node:test';
import {setImmediate as turn} from 'node:timers/promises';
import {runCommand, type CommandResult} from '../../../src/support/run-command.ts';
import {identify} from '../../../src/workers/process-identity.ts';
import {waitUntil} from '../../support/wait-until.ts';

const ENV = {PATH: '/usr/bin:/bin'};
const SOON = {env: ENV, timeoutMs: 10_000};
const sh = (script: string, ...args: string[]) => ({file: 'sh', args: ['-c', script, 'sh', ...args]});

/** How long it took, and that it ended well before `withinMs`. */
async function timed(work: Promise<CommandResult>, withinMs: number): Promise<CommandResult> {
  const began = performance.now();
  const result = await work;
  const took = performance.now() - began;
  assert.ok(took < withinMs, `took ${took} ms`);
  return result;
}

test('output, exit code, and nothing of our environment', async () => {
  process.env['OSYW_TEST_LEAK'] = 'leaked';
  const result = await runCommand(sh('echo out; echo err >&2; env; exit 3'), {...SOON, env: {...ENV, A: 'ü'}});
  delete process.env['OSYW_TEST_LEAK'];
  assert.deepEqual([result.exitCode, result.endedBy, result.timedOut, result.spawnError, result.stderr], [3, undefined, false, undefined, 'err\n']);
  assert.match(result.stdout, /^out\n/);
  assert.match(result.stdout, /^A=ü$/m);
  assert.doesNotMatch(result.stdout, /leaked|HOME=/);
});

test('words are words, whatever stands in them', async () => {
  const words = ['a b', '$(id)', '`id`', ';', '*', '', '-n', 'ü\n"\'\\'];
  const {stdout} = await runCommand({file: 'printf', args: ['%s\\0', ...words]}, SOON);
  assert.deepEqual(stdout.split('\0').slice(0, -1), words);
});

test('input is given, then closed; without one there is none', async () => {
  assert.equal((await runCommand({file: 'cat', args: []}, {...SOON, input: 'secret\n'})).stdout, 'secret\n');
  assert.equal((await runCommand({file: 'cat', args: []}, SOON)).stdout, '');
});

test('a command that does not read its input is no failure', async () => {
  assert.equal((await runCommand({file: 'true', args: []}, {...SOON, input: 'x'.repeat(1_000_000)})).exitCode, 0);
});

test('what cannot be started says why', async () => {
  assert.equal((await runCommand({file: '/no/such/program', args: []}, SOON)).spawnError, 'ENOENT');
  assert.equal((await runCommand({file: '/etc/passwd', args: []}, SOON)).spawnError, 'EACCES');
  assert.equal((await runCommand({file: 'true', args: []}, {...SOON, cwd: '/no/such/directory'})).spawnError, 'ENOENT');
});

test('ended by a signal of somebody else', async () => {
  const result = await runCommand(sh('kill -TERM $$'), SOON);
  assert.deepEqual([result.exitCode, result.endedBy, result.timedOut], [undefined, 'SIGTERM', false]);
});

test('the deadline kills the group, grandchildren and all', async () => {
  const result = await timed(runCommand(sh('trap "" TERM; sleep 60 & echo $! $$; wait'), {env: ENV, timeoutMs: 150}), 8000);
  assert.equal(result.timedOut, true);
  assert.equal(result.exitCode, undefined);
  const pids = result.stdout.trim().split(' ').map(Number);
  assert.equal(pids.length, 2);
  await waitUntil('the group to be dead', () => pids.every(pid => identify(pid) === undefined));
});

test('the deadline is kept although a grandchild left the group and holds the pipes', async () => {
  const lines: string[] = [];
  const result = await timed(runCommand(sh('setsid sh -c "echo \\$\\$; exec sleep 60" & sleep 60'), {env: ENV, timeoutMs: 300, onLine: line => lines.push(line)}), 8000);
  assert.equal(result.timedOut, true);
  const [pid] = lines.map(Number);
  assert.ok(pid !== undefined && identify(pid) !== undefined, 'it lives on: who is not in the group is not ours to kill here');
  process.kill(pid, 'SIGKILL');
});

test('it is over when the program is, whoever else holds its pipes', async () => {
  const result = await timed(runCommand(sh('setsid sleep 60 & echo $!'), SOON), 5000);
  assert.equal(result.exitCode, 0);
  const pid = Number(result.stdout);
  assert.ok(pid > 1);
  await waitUntil('the daemon to be there', () => identify(pid));
  process.kill(pid, 'SIGKILL');
});

test('what was written is read, although we stood still until long after the end', async () => {
  // The pipe is somebody else's after the end; so it is known to be over, and not known to be empty.
  const running = runCommand(sh('(sleep 0.3; echo late) & echo begun'), SOON);
  const since = performance.now();
  await waitUntil('its end to be heard of', () => performance.now() - since > 150, {everyMs: 5});
  await turn(); // From here on timers come next, before what there is to read.
  for (const until = performance.now() + 600; performance.now() < until;);
  assert.equal((await running).stdout, 'begun\nlate\n');
});

test('an abort kills the group and throws the reason', async () => {
  const controller = new AbortController();
  const reason = new Error('interrupted');
  const seen: number[] = [];
  await assert.rejects(runCommand(sh('sleep 60 & echo $!; wait'), {...SOON, signal: controller.signal, onLine: line => {
    seen.push(Number(line));
    controller.abort(reason);
  }}), error => error === reason);
  await waitUntil('the group to be dead', () => seen.every(pid => identify(pid) === undefined));
  await assert.rejects(runCommand({file: 'true', args: []}, {...SOON, signal: controller.signal}), error => error === reason, 'nothing is started any more');
});

test('lines come as they are written, from both streams, the last without its line feed too', async () => {
  const lines: string[] = [];
  const result = await runCommand(sh('printf "a\\r\\nü\\n\\n"; printf "no end"'), {...SOON, onLine: line => lines.push(line)});
  assert.deepEqual(lines, ['a', 'ü', '', 'no end']);
  assert.equal(result.stdout, '', 'they are not kept');
});

test('a line that never ends comes in pieces', async () => {
  const lines: string[] = [];
  await runCommand({file: 'head', args: ['-c', '300000', '/dev/zero']}, {...SOON, onLine: line => lines.push(line)});
  assert.equal(lines.join('').length, 300_000);
  assert.ok(lines.every(line => line.length <= 64 * 1024));
});

test('a listener that throws ends the command, and its error is what comes out', async () => {
  const wrong = new Error('disk full');
  await assert.rejects(runCommand(sh('echo a; sleep 60'), {...SOON, onLine: () => {
    throw wrong;
  }}), error => error === wrong);
});

test('a flood is bounded, and kills nobody, be it of control characters', async () => {
  const source = `
    import {runCommand} from ${JSON.stringify(new URL('../../../src/support/run-command.ts', import.meta.url).href)};
    const {stdout} = await runCommand({file: 'head', args: ['-c', '100000000', '/dev/zero']}, {env: {PATH: '/usr/bin:/bin'}, timeoutMs: 30_000});
    process.stdout.write(String(stdout.length));
  `;
  const {exitCode, endedBy, stdout} = await runCommand({file: process.execPath, args: ['--import', import.meta.resolve('tsx'), '--input-type=module', '--eval', source]}, {env: ENV, timeoutMs: 60_000});
  assert.deepEqual([exitCode, endedBy], [0, undefined]);
  assert.ok(Number(stdout) <= 64 * 1024 * 1024, `${stdout} characters are kept`);
});
