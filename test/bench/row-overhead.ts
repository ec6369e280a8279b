import {cpSync, rmSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {setTimeout as pause} from 'node:timers/promises';
import {fileURLToPath} from 'node:url';
import {leasePorts} from '../support/free-ports.ts';
import type {Site} from '../support/site.ts';
import {startTraffic} from '../support/traffic.ts';
import {startBlueGreen} from './blue-green.ts';
import {median, ms, spread, table} from './numbers.ts';
import {deployed, filler, inRow, progress, seenDeploy, timeBoot, timeReload} from './rig.ts';

const FIXTURES = fileURLToPath(new URL('../../fixtures', import.meta.url));
const PHASES = ['update', 'build', 'start', 'check', 'switch'];
/** Enough clients to see the last answer of the old within a few milliseconds, and few enough to leave the processors alone. */
export const LIGHT = {lanes: {freshGet: 2, freshPost: 0, keepAliveGet: 0, keepAlivePost: 0, slow: 0, upload: 0}, everyMs: 8} as const;

interface Case {
  readonly tool: 'osyw-deploy' | 'blue-green.sh';
  readonly app: 'worker-app' | 'osyw';
  readonly vcs: 'svn' | 'git' | '-';
  readonly count: number;
}

const CASES: readonly Case[] = [
  {tool: 'osyw-deploy', app: 'worker-app', vcs: 'svn', count: 3},
  {tool: 'osyw-deploy', app: 'worker-app', vcs: 'git', count: 3},
  {tool: 'osyw-deploy', app: 'worker-app', vcs: 'svn', count: 16},
  {tool: 'osyw-deploy', app: 'worker-app', vcs: 'git', count: 16},
  {tool: 'blue-green.sh', app: 'worker-app', vcs: '-', count: 3},
  {tool: 'blue-green.sh', app: 'worker-app', vcs: '-', count: 16},
  {tool: 'osyw-deploy', app: 'osyw', vcs: 'svn', count: 3},
  {tool: 'osyw-deploy', app: 'osyw', vcs: 'git', count: 3},
];

/** What a round gave: the deploy, and what cannot be avoided, measured beside it under the same load. */
interface Round {
  readonly lastOld: number;
  readonly boot: number;
  readonly reload: number;
  /** When each phase began and ended, from the start of the command. */
  readonly marks: Readonly<Record<string, number>>;
  readonly phases: Readonly<Record<string, number>>;
}

/** (a) a deploy, from the command to the last answer of the old release, over what cannot be avoided. */
export async function overhead(rounds: number): Promise<string> {
  const measured: {what: Case; rounds: Round[]}[] = [];
  for (const what of CASES) {
    progress(`(a) ${name(what)}`);
    measured.push({what, rounds: await (what.tool === 'osyw-deploy' ? ownRounds(what, rounds) : scriptRounds(what, rounds))});
  }
  const over = ({lastOld, boot, reload}: Round): number => lastOld - boot - reload;
  const main = table(['deploy', 'to the last old answer', 'workers alone', 'nginx alone', 'over it', 'limit'],
    measured.map(({what, rounds}) => [
      name(what), ...(['lastOld', 'boot', 'reload'] as const).map((key) => ms(median(rounds.map((round) => round[key])))),
      `**${spread(rounds.map(over))}**`, what.tool === 'osyw-deploy' ? (what.count === 3 ? '150 ms' : '250 ms') : '-',
    ]));
  const own = measured.filter(({what}) => what.tool === 'osyw-deploy');
  const profile = table(['where it goes', 'before `update`', ...PHASES.map((phase) => `\`${phase}\``), 'between them'],
    own.map(({what, rounds}) => {
      const of = (pick: (round: Round) => number): string => ms(median(rounds.map(pick)));
      const between = ({marks, phases}: Round): number => (marks['switch ended'] ?? 0) - (marks['update began'] ?? 0) - PHASES.reduce((sum, phase) => sum + (phases[phase] ?? 0), 0);
      return [name(what), of(({marks}) => marks['update began'] ?? Number.NaN), ...PHASES.map((phase) => of(({phases}) => phases[phase] ?? Number.NaN)), of(between)];
    }));
  return `${main}\n${profile}`;
}

function name({tool, app, vcs, count}: Case): string {
  return tool === 'osyw-deploy' ? `${app}, ${count} workers, ${vcs}` : `${tool} (updates nothing), ${count} workers`;
}

function ownRounds({app, vcs, count}: Case, rounds: number): Promise<Round[]> {
  return inRow(async (row) => {
    const site = await row.site({
      app, count, vcs: vcs === 'git' ? 'git' : 'svn', files: filler(app === 'osyw' ? 88 : 98),
      config: {check: {interval: '100ms', consecutive: 1}, release: {keep: 2}},
    });
    const alone = await leasePorts(count);
    row.after(() => alone.release());
    const ports = Array.from({length: count}, (_, slot) => alone.first + slot);
    deployed(await site.now());
    const began = performance.now();
    const traffic = startTraffic(site.nginx.port, LIGHT);
    row.after(() => traffic.stop());
    const found: Round[] = [];
    // The first trees are copied whole, so rounds of the steady state begin when there is a retired one.
    for (let number = 2; number < rounds + 5; number++) {
      await site.release(String(number), {}, {'lib/0/module_1.py': `VALUE = ${number}\n`});
      const steady = number > 4;
      const boot = steady ? await bootAlone(site, app, ports) : 0;
      const reload = steady ? await timeReload(site.nginx) : 0;
      await pause(100);
      const marks: Record<string, number> = {};
      const {lastOld, end} = await seenDeploy({traffic, began}, {old: String(number - 1), now: String(number)}, async () => {
        const start = performance.now();
        const command = site.start(['now', '--json']);
        command.child.stdout?.on('data', (part: string) => {
          for (const [, phase, state] of part.matchAll(/"phase":"(\w+)","state":"(\w+)"/g)) marks[`${phase} ${state}`] = performance.now() - start;
        });
        return deployed(await command.ended);
      });
      if (steady) found.push({lastOld, boot, reload, marks, phases: end.result?.phases ?? {}});
    }
    return found;
  });
}

/** The workers of the same application, in a fresh tree as a release has it. */
async function bootAlone(site: Site, app: string, ports: readonly number[]): Promise<number> {
  const tree = join(site.dir, 'alone');
  cpSync(join(FIXTURES, app), tree, {recursive: true, filter: (path) => !path.includes('__pycache__')});
  const command = app === 'osyw' ? '/usr/bin/python3 osyw.py' : '/usr/bin/python3 -S -E worker.py';
  try {
    return await timeBoot(tree, command, ports, {OSYW_TEST_SITE: site.dir});
  } finally {
    rmSync(tree, {recursive: true});
  }
}

function scriptRounds({count}: Case, rounds: number): Promise<Round[]> {
  return inRow(async (row) => {
    const site = await startBlueGreen(row, count);
    const alone = await leasePorts(count);
    row.after(() => alone.release());
    const began = performance.now();
    const traffic = startTraffic(site.nginx.port, LIGHT);
    row.after(() => traffic.stop());
    const found: Round[] = [];
    for (let number = 2; number < rounds + 2; number++) {
      const boot = await timeBoot(site.tree, '/usr/bin/python3 -S -E worker.py', Array.from({length: count}, (_, slot) => alone.first + slot), {OSYW_TEST_SITE: site.dir});
      const reload = await timeReload(site.nginx);
      writeFileSync(join(site.tree, 'behaviour.json'), `{"version": "${number}"}\n`);
      await pause(100);
      const {lastOld} = await seenDeploy({traffic, began}, {old: String(number - 1), now: String(number)}, () => site.deploy());
      found.push({lastOld, boot, reload, marks: {}, phases: {}});
    }
    return found;
  });
}
