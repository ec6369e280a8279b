import assert from 'node:assert/strict';
import {test} from 'node:test';
import type {Config} from '../../../src/config/config.ts';
import {DeployError} from '../../../src/errors.ts';
import {globText, logrotateWord, shellWord, systemdWord} from '../../../src/service/quoting.ts';
import {serviceFiles, type ServiceFacts} from '../../../src/service/service-files.ts';
import {readStamp, stamped} from '../../../src/service/stamp.ts';

type Changes = Partial<Omit<ServiceFacts, 'config'>> & {readonly config?: {readonly [key: string]: unknown}};

function facts({config = {}, ...more}: Changes = {}): ServiceFacts {
  return {
    config: {
      app: 'site', file: '/etc/osyw-deploy/site.yaml', stateDir: '/var/lib/osyw-deploy/site', runDir: '/run/osyw-deploy/site', source: {workingCopy: '/srv/site'},
      workers: {log: '/nowhere/w-{port}.log', pidFile: undefined, user: undefined, ports: {first: 9990, last: 10_010}}, nginx: {reload: undefined, file: '/etc/nginx/conf.d/site.conf'}, ...config,
    } as unknown as Config,
    deployer: {uid: 0, gid: 0, name: 'root'}, node: '/usr/bin/node', script: '/usr/lib/osyw-deploy.cjs', systemd: 252, ...more,
  };
}
const textOf = (place: string, of: ServiceFacts = facts()) => serviceFiles(of, place.includes('init.d') ? 'script' : 'unit').find(({path}) => path.includes(place))?.text ?? '';

test('words', () => {
  assert.deepEqual([String.raw`a b`, String.raw`%i $HOME`, String.raw`"\x41`].map(systemdWord), [String.raw`"a b"`, String.raw`"%%i $HOME"`, String.raw`"\"\\x41"`]);
  assert.deepEqual(['/usr/bin/node', 'a b', "it's", '$(id)', ''].map(shellWord), ['/usr/bin/node', "'a b'", "'it'\\''s'", "'$(id)'", "''"]);
  assert.deepEqual(['/a [1]*?', 'q"'].map(text => logrotateWord(globText(text))), [String.raw`"/a \[1\]\*\?"`, String.raw`"q\""`]);
});

test('a stamp tells ours, ours that was changed, and others', () => {
  for (const text of ['[Unit]\nA=1\n', '#!/bin/sh\n# comment\nexit 0\n']) {
    const own = stamped(text);
    assert.equal(own.split('\n')[0]?.startsWith('#!'), text.startsWith('#!'));
    assert.deepEqual([own, `${own}B=2\n`, own.replace('1', '2').replace('exit 0', 'exit 1'), text, ''].map(one => readStamp(one).kind), ['ours', 'changed', 'changed', 'foreign', 'foreign']);
  }
});

test('of another account: it may speak for itself, and sudo works where nginx.reload may need it', () => {
  const deployer = {uid: 1000, gid: 1001, name: 'deploy'};
  const plain = textOf('.service', facts({deployer}));
  assert.match(plain, /^User=1000\nGroup=1001$/m);
  assert.match(plain, /^NotifyAccess=all$/m);
  assert.match(plain, /^CapabilityBoundingSet=$/m);
  const sudo = textOf('.service', facts({deployer, config: {nginx: {reload: ['sudo', '-n', 'systemctl', 'reload', 'nginx'], file: '/etc/nginx/a.conf'}}}));
  assert.doesNotMatch(sudo, /^(NoNewPrivileges|CapabilityBoundingSet|Protect\w+|Restrict(Realtime|AddressFamilies)|LockPersonality)=/m);
});

test('rights are taken away only where nobody but the deployer is root', () => {
  assert.doesNotMatch(textOf('.service'), /^(CapabilityBoundingSet|ProtectSystem)=/m);
  const workers = {log: '/l', pidFile: undefined, user: 'www-data', ports: {first: 9000, last: 9010}};
  assert.match(textOf('.service', facts({config: {workers}})), /^ProtectSystem=yes\nCapabilityBoundingSet=CAP_/m);
  assert.doesNotMatch(textOf('.service', facts({config: {workers, source: {workingCopy: '/usr/local/www/site'}}})), /^ProtectSystem=/m);
});

test('pauses grow where systemd can do that', () => {
  assert.match(textOf('.service'), /^RestartSec=5s$/m);
  assert.match(textOf('.service', facts({systemd: 254})), /^RestartSec=1s\nRestartSteps=6\nRestartMaxDelaySec=1min$/m);
  assert.match(textOf('.service', facts({systemd: undefined})), /^RestartSec=5s$/m);
});

test('a directory below /run', () => {
  assert.match(textOf('.service'), /^RuntimeDirectory="osyw-deploy\/site"$/m);
  assert.match(textOf('tmpfiles.d'), /^d "\/run\/osyw-deploy\/site" 0711 0 0 -$/m);
  const elsewhere = facts({config: {runDir: '/srv/run'}});
  assert.doesNotMatch(textOf('.service', elsewhere), /RuntimeDirectory/);
  assert.equal(textOf('tmpfiles.d', elsewhere), '');
  const daemon = facts({config: {runDir: '/srv/run', workers: {log: '/l', pidFile: '/var/run/a b/{port}.pid', user: 'root', ports: {first: 9000, last: 9010}}}});
  assert.match(textOf('tmpfiles.d', daemon), /\nd "\/run\/a b" 0755 0 0 -\n$/);
});

test('the logs of all ports, and no rotated one', () => {
  assert.match(textOf('logrotate.d'), /^"\/nowhere\/w-(\[0-9\]){4}\.log" "\/nowhere\/w-(\[0-9\]){5}\.log" \{$/m);
});

test('what no line can hold is refused', () => {
  for (const wrong of [facts({config: {file: '/etc/a\nExecStartPre=/bin/false'}}), facts({node: '/opt/"node"'}), facts({script: '/a\x01'})]) {
    assert.throws(() => serviceFiles(wrong, 'unit'), (error: unknown) => error instanceof DeployError && error.code === 'USAGE');
  }
});
