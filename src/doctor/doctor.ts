import type {Config} from '../config/config.ts';
import {DeployError, errnoOf, messageOf} from '../errors.ts';
import {historyPath} from '../state/history.ts';
import type {Identity} from '../support/accounts.ts';
import {deployerOf, nameOf} from '../trigger/spool-rights.ts';
import {findVcs} from '../working-copy/open-working-copy.ts';
import {listeners, ownerAmong, type Listener} from '../workers/listeners.ts';
import {allPids, identify, readProcFile} from '../workers/process-identity.ts';
import {standings} from '../workers/units.ts';
import {usageMeter} from '../workers/usage.ts';
import {certificate} from './certificate.ts';
import {clockIsRight, isSynchronized, momentsOnRecord, type Moment} from './clock.ts';
import {roomElsewhere, roomForRelease, sizeOf} from './disk.ts';
import {counted, type Finding} from './finding.ts';
import {cgroupOfWorkers, hookFindings, OLDEST_NODE} from './hooks.ts';
import {inotifyLimits} from './inotify.ts';
import {judgeLocales, localesAreThere, localesOfMachine} from './locale.ts';
import {logRotation} from './logs.ts';
import {atLeast} from './nginx.ts';
import {nginxFindings, usualNginx} from './look-at-nginx.ts';
import {memoryForTwo} from './memory.ts';
import {ephemeralPorts, portsInUse, portsShared} from './ports.ts';
import {programsAreThere} from './programs.ts';
import {isReadable, readRecords, type Records} from './records.ts';
import {examiner, stateModes, writeRights} from './rights.ts';
import {configuredSecrets, secretModes, secretsInArguments, secretsInEnvironments, secretsInLogs} from './secrets.ts';
import {passwordInRemote, safeDirectory, sourceReachable, vcsVersion, workingCopyState} from './source.ts';

/** What is to be looked at, and by what means. */
export interface Case {
  /** Or why there is none: then the machine alone is looked at. */
  readonly config: Config | DeployError;
  /** What `hook install` writes, before the applications are in it. */
  readonly hookScript: string;
  readonly cwd: string;
  readonly signal: AbortSignal;
}

const PROC = '/proc';
const ETC = '/etc';
const CGROUPS = '/sys/fs/cgroup';

/** Runs all checks; changes nothing. Errors: the signal's reason; whatever else a check throws is a finding. */
export async function examine({config, hookScript, cwd, signal}: Case): Promise<Finding[]> {
  const looks = config instanceof DeployError ? machineLooks(config, signal) : applicationLooks(config, {hookScript, cwd, signal});
  const findings = await Promise.all(looks.map(([name, look]) => attempt(name, look, signal)));
  signal.throwIfAborted();
  return findings.flat();
}

type Found = Finding | readonly Finding[];
type Look = readonly [check: string, look: () => Found | Promise<Found>];

/** One that cannot be made is a finding of its own, and ends no other. */
async function attempt(check: string, look: Look[1], signal: AbortSignal): Promise<readonly Finding[]> {
  try {
    return [await look()].flat();
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof DeployError) return [{check, level: 'problem', says: `could not be looked at: ${error.message}`, mend: error.hint}];
    const denied = errnoOf(error) === 'EACCES' || errnoOf(error) === 'EPERM';
    return [{check, level: denied ? 'note' : 'warning', says: `could not be looked at: ${messageOf(error)}`, ...(denied ? {means: 'this account may not; look as the account that deploys, or as root'} : {})}];
  }
}

function machineLooks(fault: DeployError, signal: AbortSignal): Look[] {
  return [
    ['configuration', () => ({check: 'configuration', level: 'problem', says: fault.message, means: 'nothing can be deployed, and only the machine was looked at', mend: fault.message.startsWith('there is no configuration') ? 'osyw-deploy init' : 'osyw-deploy config check'})],
    ['node', ownNode],
    ['programs', () => programsAreThere()],
    ['locale', async () => judgeLocales(await localesOfMachine(signal), [])],
    ['clock', async () => clockIsRight(Date.now(), [], await isSynchronized(signal))],
    ['inotify-watches', () => inotifyLimits({edits: false, workingCopy: '/'}, process.getuid?.() ?? 0, PROC)],
    ['nginx-running', () => usualNginx(signal)],
  ];
}

