import type {Config} from '../config/config.ts';
import {workerLog, type ServiceFacts} from './service-files.ts';
import {systemdWord} from './quoting.ts';

/** The first systemd whose pauses between restarts grow. */
const GROWING_PAUSES = 254;

/** The systemd unit of `watch`. */
export function renderUnit(facts: ServiceFacts): string {
  const {config, deployer, node, script, systemd} = facts;
  const {app, stateDir, source} = config;
  const root = deployer.uid === 0;
  const command = [node, script].map(systemdWord).join(' ');
  return lines(
    '# `systemctl edit` adds to it; `osyw-deploy service install` writes it anew, where it was not changed by hand.',
    '',
    '[Unit]',
    `Description=osyw-deploy watch of ${app}`,
    'After=network.target',
    '# After a boot the workers serve again before this is ready, and nginx, which would answer 502, is started after that.',
    'Before=nginx.service',
    `RequiresMountsFor=${[stateDir, source.workingCopy, config.file, script].map(systemdWord).join(' ')}`,
    '# However often it fails: the workers need it.',
    'StartLimitIntervalSec=0',
    '',
    '[Service]',
    'Type=notify',
    root ? '# Root speaks in the name of the main process, so no worker can.' : '# Only root could speak in the name of the main process.',
    `NotifyAccess=${root ? 'main' : 'all'}`,
    '# Behind the colon no dollar is a variable. The journal hears of every worker that dies.',
    `ExecStart=:${command} watch --verbose --config ${systemdWord(config.file)}`,
    'ExecReload=/bin/kill -HUP $MAINPID',
    ...(root ? [] : [`User=${deployer.uid}`, `Group=${deployer.gid}`]),
    '',
    '# The workers outlive it, however it ends; it may be killed at any moment.',
    'KillMode=process',
    'OOMPolicy=continue',
    'WatchdogSec=1min',
    '# One that is stopped hears no other signal.',
    'WatchdogSignal=SIGKILL',
    'Restart=always',
    ...(systemd !== undefined && systemd >= GROWING_PAUSES ? ['RestartSec=1s', 'RestartSteps=6', 'RestartMaxDelaySec=1min'] : ['RestartSec=5s']),
    ...runtimeDirectory(facts),
    '',
    ...hardening(facts),
    '',
    '[Install]',
    'WantedBy=multi-user.target',
  );
}

/** Below /run systemd makes it, and must not take it away from the workers and from commands while `watch` is away. */
function runtimeDirectory({config: {runDir}}: ServiceFacts): string[] {
  const below = /^(?:\/var)?\/run\/(.+)$/.exec(runDir)?.[1];
  return below === undefined ? [] : [`RuntimeDirectory=${systemdWord(below)}`, 'RuntimeDirectoryMode=0711', 'RuntimeDirectoryPreserve=yes'];
}

/** What the deployer needs as root, with what for. */
const CAPABILITIES = [
  'CAP_SETUID CAP_SETGID CAP_SETPCAP CAP_KILL', // workers and builds under other accounts
  'CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_FSETID', // their files
  'CAP_SYS_PTRACE', // whose a process is, and whose a socket
  'CAP_SYS_ADMIN', // the mount namespace of a private nginx -t, the process namespace of a build, the word to systemd
  'CAP_NET_BIND_SERVICE', // nginx -t opens nginx's ports
];

/** Root that is to become another account needs no more than these rights; workers, builds and commands that are root may need any. */
function hardening({config, deployer}: ServiceFacts): string[] {
  const root = deployer.uid === 0;
  if (!root && config.nginx.reload !== undefined) return ['# Nothing more is forbidden: sudo, by which an account may be allowed nginx.reload, would not work.'];
  return [
    '# The workers are its children, so what is forbidden here is forbidden to them. Not forbidden are files outside of /usr, devices,',
    '# system calls and namespaces, which they may need; executable memory, which Node does; set-group-ID, which a tree may have.',
    'NoNewPrivileges=yes',
    ...(root && config.workers.user !== undefined && !writesUsr(config) ? ['ProtectSystem=yes'] : []),
    ...(root && config.workers.user === undefined ? [] : root ? [`CapabilityBoundingSet=${CAPABILITIES.join(' ')}`] : ['CapabilityBoundingSet=']),
    'ProtectKernelTunables=yes',
    'ProtectKernelModules=yes',
    'ProtectKernelLogs=yes',
    'ProtectControlGroups=yes',
    'RestrictRealtime=yes',
    'RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK',
    'LockPersonality=yes',
  ];
}

function writesUsr(config: Config): boolean {
  const {stateDir, source, workers, nginx} = config;
  return [stateDir, source.workingCopy, workerLog(config) ?? '/', workers.pidFile ?? '/', nginx.file].some(path => /^\/(?:usr|boot|efi)\//.test(path));
}

function lines(...all: readonly string[]): string {
  return `${all.join('\n')}\n`;
}
