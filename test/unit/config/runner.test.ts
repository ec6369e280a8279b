import assert from 'node:assert/strict';
import {existsSync} from 'node:fs';
import {describe, test} from 'node:test';
import {configHash} from '../../../src/config/config-hash.ts';
import {parseConfig} from '../../../src/config/load-config.ts';
import {configAsObject} from '../../../src/config/render-config.ts';
import {ENV, FILE, MINIMAL, refusalOf, withLine} from './config-text.ts';

const SYSTEMD = withLine(6, '  ports: 8811-8830\n  runner: systemd\n  systemd: {memory_max: 512M, tasks_max: 64, properties: {Nice: 5, ProtectHome: yes}}');
const runs = existsSync('/run/systemd/system');

describe('runner: systemd', () => {
  test('is refused where no systemd runs', {skip: runs && 'one runs here'}, () => {
    assert.match(refusalOf(SYSTEMD), /:7:11: workers\.runner is systemd, but systemd does not run here \(there is no \/run\/systemd\/system\); expected process/);
  });
  test('is refused to all but root', {skip: !runs || process.getuid?.() === 0 ? 'no systemd, or root' : false}, () => {
    assert.match(refusalOf(SYSTEMD), /workers\.runner is systemd, but only root may start units of the system; expected process/);
  });
  test('is rendered in the words of the file', () => {
    const config = parseConfig(MINIMAL, FILE, ENV);
    const workers = {...config.workers, runner: 'systemd' as const, log: undefined, systemd: {memoryMax: '512M', tasksMax: 64, properties: {Nice: '5', ProtectHome: 'yes'}}};
    const shown = configAsObject({...config, workers})['workers'] as Record<string, unknown>;
    assert.deepEqual([shown['runner'], shown['systemd'], shown['log']], ['systemd', {memory_max: '512M', tasks_max: 64, properties: {Nice: '5', ProtectHome: 'yes'}}, undefined]);
    const others = configHash({...config, workers: {...workers, systemd: {...workers.systemd, tasksMax: 65}}});
    assert.notEqual(configHash({...config, workers}), others, 'another limit is another configuration');
  });
});

test('runner: process has no words of systemd', () => {
  const {workers} = parseConfig(MINIMAL, FILE, ENV);
  assert.equal(workers.runner, 'process');
  assert.equal('systemd' in workers, false);
});