function applicationLooks(config: Config, {hookScript, cwd, signal}: Omit<Case, 'config'>): Look[] {
  const {app, stateDir, source, workers} = config;
  const deployer = whoDeploys(stateDir);
  let read: Records | undefined;
  // Once for all that ask; whoever cannot read it learns so from the check of the state itself.
  const records = () => read ??= readRecords(config);
  const vcs = () => source.vcs ?? findVcs(source.workingCopy, source.url);
  let copy: ReturnType<typeof workingCopyState> | undefined;
  const workingCopy = () => copy ??= workingCopyState(config, vcs(), signal);
  const {secrets, tooShort} = configuredSecrets(config);
  const processes = async () => (await standings(records().state?.serving?.workers ?? [])).flatMap(({process}) => process ?? []);
  return [
    ['configuration', () => ({check: 'configuration', level: 'ok', says: `${config.file} is valid`, place: config.file})],
    ['node', ownNode],
    ['programs', () => programsAreThere()],
    ['account', () => examiner(deployer)],
    ['state', () => records().findings],
    ['state-modes', () => stateModes(stateDir)],
    ['write-rights', () => writeRights(config, deployer, signal)],
    ['nginx-running', () => nginxFindings(config, {records, deployer, signal})],
    ['ports-ephemeral', () => ephemeralPorts(workers.ports, app, PROC)],
    ['ports-in-use', () => portsInUse({...workers}, listeners(), ownPorts(records()), ownerName)],
    ['ports-shared', () => portsShared(config)],
    ['hook', () => hookFindings(config, deployer, {hookScript, cwd, signal})],
    ['workers-cgroup', async () => cgroupOfWorkers((await processes()).map(({pid}) => pid), app, PROC)],
    ['vcs-version', () => vcsVersion(vcs(), signal)],
    ['source-reachable', () => sourceReachable(config, signal)],
    ['source-certificate', () => certificate(source.url, signal)],
    ['working-copy', async () => (await workingCopy()).findings],
    ['password-in-remote', () => passwordInRemote(source.workingCopy, signal)],
    ['git-safe-directory', () => safeDirectory(source.workingCopy, deployer)],
    ['disk-space', () => [...roomForRelease(stateDir, sizeOf(records().state?.serving?.release.dir ?? source.workingCopy) ?? {bytes: 0, entries: 0}, config.release.keep), ...roomElsewhere(config)]],
    ['memory', async () => {
      const [measure, serving] = [usageMeter(), await processes()];
      return memoryForTwo(serving.flatMap(process => measure(process)?.memory ?? []), {count: workers.count, pid: serving[0]?.pid, proc: PROC, cgroups: CGROUPS});
    }],
    ['inotify-watches', () => inotifyLimits({edits: config.watch.edits, workingCopy: source.workingCopy}, deployer.uid, PROC)],
    ['log-rotation', () => logRotation(config, ETC)],
    ['locale', () => localesAreThere(config, signal)],
    ['clock', async () => clockIsRight(Date.now(), await momentsKnown(config, workingCopy), await isSynchronized(signal))],
    ['secret-modes', () => secretModes(config)],
    ['secret-short', () => tooShort === 0 ? [] : {check: 'secret-short', level: 'warning', says: `${counted(tooShort, 'configured secret')} of less than 6 characters`, means: 'it can be guessed, and is not searched for: it would be found everywhere', mend: 'openssl rand -hex 32'}],
    ['secret-in-process-list', () => secretsInArguments(secrets)],
    ['secret-in-environment', () => secretsInEnvironments(secrets)],
    ['secret-in-logs', () => secretsInLogs(secrets, config)],
  ];
}

/** As far as it can be told: of a directory that is not ours to see, ourselves. */
function whoDeploys(stateDir: string): Identity {
  try {
    return deployerOf(stateDir);
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
    const uid = process.getuid?.() ?? 0;
    return {uid, gid: process.getgid?.() ?? 0, name: nameOf(uid)};
  }
}

function ownNode(): Finding {
  const oldest = OLDEST_NODE.join('.');
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  const check = 'node';
  const says = `this is Node ${process.versions.node} (${process.execPath}), at least ${oldest} is needed`;
  return atLeast([major, minor], OLDEST_NODE) ? {check, level: 'ok', says} : {check, level: 'problem', says, means: 'what a deploy needs may not be there', mend: 'apt-get install --yes nodejs'};
}

function ownPorts({state, drains, starting}: Records): Set<number> {
  return new Set([...state?.serving?.workers ?? [], ...drains.flatMap(({generation}) => generation.workers)].map(({port}) => port).concat(starting));
}

/** Who listens, for people. */
function ownerName({inode, uid}: Listener): string {
  const owner = ownerAmong(allPids().flatMap(pid => identify(pid) ?? []), inode);
  if (owner === undefined) return `of ${nameOf(uid)}`;
  return `pid ${owner.pid} (${readProcFile(`/proc/${owner.pid}/comm`)?.toString('utf8').trim() ?? '?'})`;
}

async function momentsKnown(config: Config, workingCopy: () => ReturnType<typeof workingCopyState>): Promise<Moment[]> {
  // What cannot be looked at is told by its own check.
  const commits = await workingCopy().then(({moments}) => moments, () => []);
  const deploys = isReadable(historyPath(config.stateDir)) ? momentsOnRecord(config) : [];
  return [...commits, ...deploys];
}
