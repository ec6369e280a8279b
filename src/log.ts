import {mkdirSync} from 'node:fs';
import {join} from 'node:path';

export interface Log {
  info(entry: object): void;
}

/** By then svn or git is waited for. */
const LOADED_AFTER_MS = 50;

/**
 * The deployer's own log, one JSON object a line. Written at once: what a killed deploy said last is what is wanted.
 * But for the very first: pino is loaded when the deploy is under way.
 */
export function openLog(stateDir: string): Log {
  const first: object[] = [];
  let write = (entry: object): void => void first.push(entry);
  setTimeout(() => void openPino(stateDir).then(info => {
    write = info;
    first.forEach(info);
  }), LOADED_AFTER_MS);
  return {info: entry => write(entry)};
}

async function openPino(stateDir: string): Promise<(entry: object) => void> {
  const {pino} = await import('pino');
  const directory = join(stateDir, 'log');
  try {
    mkdirSync(directory, {recursive: true, mode: 0o755});
    const destination = pino.destination({dest: join(directory, 'osyw-deploy.log'), sync: true, mode: 0o640});
    // A log that cannot be written, on a full disk for one, must not fail the deploy that it tells of.
    destination.on('error', () => undefined);
    const logger = pino({base: {pid: process.pid}, timestamp: pino.stdTimeFunctions.isoTime}, destination);
    return entry => logger.info(entry);
  } catch {
    return () => undefined;
  }
}
