import {closeSync, constants, fchmodSync, fchownSync, fstatSync, lstatSync, mkdirSync, openSync, statSync} from 'node:fs';
import {join} from 'node:path';
import {DeployError, messageOf} from '../errors.ts';
import {syncDirectory} from '../state/atomic-file.ts';
import {makeStateDir} from '../state/state-file.ts';
import {accountOf, type Identity} from '../support/accounts.ts';
import {findGroup, groupName, membersOf} from '../support/groups.ts';
import {lstatIfThere} from '../support/lstat-if-there.ts';
import type {HookedRepository} from './find-repository.ts';
import {spoolPath} from './request-spool.ts';

/** Who may file a request, and how a request is to be made so that the deployer can read it. */
export interface SpoolRights {
  readonly mode: number;
  readonly gid: number;
  readonly umask: keyof typeof SPOOL_MODES;
  /** For people: what was chosen, and why. */
  readonly why: string;
}

/**
 * The modes of a spool, by the umask under which requests are filed there, which is all that a hook knows of it. In the first root files
 * and deploys; in the second what root files has the group of the spool, which is the deployer's, so he can read it, and answer. Nobody
 * may change what another one filed.
 */
export const SPOOL_MODES = {'077': [0o700], '027': [0o2700, 0o3770], '022': [0o1733]} as const;

/** Where the pipe of a hook that waits is the committer's alone, only root can answer. */
export function canAnswer({umask, uid}: {readonly umask: string; readonly uid: number}): boolean {
  return uid === 0 || umask !== '022';
}

export interface SpoolWish {
  readonly group?: string | undefined;
  readonly anyone: boolean;
}

/** Whose the state is, and who therefore deploys: the owner of the state directory; ours, where there is none yet. */
export function deployerOf(stateDir: string): Identity {
  const uid = lstatIfThere(stateDir)?.uid ?? ownUid();
  const account = accountOf(uid);
  return {uid, gid: account?.gid ?? (uid === ownUid() ? ownGid() : lstatSync(stateDir).gid), name: account?.name ?? `uid ${uid}`};
}

/**
 * Whoever may write the repository may file a request: the tightest kind of spool that allows it, and in which the deployer
 * can read what it finds. Errors: USAGE for a group that does not serve.
 */
export function spoolRights(repository: HookedRepository, deployer: Identity, wish: SpoolWish): SpoolRights {
  const {uid: owner, gid, mode} = statSync(repository.data);
  const mayAll = (why: string): SpoolRights => ({mode: 0o1733, gid: deployer.gid, umask: '022', why: `every account of this machine may file a request: ${why}`});
  const group = (of: number, why: string): SpoolRights => ({mode: 0o3770, gid: of, umask: '027', why: `the group ${groupName(of)} may file requests: ${why}`});

  if (wish.anyone) return mayAll('--anyone');
  if (wish.group !== undefined) return group(forcedGroup(wish.group, deployer), '--group');
  if ((mode & 0o002) !== 0) return mayAll(`every account may write ${repository.data}`);
  if ((mode & 0o020) !== 0) {
    const members = membersOf(gid);
    // The deployer's own group may be nobody else's: then its right to write says nothing.
    if (gid !== deployer.gid || members.some(uid => uid !== deployer.uid && uid !== 0)) {
      if (owner !== deployer.uid && owner !== 0 && !members.includes(owner)) return mayAll(`${nameOf(owner)} and the group ${groupName(gid)} write ${repository.data}, and no group holds both`);
      return belongsTo(deployer, gid) ? group(gid, `it may write ${repository.data}`)
        : mayAll(`the group ${groupName(gid)} writes ${repository.data}, and ${deployer.name} is not in it (\`usermod -aG ${groupName(gid)} ${deployer.name}\` and \`hook install\` again make it tighter)`);
    }
  }
  if (owner === deployer.uid || owner === 0) {
    // Root goes everywhere; what it files must only be readable.
    if (deployer.uid !== 0) return {mode: 0o2700, gid: deployer.gid, umask: '027', why: `only root and ${deployer.name} may file requests: nobody else writes ${repository.data}`};
    return {mode: 0o700, gid: deployer.gid, umask: '077', why: `only root may file requests: nobody else writes ${repository.data}`};
  }
  const primary = accountOf(owner)?.gid;
  if (primary !== undefined && belongsTo(deployer, primary)) return group(primary, `it is that of the account ${nameOf(owner)}, which writes ${repository.data}`);
  return mayAll(`${nameOf(owner)} writes ${repository.data}, and ${deployer.name} is not in its group`
    + (primary === undefined ? '' : ` (\`usermod -aG ${groupName(primary)} ${deployer.name}\` and \`hook install\` again make it tighter)`));
}

