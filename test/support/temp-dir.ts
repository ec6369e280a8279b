import {chmodSync, mkdtempSync, realpathSync, rmSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';

const mine = new Set<string>();
// A test that throws on its way to `after` leaves no directory either.
process.on('exit', () => mine.forEach(removeTempDir));

/** A directory of the caller's own. Others may pass through it: nginx's workers run as another account. */
export function makeTempDir(): string {
  const dir = realpathSync(mkdtempSync(join(tmpdir(), 'osyw-test-')));
  chmodSync(dir, 0o755);
  mine.add(dir);
  return dir;
}

export function removeTempDir(dir: string): void {
  rmSync(dir, {recursive: true, force: true, maxRetries: 3});
  mine.delete(dir);
}
