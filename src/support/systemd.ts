import {existsSync} from 'node:fs';

/** Source: sd_booted(3). */
export const SYSTEMD_RUNS = '/run/systemd/system';

/** Whether this machine's first process is systemd. */
export function systemdRuns(): boolean {
  return existsSync(SYSTEMD_RUNS);
}
