import assert from 'node:assert/strict';
import {describe, test} from 'node:test';
import {renderEnvironment} from '../../../src/workers/environment-file.ts';
import {newWorkerId} from '../../../src/workers/launch-worker.ts';
import {unitOf} from '../../../src/workers/unit-name.ts';
import {together} from '../../../src/workers/units.ts';

describe('the name of a unit', () => {
  test('comes from the mark of the worker, and from nothing else', () => {
    assert.equal(unitOf('osyw/20261123-135054-a1b2c3/0/unit-0123456789ab'), 'osyw-osyw-20261123-135054-a1b2c3-0-0123456789ab.service');
    assert.match(unitOf(newWorkerId('a_b-c', '20261123-135054-a1b2c3', 199, 'systemd')) ?? '', /^osyw-a_b-c-20261123-135054-a1b2c3-199-[0-9a-f]{12}\.service$/);
  });
  test('fits what systemd takes, with the longest application', () => {
    assert.ok((unitOf(newWorkerId('a'.repeat(63), '20261123-135054-a1b2c3', 199, 'systemd')) ?? '').length < 255);
  });
  for (const id of [newWorkerId('osyw', '20261123-135054-a1b2c3', 0, 'process'), '', 'osyw', 'osyw/d/0/unit-', 'osyw/d/0/unit-0123456789ab.service', '--all/d/0/unit-0123456789ab', 'osyw/*/0/unit-0123456789ab', 'osyw/d/0/unit-0123456789ab\n', '../d/0/unit-0123456789ab']) {
    test(`is not that of ${JSON.stringify(id)}`, () => assert.equal(unitOf(id), undefined));
  }
});

test('an environment is written so that systemd reads every value as it is', () => {
  assert.equal(renderEnvironment({A: 'plain', B: '$HOME `id` "q" \'s\' \\n', C: '', D: 'two\nlines'}),
    'A="plain"\nB="\\$HOME \\`id\\` \\"q\\" \'s\' \\\\n"\nC=""\nD="two\nlines"\n');
});

describe('questions that come together', () => {
  test('are one, and each gets its own answer', async () => {
    const asked: (readonly string[])[] = [];
    const ask = together(units => {
      asked.push(units);
      return Promise.resolve(unit => `${unit}!`);
    });
    assert.deepEqual(await Promise.all(['a', 'b', 'c'].map(ask)), ['a!', 'b!', 'c!']);
    assert.equal(await ask('d'), 'd!');
    assert.deepEqual(asked, [['a', 'b', 'c'], ['d']]);
  });
  test('fail together, and the next begins anew', async () => {
    let fails = true;
    const ask = together(() => fails ? Promise.reject(new Error('no answer')) : Promise.resolve(unit => unit));
    const both = await Promise.allSettled(['a', 'b'].map(ask));
    assert.deepEqual(both.map(({status}) => status), ['rejected', 'rejected']);
    fails = false;
    assert.equal(await ask('a'), 'a');
  });
});
