import {spawn} from 'node:child_process';
import {once} from 'node:events';
import {mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {setTimeout as pause} from 'node:timers/promises';
import {startCommand} from '../support/osyw.ts';
import {ask} from '../support/raw-http.ts';
import {present, type Site} from '../support/site.ts';
import {waitUntil} from '../support/wait-until.ts';
import {spread, table} from './numbers.ts';
import {deployed, inRow, progress, timeBoot, type Row} from './rig.ts';

const ROUNDS = 15;
const IDLE_MS = 60_000;
const IDLE_WORKERS = 16;
/** How often a watch looks whether its workers live. */
const BEAT_MS = 250;
const DEPLOYS = 1000;
const TICKS_A_SECOND = 100;
const LONG = {withinMs: 3_600_000};

/** (h) What a running watch costs, and how soon it acts. `deploys`: after how many its memory is looked at. */
export async function watching(deploys = DEPLOYS): Promise<string> {
  const lines = [...await idle(), ...await acting(), ...await grown(deploys)];
  return table(['', 'measured', 'limit'], lines);
}

async function startWatch(row: Row, site: Site): Promise<number> {
  site.configure({watch: {poll: '1m'}, run_dir: join(site.dir, 'run')});
  deployed(await site.now());
  const watch = startCommand(['watch', '--quiet', '--config', site.configFile], {cwd: site.dir, ...LONG});
  row.after(async () => {
    watch.child.kill('SIGTERM');
    await watch.ended;
  });
  await waitUntil('the watch to hold its lock', async () => readFileSync(join(site.stateDir, 'watching'), 'utf8').includes(String(watch.pid)) && (await site.run(['status'])).exit === 0, {withinMs: 60_000});
  return watch.pid;
}

function idle(): Promise<string[][]> {
  return inRow(async row => {
    progress(`(h) an idle watch of ${IDLE_WORKERS} workers`);
    const pid = await startWatch(row, await row.site({count: IDLE_WORKERS}));
    // Until what the start left to V8 is done.
    await pause(20_000);
    const timer = spawn(process.execPath, ['-e', `setInterval(() => undefined, ${BEAT_MS})`], {stdio: 'ignore'});
    row.after(async () => {
      timer.kill();
      await once(timer, 'exit');
    });
    const pids = [pid, present(timer.pid, 'pid')];
    const before = pids.map(cpuSeconds);
    const began = performance.now();
    await pause(IDLE_MS);
    const shares = pids.map((one, i) => `${((cpuSeconds(one) - present(before[i], 'time')) / (performance.now() - began) * 100_000).toFixed(2)} % of a core`);
    return [
      [`CPU while idle with ${IDLE_WORKERS} workers, over ${IDLE_MS / 1000} s`, present(shares[0], 'share'), '0.5 %'],
      [`a Node program beside it that does nothing, every ${BEAT_MS} ms`, present(shares[1], 'share'), '-'],
    ];
  });
}

function acting(): Promise<string[][]> {
  return inRow(async row => {
    progress('(h) requests and deaths');
    // Each worker dies once: one that goes on dying is left for longer and longer.
    const site = await row.site({count: ROUNDS, vcs: 'svn'});
    await startWatch(row, site);
    const spool = join(site.stateDir, 'spool');
    mkdirSync(spool, {recursive: true});
    const begins: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      const lines = (await site.history()).length;
      writeFileSync(join(spool, `.${round}`), '{"version":1,"app":"site"}', {mode: 0o600});
      const asked = Date.now();
      renameSync(join(spool, `.${round}`), join(spool, `${round}.json`));
      const newest = await waitUntil('the answer', async () => {
        const history = await site.history();
        return history.length > lines ? history[0] : undefined;
      }, {withinMs: 60_000});
      begins.push(Date.parse(newest.started_at) - asked);
    }
    const others = await killed(site, Array.from({length: Math.floor(ROUNDS / 2)}, (_, i) => i));
    // From here on the workers are children of the watch.
    deployed(await site.now(['--force']));
    await waitUntil('the old ones to be gone', async () => (await site.status()).draining.length === 0, {withinMs: 60_000});
    const own = await killed(site, Array.from({length: ROUNDS}, (_, i) => i));
    return [
      [`a request in the spool to the start of its deploy, ${ROUNDS} times`, spread(begins), '50 ms'],
      [`kill of a worker that it had started to the first answer of the next, less its own boot, ${own.over.length} times`, spread(own.over), '200 ms'],
      [`the same of one that another command had started, ${others.over.length} times`, spread(others.over), '200 ms'],
      ['its own boot', spread([...own.boots, ...others.boots]), '-'],
    ];
  });
}

/** Kills the workers of these slots, one after another. Milliseconds. */
async function killed(site: Site, slots: readonly number[]): Promise<{over: number[]; boots: number[]}> {
  const over: number[] = [];
  const boots: number[] = [];
  for (const slot of slots) {
    const {serving} = await site.status();
    const victim = present(serving?.workers[slot], 'worker');
    const began = performance.now();
    process.kill(victim.pid, 'SIGKILL');
    // It must be gone before an answer can be another one's.
    await waitUntil('its successor to answer', async () => {
      const answer = await ask({port: victim.port, path: '/healthz'});
      return answer.kind === 'answer' && answer.status === 200 && performance.now() - began > 5;
    }, {withinMs: 60_000, everyMs: 2});
    const lost = performance.now() - began;
    await waitUntil('it to be on record', async () => (await site.status()).serving?.workers.every(({state}) => state === 'healthy'), {withinMs: 60_000});
    const boot = await timeBoot(join(site.stateDir, 'releases', present(serving ?? undefined, 'release').release), '/usr/bin/python3 -S -E worker.py', [site.ports.last], {OSYW_TEST_SITE: site.dir});
    over.push(lost - boot);
    boots.push(boot);
  }
  return {over, boots};
}

function grown(deploys: number): Promise<string[][]> {
  return inRow(async row => {
    progress(`(h) ${deploys} deploys by one watch`);
    const site = await row.site({count: 1});
    const pid = await startWatch(row, site);
    const sizes = [residentMb(pid)];
    for (let done = 1; done <= deploys; done++) {
      deployed(await site.now(['--force']));
      if (done % Math.ceil(deploys / 5) === 0) sizes.push(residentMb(pid));
    }
    await pause(5000);
    return [[`resident memory at the start, then 5 times in ${deploys} deploys`, sizes.map(mb => `${mb} MB`).join(', '), '80 MB'],
      ['and idle after them', `${residentMb(pid)} MB, ${openFiles(pid)} open files`, '80 MB']];
  });
}

/** utime + stime. Source: proc(5). */
function cpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / TICKS_A_SECOND;
}

function residentMb(pid: number): number {
  return Math.round(Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1]) / 1024);
}

function openFiles(pid: number): number {
  return readdirSync(`/proc/${pid}/fd`).length;
}
