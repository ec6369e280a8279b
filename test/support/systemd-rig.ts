import {existsSync, mkdirSync, readFileSync, readdirSync, rmdirSync} from 'node:fs';
import {join} from 'node:path';
import {fileURLToPath} from 'node:url';
import {endChild, spawnBound} from './run.ts';
import {waitUntil} from './wait-until.ts';

export const SYSTEMD = '/lib/systemd/systemd';

// Nothing of this machine may be tidied up, or started: so its /tmp is out of reach but for the test's directory ($0) and the code ($2), and systemd
// knows no unit but those that are written here, whatever asks for the usual beginnings of a boot.
const BOOT = `
mount --make-rprivate /
units=/run/systemd/system:/run/systemd/transient
[ -z "$1" ] || { mount --bind "$1" /etc; units=/etc/systemd/system:$units; }
mount -t tmpfs tmpfs /run
mkdir -p /run/keep /run/code /run/systemd/system /run/systemd/transient /run/systemd/journald.conf.d /run/lock
mount --bind "$0" /run/keep
mount --bind "$2" /run/code
for directory in /tmp /var/tmp /var/log /var/lib/systemd; do mount -t tmpfs tmpfs "$directory"; done
mkdir -p "$0" "$2"
mount --move /run/code "$2"
mount --move /run/keep "$0"
mount --bind /bin/true /usr/bin/systemd-tmpfiles
mount -t cgroup2 none /sys/fs/cgroup
cd /run/systemd/system
for target in sysinit basic shutdown; do printf '[Unit]\\nDefaultDependencies=no\\n' >$target.target; done
printf '[Unit]\\nDefaultDependencies=no\\nWants=systemd-journald.service\\n' >quiet.target
cat >systemd-journald.socket <<end
[Unit]
DefaultDependencies=no
[Socket]
ListenDatagram=/run/systemd/journal/socket
ListenStream=/run/systemd/journal/stdout
PassCredentials=yes
SocketMode=0666
end
cat >systemd-journald.service <<end
[Unit]
DefaultDependencies=no
Requires=systemd-journald.socket
After=systemd-journald.socket
[Service]
Type=notify
ExecStart=/lib/systemd/systemd-journald
Sockets=systemd-journald.socket
RuntimeDirectory=systemd/journal
RuntimeDirectoryPreserve=yes
StandardOutput=null
FileDescriptorStoreMax=4224
end
printf '[Journal]\\nStorage=volatile\\nReadKMsg=no\\nAudit=no\\nForwardToWall=no\\n' >/run/systemd/journald.conf.d/quiet.conf
cd /
container=other SYSTEMD_UNIT_PATH=$units exec ${SYSTEMD} --system --unit=quiet.target --log-target=journal --show-status=0
`;

/** The code that is tested: wherever it lies, it is there. */
const CODE = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/$/, '');

// Its cgroups are below one of its own: two of them at once, and the machine's own systemd, do not meet.
const IN_CGROUP = 'echo $$ >"$0/cgroup.procs"; exec "$@"';

/**
 * A systemd that runs this test's own little machine: processes, mounts, cgroups and a journal of its own. `inside` are the
 * words that run a command in it. `etc`: a directory that is its /etc, with units that it knows, and that is still there when it is booted again.
 */
export async function bootSystemd(dir: string, {etc = ''}: {etc?: string} = {}): Promise<{readonly inside: readonly string[]; stop(): Promise<void>}> {
  const cgroup = join(ownCgroup(), `osyw-test-${process.pid}-${++boots}`);
  mkdirSync(cgroup);
  const child = spawnBound('/bin/sh', ['-ec', IN_CGROUP, cgroup,
    '/usr/bin/unshare', '--pid', '--fork', '--kill-child', '--mount', '--mount-proc', '--cgroup', '--uts', '--ipc', '--', '/bin/sh', '-ec', BOOT, dir, etc, CODE], {stdio: 'ignore'});
  const stop = async () => {
    await endChild(child, 'SIGKILL');
    await waitUntil('its processes to end', () => readFileSync(join(cgroup, 'cgroup.events'), 'utf8').includes('populated 0'), {withinMs: 20_000});
    removeCgroup(cgroup);
  };
  try {
    const init = await waitUntil('systemd as the first process', () => readdirSync('/proc').find(pid => /^\d+$/.test(pid) && parentAndName(pid) === `${child.pid} systemd`), {withinMs: 15_000});
    await waitUntil('systemd to answer', () => readdirSync(`/proc/${init}/root/run/systemd`).includes('private'), {withinMs: 15_000});
    return {inside: ['nsenter', '--target', init, '--mount', '--pid', '--cgroup', '--uts', '--ipc', '--'], stop};
  } catch (error) {
    await stop();
    throw error;
  }
}

let boots = 0;

/** Where the kernel's own, second kind of cgroups shows that of this process. Source: cgroups(7). */
function ownCgroup(): string {
  const mount = existsSync('/sys/fs/cgroup/cgroup.controllers') ? '/sys/fs/cgroup' : '/sys/fs/cgroup/unified';
  return join(mount, /^0::(.*)$/m.exec(readFileSync('/proc/self/cgroup', 'utf8'))?.[1] ?? '/');
}

function removeCgroup(path: string): void {
  for (const entry of readdirSync(path, {withFileTypes: true})) if (entry.isDirectory()) removeCgroup(join(path, entry.name));
  rmdirSync(path);
}

function parentAndName(pid: string): string {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    return `${/^PPid:\s+(\d+)/m.exec(status)?.[1]} ${/^Name:\s+(.*)/m.exec(status)?.[1]}`;
  } catch {
    return ''; // gone meanwhile
  }
}
