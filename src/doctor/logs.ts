import {readFileSync, readdirSync} from 'node:fs';
import {dirname, join} from 'node:path';
import type {Config} from '../config/config.ts';
import {errnoOf} from '../errors.ts';
import {shellWord} from '../service/quoting.ts';
import {lstatIfThere} from '../support/lstat-if-there.ts';
import {fillIn} from '../workers/worker-environment.ts';
import {globToRegExp} from '../nginx/include-glob.ts';
import {megabytes, type Finding} from './finding.ts';

/** Whether somebody rotates what the workers write. `etc` is /etc, where logrotate is told what to do. */
export function logRotation({workers, app, stateDir, file}: Config, etc: string): Finding[] {
  const check = 'log-rotation';
  if (workers.log === undefined) return [{check, level: 'ok', says: "the workers' output goes to systemd's journal, which limits itself"}];
  const log = fillIn(workers.log, {port: workers.ports.first, release: '000001', revision: 'r1'});
  const rotated = blocksIn(etc).filter(({patterns}) => patterns.some(pattern => globToRegExp(pattern).test(log)));
  const size = megabytes(sizeOfLogs(dirname(log)));
  const place = workers.log;
  const mend = `osyw-deploy service install --config ${shellWord(file)}`;
  const [block] = rotated;
  if (block === undefined) {
    return [{
      check, level: 'warning', place, mend,
      says: `no file of ${join(etc, 'logrotate.d')} names ${log}; ${size} lie in ${dirname(log)} now`,
      means: `the workers' logs grow until the disk is full${dirname(log).startsWith(stateDir) ? ', and that is where the releases and the state are' : ''}; a service brings /etc/logrotate.d/osyw-deploy-${app} along`,
    }];
  }
  if (!/^\s*copytruncate\b/m.test(block.text)) {
    return [{
      check, level: 'warning', place: block.file, mend: 'copytruncate',
      says: `${block.file} rotates ${log} without copytruncate`,
      means: 'a worker has its log open for as long as it lives, and goes on writing to the file that was moved away: to none, once that is deleted',
    }];
  }
  return [{check, level: 'ok', says: `${block.file} rotates the workers' logs; ${size} lie in ${dirname(log)} now`, place}];
}

interface Block {
  readonly file: string;
  readonly patterns: readonly string[];
  readonly text: string;
}

/** Source: logrotate(8): names, quoted or not, then what is done with them in braces. */
function blocksIn(etc: string): Block[] {
  const directory = join(etc, 'logrotate.d');
  const files = [join(etc, 'logrotate.conf'), ...namesIn(directory).map(name => join(directory, name))];
  return files.flatMap(file => {
    const text = readOrEmpty(file).replace(/^\s*#.*$/gm, '');
    return [...text.matchAll(/([^{}]*)\{([^}]*)\}/g)].map(([, head = '', body = '']) => ({
      file, text: body,
      patterns: [...head.matchAll(/"((?:\\.|[^"\\])*)"|'([^']*)'|(?<!\S)(\/\S+)/g)].map(([, double, single, bare]) => double?.replaceAll('\\"', '"') ?? single ?? bare ?? ''),
    }));
  });
}

function sizeOfLogs(directory: string): number {
  return namesIn(directory).reduce((sum, name) => sum + (lstatIfThere(join(directory, name))?.size ?? 0), 0);
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory).sort();
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
    return []; // Not there, or not ours to read.
  }
}

function readOrEmpty(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
    return ''; // The same, or a directory.
  }
}
