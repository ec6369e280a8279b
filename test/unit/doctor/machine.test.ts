import assert from 'node:assert/strict';
import {mkdirSync, writeFileSync} from 'node:fs';
import {dirname, join} from 'node:path';
import {test, type TestContext} from 'node:test';
import type {Config} from '../../../src/config/config.ts';
import {clockIsRight} from '../../../src/doctor/clock.ts';
import {roomForRelease, sizeOf} from '../../../src/doctor/disk.ts';
import {cgroupOfHooks, cgroupOfWorkers, hookNode, judgeHook, OLDEST_NODE} from '../../../src/doctor/hooks.ts';
import {inotifyLimits} from '../../../src/doctor/inotify.ts';
import {judgeLocales} from '../../../src/doctor/locale.ts';
import {logRotation} from '../../../src/doctor/logs.ts';
import {memoryForTwo} from '../../../src/doctor/memory.ts';
import {ephemeralPorts, portsInUse, portsShared} from '../../../src/doctor/ports.ts';
import {findProgram, programsAreThere} from '../../../src/doctor/programs.ts';
import packageJson from '../../../package.json' with {type: 'json'};
import {makeTempDir, removeTempDir} from '../../support/temp-dir.ts';

const PORTS = {first: 8811, last: 8830};
const KB_OF_GB = 1024 * 1024;
const MB = 1024 * 1024;
const signal = new AbortController().signal;

/** A directory with these files; what the real machine has cannot show a fault. */
function filesIn(t: TestContext, files: Readonly<Record<string, string>>): string {
  const dir = makeTempDir();
  t.after(() => removeTempDir(dir));
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(dir, name)), {recursive: true});
    writeFileSync(join(dir, name), text, {mode: 0o755});
  }
  return dir;
}

test('the range against the ports of outgoing connections', t => {
  const proc = (range: string, reserved: string) => filesIn(t, {'sys/net/ipv4/ip_local_port_range': range, 'sys/net/ipv4/ip_local_reserved_ports': reserved});
  assert.equal(ephemeralPorts(PORTS, 'osyw', proc('32768\t60999\n', '\n')).level, 'ok');
  const exposed = ephemeralPorts(PORTS, 'osyw', proc('1024\t65535\n', '9000,9100-9200\n'));
  assert.equal(exposed.level, 'warning');
  assert.match(exposed.says, /^20 ports of 8811-8830 .*\(1024-65535\)$/);
  assert.match(`${exposed.mend}`, /^echo net\.ipv4\.ip_local_reserved_ports=9000,9100-9200,8811-8830 >/);
  assert.match(ephemeralPorts(PORTS, 'osyw', proc('8820 9000', '')).says, /^11 ports/);
  assert.equal(ephemeralPorts(PORTS, 'osyw', proc('1024 65535', '8811-8830')).level, 'ok');
  assert.equal(ephemeralPorts(PORTS, 'osyw', filesIn(t, {'sys/net/ipv4/ip_local_port_range': '32768 60999'})).level, 'ok', 'a kernel without the list');
});

test('who listens in the range', () => {
  const at = (port: number, address = '127.0.0.1') => ({address, port, inode: port, uid: 0});
  const workers = {ports: PORTS, count: 3, host: '127.0.0.1'};
  const judge = (listening: ReturnType<typeof at>[], own: number[] = []) => portsInUse(workers, listening, new Set(own), ({inode}) => `pid ${inode}`);
  assert.deepEqual([judge([at(8811)], [8811]).level, judge([at(8811, '127.0.0.2')]).level, judge([at(8831)]).level], ['ok', 'ok', 'ok']);
  const one = judge([at(8812, '::'), at(8812)]);
  assert.deepEqual([one.level, one.mend], ['warning', 'ports: 8831-8850']);
  assert.match(one.says, /1 port of 8811-8830 \(8812 pid 8812\); 19 spare, a deploy needs 3/);
  const many = judge(Array.from({length: 18}, (_, i) => at(8811 + i)).concat(at(8835)));
  assert.deepEqual([many.level, many.mend], ['problem', 'ports: 8836-8855']);
});

