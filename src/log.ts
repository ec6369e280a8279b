import {mkdirSync} from 'node:fs';
import {join} from 'node:path';
import pino, {type Logger} from 'pino';

/** The deployer's own log, one JSON object a line. Written at once: what a killed deploy said last is what is wanted. */
export function openLog(stateDir: string): Logger {
  const directory = join(stateDir, 'log');
  try {
    mkdirSync(directory, {recursive: true, mode: 0o755});
    const destination = pino.destination({dest: join(directory, 'osyw-deploy.log'), sync: true, mode: 0o640});
    // A log that cannot be written, on a full disk for one, must not fail the deploy that it tells of.
    destination.on('error', () => undefined);
    return pino({base: {pid: process.pid}, timestamp: pino.stdTimeFunctions.isoTime}, destination);
  } catch {
    return pino({enabled: false});
  }
}
