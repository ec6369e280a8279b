import {closeSync, openSync, readSync} from 'node:fs';
import type {ProcessIdentity} from '../deploy/deployment.ts';
import {errnoOf} from '../errors.ts';
import {isAlive} from './process-identity.ts';

/** An open file of one process: the kernel never gives it to another one, so a look takes one call and no second thought. */
export interface LifeLine {
  isAlive(): boolean;
  close(): void;
}

/** Room for the first number, which is 0 for a process that has ended and was not fetched by its parent. */
const answer = Buffer.alloc(2);

/** Undefined when this very process is dead. Source: proc(5), statm. */
export function openLifeLine(identity: ProcessIdentity): LifeLine | undefined {
  let fd: number;
  try {
    fd = openSync(`/proc/${identity.pid}/statm`, 'r');
  } catch (error) {
    if (['ENOENT', 'ESRCH'].includes(errnoOf(error) ?? '')) return undefined;
    throw error;
  }
  const line = {
    isAlive: () => {
      try {
        return readSync(fd, answer, 0, answer.length, 0) > 0 && answer.toString('latin1') !== '0 ';
      } catch (error) {
        if (errnoOf(error) === 'ESRCH') return false;
        throw error;
      }
    },
    close: () => closeSync(fd),
  };
  // Asked after the file was opened: it is the file of the process that this says is alive.
  if (isAlive(identity)) return line;
  line.close();
  return undefined;
}
