import assert from 'node:assert/strict';
import {execFileSync} from 'node:child_process';
import {chmodSync, chownSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {afterEach, beforeEach, describe, test} from 'node:test';
import fc from 'fast-check';
import {configHash} from '../../../src/config/config-hash.ts';
import {loadConfig, parseConfig} from '../../../src/config/load-config.ts';
import {DeployError} from '../../../src/errors.ts';
import {groupName} from '../../../src/support/groups.ts';
import {ownAccount} from '../../support/own-account.ts';
import {ENV, FILE, MINIMAL, withLine} from './config-text.ts';

const root = process.getuid?.() === 0;
const self = ownAccount ?? 'nobody';
const named = ownAccount === undefined ? {skip: 'the account has no name'} : {};

let directory = '';
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'osyw-config-'));
});
afterEach(() => {
  rmSync(directory, {recursive: true});
});

function put(name: string, content: string | Uint8Array, mode = 0o600): string {
  const path = join(directory, name);
  writeFileSync(path, content);
  chmodSync(path, mode);
  return path;
}

function failure(run: () => unknown): DeployError {
  try {
    run();
  } catch (error) {
    assert.ok(error instanceof DeployError, `threw ${String(error)}`);
    return error;
  }
  assert.fail('nothing was thrown');
}

const load = (configFlag: string) => loadConfig({configFlag, env: ENV, cwd: directory});

function fullExample(): string {
  return `
app: osyw                           # names the state, the lock, the logs

source:
  vcs: svn
  working_copy: /var/bottle
  timeout: 2m
  url: svn://127.0.0.1/osyw/trunk
  username: deploy
  password_file: ${put('password', 'x')}
  paths: ["src/**", "*.py", lib/]

release:
  tree: snapshot
  build:
    - [python3, -m, compileall, -q, .]
  build_timeout: 10m
  build_user: ${self}
  shared: [data]
  keep: 5

workers:
  command: [/usr/bin/python3, osyw.py, "{port}"]
  count: 3
  ports: 8811-8830
  host: 127.0.0.1
  env: { OSYW_STATUS: online, VERSION: 1.10, ANSWER: yes, HEX: 0x1F, NONE: , TILDE: ~, QUOTED: "a b" }
  env_file: ${put('env', 'KEY=value\n')}
  user: ${self}
  pid_file: /var/run/osyw_{port}.pid
  log: /var/www/osyw/log/worker-{port}.log
  runner: process
  stop: { signal: SIGTERM, timeout: 10s }

check:
  http: /healthz
  host: www.example.org
  headers: {}
  status: [200]
  body: "ok"
  interval: 100ms
  timeout: 2s
  consecutive: 2
  deadline: 30s

bake:
  for: 0s

nginx:
  upstream: myweb
  file: /etc/nginx/conf.d/osyw.conf
  server: { weight: 4, max_fails: 2, fail_timeout: 30s }
  directives: [ip_hash]
  binary: /usr/sbin/nginx
  conf: /etc/nginx/nginx.conf
  prefix: /etc/nginx
  probe: http://127.0.0.1/
  reload: [systemctl, reload, nginx]

drain:
  quiet: 60s
  deadline: 5m

hook:
  wait: true
  wait_timeout: 2m
  supersede: true

watch:
  webhook:
    listen: unix:/run/osyw-deploy/osyw/webhook.sock
    path: /hook
    secret_file: ${put('webhook', `${'a'.repeat(32)}\n${'b'.repeat(32)}\n`)}
    mode: 0660
    group: ${groupName(process.getgid?.() ?? 0)}
    max_body: 512k
    rate: 30/m

state_dir: /var/lib/osyw-deploy/osyw
run_dir: /run/osyw-deploy/osyw
`;
}

