import {closeSync, constants, openSync, readdirSync, readlinkSync, realpathSync} from 'node:fs';
import {join} from 'node:path';
import {lockOpenFile} from '../state/deploy-lock.ts';

/** The place of the one process that waits for its turn to deploy. */
export interface WaitingPlace {
  /** Before the spool is read: a request that is filed after this finds the place free, one before it is seen by the reader. */
  leave(): void;
}

/**
 * Takes the place, or is undefined when somebody else waits already. A hook starts us with the place locked, on a descriptor
 * that we inherit: so the many that come too late end in flock(1), before there is a Node.
 */
export function takeWaitingPlace(stateDir: string): WaitingPlace | undefined {
  const inherited = descriptorOf(join(realpathSync(stateDir), 'waiting'));
  if (inherited !== undefined) return {leave: () => closeSync(inherited)};
  const fd = openSync(join(stateDir, 'waiting'), constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
  if (lockOpenFile(fd)) return {leave: () => closeSync(fd)};
  closeSync(fd);
  return undefined;
}

function descriptorOf(path: string): number | undefined {
  return readdirSync('/proc/self/fd').map(Number).find(fd => linkOf(`/proc/self/fd/${fd}`) === path);
}

function linkOf(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined; // That of the directory which was just read.
  }
}
