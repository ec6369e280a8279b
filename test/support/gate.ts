import {execFileSync} from 'node:child_process';
import {closeSync, constants, openSync, writeSync} from 'node:fs';
import {join} from 'node:path';
import type {TestContext} from 'node:test';
import {processesOf} from './leftovers.ts';
import type {Site} from './site.ts';
import {waitUntil} from './wait-until.ts';

const PATIENCE = {withinMs: 120_000};

/** A pipe at which a build waits; each opening lets one through, also one that comes only then. */
export function makeGate(t: TestContext, site: Site): {build: readonly string[]; open(): void; reached(): Promise<unknown>} {
  const path = join(site.dir, 'gate');
  execFileSync('mkfifo', ['-m', '666', path]);
  const fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
  t.after(() => closeSync(fd));
  return {
    build: ['/usr/bin/head', '-c', '1', path],
    open: () => void writeSync(fd, '.'),
    reached: () => waitUntil('a build at the gate', () => processesOf(path).length > 0, PATIENCE),
  };
}