describe('a valid configuration', () => {
  test('the example of the README, with env as it is written', named, () => {
    const file = put('osyw-deploy.yaml', fullExample());
    assert.deepEqual(load(file), {
      file,
      app: 'osyw',
      source: {
        vcs: 'svn', workingCopy: '/var/bottle', timeoutMs: 120_000, url: 'svn://127.0.0.1/osyw/trunk', branch: undefined,
        username: 'deploy', passwordFile: join(directory, 'password'), paths: ['src/**', '*.py', 'lib'],
      },
      release: {
        tree: 'snapshot', build: [['python3', '-m', 'compileall', '-q', '.']], buildTimeoutMs: 600_000, buildUser: self,
        shared: ['data'], keep: 5,
      },
      workers: {
        command: ['/usr/bin/python3', 'osyw.py', '{port}'], count: 3, ports: {first: 8811, last: 8830}, host: '127.0.0.1',
        env: {OSYW_STATUS: 'online', VERSION: '1.10', ANSWER: 'yes', HEX: '0x1F', NONE: '', TILDE: '~', QUOTED: 'a b'},
        envFile: join(directory, 'env'), user: self, pidFile: '/var/run/osyw_{port}.pid',
        log: '/var/www/osyw/log/worker-{port}.log', runner: 'process', stop: {signal: 'SIGTERM', timeoutMs: 10_000},
      },
      check: {
        kind: 'http', path: '/healthz', host: 'www.example.org', headers: {}, status: [200], body: 'ok',
        intervalMs: 100, timeoutMs: 2000, consecutive: 2, deadlineMs: 30_000,
      },
      bake: {forMs: 0},
      nginx: {
        upstream: 'myweb', file: '/etc/nginx/conf.d/osyw.conf', server: {weight: '4', max_fails: '2', fail_timeout: '30s'},
        directives: ['ip_hash'], binary: '/usr/sbin/nginx', conf: '/etc/nginx/nginx.conf', prefix: '/etc/nginx',
        probe: 'http://127.0.0.1/', reload: ['systemctl', 'reload', 'nginx'],
      },
      drain: {quietMs: 60_000, deadlineMs: 300_000},
      hook: {wait: true, waitTimeoutMs: 120_000, supersede: true},
      watch: {pollMs: 60_000, settleMs: 500, edits: false, checkMs: 30_000, webhook: {
        listen: {unix: '/run/osyw-deploy/osyw/webhook.sock', mode: 0o660, group: groupName(process.getgid?.() ?? 0)}, path: '/hook',
        secretFile: join(directory, 'webhook'), maxBodyBytes: 512 * 1024, rate: {count: 30, perMs: 60_000},
      }},
      stateDir: '/var/lib/osyw-deploy/osyw',
      runDir: '/run/osyw-deploy/osyw',
    });
  });

  test('the shortest one has a default for every other key', () => {
    const stateDir = root ? '/var/lib/osyw-deploy/shop' : '/home/deploy/.local/state/osyw-deploy/shop';
    assert.deepEqual(parseConfig(MINIMAL, FILE, ENV), {
      file: FILE,
      app: 'shop',
      source: {
        vcs: undefined, workingCopy: '/srv/shop/copy', timeoutMs: 120_000, url: undefined, branch: undefined,
        username: undefined, passwordFile: undefined, paths: [],
      },
      release: {tree: 'snapshot', build: [], buildTimeoutMs: 600_000, buildUser: undefined, shared: [], keep: 5},
      workers: {
        command: ['python3', 'app.py', '{port}'], count: 1, ports: {first: 8811, last: 8830}, host: '127.0.0.1', env: {},
        envFile: undefined, user: undefined, pidFile: undefined, log: `${stateDir}/log/worker-{port}.log`, runner: 'process',
        stop: {signal: 'SIGTERM', timeoutMs: 10_000},
      },
      check: {
        kind: 'http', path: '/', host: undefined, headers: {}, status: [200], body: undefined,
        intervalMs: 100, timeoutMs: 2000, consecutive: 2, deadlineMs: 30_000,
      },
      bake: {forMs: 0},
      nginx: {
        upstream: 'shop', file: '/etc/nginx/conf.d/shop.conf', server: {max_fails: '0'}, directives: [],
        binary: '/usr/sbin/nginx', conf: undefined, prefix: undefined, probe: undefined, reload: undefined,
      },
      drain: {quietMs: 60_000, deadlineMs: 300_000},
      hook: {wait: false, waitTimeoutMs: 300_000, supersede: false},
      watch: {pollMs: 60_000, settleMs: 500, edits: false, checkMs: 30_000, webhook: undefined},
      stateDir,
      runDir: root ? '/run/osyw-deploy/shop' : `${stateDir}/run`,
    });
  });

  test('a byte order mark and CRLF are no obstacle', () => {
    const file = put('osyw-deploy.yaml', `\ufeff${MINIMAL.replaceAll('\n', '\r\n')}`);
    assert.equal(load(file).nginx.file, '/etc/nginx/conf.d/shop.conf');
    const bad = put('bad.yaml', `\ufeff${withLine(1, 'app: X').replaceAll('\n', '\r\n')}`);
    assert.match(failure(() => load(bad)).message, /bad\.yaml:1:6: app is "X".*\n {2}app: X\n {7}\^$/);
  });

  test('the build runs as the workers unless told', named, () => {
    assert.equal(parseConfig(withLine(6, `  ports: 8811-8830\n  user: ${self}`), FILE, ENV).release.buildUser, self);
  });

  test('one kind of check each', () => {
    const checkOf = (text: string) => parseConfig(`${MINIMAL}check: ${text}\n`, FILE, ENV).check;
    assert.equal(checkOf('{tcp: true}').kind, 'tcp');
    assert.deepEqual(checkOf('{command: [curl, "{port}"], consecutive: 1}'),
      {kind: 'command', command: ['curl', '{port}'], intervalMs: 100, timeoutMs: 2000, consecutive: 1, deadlineMs: 30_000});
    assert.equal(checkOf('{host: example.org}').kind, 'http');
  });
});

