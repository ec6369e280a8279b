import assert from 'node:assert/strict';
import {test} from 'node:test';
import {formatAge, statusLines, type ShownStatus, type ShownWorker} from '../../../src/cli/status-lines.ts';
import {line} from '../state/samples.ts';

const NOW = Date.parse('2026-11-23T05:11:00.000Z');
const MIB = 1024 ** 2;
const worker = (more: Partial<ShownWorker> = {}): ShownWorker => ({
  port: 8814, pid: 4711, state: 'healthy', started_at: '2026-11-23T02:10:58.000Z', restarts: 0, saw: null, memory: 23.44 * MIB, cpu: 0.0031, ...more,
});
const NOTHING: ShownStatus = {app: 'osyw', serving: null, draining: [], deploy: null, interrupted: null, pending: null, upstream: {name: 'myweb', file: '/etc/nginx/conf.d/osyw.conf', ports: []}, watch: null, deploys: []};
const EVERYTHING: ShownStatus = {
  ...NOTHING,
  serving: {release: '000012', revision: 'r41', since: '2026-11-23T02:11:00.000Z', workers: [
    worker(),
    worker({port: 8815, pid: 104712, state: 'unhealthy', restarts: 12, saw: 'status 500, expected 200: "\x1b[2J\noh"', memory: 1500 * MIB, cpu: 1.256}),
    worker({port: 8816, pid: 4713, state: 'dead', memory: null, cpu: null}),
  ]},
  draining: [
    {release: '000011', revision: 'r40', since: '2026-11-23T02:11:00.000Z', connections: 1, nginx_workers: [581, 582], workers: [worker({port: 8811, pid: 99, state: 'draining', started_at: '2026-11-19T02:11:00.000Z'})]},
    {release: '000010', revision: 'r39', since: '2026-11-23T02:01:00.000Z', connections: 0, nginx_workers: [], workers: []},
  ],
  deploy: {id: '20261123-051050-7f3a9c', phase: 'check', revision: 'r42', since: '2026-11-23T05:10:50.000Z', phase_since: '2026-11-23T05:10:57.500Z'},
  interrupted: {id: '20261123-041050-7f3a9c', phase: 'bake', revision: null, since: '2026-11-23T04:10:50.000Z', phase_since: '2026-11-23T04:10:57.500Z'},
  pending: {revision: null, since: '2026-11-23T05:09:50.000Z'},
  upstream: {...NOTHING.upstream, ports: [8814, 8815, 8816]},
  watch: {pid: 812, since: '2026-11-20T04:11:00.000Z'},
  deploys: [
    {...line('3'), outcome: 'aborted', code: 'START_FAILED', trigger: 'hook', requested_by: 'b\x07ob\n', revision: '1'.repeat(40), phases: {update: 1000, build: 250}},
    line('2'),
    {...line('1'), code: 'CLEANUP_INCOMPLETE', exit: 10, revision: null},
  ],
};

const shown = (status: ShownStatus, colour = false) => statusLines(status, {now: NOW, colour});

test('everything at once, in columns', () => {
  assert.deepEqual(shown(EVERYTHING), [
    'osyw: release 000012 (r41) serves since 2026-11-23T02:11:00.000Z',
    '  port     pid  state          age  restarts    memory      cpu',
    '  8814    4711  healthy    3 h 0 m         0  23.4 MiB    0.3 %',
    '  8815  104712  unhealthy  3 h 0 m        12  1.46 GiB  125.6 %  status 500, expected 200: "\\x1b[2J oh"',
    '  8816    4713  dead             -         0         -        -',
    'release 000011 (r40) drains since 2026-11-23T02:11:00.000Z, waits for 2 old nginx workers (581, 582) and 1 connection',
    '  port  pid  state         age  restarts    memory    cpu',
    '  8811   99  draining  4 d 3 h         0  23.4 MiB  0.3 %',
    'release 000010 (r39) drains since 2026-11-23T02:01:00.000Z, waits for its workers to end',
    'deploy 20261123-051050-7f3a9c of r42 is in check for 2 s, began 10 s ago',
    'deploy 20261123-041050-7f3a9c of ? was killed in bake: `osyw-deploy recover` settles it, and so does whatever deploys next',
    'a request for the newest revision waits since 2026-11-23T05:09:50.000Z (1 m 10 s)',
    'upstream myweb in /etc/nginx/conf.d/osyw.conf: ports 8814, 8815, 8816',
    'a watch runs, pid 812, since 2026-11-20T04:11:00.000Z (3 d 1 h)',
    'last deploys',
    '  2026-11-23 02:11:00  111111111111  aborted START_FAILED         1.3 s  hook by b\\x07ob',
    '  2026-11-23 02:11:00  r41           deployed                     12 ms  manual by ann',
    '  2026-11-23 02:11:00  -             deployed CLEANUP_INCOMPLETE  12 ms  manual by ann',
  ]);
});

test('nothing at all', () => {
  assert.deepEqual(shown(NOTHING), ['osyw: nothing serves', 'upstream myweb in /etc/nginx/conf.d/osyw.conf: ports none', 'no watch runs']);
});

test('colour changes no character, and stands beside the text that it is for', () => {
  const coloured = shown(EVERYTHING, true);
  assert.deepEqual(coloured.map(text => text.replace(/\x1b\[\d+m/g, '')), shown(EVERYTHING));
  assert.match(coloured.join('\n'), /  \x1b\[32mhealthy\x1b\[0m    3 h.*\x1b\[31munhealthy\x1b\[0m  3 h.*\x1b\[31mstatus 500, expected 200: "\\x1b\[2J oh"\x1b\[0m/s);
  assert.match(coloured.join('\n'), /\x1b\[31maborted START_FAILED\x1b\[0m.*\x1b\[32mdeployed\x1b\[0m.*\x1b\[31mdeployed CLEANUP_INCOMPLETE/s);
});

test('an age', () => {
  for (const [ms, text] of [[-5, '0 s'], [999, '0 s'], [59_999, '59 s'], [60_000, '1 m 0 s'], [3_599_999, '59 m 59 s'], [3_600_000, '1 h 0 m'], [86_399_999, '23 h 59 m'], [86_400_000, '1 d 0 h'], [1e10, '115 d 17 h']] as const) {
    assert.equal(formatAge(ms), text);
  }
});
