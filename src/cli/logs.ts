import {closeSync, constants, createReadStream, fstatSync, openSync, watch} from 'node:fs';
import type {Config} from '../config/config.ts';
import type {Generation} from '../deploy/deployment.ts';
import {DeployError, errnoOf} from '../errors.ts';
import {readState} from '../state/state-file.ts';
import {plainText} from '../support/plain-text.ts';
import {fillIn} from '../workers/worker-environment.ts';
import {lastLines} from '../workers/worker-log.ts';
import type {Context} from './context.ts';

/** `osyw-deploy logs`: the end of the serving workers' output, and with `--follow` what comes. */
export async function logs({loadConfig, output, signal}: Context, {lines, follow}: {lines: number; follow: boolean}): Promise<number> {
  const config = loadConfig();
  const {serving} = readState(config.stateDir);
  if (serving === null) throw new DeployError('USAGE', 'nothing serves, so there is no worker whose output could be shown', {hint: `Older output stands in ${config.workers.log}.`});
  const files = logFiles(config, serving);
  const label = (path: string, line: string) => `${files.length === 1 ? '' : `${path.split('/').at(-1)}: `}${plainText(line)}\n`;
  for (const path of files) {
    for (const line of lastLines(path, 0, lines)) output.out(label(path, line));
  }
  if (follow) await Promise.all(files.map(path => followFile(path, line => output.out(label(path, line)), signal)));
  return 0;
}

function logFiles(config: Config, {release, workers}: Generation): string[] {
  return [...new Set(workers.map(({port}) => fillIn(config.workers.log, {port, release: release.id, revision: release.revision})))];
}

/** Shows what is appended from now on, until the signal. A file that gets shorter was rotated and is read from its start. */
async function followFile(path: string, show: (line: string) => void, signal: AbortSignal): Promise<void> {
  let offset = sizeOf(path);
  let rest = '';
  let reading = Promise.resolve();
  const read = async () => {
    const size = sizeOf(path);
    if (size < offset) offset = 0;
    if (size === offset) return;
    for await (const chunk of createReadStream(path, {start: offset, end: size - 1, encoding: 'utf8'})) {
      const parts = (rest + String(chunk)).split('\n');
      rest = parts.pop() ?? '';
      parts.forEach(show);
    }
    offset = size;
  };
  await new Promise<void>(resolve => {
    const watcher = watch(path, () => {
      reading = reading.then(read);
    });
    signal.addEventListener('abort', () => {
      watcher.close();
      resolve();
    }, {once: true});
  });
  await reading;
}

function sizeOf(path: string): number {
  try {
    const fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    try {
      return fstatSync(fd).size;
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return 0;
    throw error;
  }
}
