import assert from 'node:assert/strict';
import type {TestContext} from 'node:test';
import type {CommandEnd, RunningCommand} from './osyw.ts';
import type {Settings, Site} from './site.ts';
import {waitUntil} from './wait-until.ts';

export const SOON = {withinMs: 90_000, everyMs: 50};
const LONGEST_MS = 360_000;

/** A watch that runs. */
export interface Watching extends RunningCommand {
  /** SIGTERM; it must end with 0. */
  end(): Promise<CommandEnd>;
}

/** A watch of the site, with these keys of `watch`; gone with the test. */
export async function startWatch(t: TestContext, site: Site, watch: Settings): Promise<Watching> {
  site.configure({watch});
  const running = site.start(['watch', '--verbose'], {withinMs: LONGEST_MS});
  t.after(() => running.child.kill('SIGKILL'));
  await waitUntil('the watch to run', () => running.stdout().includes('watch of site runs'), SOON);
  return {...running, end: async () => {
    running.child.kill('SIGTERM');
    const end = await running.ended;
    assert.equal(end.exit, 0, end.stdout + end.stderr);
    return end;
  }};
}

export function serves(site: Site, version: string): Promise<unknown> {
  return waitUntil(`version ${version} to serve`, async () => await site.version() === version, SOON);
}

/** No deploy is at hand, nothing drains, nothing waits. */
export function quiet(site: Site): Promise<unknown> {
  return waitUntil('everything to settle', async () => {
    const {deploy, draining, pending} = await site.status();
    return deploy === null && draining.length === 0 && pending === null;
  }, SOON);
}