test('the range of another application', t => {
  const yaml = (app: string, ports: string) => `app: ${app}\nsource: {working_copy: /srv/${app}, url: "svn://127.0.0.1/${app}"}\nworkers: {command: [/bin/true], ports: ${ports}}\nnginx: {upstream: web, file: /etc/nginx/conf.d/${app}.conf}\nstate_dir: /var/lib/x/${app}\n`;
  const dir = filesIn(t, {});
  for (const [name, text] of Object.entries({'a.yaml': yaml('a', '8820-8840'), 'b.yaml': yaml('b', '9000-9010'), 'own.yaml': yaml('own', '8811-8830'), 'bad.yaml': 'no: [', 'c.txt': yaml('c', '8811-8830')})) writeFileSync(join(dir, name), text, {mode: 0o600});
  const config = {file: join(dir, 'own.yaml'), app: 'own', workers: {ports: PORTS}} as Config;
  assert.deepEqual(portsShared(config, dir).map(({place, mend}) => [place, mend]), [[join(dir, 'a.yaml'), 'ports: 8841-8860']]);
  assert.deepEqual(portsShared(config, join(dir, 'none')), []);
});

test('memory for two sets of workers', t => {
  const proc = (available: number, swap = 0) => filesIn(t, {meminfo: `MemTotal: 9 kB\nMemAvailable:   ${available} kB\nSwapFree:  ${swap} kB\n`, '17/cgroup': '0::/system.slice/osyw.service\n', 'self/cgroup': '0::/\n'});
  const workers = [100 * MB, 120 * MB, 80 * MB];
  const judge = (at: string, resident = workers, more: {pid?: number; cgroups?: string} = {}) => memoryForTwo(resident, {count: 3, pid: undefined, proc: at, cgroups: '/none', ...more});
  assert.equal(judge(proc(KB_OF_GB)).level, 'ok');
  const swapping = judge(proc(200 * 1024, KB_OF_GB));
  assert.deepEqual([swapping.level, swapping.mend], ['warning', 'count: 1']);
  assert.match(swapping.says, /^3 workers of 100 MB serve, .*: 300 MB more, 200 MB available and 1024 MB of swap$/);
  assert.equal(judge(proc(200 * 1024)).level, 'problem');
  assert.equal(judge(proc(1), []).level, 'note');

  const cgroups = filesIn(t, {'system.slice/osyw.service/memory.max': 'max\n', 'system.slice/osyw.service/memory.current': '1\n', 'system.slice/memory.max': `${500 * MB}\n`, 'system.slice/memory.current': `${400 * MB}\n`, 'system.slice/memory.stat': `anon 5\ninactive_file ${80 * MB}\nactive_file 7\n`});
  const limited = judge(proc(KB_OF_GB), workers, {pid: 17, cgroups});
  assert.equal(limited.level, 'problem');
  assert.match(limited.says, /300 MB more, 180 MB available in the cgroup of the workers$/);
  assert.equal(judge(proc(KB_OF_GB), workers, {cgroups}).level, 'ok', 'the limit of others');
});

test('watches and instances of inotify', t => {
  const proc = (watches: number, instances: number) => filesIn(t, {
    'sys/fs/inotify/max_user_watches': `${watches}\n`, 'sys/fs/inotify/max_user_instances': `${instances}\n`,
    '17/status': 'Name:\tx\nUid:\t33\t33\t33\t33\n', '17/fdinfo/5': 'pos:\t0\ninotify wd:1 ino:a\ninotify wd:2 ino:b\n', '17/fdinfo/6': 'pos:\t0\n',
    '18/status': 'Uid:\t0\t0\t0\t0\n', '18/fdinfo/5': 'inotify wd:1 ino:a\n',
  });
  const tree = filesIn(t, {'a/b/file': '', 'c/file': '', '.git/x/y': ''});
  const levels = (watches: number, instances: number, edits = true) => inotifyLimits({edits, workingCopy: tree}, 33, proc(watches, instances)).map(({level}) => level);
  // 2 used, 20 of our own, and the tree with its a, a/b, c.
  assert.deepEqual(levels(26, 128), ['ok', 'ok']);
  assert.deepEqual(levels(25, 128), ['warning', 'ok']);
  assert.deepEqual(levels(25, 128, false), ['ok', 'ok']);
  assert.deepEqual(levels(26, 2), ['ok', 'warning']);
});