/** Makes the state directory, the spool and the waiting place, or puts their rights right. Returns whether anything changed. */
export function makeSpool(stateDir: string, deployer: Identity, rights: SpoolRights): boolean {
  if (ownUid() !== 0 && ownUid() !== deployer.uid) {
    throw new DeployError('USAGE', `the state in ${stateDir} belongs to ${deployer.name}, and this is ${nameOf(ownUid())}`, {hint: `Run it as ${deployer.name}, or as root.`});
  }
  const spool = spoolPath(stateDir);
  try {
    const drains = join(stateDir, 'drains');
    const hadDrains = lstatIfThere(drains) !== undefined;
    makeStateDir(stateDir);
    if (!hadDrains) setRights(drains, deployer.uid, deployer.gid, 0o700);
    const there = lstatIfThere(spool);
    if (there === undefined) mkdirSync(spool, {mode: 0o700});
    else if (!there.isDirectory()) throw new DeployError('USAGE', `${spool} is not a directory`, {hint: 'Look what it is, move it away, and run `osyw-deploy hook install` again.'});
    const {uid, gid, mode} = lstatSync(spool);
    const changed = uid !== deployer.uid || gid !== rights.gid || (mode & 0o7777) !== rights.mode;
    if (changed) {
      setRights(spool, deployer.uid, rights.gid, rights.mode);
      syncDirectory(stateDir);
    }
    return makeWaitingPlace(join(stateDir, 'waiting'), deployer) || changed || there === undefined;
  } catch (error) {
    if (error instanceof DeployError) throw error;
    throw new DeployError('USAGE', `the spool ${spool} cannot be made: ${messageOf(error)}`, {hint: `Run it as root or as ${deployer.name}; the account must be able to write ${stateDir}.`, cause: error});
  }
}

/** By descriptor: as root we work in a directory of the deployer's, who must not be able to put a link in between. */
function setRights(path: string, uid: number, gid: number, mode: number): void {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  try {
    // A change of the group takes the set-group-ID bit away, so the mode comes last.
    fchownSync(fd, uid, gid);
    fchmodSync(fd, mode);
  } finally {
    closeSync(fd);
  }
}

/** Whether the account may give a file to the group, and read what the group may read. */
function belongsTo({uid}: Identity, gid: number): boolean {
  if (uid === 0) return true;
  // For ourselves the kernel's word counts: a membership from after the login is none yet.
  if (uid === ownUid()) return gid === process.getegid?.() || process.getgroups?.().includes(gid) === true;
  return membersOf(gid).includes(uid);
}

function forcedGroup(name: string, deployer: Identity): number {
  const found = findGroup(name);
  if (found === undefined) throw new DeployError('USAGE', `--group: this machine has no group "${name}"`, {hint: 'See `getent group`, or make it with `groupadd`.'});
  if (!belongsTo(deployer, found.gid)) {
    throw new DeployError('USAGE', `--group: ${deployer.name}, who deploys, is not in the group ${found.name} and could not read its requests`, {hint: `\`usermod -aG ${found.name} ${deployer.name}\`, log in anew, and run it again.`});
  }
  return found.gid;
}

/** The file that whoever waits for its turn locks: made here, so that no first commit by root makes it root's. */
function makeWaitingPlace(path: string, {uid, gid}: Identity): boolean {
  const isNew = lstatIfThere(path) === undefined;
  const fd = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW | constants.O_NONBLOCK, 0o600);
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile() || stat.nlink !== 1) throw new DeployError('USAGE', `${path} is not a file of its own`, {hint: 'Look what it is, remove it, and run `osyw-deploy hook install` again.'});
    const wrong = stat.uid !== uid || (stat.mode & 0o7777) !== 0o600;
    if (!isNew && !wrong) return false;
    fchownSync(fd, uid, gid);
    fchmodSync(fd, 0o600);
    return true;
  } finally {
    closeSync(fd);
  }
}

export function nameOf(uid: number): string {
  return accountOf(uid)?.name ?? `uid ${uid}`;
}

function ownUid(): number {
  return process.getuid?.() ?? 0;
}

function ownGid(): number {
  return process.getgid?.() ?? 0;
}
