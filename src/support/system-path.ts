/** Where a system's commands are, whatever the caller's PATH says. `hooks/hook.sh` has the same. */
export const SYSTEM_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