test('the cgroup that workers and hooks live in', t => {
  const proc = filesIn(t, {
    '1/cgroup': '0::/system.slice/svnserve.service\n', '2/cgroup': '0::/system.slice/osyw-deploy-osyw.service\n', '3/cgroup': '0::/system.slice/osyw-osyw-20261123-7f3a-0-ab.service\n',
    '4/cgroup': '0::/user.slice/user-0.slice/session-4.scope\n', '5/cgroup': '9:name=systemd:/system.slice/ssh.service\n0::/\n', '6/cgroup': '0::/system.slice/run-r1.scope\n', '7/cgroup': '0::/docker/17\n',
    '8/cgroup': '0::/system.slice/osyw-deploy-other.service\n',
  });
  const judge = (...pids: number[]) => cgroupOfWorkers(pids, 'osyw', proc);
  assert.equal(judge(2, 3, 6, 7, 99).level, 'ok');
  for (const [pid, unit, expected] of [[1, 'svnserve.service', 'problem'], [4, 'session-4.scope', 'warning'], [5, 'ssh.service', 'problem'], [8, 'osyw-deploy-other.service', 'problem']] as const) {
    const {level, says} = judge(2, pid);
    assert.deepEqual([level, says], [expected, `1 worker (pid ${pid}) in the cgroup of ${unit}`]);
  }
  const accounts = [{account: 'root', files: true, starts: true}, {account: 'www-data', files: true, starts: true}];
  const hooks = (more: Partial<Parameters<typeof cgroupOfHooks>[1]>, who = accounts) => cgroupOfHooks(who, {systemd: true, watched: false, units: ['apache2.service'], ...more});
  assert.deepEqual([hooks({systemd: false}).level, hooks({watched: true}).level, hooks({}, accounts.slice(0, 1)).level], ['ok', 'ok', 'ok']);
  assert.deepEqual([hooks({}).level, hooks({}).mend], ['warning', 'osyw-deploy service install --enable']);
  assert.match(hooks({}).says, /a hook of www-data starts .*\(here: apache2\.service\)/);
});

test('the node of a hook', async t => {
  const dir = filesIn(t, {old: '#!/bin/sh\necho v20.18.3\n', older: '#!/bin/sh\necho v18.20.4\n', broken: '#!/bin/sh\nexit 3\n', fine: '#!/bin/sh\necho v20.19.0\n', newer: '#!/bin/sh\necho v24.1.0\n'});
  for (const [name, level] of [['old', 'problem'], ['older', 'problem'], ['broken', 'problem'], ['none', 'problem'], ['fine', 'ok'], ['newer', 'ok']] as const) {
    assert.equal((await hookNode(join(dir, name), 'install', signal)).level, level, name);
  }
  assert.equal(packageJson.engines.node, `>=${OLDEST_NODE.join('.')}`);
});

test('problems of a hook, with the line for sudo', () => {
  const status = {app: 'osyw', repository: {kind: 'svn', path: '/srv/svn'}, hooks: [{file: '/srv/svn/hooks/post-commit', state: 'installed', before: null}], spool: null, accounts: [], last: null} as const;
  const judge = (...problems: string[]) => judgeHook({...status, problems}, '/etc/a b.yaml').map(({check, level, mend, says}) => [check, level, mend, says]);
  const install = "osyw-deploy hook install --config '/etc/a b.yaml'";
  assert.deepEqual(judge().map(([, level]) => level), ['ok']);
  assert.deepEqual(judge('x is not executable'), [['hook', 'problem', install, 'x is not executable']]);
  assert.deepEqual(judge('bob commits and may not start the deploy: its requests wait. To let it, put this line into a file in /etc/sudoers.d (with `visudo -f`):\n  bob ALL=(root) NOPASSWD: /usr/bin/flock'), [['hook-starts', 'warning', 'bob ALL=(root) NOPASSWD: /usr/bin/flock', 'bob commits and may not start the deploy: its requests wait.']]);
  assert.deepEqual(judge('bob commits and may not start the deploy: sudo cannot let it').map(([check, , mend]) => [check, mend]), [['hook-starts', "* * * * * osyw-deploy now --requested --quiet --config '/etc/a b.yaml'"]]);
});

test('the clock against what is on record', () => {
  const now = Date.parse('2026-11-23T12:00:00Z');
  const at = (minutes: number) => [{what: 'the last deploy', at: now + minutes * 60_000}, {what: 'long ago', at: 0}];
  assert.deepEqual([clockIsRight(now, at(-5), undefined).level, clockIsRight(now, at(1), true).level, clockIsRight(now, [], undefined).level], ['ok', 'ok', 'ok']);
  assert.match(clockIsRight(now, at(60), true).says, /clock says 2026-11-23 12:00:00, 60 m 0 s before the last deploy of 2026-11-23 13:00:00/);
  assert.deepEqual([clockIsRight(now, at(60), true).level, clockIsRight(now, [], false).level], ['warning', 'warning']);
});

