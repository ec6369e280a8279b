import {mkdirSync} from 'node:fs';
import {join} from 'node:path';

export interface Log {
  info(entry: object): void;
  /** From here on into the file of that name, as after it was renamed. */
  reopen(): void;
}

/** What is waited for is looked at up to a hundred times a second; one line a second tells it as well, and a drain may take hours. */
const SAME_NOTE_AGAIN_MS = 1000;
const MOST_NOTES = 1000;
/** By then svn or git is waited for. */
const LOADED_AFTER_MS = 50;

const open = new Map<string, Log>();

/**
 * The deployer's own log, one JSON object a line. Written at once: what a killed deploy said last is what is wanted.
 * But for the very first: pino is loaded when the deploy is under way. It stays open, for as many deploys as this process makes.
 */
export function openLog(stateDir: string): Log {
  const log = open.get(stateDir) ?? makeLog(stateDir);
  open.set(stateDir, log);
  return log;
}

function makeLog(stateDir: string): Log {
  const first: object[] = [];
  let write = (entry: object): void => void first.push(entry);
  let reopen = (): void => undefined;
  setTimeout(() => void openPino(stateDir).then(opened => {
    ({info: write, reopen} = opened);
    first.forEach(write);
  }), LOADED_AFTER_MS);
  const isRepeated = noteRepetition();
  return {
    info: entry => {
      if (!isRepeated(entry)) write(entry);
    },
    reopen: () => reopen(),
  };
}

/** Whether a note says what another said a moment ago. */
function noteRepetition(): (entry: object) => boolean {
  const written = new Map<unknown, number>();
  return entry => {
    if (!('event' in entry && entry.event === 'note' && 'text' in entry)) return false;
    const now = performance.now();
    if (written.size > MOST_NOTES) written.clear();
    const last = written.get(entry.text);
    if (last !== undefined && now - last < SAME_NOTE_AGAIN_MS) return true;
    written.set(entry.text, now);
    return false;
  };
}

async function openPino(stateDir: string): Promise<Log> {
  const {pino} = await import('pino');
  const directory = join(stateDir, 'log');
  try {
    mkdirSync(directory, {recursive: true, mode: 0o755});
    const destination = pino.destination({dest: join(directory, 'osyw-deploy.log'), sync: true, mode: 0o640});
    // A log that cannot be written, on a full disk for one, must not fail the deploy that it tells of.
    destination.on('error', () => undefined);
    const logger = pino({base: {pid: process.pid}, timestamp: pino.stdTimeFunctions.isoTime}, destination);
    return {info: entry => logger.info(entry), reopen: () => destination.reopen()};
  } catch {
    return {info: () => undefined, reopen: () => undefined};
  }
}
