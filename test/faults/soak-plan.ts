import type {Behaviour, Settings, SiteOptions} from '../support/site.ts';
import {choices, seedOf, type Choices} from './seeded.ts';

/** What a version does: `good` ones may serve, of the broken ones `fades` shows it only after the switch. */
export type VersionKind = 'good' | 'is never healthy' | 'dies at once' | 'fades';

export type FaultKind = 'SIGKILL' | 'SIGTERM' | 'SIGINT' | 'SIGSTOP' | "a stranger's reload" | 'a second now' | 'kill -9 of a new worker' | 'kill -9 of a worker after the switch';

export interface PlannedFault {
  readonly kind: FaultKind;
  /** When, from the start of the command, in medians of a deploy. */
  readonly at: number;
  /** How long a stopped deployer stays stopped, in medians. */
  readonly lasts: number;
  /** Which of the workers that there are to choose from, as a fraction. */
  readonly which: number;
}

export interface Step {
  readonly number: number;
  readonly command: readonly string[];
  /** Committed before the command; undefined: nothing is. */
  readonly version: {readonly kind: VersionKind; readonly behaviour: Behaviour} | undefined;
  readonly settings: Settings;
  readonly workers: number;
  readonly faults: readonly PlannedFault[];
  /** What settles a killed command: `recover`; recoveries that are killed, too, so long after their start in medians, and then one that is not; or the next command. */
  readonly afterKill: {readonly recover: boolean; readonly killedAt: readonly number[]};
}

/** `fades` is good for so long, and a bake has to last longer. */
const FADES_AFTER_MS = 700;
export const LONG_BAKE = '1000ms';

/** The site of a whole run. */
export function planSite(seed: number): SiteOptions {
  const chosen = choices(seedOf(seed, -1));
  return {
    vcs: chosen.pick(['git', 'svn']),
    tree: chosen.chance(0.75) ? 'snapshot' : 'in_place',
    daemon: chosen.chance(0.25),
    count: 2,
    config: {check: {deadline: '3s'}, workers: {stop: {timeout: '700ms'}}},
  };
}

/** Step `number` of the run with this seed; pure, so any step of any run can be looked at alone. */
export function planStep(seed: number, number: number): Step {
  const chosen = choices(seedOf(seed, number));
  const command = chosen.weighed({'now': 58, 'now --no-wait': 14, 'rollback': 10, 'rollback --no-wait': 2, 'restart': 8, 'recover': 4, 'now --force': 4});
  const workers = chosen.weighed({2: 3, 3: 1});
  const count = chosen.weighed({0: 15, 1: 60, 2: 25});
  const faults: PlannedFault[] = [];
  for (let n = 0; n < Number(count); n++) {
    const fault = planFault(chosen);
    // One worker killed in a step, so that another one of its release is left to answer.
    if (!faults.some(({kind}) => kind === fault.kind || (kind.startsWith('kill -9') && fault.kind.startsWith('kill -9')))) faults.push(fault);
  }
  return {
    number,
    command: command.split(' '),
    version: command.startsWith('now') && chosen.chance(0.88) ? planVersion(chosen) : undefined,
    settings: {
      bake: {for: chosen.pick(['0ms', '0ms', '0ms', '200ms', '600ms'])},
      check: {consecutive: chosen.pick([1, 1, 2, 3])},
      release: {build: chosen.pick([[], [], [['/bin/sleep', '0.2']]])},
      workers: {count: Number(workers)},
    },
    workers: Number(workers),
    faults,
    afterKill: {recover: chosen.chance(0.6), killedAt: chosen.chance(0.4) ? Array.from({length: chosen.whole(1, 3)}, () => chosen.fraction() * 0.6) : []},
  };
}

function planFault(chosen: Choices): PlannedFault {
  const kind = chosen.weighed<FaultKind>({
    'SIGKILL': 32, 'SIGTERM': 10, 'SIGINT': 5, 'SIGSTOP': 12, "a stranger's reload": 13, 'a second now': 11,
    'kill -9 of a new worker': 8, 'kill -9 of a worker after the switch': 9,
  });
  return {kind, at: planTime(kind, chosen), lasts: 0.1 + chosen.fraction() * 1.5, which: chosen.fraction()};
}

/** Half of a deploy under load is its drain, and what can go wrong comes before; so most faults do, too. */
function planTime(kind: FaultKind, chosen: Choices): number {
  if (kind === 'kill -9 of a worker after the switch') return chosen.fraction() * 0.5; // It waits for the switch.
  if (kind === 'kill -9 of a new worker') return 0.25 + chosen.fraction() * 0.5;
  return chosen.fraction() * (chosen.chance(0.7) ? 0.65 : 1.15);
}

function planVersion(chosen: Choices): NonNullable<Step['version']> {
  const kind = chosen.weighed<VersionKind>({'good': 80, 'is never healthy': 5, 'dies at once': 8, 'fades': 7});
  switch (kind) {
    case 'is never healthy': return {kind, behaviour: chosen.pick<Behaviour>([{health_status: 500}, {never_listen: true}, {health_body: 'no'}])};
    case 'dies at once': return {kind, behaviour: {die_at_once: chosen.whole(0, 3)}};
    case 'fades': return {kind, behaviour: {unhealthy_after_ms: FADES_AFTER_MS}};
    case 'good': return {kind, behaviour: chosen.pick<Behaviour>([{}, {}, {}, {boot_ms: chosen.whole(50, 500)}, {slow_ms: 20}, {stop_ms: 150}, {ignore_term: true}, {spawn_child: true}])};
  }
}
