import {spawnSync} from 'node:child_process';
import {CLI} from '../support/osyw.ts';
import {scrubbedEnv} from '../support/scrubbed-env.ts';
import {median, ms, table, times} from './numbers.ts';
import {progress} from './rig.ts';

const ROUNDS = 25;

/** (b) the command's own start against a bare Node, turn by turn; and what this machine takes to start the tools. */
export async function start(): Promise<string> {
  progress('(b) the start of the command');
  const commands: Readonly<Record<string, readonly string[]>> = {
    'node -e 0': [process.execPath, '-e', '0'],
    'osyw-deploy --version': [process.execPath, CLI, '--version'],
    'osyw-deploy now --help': [process.execPath, CLI, 'now', '--help'],
    'svn --version -q': ['svn', '--version', '-q'],
    'git --version': ['git', '--version'],
    'python3 -S -E -c 0': ['/usr/bin/python3', '-S', '-E', '-c', '0'],
  };
  const took = new Map<string, number[]>(Object.keys(commands).map((name) => [name, []]));
  for (let round = 0; round < ROUNDS; round++) {
    for (const [name, [file = '', ...args]] of Object.entries(commands)) {
      const began = performance.now();
      const {status} = spawnSync(file, args, {env: scrubbedEnv('/'), stdio: 'ignore'});
      if (status !== 0) throw new Error(`${name} ended with ${status}`);
      took.get(name)?.push(performance.now() - began);
    }
  }
  const node = median(took.get('node -e 0') ?? []);
  return table(['command', `median of ${ROUNDS}`, 'of a bare Node', 'limit'],
    [...took].map(([name, values]) => [`\`${name}\``, ms(median(values)), times(median(values) / node), name === 'osyw-deploy --version' ? '3 ×' : '-']));
}
