import {closeSync, constants, fstatSync, openSync, unlinkSync, writeSync} from 'node:fs';
import {join} from 'node:path';
import type {FiledRequest} from '../deploy/events.ts';
import {errnoOf} from '../errors.ts';
import {spoolPath} from './request-spool.ts';

/** Each is a descriptor of ours. */
const MOST_PIPES = 100;

/** Those whose hook waits (`hook.wait`) to hear how the deploy goes. */
export interface Committers {
  /** Takes in who waits for one of these requests. */
  join(requests: readonly FiledRequest[]): void;
  /** Text for people, to all of them. Errors: none; who listens no more is left out. */
  say(text: string): void;
  /** How it ended, and no more after it. */
  end(exit: number): void;
}

/**
 * A hook that waits has put a pipe beside its request, and reads it. Opened for reading as well, it takes what we write before
 * the hook has come to read, and never makes us wait; our death ends it for the hook.
 */
export function openCommitters(stateDir: string): Committers {
  const pipes = new Map<string, number>();
  const drop = (path: string, fd: number) => {
    pipes.delete(path);
    closeSync(fd);
  };
  const say = (text: string) => {
    for (const [path, fd] of pipes) {
      try {
        const bytes = Buffer.from(text);
        for (let written = 0; written < bytes.length;) written += writeSync(fd, bytes, written);
      } catch (error) {
        if (errnoOf(error) === undefined) throw error;
        drop(path, fd); // Full: nobody reads.
      }
    }
  };
  return {
    join: requests => {
      for (const {file, uid} of requests) {
        if (pipes.size === MOST_PIPES) break;
        const path = join(spoolPath(stateDir), `.${file.replace(/json$/, 'said')}`);
        const fd = pipes.has(path) ? undefined : openPipe(path, uid);
        if (fd !== undefined) pipes.set(path, fd);
      }
    },
    say,
    end: exit => {
      say(`= ${exit}\n`);
      for (const [path, fd] of pipes) {
        // In this order: whoever opens it in between still finds its end.
        remove(path);
        drop(path, fd);
      }
    },
  };
}

/** Its sender may have put there what cannot be removed; it goes with what is unfinished. */
function remove(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
  }
}

function openPipe(path: string, uid: number): number | undefined {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK | constants.O_NOFOLLOW);
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
    return undefined; // Nobody waits, or not in a way that we may answer.
  }
  const stat = fstatSync(fd);
  if (stat.isFIFO() && stat.uid === uid) return fd;
  closeSync(fd);
  return undefined;
}
