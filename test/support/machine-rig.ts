import {execFileSync} from 'node:child_process';
import {mkdirSync, rmSync, symlinkSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import type {TestContext} from 'node:test';
import {run} from './run.ts';
import {NGINX} from './nginx-rig.ts';
import type {Site} from './site.ts';
import {bootSystemd} from './systemd-rig.ts';

/** A machine of the test's own that runs systemd, a site, and nginx as a service of it; it can be switched off and booted again. */
export interface Machine {
  /** Below the machine's /etc. */
  etc(path: string): string;
  /** Runs a command there; throws with its output when it fails. */
  run(file: string, ...args: string[]): Promise<string>;
  /** Runs a command there, whatever becomes of it. */
  ask(file: string, ...args: string[]): Promise<string>;
  systemctl(...args: string[]): Promise<string>;
  /** The power fails, and comes back. */
  reboot(): Promise<void>;
}

const NOTHING_BEFORE = '[Unit]\nDefaultDependencies=no\n';

/** The site's own nginx is stopped: from here on it is the machine's, and so is every command of the site. */
export async function bootMachine(t: TestContext, site: Site): Promise<Machine> {
  const etc = join(site.dir, 'etc');
  const units = join(etc, 'systemd/system');
  execFileSync('cp', ['-a', '/etc', etc]);
  // Nothing of the real machine is started.
  rmSync(units, {recursive: true});
  mkdirSync(join(units, 'multi-user.target.wants'), {recursive: true});
  mkdirSync(join(units, 'quiet.target.wants'));
  writeFileSync(join(units, 'multi-user.target'), NOTHING_BEFORE);
  symlinkSync('../multi-user.target', join(units, 'quiet.target.wants/multi-user.target'));
  writeFileSync(join(units, 'nginx.service'), `[Service]\nType=exec\nExecStart=${NGINX} -p ${site.nginx.prefix} -c ${site.nginx.conf}\nExecReload=/bin/kill -HUP $MAINPID\n`);
  symlinkSync('../nginx.service', join(units, 'multi-user.target.wants/nginx.service'));
  await site.nginx.stop();
  let on: Awaited<ReturnType<typeof bootSystemd>>;
  const boot = async () => {
    on = await bootSystemd(site.dir, {etc});
    site.wrap(on.inside);
  };
  await boot();
  t.after(() => on.stop());
  const machine: Machine = {
    etc: path => join(etc, path),
    run: (file, ...args) => {
      const [first = '', ...rest] = [...on.inside, file, ...args];
      return run(first, rest);
    },
    ask: async (file, ...args) => machine.run('sh', '-c', '"$@" 2>&1 || echo "exit $?"', 'sh', file, ...args),
    systemctl: (...args) => machine.run('systemctl', ...args),
    async reboot() {
      await on.stop();
      await boot();
    },
  };
  return machine;
}
