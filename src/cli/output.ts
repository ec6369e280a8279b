import {writeSync} from 'node:fs';
import {isatty} from 'node:tty';
import {errnoOf} from '../errors.ts';

/** Where a command's words go. A deploy goes on when they can no longer be written. */
export interface Output {
  /** Standard output. */
  out(text: string): void;
  /** Standard error. */
  err(text: string): void;
  readonly terminal: boolean;
  readonly colour: boolean;
}

export function openOutput(env: NodeJS.ProcessEnv): Output {
  const terminal = isatty(1);
  return {
    out: text => write(1, text),
    err: text => write(2, text),
    terminal,
    colour: wantsColour(env, terminal),
  };
}

export function wantsColour(env: NodeJS.ProcessEnv, terminal: boolean): boolean {
  const force = env['FORCE_COLOR'];
  if (force !== undefined) return force !== '0' && force !== 'false';
  if ((env['NO_COLOR'] ?? '') !== '') return false;
  return terminal && env['TERM'] !== 'dumb';
}

/** Of the terminal on standard output; one that does not say has as many as terminals had. */
export function terminalRows(): number {
  return process.stdout.rows || 24;
}

/** Calls back when the terminal on standard output has another size, until the returned function is called. */
export function onResize(listener: () => void): () => void {
  process.stdout.on('resize', listener);
  return () => void process.stdout.off('resize', listener);
}

/** Whether nobody reads standard output any more: a deploy goes on, but what does nothing else than tell is then done. */
export function isUnread(): boolean {
  return gone.has(1);
}

/** At once, and whole: what is said before a kill is said. Errors: none; a reader that is gone does not stop a deploy. */
function write(fd: number, text: string): void {
  if (gone.has(fd)) return;
  const bytes = Buffer.from(text);
  const deadline = performance.now() + STALLED_READER_MS;
  for (let written = 0; written < bytes.length;) {
    try {
      written += writeSync(fd, bytes, written);
    } catch (error) {
      // A slow reader of a pipe that somebody made non-blocking is waited for a little; anybody else is gone for good.
      if (errnoOf(error) === 'EAGAIN' && performance.now() < deadline) continue;
      gone.add(fd);
      return;
    }
  }
}

const STALLED_READER_MS = 1000;
const gone = new Set<number>();
