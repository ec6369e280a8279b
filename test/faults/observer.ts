import assert from 'node:assert/strict';
import {createHash} from 'node:crypto';
import {readFileSync, readdirSync} from 'node:fs';
import {join} from 'node:path';
import type {TestContext} from 'node:test';
import type {Settled, Site} from '../support/site.ts';
import type {Traffic} from '../support/traffic.ts';
import {postSentinels} from './sentinels.ts';
import {changes, tracingChanges} from './tracing.ts';

/** Watches a site from outside: by requests, by /proc, by innocent processes. It asks the deployer nothing but `status` and `history`. */
export interface Observer {
  readonly traffic: Traffic;
  /** Everything is settled without a recovery, and the next deploy works. Ends the traffic. */
  goesOn(expected?: Settled): Promise<void>;
  /** After a fault: `recover` settles it, a second one changes nothing, all invariants hold, the next deploy works. Ends the traffic. */
  recovers(expected?: Settled): Promise<void>;
  /** All invariants hold, without a recovery. Ends the traffic. */
  holds(expected?: Settled): Promise<void>;
  /** After a fault: `recover` settles it, a second one does nothing at all, by its system calls, all invariants hold. The traffic goes on. */
  settles(expected?: Settled): Promise<void>;
  /** No request has failed so far, and nobody else got a signal. The traffic goes on. */
  nobodyHarmed(): void;
}

export interface ObserverOptions {
  /** Given to `site.traffic`. */
  readonly traffic?: Parameters<Site['traffic']>[0];
  /** False where the fault itself fails requests, as a reboot does. */
  readonly noRequestFails?: boolean;
}

export async function observe(test: TestContext, site: Site, options: ObserverOptions = {}): Promise<Observer> {
  const sentinels = await postSentinels(test);
  const traffic = site.traffic({slowMs: 600, ...options.traffic});
  const holds = async (expected: Settled = {}): Promise<void> => {
    const report = await traffic.stop();
    await site.settled(expected);
    if (options.noRequestFails !== false) assert.deepEqual(report.failures, [], 'no request fails');
    sentinels.unharmed();
  };
  const nobodyHarmed = (): void => {
    if (options.noRequestFails !== false) assert.deepEqual(traffic.report().failures, [], 'no request fails');
    sentinels.unharmed();
  };
  const settles = async (expected: Settled = {}): Promise<void> => {
    const first = await site.run(['recover', '--json']);
    assert.equal(first.exit, 0, `recover ended with ${first.exit}: ${first.stdout}${first.stderr}`);
    const settled = fingerprint(site);
    const record = join(site.dir, 'second-recover.trace');
    const second = await site.run(['recover', '--json'], {wrap: tracingChanges(record)});
    assert.equal(second.exit, 0, second.stdout + second.stderr);
    assert.deepEqual(changes(record, site.stateDir), [], 'a second recover changes nothing');
    assert.deepEqual(fingerprint(site), settled, 'a second recover changes nothing');
    await site.settled(expected);
    nobodyHarmed();
  };
  const deploysNext = async (): Promise<void> => {
    const next = `next ${Date.now()}`;
    await site.release(next);
    await site.deployed();
    await holds({version: next});
  };
  return {
    traffic,
    holds,
    nobodyHarmed,
    settles,
    goesOn: async (expected = {}) => {
      await site.settled(expected);
      await deploysNext();
    },
    recovers: async (expected = {}) => {
      await settles(expected);
      await deploysNext();
    },
  };
}

/** What a deploy leaves: the files of its state, what nginx reads, which processes run. The log and the lock's note for people do not count. */
export function fingerprint(site: Site): Record<string, string> {
  const files = readdirSync(site.stateDir, {recursive: true, withFileTypes: true})
    .filter(entry => entry.isFile() && !['lock', 'waiting'].includes(entry.name))
    .map(entry => join(entry.parentPath, entry.name))
    .filter(path => !['log', 'svn'].some(name => path.startsWith(join(site.stateDir, name))));
  return {
    ...Object.fromEntries([...files, site.nginx.upstreamFile].sort().map(path => [path, createHash('sha256').update(readFileSync(path)).digest('hex')])),
    processes: site.processes().map(({pid}) => pid).sort((a, b) => a - b).join(' '),
  };
}
