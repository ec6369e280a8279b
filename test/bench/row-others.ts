import {mkdirSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {setTimeout as pause} from 'node:timers/promises';
import {run} from '../support/run.ts';
import {scrubbedEnv} from '../support/scrubbed-env.ts';
import {startTraffic, type TrafficReport} from '../support/traffic.ts';
import {waitUntil} from '../support/wait-until.ts';
import {SCRIPTS, startBlueGreen, startHandMade, type HandMadeSite} from './blue-green.ts';
import {median, seconds, table} from './numbers.ts';
import {deployed, filler, inRow, progress, seenDeploy, type Row, type SeenDeploy} from './rig.ts';

const WORKERS = 3;
const LOAD = {lanes: {freshGet: 3, freshPost: 2, keepAliveGet: 0, keepAlivePost: 0, slow: 2, upload: 1}, everyMs: 20, slowMs: 300} as const;
/** So long without a failure, and the deploy is over for the clients, too. */
const CALM_MS = 1500;

/** One way to bring a new version out: `release` makes it known, `deploy` is what is measured. */
interface Tool {
  readonly name: string;
  prepare(row: Row): Promise<{port: number; release(version: string): Promise<void>; deploy(): Promise<unknown>}>;
}

const TOOLS: readonly Tool[] = [
  {
    name: '`osyw-deploy now` (updates from svn, too)',
    async prepare(row) {
      const site = await row.site({vcs: 'svn', count: WORKERS, files: filler(98), config: {check: {interval: '100ms', consecutive: 1}, release: {keep: 2}}});
      deployed(await site.now());
      return {port: site.nginx.port, release: async (version) => void (await site.release(version)), deploy: async () => deployed(await site.now())};
    },
  },
  {
    name: '`blue-green.sh`: curl, `nginx -s reload`, kill',
    async prepare(row) {
      const site = await startBlueGreen(row, WORKERS);
      return {port: site.nginx.port, release: inPlace(site), deploy: () => site.deploy()};
    },
  },
  {
    name: '`stop-sleep-start.sh`',
    async prepare(row) {
      const site = await startHandMade(row, WORKERS);
      const deploy = (): Promise<string> => run('/bin/sh', [join(SCRIPTS, 'stop-sleep-start.sh'), site.tree, String(site.first), String(WORKERS)], {env: site.env});
      for (let slot = 0; slot < WORKERS; slot++) writeFileSync(join(site.tree, `worker-${site.first + slot}.pid`), ''); // nothing to stop yet
      await deploy();
      return {port: site.nginx.port, release: inPlace(site), deploy};
    },
  },
  {
    name: '`pm2 reload` (fork mode, as for any program)',
    async prepare(row) {
      const site = await startHandMade(row, WORKERS);
      const pm2 = await installPm2(site);
      row.after(() => pm2(['kill']));
      const apps = Array.from({length: WORKERS}, (_, slot) => ({
        name: `worker-${slot}`, script: 'worker.py', args: String(site.first + slot), interpreter: '/usr/bin/python3', interpreter_args: '-S -E', cwd: site.tree,
      }));
      const list = join(site.dir, 'ecosystem.config.cjs');
      writeFileSync(list, `module.exports = ${JSON.stringify({apps}, null, 2)};\n`);
      await pm2(['start', list]);
      return {port: site.nginx.port, release: inPlace(site), deploy: () => pm2(['reload', 'all'])};
    },
  },
];

function inPlace(site: HandMadeSite): (version: string) => Promise<void> {
  return async (version) => writeFileSync(join(site.tree, 'behaviour.json'), `{"version": "${version}"}\n`);
}

async function installPm2(site: HandMadeSite): Promise<(args: readonly string[]) => Promise<string>> {
  const home = join(site.dir, 'pm2');
  mkdirSync(home);
  // SIGTERM is what the worker understands; pm2's own default is SIGINT.
  const env = {...scrubbedEnv(home), ...site.env, PM2_HOME: home, PM2_KILL_SIGNAL: 'SIGTERM', PATH: `${join(process.execPath, '..')}:${site.env['PATH'] ?? ''}`};
  // As the person's own npm does it, behind their proxy and with their certificates; but not into their cache.
  const own = Object.fromEntries(Object.entries(process.env).flatMap(([name, value]) => (value === undefined || /^npm_/i.test(name) ? [] : [[name, value]])));
  await run('npm', ['install', '--prefix', home, '--no-audit', '--no-fund', '--no-save', '--loglevel=error', 'pm2@7'], {cwd: home, env: {...own, npm_config_cache: join(home, 'cache')}});
  return (args) => run(join(home, 'node_modules', '.bin', 'pm2'), args, {cwd: site.tree, env});
}

/** (f) what people use instead, under one and the same load. */
export async function others(rounds: number): Promise<string> {
  const rows: string[][] = [];
  for (const tool of TOOLS) {
    progress(`(f) ${tool.name}`);
    try {
      rows.push(await measured(tool, rounds));
    } catch (error) {
      progress(`    ${String(error).slice(0, 2000)}`);
      rows.push([tool.name, 'not measured', '-', '-', '-', '-', '-']);
    }
  }
  return table([`3 workers`, 'the command', 'until only the new answers', 'requests', 'failed', 'failed a deploy', 'longest time without an answer'], rows);
}

function measured(tool: Tool, rounds: number): Promise<string[]> {
  return inRow(async (row) => {
    const site = await tool.prepare(row);
    // By hand the workers may still be booting.
    await waitUntil('the first version', async () => (await run('curl', ['-s', `http://127.0.0.1:${site.port}/`]).catch(() => '')) === '1', {withinMs: 20_000, everyMs: 200});
    const found: (SeenDeploy & {requests: number; failed: number; silence: number})[] = [];
    for (let number = 2; number < rounds + 2; number++) {
      await site.release(String(number));
      const began = performance.now();
      const traffic = startTraffic(site.port, LOAD);
      row.after(() => traffic.stop());
      await pause(1000);
      const seen = await seenDeploy({traffic, began}, {old: String(number - 1), now: String(number)}, () => site.deploy(), 0);
      await waitUntil('the failures to end', () => {
        const last = Math.max(seen.window.to, ...traffic.report().failures.map(({at}) => at));
        return performance.now() - began > last + CALM_MS;
      }, {withinMs: 40_000, everyMs: 100});
      const report = await traffic.stop();
      const ok = Object.values(report.lanes).reduce((sum, lane) => sum + lane.ok, 0);
      found.push({...seen, requests: ok + report.failures.length, failed: report.failures.length, silence: longestSilence(report)});
    }
    const middle = (pick: (one: (typeof found)[number]) => number): number => median(found.map(pick));
    return [
      tool.name, seconds(middle(({ended}) => ended)), seconds(middle(({lastOld, firstNew}) => Math.max(lastOld, firstNew))),
      String(found.reduce((sum, one) => sum + one.requests, 0)), `**${found.reduce((sum, one) => sum + one.failed, 0)}**`,
      String(Math.round(middle(({failed}) => failed))), seconds(middle(({silence}) => silence)),
    ];
  });
}

/** Between two good answers on new connections, milliseconds. */
function longestSilence(report: TrafficReport): number {
  const ends = [...report.lanes.freshGet.latencies, ...report.lanes.freshPost.latencies].map(({at, ms}) => at + ms).sort((a, b) => a - b);
  return Math.max(0, ...ends.map((end, index) => end - (ends[index - 1] ?? end)));
}
