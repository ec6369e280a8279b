import {appendFileSync, existsSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import type {Config} from '../../src/config/config.ts';
import type {Report} from '../../src/deploy/events.ts';
import type {DeployTools, WorkingCopy} from '../../src/deploy/tools.ts';
import type {Journal} from '../../src/state/journal.ts';
import type {SwitchSteps} from '../../src/upstream/switch-upstream.ts';
import {wire as wireReally} from '../../src/wire.ts';

/** Two workers, two of each. How often more may differ from run to run: the bake checks as long as it lasts. */
const MOST_NUMBERED = 2;
const POLL_MS = 2;

const dir = process.env['OSYW_TEST_BARRIER_DIR'];
/** A name, or `@12` for the twelfth point that is passed, whatever it is. */
const wanted = process.env['OSYW_TEST_BARRIER'];
const never = new Int32Array(new SharedArrayBuffer(4));
const times = new Map<string, number>();
let passed = 0;

/** The real tools, each effect between two points. Stands in for src/wire.ts in the test's own build of the command. */
export function wire(config: Config, report: Report): DeployTools {
  const real = wireReally(config, report);
  const {releases, workers, health, upstream, records} = real;
  let workingCopy: WorkingCopy | undefined;
  return {
    ...real,
    workingCopy: () => workingCopy ??= withPoints('workingCopy', real.workingCopy(), ['resolve', 'update', 'exportTo', 'changedPaths', 'touches']),
    releases: withPoints('releases', releases, ['build', 'discard', 'prune']),
    workers: withPoints('workers', workers, ['leasePorts', 'launch', 'stop']),
    health: withPoints('health', health, ['waitUntilHealthy', 'check']),
    upstream: {
      ...withPoints('upstream', upstream, ['requireRunning', 'rehearse', 'putBack', 'reload', 'probe', 'waitDrained', 'acceptsOnly']),
      switchTo: (ports, steps) => around('upstream.switchTo', () => upstream.switchTo(ports, stepsWithPoints(steps))),
      restore: (intent, steps) => around('upstream.restore', () => upstream.restore(intent, stepsWithPoints(steps))),
    },
    records: {
      ...withPoints('records', records, ['save', 'addToHistory', 'writeDrain', 'unfile', 'fileAgain']),
      beginJournal: first => journalWithPoints(around('records.beginJournal', () => records.beginJournal(first))),
      continueJournal: () => journalWithPoints(around('records.continueJournal', records.continueJournal)),
      takeDrain: deploy => {
        const held = around('records.takeDrain', () => records.takeDrain(deploy));
        return held === undefined ? undefined : withPoints('drain', held, ['finish']);
      },
    },
  };
}

function stepsWithPoints(steps: SwitchSteps): SwitchSteps {
  return withPoints('upstream', steps, ['intend', 'reloading']);
}

/** `journal.switching`; a phase by its name, `journal.build began`; of several entries in one append the last. */
function journalWithPoints(journal: Journal): Journal {
  return {
    ...journal,
    append: (...entries) => {
      const last = entries.at(-1);
      return around(`journal.${last?.type === 'phase' ? `${last.phase} began` : last?.type}`, () => journal.append(...entries));
    },
  };
}

function withPoints<T extends object>(name: string, tool: T, methods: readonly (keyof T & string)[]): T {
  const wrapped = methods.map(method => [method, (...args: unknown[]) => around(`${name}.${method}`, () => (tool[method] as (...args: unknown[]) => unknown)(...args))]);
  return {...tool, ...Object.fromEntries(wrapped) as Partial<T>};
}

/** The point behind an effect is passed when it succeeded. */
function around<T>(name: string, effect: () => T): T {
  pass(`${name}.before`);
  const result = effect();
  if (result instanceof Promise) {
    return result.then((value: unknown) => {
      pass(`${name}.after`);
      return value;
    }) as T;
  }
  pass(`${name}.after`);
  return result;
}

/** Waits here, and lets nothing else of this process go on, when it is the point that the test asked for. */
function pass(name: string): void {
  if (dir === undefined) return;
  passed++;
  const time = (times.get(name) ?? 0) + 1;
  times.set(name, time);
  const point = time === 1 ? name : `${name}#${time}`;
  if (time <= MOST_NUMBERED) appendFileSync(join(dir, 'passed'), `${point}\n`);
  if (wanted !== point && wanted !== `@${passed}`) return;
  writeFileSync(join(dir, 'at'), point);
  while (!existsSync(join(dir, 'go'))) Atomics.wait(never, 0, 0, POLL_MS);
}
