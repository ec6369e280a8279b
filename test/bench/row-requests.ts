import {setTimeout as pause} from 'node:timers/promises';
import {type Lane, startTraffic, type Traffic, type TrafficReport} from '../support/traffic.ts';
import {waitUntil} from '../support/wait-until.ts';
import {ms, quantile, table, times} from './numbers.ts';
import {deployed, filler, inRow, progress, timeReload} from './rig.ts';

const DEPLOYS = 20;
const QUIET_MS = 4000;
const LOAD = {lanes: {freshGet: 3, freshPost: 3, keepAliveGet: 3, keepAlivePost: 3, slow: 2, upload: 1}, everyMs: 20, slowMs: 300} as const;
const NAMES: Readonly<Record<Lane, string>> = {
  freshGet: 'GET, new connection each', freshPost: 'POST, new connection each', slow: 'GET that takes 300 ms, new connection', upload: 'upload of 300 kB in 5 parts, new connection',
  keepAliveGet: 'GET, keep-alive', keepAlivePost: 'POST, keep-alive',
};

interface Window {
  readonly from: number;
  readonly to: number;
}

/** (c) requests failed during 20 deploys under load, and (d) how long the answers took meanwhile. */
export async function requests(): Promise<{failed: string; latency: string}> {
  const deploys: {report: TrafficReport; windows: Window[]; quiet: Window}[] = [];
  for (const vcs of ['svn', 'git'] as const) {
    progress(`(c, d) ${DEPLOYS / 2} deploys under load, ${vcs}`);
    deploys.push(await deploysUnderLoad(vcs, DEPLOYS / 2));
  }
  progress(`(c) ${DEPLOYS} bare reloads of nginx under the same load`);
  const bare = await reloadsUnderLoad(DEPLOYS);

  const lanes: readonly Lane[] = ['freshGet', 'freshPost', 'slow', 'upload', 'keepAliveGet', 'keepAlivePost'];
  const sum = (reports: readonly TrafficReport[], lane: Lane): {all: number; failed: number; races: number} => {
    const mine = (list: TrafficReport['failures']): number => list.filter((failure) => failure.lane === lane).length;
    const failed = reports.reduce((total, report) => total + mine(report.failures), 0);
    const races = reports.reduce((total, report) => total + mine(report.keepAliveRaces), 0);
    return {all: reports.reduce((total, report) => total + report.lanes[lane].ok, 0) + failed + races, failed, races};
  };
  const kept = (lane: Lane): boolean => lane === 'keepAliveGet' || lane === 'keepAlivePost';
  const failed = table(['requests', `during ${DEPLOYS} deploys`, 'failed', 'limit', "lost to nginx's keep-alive race", `${DEPLOYS} bare reloads`, 'failed', "lost to nginx's keep-alive race"],
    lanes.map((lane) => {
      const ours = sum(deploys.map(({report}) => report), lane);
      const theirs = sum([bare], lane);
      return [NAMES[lane], String(ours.all), `**${ours.failed}**`, '0', kept(lane) ? String(ours.races) : '-', String(theirs.all), String(theirs.failed), kept(lane) ? String(theirs.races) : '-'];
    }));
  const causes = deploys.flatMap(({report}) => report.failures);
  const named = causes.length === 0 ? '' : `\nFailures: ${JSON.stringify(causes.slice(0, 10))}\n`;

  const within = (lane: Lane, pick: (run: {windows: Window[]; quiet: Window}) => readonly Window[]): number[] =>
    deploys.flatMap((run) => run.report.lanes[lane].latencies.filter(({at, ms: took}) => pick(run).some(({from, to}) => at + took > from && at < to)).map(({ms: took}) => took));
  const latency = table(['answers', 'quiet: median', 'p99', "deploys' windows: median", 'p99', 'p99 over quiet'],
    (['freshGet', 'freshPost', 'keepAliveGet', 'keepAlivePost'] as const).map((lane) => {
      const quiet = within(lane, (run) => [run.quiet]);
      const busy = within(lane, (run) => run.windows);
      const [calm, worst] = [quantile(quiet, 0.99), quantile(busy, 0.99)];
      return [NAMES[lane], ms(quantile(quiet, 0.5)), ms(calm), ms(quantile(busy, 0.5)), ms(worst), times(worst / calm)];
    }));
  return {failed: failed + named, latency};
}

function deploysUnderLoad(vcs: 'svn' | 'git', count: number): Promise<{report: TrafficReport; windows: Window[]; quiet: Window}> {
  return inRow(async (row) => {
    const site = await row.site({vcs, count: 3, files: filler(98), config: {check: {interval: '100ms', consecutive: 1}, release: {keep: 2}}});
    deployed(await site.now());
    const began = performance.now();
    const traffic = startTraffic(site.nginx.port, LOAD);
    row.after(() => traffic.stop());
    await warm(traffic);
    const quiet = await windowOf(began, () => pause(QUIET_MS));
    const windows: Window[] = [];
    for (let number = 2; number < count + 2; number++) {
      // The commit is no part of the window.
      await site.release(String(number));
      windows.push(await windowOf(began, async () => void deployed(await site.now())));
    }
    return {report: await traffic.stop(), windows, quiet};
  });
}

function reloadsUnderLoad(count: number): Promise<TrafficReport> {
  return inRow(async (row) => {
    const site = await row.site({vcs: 'git', count: 3});
    deployed(await site.now());
    const traffic = startTraffic(site.nginx.port, LOAD);
    row.after(() => traffic.stop());
    await warm(traffic);
    for (let number = 0; number < count; number++) {
      await timeReload(site.nginx);
      await pause(200);
    }
    return traffic.stop();
  });
}

async function warm(traffic: Traffic): Promise<void> {
  await waitUntil('the load', () => traffic.count() > 200, {withinMs: 30_000});
}

async function windowOf(began: number, work: () => Promise<void>): Promise<Window> {
  const from = performance.now() - began;
  await work();
  return {from, to: performance.now() - began};
}