describe('where the configuration is looked for', () => {
  test('the flag, then the variable, then the directory', () => {
    const flag = put('flag.yaml', withLine(1, 'app: flag'));
    put('variable.yaml', withLine(1, 'app: variable'));
    put('osyw-deploy.yaml', withLine(1, 'app: directory'));
    const env = {...ENV, OSYW_DEPLOY_CONFIG: 'variable.yaml'};
    assert.equal(loadConfig({configFlag: flag, env, cwd: directory}).app, 'flag');
    assert.equal(loadConfig({configFlag: 'flag.yaml', env, cwd: directory}).file, flag);
    assert.equal(loadConfig({env, cwd: directory}).app, 'variable');
    assert.equal(loadConfig({env: {...ENV, OSYW_DEPLOY_CONFIG: ''}, cwd: directory}).app, 'directory');
  });

  test('nowhere: the places are named', () => {
    const error = failure(() => loadConfig({appFlag: 'shop', env: ENV, cwd: directory}));
    assert.equal(error.code, 'CONFIG_INVALID');
    assert.ok(error.message.includes(join(directory, 'osyw-deploy.yaml')));
    assert.ok(error.message.includes('/etc/osyw-deploy/shop.yaml'));
    assert.match(error.hint, /osyw-deploy init/);
  });

  test('a file that was asked for is not replaced by another one', () => {
    put('osyw-deploy.yaml', MINIMAL);
    assert.match(failure(() => load('absent.yaml')).message, /absent\.yaml \(--config\)$/);
    const env = {...ENV, OSYW_DEPLOY_CONFIG: 'absent.yaml'};
    assert.match(failure(() => loadConfig({env, cwd: directory})).message, /absent\.yaml \(\$OSYW_DEPLOY_CONFIG\)$/);
  });

  test('another application than --app says is refused', () => {
    put('osyw-deploy.yaml', MINIMAL);
    assert.match(failure(() => loadConfig({appFlag: 'other', env: ENV, cwd: directory})).message, /says app: shop; expected other/);
  });

  test('an --app that is no name is a mistake on the command line', () => {
    assert.equal(failure(() => loadConfig({appFlag: '../x', env: ENV, cwd: directory})).code, 'USAGE');
  });
});

