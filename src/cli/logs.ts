import {closeSync, constants, createReadStream, fstatSync, openSync, watch} from 'node:fs';
import type {Config} from '../config/config.ts';
import {defaultWorkerLog} from '../config/places.ts';
import type {Generation} from '../deploy/deployment.ts';
import {DeployError, errnoOf} from '../errors.ts';
import {readState} from '../state/state-file.ts';
import {plainText} from '../support/plain-text.ts';
import {followJournal, journalOf} from '../workers/unit-journal.ts';
import {unitOf} from '../workers/unit-name.ts';
import {fillIn} from '../workers/worker-environment.ts';
import {lastLines} from '../workers/worker-log.ts';
import type {Context} from './context.ts';

/** `osyw-deploy logs`: the end of the serving workers' output, and with `--follow` what comes. */
export async function logs({loadConfig, output, signal}: Context, {lines, follow}: {lines: number; follow: boolean}): Promise<number> {
  const config = loadConfig();
  const {serving} = readState(config.stateDir);
  if (serving === null) throw new DeployError('USAGE', 'nothing serves, so there is no worker whose output could be shown', {hint: `Older output stands in ${config.workers.log ?? 'the journal'}.`});
  const logs = logsOf(config, serving);
  const label = (name: string, line: string) => `${logs.length === 1 ? '' : `${name}: `}${plainText(line)}\n`;
  for (const {name, last} of logs) {
    for (const line of await last(lines)) output.out(label(name, line));
  }
  if (follow) await Promise.all(logs.map(({name, come}) => come(line => output.out(label(name, line)), signal)));
  return 0;
}

/** What the output of one or more workers is kept in. */
interface Log {
  readonly name: string;
  readonly place: string;
  last(count: number): Promise<readonly string[]>;
  /** Shows what is appended from now on, until the signal. */
  come(show: (line: string) => void, signal: AbortSignal): Promise<void>;
}

function logsOf({workers: {log, runner}, stateDir}: Config, {release, workers}: Generation): Log[] {
  const logs = workers.map(({id, port}): Log => {
    const unit = unitOf(id);
    if (unit !== undefined && (log === undefined || runner === 'process')) {
      const {place, lastLines: last} = journalOf(unit);
      return {name: `worker-${port}`, place, last, come: (show, signal) => followJournal(unit, show, signal)};
    }
    const path = fillIn(log ?? defaultWorkerLog(stateDir), {port, release: release.id, revision: release.revision});
    return {name: path.split('/').at(-1) ?? path, place: path, last: count => Promise.resolve(lastLines(path, 0, count)), come: (show, signal) => followFile(path, show, signal)};
  });
  return [...new Map(logs.map(one => [one.place, one])).values()];
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
