import {spawnSync} from 'node:child_process';
import {randomUUID} from 'node:crypto';
import {writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {isAlive} from '../support/leftovers.ts';
import type {Site} from '../support/site.ts';
import {waitUntil} from '../support/wait-until.ts';

const BOOT_ID = '/proc/sys/kernel/random/boot_id';

/** Why no reboot can be simulated here; undefined when one can. */
export function whyNoReboot(): string | undefined {
  if (process.getuid?.() !== 0) return 'only root can give a command another boot id';
  return spawnSync('unshare', ['--mount', '--propagation', 'private', 'true']).status === 0 ? undefined : 'this machine allows no mount namespace';
}

/**
 * The machine goes down at this instant and comes up again: every process of the site is gone, nginx runs, commands see another boot id.
 * `whileDown`: what happens to its disks before anything runs again.
 */
export async function reboot(site: Site, whileDown: () => void = () => {}): Promise<void> {
  await site.nginx.kill();
  await waitUntil('everything to be dead', () => {
    const left = site.processes();
    for (const {pid} of left) if (isAlive(pid)) process.kill(pid, 'SIGKILL');
    return left.length === 0;
  });
  const bootId = join(site.dir, `boot-${randomUUID()}`);
  writeFileSync(bootId, `${randomUUID()}\n`);
  site.wrap(['unshare', '--mount', '--propagation', 'private', '--', 'sh', '-c', `mount --bind "$0" ${BOOT_ID} && exec "$@"`, bootId]);
  whileDown();
  await site.nginx.start();
}
