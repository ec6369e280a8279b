import assert from 'node:assert/strict';
import {spawnSync} from 'node:child_process';
import {chmodSync, existsSync, readFileSync, rmSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {after, describe, test} from 'node:test';
import type {Config} from '../../../src/config/config.ts';
import {renderInitScript} from '../../../src/service/init-script.ts';
import {makeTempDir, removeTempDir} from '../../support/temp-dir.ts';

// What the script makes of the command's answers, in every shell that may be /bin/sh; with a command that answers as the test says.

const SHELLS = [['dash'], ['bash', '--posix'], ['busybox', 'sh']];
const dir = makeTempDir();
after(() => removeTempDir(dir));
const node = join(dir, "it's $no \"node\"");
const script = join(dir, 'osyw deploy.cjs');
const calls = join(dir, 'calls');
const init = join(dir, 'init');
const facts = {config: {app: 'site', file: "/etc/osyw's $(deploy)/a b.yaml"} as Config, deployer: {uid: process.getuid?.() ?? 0, gid: 0, name: 'root'}, node, script, systemd: undefined};
writeFileSync(init, renderInitScript(facts));
writeFileSync(script, '');

interface Answers {
  /** Of `status`. */
  readonly state?: number;
  /** Of everything else. */
  readonly exit?: number;
}

/** Its exit code, and what it called, a word a line. */
function call(shell: readonly string[], words: readonly string[], {state = 0, exit = 0}: Answers = {}): {exit: number | null; called: string[]; out: string; err: string} {
  rmSync(calls, {force: true});
  const [own = '', ...rest] = facts.config.file.split("'");
  writeFileSync(node, `#!/bin/sh\n[ "$1" = '${script}' ] || exit 99\nshift\nfor last; do :; done\n[ "$last" = '${[own, ...rest].join("'\\''")}' ] || exit 98\necho "$1$(test "$2" = check && echo ' check')" >>'${calls}'\n[ "$1" != status ] || { printf 'site: first line\\nsecond line\\n'; exit ${state}; }\nexit ${exit}\n`);
  chmodSync(node, 0o755);
  const [file = '', ...args] = [...shell, init, ...words];
  const end = spawnSync(file, args, {encoding: 'utf8', env: {SECRET: 'of the caller'}, cwd: '/'});
  assert.equal(end.error, undefined, `${shell.join(' ')} cannot be run`);
  return {exit: end.status, called: existsSync(calls) ? readFileSync(calls, 'utf8').trim().split('\n') : [], out: end.stdout, err: end.stderr};
}

/** By the state that `status` tells: 0 running, 1 dead, 3 not running, 4 unknown. */
const TABLE: Readonly<Record<string, Readonly<Record<0 | 1 | 3 | 4, {exit: number; did?: string}>>>> = {
  start: {0: {exit: 0, did: 'start'}, 1: {exit: 0, did: 'start'}, 3: {exit: 0, did: 'start'}, 4: {exit: 0, did: 'start'}},
  stop: {0: {exit: 0, did: 'stop'}, 1: {exit: 0, did: 'stop'}, 3: {exit: 0, did: 'stop'}, 4: {exit: 0, did: 'stop'}},
  restart: {0: {exit: 0, did: 'restart'}, 1: {exit: 0, did: 'restart'}, 3: {exit: 0, did: 'start'}, 4: {exit: 0, did: 'restart'}},
  graceful: {0: {exit: 0, did: 'restart'}, 1: {exit: 0, did: 'restart'}, 3: {exit: 0, did: 'start'}, 4: {exit: 0, did: 'restart'}},
  condrestart: {0: {exit: 0, did: 'restart'}, 1: {exit: 0}, 3: {exit: 0}, 4: {exit: 0, did: 'restart'}},
  'try-restart': {0: {exit: 0, did: 'restart'}, 1: {exit: 0}, 3: {exit: 0}, 4: {exit: 0, did: 'restart'}},
  reload: {0: {exit: 0, did: 'reload'}, 1: {exit: 7}, 3: {exit: 7}, 4: {exit: 0, did: 'reload'}},
  'force-reload': {0: {exit: 0, did: 'reload'}, 1: {exit: 7}, 3: {exit: 7}, 4: {exit: 0, did: 'reload'}},
  status: {0: {exit: 0}, 1: {exit: 1}, 3: {exit: 3}, 4: {exit: 4}},
  fullstatus: {0: {exit: 0}, 1: {exit: 1}, 3: {exit: 3}, 4: {exit: 4}},
  configtest: {0: {exit: 0, did: 'config check'}, 1: {exit: 0, did: 'config check'}, 3: {exit: 0, did: 'config check'}, 4: {exit: 0, did: 'config check'}},
};

for (const shell of SHELLS) {
  describe(shell.join(' '), () => {
    for (const [word, states] of Object.entries(TABLE)) {
      test(word, () => {
        for (const state of [0, 1, 3, 4] as const) {
          const {exit, called} = call(shell, [word], {state});
          const {did, exit: expected} = states[state];
          assert.deepEqual({state, exit, did: called.filter(one => one !== 'status')}, {state, exit: expected, did: did === undefined ? [] : [did]});
        }
      });
    }
    test('the exit codes of the command become those of an init script', () => {
      const codes = Array.from({length: 14}, (_, exit) => call(shell, ['start'], {exit}).exit);
      assert.deepEqual(codes, [0, 1, 6, 6, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
      assert.equal(call(shell, ['configtest'], {exit: 3}).exit, 6);
    });
    test('status is a line, fullstatus is all of it', () => {
      assert.equal(call(shell, ['status']).out, 'site: first line\n');
      assert.equal(call(shell, ['fullstatus']).out, 'site: first line\nsecond line\n');
    });
    test('words that it does not know, and too many', () => {
      for (const words of [['dance'], [], ['start', 'now'], [''], ['status;id']]) {
        const {exit, called, err, out} = call(shell, words);
        assert.deepEqual({exit, called, out}, {exit: 2, called: [], out: ''});
        assert.match(err, /^Usage: .*init \{start\|stop\|/);
      }
      const help = call(shell, ['help']);
      assert.deepEqual([help.exit, help.err, help.called], [0, '', []]);
      assert.match(help.out, /^Usage: /);
    });
    test('a command that is gone', () => {
      for (const gone of [node, script]) {
        call(shell, ['help']);
        writeFileSync(script, '');
        rmSync(gone);
        const end = (word: string) => spawnSync(shell[0] ?? '', [...shell.slice(1), init, word], {encoding: 'utf8', env: {}}).status;
        assert.deepEqual(['start', 'stop', 'restart', 'reload', 'configtest', 'status', 'fullstatus', 'help'].map(end), [5, 5, 5, 5, 5, 4, 4, 0]);
      }
      writeFileSync(script, '');
    });
    test('others than root may look', {skip: process.getuid?.() !== 0 && 'only root can be somebody else'}, () => {
      chmodSync(dir, 0o777);
      const as = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', '--', ...shell];
      assert.deepEqual(['start', 'stop', 'restart', 'try-restart', 'reload', 'graceful'].map(word => {
        const {exit, called, err} = call(as, [word]);
        return [exit, called, err];
      }), Array(6).fill([4, [], 'only root may do that\n']));
      assert.equal(call(as, ['status'], {state: 3}).exit, 3);
    });
    test('root becomes whom the state belongs to', {skip: process.getuid?.() !== 0 && 'only root can be somebody else'}, () => {
      const theirs = join(dir, 'theirs');
      writeFileSync(theirs, renderInitScript({...facts, node: '/usr/bin/id', script: '/etc/passwd', deployer: {uid: 65534, gid: 65534, name: 'nobody'}}).replace('"$command" "$@" --config "$config"', '-u'));
      assert.equal(spawnSync(shell[0] ?? '', [...shell.slice(1), theirs, 'start'], {encoding: 'utf8', env: {}}).stdout, '65534\n');
    });
  });
}

test('it says to init what init wants to know', () => {
  const text = readFileSync(init, 'utf8');
  const header = /^### BEGIN INIT INFO\n([^]*?)^### END INIT INFO$/m.exec(text)?.[1] ?? '';
  const said = Object.fromEntries([...header.matchAll(/^# ([A-Z][\w-]+):\s+(.*)$/gm)].map(([, name = '', value = '']) => [name, value]));
  assert.deepEqual({...said, 'Short-Description': '', Description: ''}, {
    Provides: 'osyw-deploy-site', 'Required-Start': '$remote_fs $network', 'Required-Stop': '$remote_fs $network',
    'X-Start-Before': 'nginx', 'X-Stop-After': 'nginx', 'Default-Start': '2 3 4 5', 'Default-Stop': '0 1 6', 'Short-Description': '', Description: '',
  });
  assert.match(text, /^# chkconfig: 2345 \d\d \d\d\n# description: .+$/m);
});