describe('the file itself', () => {
  for (const mode of [0o666, 0o620, 0o602, 0o777]) {
    test(`mode ${mode.toString(8)} is refused with the command that mends it`, () => {
      const file = put('osyw-deploy.yaml', MINIMAL, mode);
      const error = failure(() => load(file));
      assert.match(error.message, new RegExp(`has mode 0${mode.toString(8)}`));
      assert.equal(error.hint, `chmod go-w ${file}`);
    });
  }

  test('mode 644 is right', () => {
    assert.equal(load(put('osyw-deploy.yaml', MINIMAL, 0o644)).app, 'shop');
  });

  test('an owner who is neither root nor oneself is refused', {skip: !root}, () => {
    const file = put('osyw-deploy.yaml', MINIMAL);
    chownSync(file, 12_345, 12_345);
    const {message, hint} = failure(() => load(file));
    assert.match(message, /belongs to #12345/);
    assert.match(hint, /^As #12345, who deploys: sudo -u '#12345' osyw-deploy/);
  });

  test('a directory, a FIFO, a device and a loop of links are refused without waiting', {timeout: 5000}, () => {
    mkdirSync(join(directory, 'directory'));
    execFileSync('/usr/bin/mkfifo', [join(directory, 'fifo')]);
    symlinkSync('/dev/zero', join(directory, 'device'));
    symlinkSync('loop', join(directory, 'loop'));
    for (const name of ['directory', 'fifo', 'device']) {
      assert.match(failure(() => load(name)).message, /not a regular file/);
    }
    assert.equal(failure(() => load('loop')).code, 'CONFIG_INVALID');
  });

  test('too large, not UTF-8, a NUL', () => {
    assert.match(failure(() => load(put('large', `${MINIMAL}#${'x'.repeat(1_000_000)}`))).message, /1 MB/);
    assert.match(failure(() => load(put('latin', Buffer.from([0x61, 0xe4, 0x0a])))).message, /UTF-8/);
    assert.match(failure(() => load(put('nul', `${MINIMAL}# \0\n`))).message, /NUL/);
  });

  test('any bytes are accepted or refused with CONFIG_INVALID', () => {
    fc.assert(fc.property(fc.uint8Array({maxLength: 200}), bytes => {
      const file = put('random.yaml', bytes);
      assert.equal(failure(() => load(file)).code, 'CONFIG_INVALID');
    }), {numRuns: 300});
  });
});

describe('private files', () => {
  for (const [key, line, indent] of [['password_file', 3, '  working_copy: /srv/shop/copy'], ['env_file', 6, '  ports: 8811-8830']] as const) {
    test(`a ${key} that others can read is refused with the command that mends it`, () => {
      const secret = put('secret', 'A=1\n', 0o640);
      const error = failure(() => parseConfig(withLine(line, `${indent}\n  ${key}: ${secret}`), FILE, ENV));
      assert.match(error.message, new RegExp(`with mode 0640, .*chmod 600 ${secret}`));
    });
  }

  test('the bad lines of an env_file are among the problems, without a value', () => {
    const env = put('env', 'GOOD=1\nbad line geheim\nB="geheim\n');
    const {message} = failure(() => parseConfig(withLine(6, `  ports: 8811-8830\n  count: 0\n  env_file: ${env}`), FILE, ENV));
    assert.match(message, /workers\.count is 0/);
    assert.ok(message.includes(`${env}:2: `) && message.includes(`${env}:3: `));
    assert.doesNotMatch(message, /geheim/);
  });
});

describe('the webhook', () => {
  const SECRET = 'a1'.repeat(16);
  const webhook = (...lines: string[]) => `${MINIMAL}watch:\n  webhook:\n${lines.map(line => `    ${line}\n`).join('')}`;
  const withSecrets = (content: string | Uint8Array, mode?: number) => webhook('listen: 127.0.0.1:8899', `secret_file: ${put('secrets', content, mode)}`);

  test('is on with listen and secret_file, and has a default for the rest', () => {
    assert.deepEqual(parseConfig(withSecrets(SECRET), FILE, ENV).watch.webhook, {
      listen: {host: '127.0.0.1', port: 8899}, path: '/hook', secretFile: join(directory, 'secrets'), maxBodyBytes: 1_048_576, rate: {count: 60, perMs: 60_000},
    });
    assert.equal(parseConfig(webhook('path: /x', 'rate: 1/s'), FILE, ENV).watch.webhook, undefined);
  });

  for (const mode of ['0600', '0660', '0666', '600', '"0660"']) {
    test(`mode ${mode} is octal, as chmod takes it`, () => {
      const {watch} = parseConfig(webhook('listen: unix:/run/shop/hook.sock', `secret_file: ${put('secrets', SECRET)}`, `mode: ${mode}`), FILE, ENV);
      assert.deepEqual(watch.webhook?.listen, {unix: '/run/shop/hook.sock', mode: Number.parseInt(mode.replaceAll('"', ''), 8), group: undefined});
    });
  }

  for (const [what, content] of [
    ['one secret', `${SECRET}\n`], ['two of them', `${SECRET}\n${'b'.repeat(16)}\n`], ['CRLF', `${SECRET}\r\n${'b'.repeat(16)}\r\n`], ['no newline', SECRET],
    ['a signing token', `whsec_${Buffer.alloc(32, 7).toString('base64')}\n`],
  ] as const) {
    test(`takes a file with ${what}`, () => assert.ok(parseConfig(withSecrets(content), FILE, ENV).watch.webhook));
  }

  for (const [what, content, says] of [
    ['nothing', '\n', /is empty; expected one secret/], ['three lines', `${SECRET}\n${SECRET}\n${SECRET}`, /has 3 lines; expected one secret, or two/],
    ['a short secret', 'geheim-geheim', /has a secret of 13 characters on line 1|has a secret of 13 characters; expected at least 16/],
    ['a short second one', `${SECRET}\ngeheim`, /6 characters.* on line 2/], ['a space at the end', `${SECRET}geheim `, /a space at an end/],
    ['a tab inside', `geheim\t${SECRET}`, /a control character/], ['bytes', new Uint8Array([255, 254, 65]), /is not UTF-8/],
    ['half a signing token', 'whsec_geheim=geheim=geheim', /no base64 of at least 24 bytes/], ['a short signing token', 'whsec_Z2VoZWltZ2VoZWlt', /no base64 of at least 24 bytes/],
    ['a diary', 'geheim'.repeat(1000), /6000 bytes/],
  ] as const) {
    test(`refuses a file with ${what}, and shows none of it`, () => {
      const {message} = failure(() => parseConfig(withSecrets(content), FILE, ENV));
      assert.match(message, new RegExp(`:13:18: watch\\.webhook\\.secret_file is ".*/secrets", which .*(?:${says.source})`));
      assert.ok(message.includes(`secret_file: ${join(directory, 'secrets')}`), 'the line is shown as it stands');
      assert.doesNotMatch(message, /geheim|Z2Vo|a1a1/);
    });
  }

  for (const mode of [0o640, 0o604, 0o620]) {
    test(`refuses a secret file of mode ${mode.toString(8)}`, () => {
      assert.match(failure(() => parseConfig(withSecrets(SECRET, mode), FILE, ENV)).message, /watch\.webhook\.secret_file .* which others can use; expected mode 0600: chmod 600/);
    });
  }
});

describe('configHash', () => {
  const hashOf = (text: string) => configHash(parseConfig(text, FILE, ENV));

  test('is the same for the same meaning', () => {
    const [app, ...rest] = MINIMAL.trimEnd().split('\n');
    assert.match(hashOf(MINIMAL), /^[0-9a-f]{64}$/);
    assert.equal(hashOf(MINIMAL), hashOf([...rest, `${app} # moved`, 'bake: {for: 0s}', 'drain: {quiet: 1m}'].join('\n')));
    assert.equal(hashOf(MINIMAL), configHash({...parseConfig(MINIMAL, FILE, ENV), file: '/elsewhere'}));
  });

  test('is the same whenever a deploy is due, and whoever is told of it', () => {
    const paths = (list: string) => withLine(3, `  working_copy: /srv/shop/copy\n  paths: ${list}`);
    for (const other of [
      paths('["src/**"]'), paths('[]'), `${MINIMAL}hook: {wait: true}\n`, `${MINIMAL}hook: {wait_timeout: 1s}\n`, `${MINIMAL}hook: {supersede: true}\n`, `${MINIMAL}hook: {}\n`, `${MINIMAL}watch: {poll: 1s}\n`, `${MINIMAL}watch: {webhook: {rate: 1/s}}\n`,
    ]) assert.equal(hashOf(other), hashOf(MINIMAL), other);
    assert.notEqual(hashOf(withLine(3, '  working_copy: /srv/shop/copy\n  timeout: 3m')), hashOf(MINIMAL), 'the rest of source counts');
  });

  test('changes with a value and with the content of the env_file', () => {
    assert.notEqual(hashOf(MINIMAL), hashOf(`${MINIMAL}bake: {for: 1s}\n`));
    const file = put('env', 'A=1\n');
    const text = withLine(6, `  ports: 8811-8830\n  env_file: ${file}`);
    const before = hashOf(text);
    put('env', 'A=2\n');
    assert.notEqual(hashOf(text), before);
  });
});
