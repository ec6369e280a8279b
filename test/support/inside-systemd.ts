import {spawn} from 'node:child_process';
import {existsSync} from 'node:fs';
import {test} from 'node:test';
import {fileURLToPath} from 'node:url';
import {bootSystemd, SYSTEMD} from './systemd-rig.ts';
import {makeTempDir, removeTempDir} from './temp-dir.ts';

const INSIDE = 'TEST_INSIDE_SYSTEMD';

/**
 * Runs the tests of a file on a machine of their own, whose first process is systemd, booted once for all of them: the file is run
 * once more inside, and its answers to the test runner are those of this process. `define` makes the tests.
 */
export async function insideSystemd(file: string, define: () => void): Promise<void> {
  if (process.env[INSIDE] !== undefined) return define();
  const missing = process.getuid?.() !== 0 ? 'only root can boot a systemd' : existsSync(SYSTEMD) ? undefined : 'there is no systemd';
  if (missing !== undefined) {
    // Where nobody looks, what was not tested is a failure.
    test('runner: systemd', {skip: process.env['CI'] === undefined && missing}, () => {
      throw new Error(missing);
    });
    return;
  }
  const dir = makeTempDir();
  const {inside, stop} = await bootSystemd(dir);
  try {
    const [command, ...words] = [...inside, 'env', `--chdir=${process.cwd()}`, process.execPath, ...process.execArgv, fileURLToPath(file)];
    const child = spawn(command ?? '', words, {stdio: 'inherit', env: {...process.env, [INSIDE]: '1'}});
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => child.kill(signal));
    process.exitCode = await new Promise(resolve => {
      child.once('exit', code => resolve(code ?? 1));
    });
  } finally {
    await stop();
    removeTempDir(dir);
  }
}