test('locales, whichever way they are written', () => {
  const there = ['C', 'C.utf8', 'de_DE.utf8', 'POSIX'];
  const set = (value: string) => [{name: 'workers.env LANG', value}];
  assert.deepEqual([judgeLocales(there, set('de_DE.UTF-8')), judgeLocales(there, set('POSIX'))].map(found => found.map(({level}) => level)), [['ok'], ['ok']]);
  assert.deepEqual(judgeLocales(there, set('fr_FR.UTF-8')).map(({level, mend}) => [level, mend]), [['warning', 'localedef -i fr_FR -f UTF-8 fr_FR.UTF-8']]);
  assert.deepEqual(judgeLocales(['C', 'POSIX'], []).map(({mend}) => mend), ['apt-get install --yes locales libc-bin']);
  assert.deepEqual(judgeLocales(there, set('$(reboot)')).map(({mend}) => mend), ['LANG: C.UTF-8'], 'no text of the configuration becomes a command');
});

test('who rotates the logs', t => {
  const config = (log: string | undefined) => ({app: 'osyw', file: '/etc/osyw-deploy/osyw.yaml', stateDir: '/var/lib/osyw', workers: {log, ports: PORTS, runner: 'process'}}) as Config;
  const etc = (text: string) => filesIn(t, {'logrotate.conf': 'weekly\ninclude /etc/logrotate.d\n/var/log/wtmp {\n  monthly\n}\n', 'logrotate.d/nginx': '/var/log/nginx/*.log {\n copytruncate\n}\n', 'logrotate.d/app': text});
  const levels = (text: string, log: string | undefined = '/srv/log/worker-{port}.log') => logRotation(config(log), etc(text)).map(({level, mend}) => [level, mend]);
  assert.deepEqual(levels('"/srv/log/worker-[0-9][0-9][0-9][0-9].log" "/x" {\n  daily\n  copytruncate\n}\n'), [['ok', undefined]]);
  assert.deepEqual(levels('/srv/log/*.log {\n  daily\n}\n'), [['warning', 'copytruncate']]);
  assert.deepEqual(levels('# /srv/log/*.log {\n#  copytruncate\n# }\n'), [['warning', 'osyw-deploy service install --config /etc/osyw-deploy/osyw.yaml']]);
  assert.deepEqual(levels('/srv/*.log {\n copytruncate\n}\n'), [['warning', 'osyw-deploy service install --config /etc/osyw-deploy/osyw.yaml']], 'a star is no slash');
  assert.deepEqual(logRotation(config(undefined), '/none').map(({level}) => level), ['ok']);
});

test('room for the next release', t => {
  const dir = filesIn(t, {'.git/objects/x': 'x'.repeat(100_000), 'a/b': 'y'.repeat(10_000), 'a/c': ''});
  const size = sizeOf(dir);
  assert.equal(size?.entries, 3);
  assert.ok(size.bytes >= 10_000 && size.bytes < 100_000, String(size.bytes));
  assert.equal(sizeOf(join(dir, 'none')), undefined);
  const levels = (bytes: number, entries: number) => roomForRelease(join(dir, 'not', 'made', 'yet'), {bytes, entries}, 5).map(({check, level}) => `${check} ${level}`);
  assert.deepEqual(levels(1, 1).filter(text => !text.endsWith('ok')), []);
  assert.ok(levels(1e18, 1).includes('disk-space problem'));
  assert.match(`${roomForRelease(dir, {bytes: 1e18, entries: 1}, 5)[0]?.means}`, /keep: 3/);
});

test('programs that are missing, by the package that has them', t => {
  assert.deepEqual(programsAreThere().map(({level}) => level), ['ok']);
  const dir = filesIn(t, Object.fromEntries(['setpriv', 'unshare', 'mount', 'cp', 'sync', 'chown', 'chmod', 'find'].map(name => [name, '#!/bin/sh\n'])));
  assert.deepEqual(programsAreThere(dir).map(({level, mend}) => [level, mend]), [['problem', 'apt-get install --yes util-linux']]);
  assert.equal(findProgram('/no/such'), undefined);
});
