import assert from 'node:assert/strict';
import {test} from 'node:test';
import {wantsColour, type Output} from '../../../src/cli/output.ts';
import {openRenderer, type Verbosity} from '../../../src/cli/renderer.ts';
import type {DeployEvent, DeployResult} from '../../../src/deploy/events.ts';

const EVENTS: DeployEvent[] = [
  {event: 'phase', phase: 'update', state: 'began'},
  {event: 'note', text: 'svn \x1b[2J says'}, {event: 'note', text: 'svn \x1b[2J says'},
  {event: 'output', line: 'building \x07'},
  {event: 'phase', phase: 'update', state: 'ended', ms: 85},
];
const DEPLOYED: DeployResult = {outcome: 'deployed', exit: 0, code: 'OK', release: '000012', revision: 'r41', previous: '000011', phases: {update: 85, build: 1200}, error: null, hint: null};
const FAILED: DeployResult = {...DEPLOYED, outcome: 'aborted', exit: 8, code: 'NEVER_HEALTHY', error: 'worker 1 answered \x1b[31m500', hint: 'Look at it.'};
const PLAIN: Verbosity = {json: false, quiet: false, verbose: false};

function shown(result: DeployResult, verbosity: Partial<Verbosity>, terminal = false): {out: string; err: string} {
  const seen = {out: '', err: ''};
  const output: Output = {out: text => void (seen.out += text), err: text => void (seen.err += text), terminal, colour: terminal};
  const renderer = openRenderer(output, {...PLAIN, ...verbosity});
  EVENTS.forEach(renderer.event);
  renderer.result(result);
  return seen;
}

test('a pipe gets plain lines', () => {
  assert.deepEqual(shown(DEPLOYED, {}), {out: 'update  85 ms\ndeployed r41 as release 000012 in 1.3 s\n', err: ''});
});

test('--verbose adds what is waited for, once, and the output of the build', () => {
  assert.equal(shown(DEPLOYED, {verbose: true}).out, '        svn \\x1b[2J says\n        | building \\x07\nupdate  85 ms\ndeployed r41 as release 000012 in 1.3 s\n');
});

test('--quiet says nothing but failures, with what to do and what serves', () => {
  assert.deepEqual(shown(DEPLOYED, {quiet: true}), {out: '', err: ''});
  const {out, err} = shown(FAILED, {quiet: true});
  assert.equal(out, '');
  assert.equal(err, 'NEVER_HEALTHY (exit 8): worker 1 answered \\x1b[31m500\n→ Look at it.\naborted r41 as release 000012 after 1.3 s: release 000011 still serves\n');
});

for (const verbosity of [{}, {quiet: true}, {verbose: true}]) {
  test(`--json: standard output is JSON alone, one object a line, the last one the result ${JSON.stringify(verbosity)}`, () => {
    for (const result of [DEPLOYED, FAILED]) {
      const {out, err} = shown(result, {json: true, ...verbosity}, true);
      const objects = out.trimEnd().split('\n').map(line => JSON.parse(line) as Record<string, unknown>);
      const {hint: _, ...rest} = result;
      assert.deepEqual(objects, [EVENTS[0], EVENTS.at(-1), {event: 'result', ...rest}]);
      assert.equal(err === '', result.error === null);
    }
  });
}

test('a terminal gets live lines; nothing of somebody else\'s reaches it as a command', () => {
  const {out, err} = shown(FAILED, {}, true);
  assert.match(out, /✓/);
  assert.match(out, /svn \\x1b\[2J says/);
  assert.doesNotMatch(out + err, /\x07|\x1b\[2J/);
  assert.match(err, /\x1b\[31mNEVER_HEALTHY/);
});

test('every outcome has its last line', () => {
  const last = (result: Partial<DeployResult>) => shown({...DEPLOYED, ...result}, {}).out.split('\n').at(-2);
  assert.equal(last({outcome: 'unchanged'}), 'unchanged: release 000012 (r41) serves, and its workers are healthy');
  assert.match(last({exit: 10}) ?? '', /it serves, but something old is left to stop$/);
  assert.match(last({outcome: 'superseded'}) ?? '', /^superseded/);
  assert.match(last({outcome: 'rolled_back', previous: null}) ?? '', /nothing serves$/);
  assert.match(shown({...FAILED, outcome: 'uncertain', code: 'STATE_UNCERTAIN', exit: 12}, {}).err, /nothing was stopped/);
});

test('colour', () => {
  for (const [env, terminal, wanted] of [
    [{}, true, true], [{}, false, false], [{NO_COLOR: '1'}, true, false], [{NO_COLOR: ''}, true, true], [{FORCE_COLOR: '1'}, false, true],
    [{FORCE_COLOR: '0'}, true, false], [{FORCE_COLOR: '1', NO_COLOR: '1'}, false, true], [{TERM: 'dumb'}, true, false],
  ] as const) assert.equal(wantsColour(env, terminal), wanted, JSON.stringify([env, terminal]));
});
