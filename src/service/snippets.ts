import {dirname, join} from 'node:path';
import type {Config} from '../config/config.ts';
import {accountOf, findAccount, type Identity} from '../support/accounts.ts';
import {groupName} from '../support/groups.ts';
import {lstatIfThere} from '../support/lstat-if-there.ts';
import {globText, logrotateWord, systemdWord} from './quoting.ts';
import {workerLog, type ServiceFacts} from './service-files.ts';

/** The logs of the workers and the deployer's own. */
export function renderLogrotate({config, deployer}: ServiceFacts): string {
  const own = join(config.stateDir, 'log', 'osyw-deploy.log');
  const workers = workerLog(config);
  const logs = [
    ...(workers === undefined ? [] : [{directory: dirname(workers), patterns: namesOf(workers, config.workers.ports)}]),
    {directory: dirname(own), patterns: [globText(own)]},
  ];
  return `# Whoever writes these files has them open for appending for as long as it lives, and opens no other: so they are copied and emptied.

${logs.map(({directory, patterns}) => block(patterns, writerIn(directory, deployer))).join('\n')}`;
}

function block(patterns: readonly string[], writer: string | undefined): string {
  return `${patterns.map(logrotateWord).join(' ')} {
${writer === undefined ? '' : `    su ${writer}\n`}    daily
    maxsize 100M
    rotate 14
    missingok
    notifempty
    compress
    delaycompress
    copytruncate
}
`;
}

/** Where others than root make the files root must not follow their links, and logrotate does nothing unless told whom to be. */
function writerIn(directory: string, deployer: Identity): string | undefined {
  const stat = lstatIfThere(directory) ?? {...deployer, mode: 0o755};
  return stat.uid === 0 && (stat.mode & 0o022) === 0 ? undefined : `${accountOf(stat.uid)?.name ?? stat.uid} ${groupName(stat.gid)}`;
}

/** The names that `workers.log` can make, and not those of rotated ones. */
function namesOf(log: string, ports: Config['workers']['ports']): string[] {
  const widths = [...new Set([ports.first, ports.last].map(port => String(port).length))];
  const patterns = widths.map(width => log.split(/(\{(?:port|release|revision)\})/).map(part =>
    part === '{port}' ? DIGIT.repeat(width) : part === '{release}' ? DIGIT.repeat(RELEASE_DIGITS) : part === '{revision}' ? '*' : globText(part)).join(''));
  return [...new Set(patterns)];
}

const DIGIT = '[0-9]';
const RELEASE_DIGITS = 6;

/** What must be below /run after a boot; undefined when nothing must. */
export function renderTmpfiles({config, deployer}: ServiceFacts): string | undefined {
  const {runDir, workers} = config;
  const user = workers.user === undefined ? undefined : findAccount(workers.user);
  const pids = workers.pidFile === undefined ? undefined : dirname(workers.pidFile);
  const wanted = [
    {path: runDir, mode: '0711', uid: deployer.uid, gid: deployer.gid},
    // A daemon cannot make the directory of its pid file.
    ...(pids === undefined || pids === runDir || pids.includes('{') ? [] : [{path: pids, mode: '0755', uid: user?.uid ?? deployer.uid, gid: user?.gid ?? deployer.gid}]),
  ].flatMap(({path, ...rest}) => {
    const below = /^(?:\/var)?\/run\/(.+)$/.exec(path)?.[1];
    return below === undefined ? [] : [{path: `/run/${below}`, ...rest}];
  });
  if (wanted.length === 0) return undefined;
  return wanted.map(({path, mode, uid, gid}) => `d ${systemdWord(path)} ${mode} ${uid} ${gid} -\n`).join('');
}
