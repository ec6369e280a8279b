import {readFileSync, readdirSync} from 'node:fs';
import {endChild, spawnBound} from './run.ts';
import {waitUntil} from './wait-until.ts';

export const SYSTEMD = '/lib/systemd/systemd';

// Nothing of this machine may be tidied up, or started: so its /tmp is out of reach but for the test's directory ($0), and a service
// that wants the usual beginnings of a boot finds none.
const BOOT = `
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p /run/keep /run/systemd/system /run/lock
mount --bind "$0" /run/keep
for directory in /tmp /var/tmp /var/log /var/lib/systemd; do mount -t tmpfs tmpfs "$directory"; done
mkdir -p "$0"
mount --move /run/keep "$0"
mount --bind /bin/true /usr/bin/systemd-tmpfiles
mount -t cgroup2 none /sys/fs/cgroup
ln -s /dev/null /run/systemd/system/sysinit.target
printf '[Unit]\\nDefaultDependencies=no\\n' >/run/systemd/system/quiet.target
container=other exec ${SYSTEMD} --system --unit=quiet.target --log-target=null --show-status=0
`;

/** A systemd that runs this test's own little machine: processes, mounts and cgroups of its own. `inside` are the words that run a command in it. */
export async function bootSystemd(dir: string): Promise<{readonly inside: readonly string[]; stop(): Promise<void>}> {
  const child = spawnBound('/usr/bin/unshare', ['--pid', '--fork', '--kill-child', '--mount', '--mount-proc', '--cgroup', '--uts', '--ipc', '--', '/bin/sh', '-ec', BOOT, dir], {stdio: 'ignore'});
  const stop = () => endChild(child, 'SIGKILL');
  try {
    const init = await waitUntil('systemd as the first process', () => readdirSync('/proc').find(pid => /^\d+$/.test(pid) && parentAndName(pid) === `${child.pid} systemd`), {withinMs: 15_000});
    await waitUntil('systemd to answer', () => readdirSync(`/proc/${init}/root/run/systemd`).includes('private'), {withinMs: 15_000});
    return {inside: ['nsenter', '--target', init, '--mount', '--pid', '--cgroup', '--uts', '--ipc', '--'], stop};
  } catch (error) {
    await stop();
    throw error;
  }
}

function parentAndName(pid: string): string {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    return `${/^PPid:\s+(\d+)/m.exec(status)?.[1]} ${/^Name:\s+(.*)/m.exec(status)?.[1]}`;
  } catch {
    return ''; // gone meanwhile
  }
}
