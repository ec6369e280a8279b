import {spawn} from 'node:child_process';
import {readFileSync} from 'node:fs';
import type {TestContext} from 'node:test';
import {setTimeout as pause} from 'node:timers/promises';
import {isAlive, processesOf} from '../support/leftovers.ts';
import {listens, type NginxRig} from '../support/nginx-rig.ts';
import type {CommandEnd} from '../support/osyw.ts';
import {ask} from '../support/raw-http.ts';
import {makeSite, type Site, type SiteOptions} from '../support/site.ts';
import type {Traffic, TrafficReport} from '../support/traffic.ts';
import {waitUntil} from '../support/wait-until.ts';

/** The rigs end with a test; here a row of the table is one. */
const ends = new Set<() => Promise<void>>();

/** Lends a row what the tests use, and takes all of it away when the row has ended. */
export async function inRow<T>(work: (row: Row) => Promise<T>): Promise<T> {
  const afters: (() => unknown)[] = [];
  const end = async (): Promise<void> => {
    ends.delete(end);
    for (const after of afters.splice(0).reverse()) await after();
  };
  ends.add(end);
  const after = (last: () => unknown): void => void afters.push(last);
  try {
    // The rigs want a test's context for nothing but `after`.
    return await work({after, site: (options) => makeSite({after} as unknown as TestContext, options)});
  } finally {
    await end();
  }
}

export interface Row {
  after(last: () => unknown): void;
  site(options: SiteOptions): Promise<Site>;
}

/** Ends every row that is under way. */
export async function endRows(): Promise<void> {
  await Promise.all([...ends].map((end) => end()));
}

export function progress(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** Files that make a tree of this size, as text of about a kilobyte each. */
export function filler(count: number): Record<string, string> {
  const files: Record<string, string> = {};
  for (let number = 0; number < count; number++) {
    files[`lib/${Math.floor(number / 100)}/module_${number}.py`] = `# module ${number}\n${`VALUE_${number} = ${number}\n`.repeat(60)}`;
  }
  return files;
}

/** A deploy by whatever tool, seen by the clients; milliseconds from the start of the command. */
export interface SeenDeploy {
  /** The command's own end. */
  readonly ended: number;
  /** The end of the last answer that the old version gave. */
  readonly lastOld: number;
  /** The end of the first answer that the new version gave. */
  readonly firstNew: number;
  /** When the command began and ended, on the clock of the traffic. */
  readonly window: {readonly from: number; readonly to: number};
}

/** Runs a command under a load, and says what the clients saw of it. `began` is when the traffic began. */
export async function seenDeploy<T>(
  load: {traffic: Traffic; began: number},
  versions: {old: string; now: string},
  command: () => Promise<T>,
  settleMs = 200,
): Promise<SeenDeploy & {readonly end: T}> {
  const from = performance.now();
  const end = await command();
  const to = performance.now();
  await waitUntil(`version ${versions.now} to answer`, () => load.traffic.report().served.some(({version, at}) => version === versions.now && at + load.began > from), {withinMs: 60_000, everyMs: 50});
  await pause(settleMs);
  const answers = answersOf(load.traffic.report()).map(({version, ended}) => ({version, ended: ended + load.began - from})).filter(({ended}) => ended > 0);
  return {
    end,
    ended: to - from,
    lastOld: Math.max(0, ...answers.filter(({version}) => version === versions.old).map(({ended}) => ended)),
    firstNew: Math.min(...answers.filter(({version}) => version === versions.now).map(({ended}) => ended)),
    window: {from: from - load.began, to: to - load.began},
  };
}

/** Who answered, and when the answer was whole. */
function answersOf(report: TrafficReport): {version: string; ended: number}[] {
  const took = new Map(report.lanes.freshGet.latencies.map(({at, ms}) => [at, ms]));
  return report.served.map(({at, version}) => ({version, ended: at + (took.get(at) ?? 0)}));
}

/** Sends a HUP and takes the time until no nginx worker of before accepts any more. Waits until they are gone. */
export async function timeReload(nginx: NginxRig): Promise<number> {
  const master = nginx.masterPid();
  const before = childrenOf(master);
  const began = performance.now();
  process.kill(master, 'SIGHUP');
  while (before.some((pid) => titleOf(pid) === 'nginx: worker process')) await pause(1);
  const took = performance.now() - began;
  await waitUntil('the old nginx workers to end', () => !childrenOf(master).some((pid) => before.includes(pid)), {withinMs: 20_000});
  return took;
}

function childrenOf(pid: number): number[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').split(' ').filter((word) => word !== '').map(Number);
}

function titleOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1').replace(/\0+$/, '');
  } catch {
    return '';
  }
}

/**
 * Starts all workers at once, by a shell that is there already, and takes the time until each gave its first good answer.
 * Nothing else is done for them: this is what no deployer can avoid.
 */
export async function timeBoot(tree: string, command: string, ports: readonly number[], env: Record<string, string>): Promise<number> {
  const shell = spawn('/bin/sh', ['-c', `read go; for port in ${ports.join(' ')}; do ${command} "$port" >/dev/null 2>&1 & done; wait`], {
    cwd: tree, env: {PATH: '/usr/bin:/bin', ...env}, stdio: ['pipe', 'ignore', 'ignore'], detached: true,
  });
  try {
    await pause(30);
    const began = performance.now();
    shell.stdin.end('go\n');
    await Promise.all(ports.map(async (port) => {
      for (;;) {
        if (performance.now() - began > 60_000) throw new Error(`the worker on port ${port} does not answer`);
        if (await listens(port)) {
          const answer = await ask({port, path: '/healthz'});
          if (answer.kind === 'answer' && answer.status === 200) return;
        }
        // Asking costs what the workers need: this is the rhythm of osyw-deploy, too.
        await pause(10);
      }
    }));
    return performance.now() - began;
  } finally {
    if (shell.pid !== undefined) process.kill(-shell.pid, 'SIGKILL');
  }
}

/** The end of a `now` that must have deployed; throws with all that it said. */
export function deployed(end: CommandEnd): CommandEnd {
  if (end.exit !== 0) throw new Error(`osyw-deploy now ended with ${end.exit}:\n${end.stdout}\n${end.stderr}`);
  return end;
}

/** Ends what runs in or for a directory; nginx belongs to its rig. */
export async function endProcessesOf(dir: string): Promise<void> {
  await waitUntil('the processes to end', () => {
    const left = processesOf(dir).filter(({command}) => !command.startsWith('nginx: '));
    for (const {pid} of left) if (isAlive(pid)) process.kill(pid, 'SIGKILL');
    return left.length === 0;
  }, {withinMs: 15_000});
}
