// `npm run bench [-- --only a,b --rounds 5 --deploys 1000]`: what a deploy costs, beside what cannot be avoided and what people use instead. The tables are Markdown.
import {readFileSync} from 'node:fs';
import {availableParallelism, cpus} from 'node:os';
import {parseArgs} from 'node:util';
import {NGINX} from '../support/nginx-rig.ts';
import {processesOf} from '../support/leftovers.ts';
import {run} from '../support/run.ts';
import {endRows, progress} from './rig.ts';
import {commit} from './row-commit.ts';
import {others} from './row-others.ts';
import {overhead} from './row-overhead.ts';
import {requests} from './row-requests.ts';
import {start} from './row-start.ts';
import {tree} from './row-tree.ts';
import {watching} from './row-watch.ts';

const {values} = parseArgs({options: {only: {type: 'string', default: 'a,b,c,d,e,f,g,h'}, rounds: {type: 'string', default: '5'}, deploys: {type: 'string', default: '1000'}}});
const rounds = Math.max(1, Number(values.rounds));
const wanted = new Set(values.only.split(','));

// The rigs leave at once on a signal, as a test may; here the rows end in their order, so that nginx takes its workers along.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.removeAllListeners(signal);
  process.once(signal, () => {
    progress(`interrupted by ${signal}`);
    void endRows().finally(() => process.exit(1));
  });
}

const began = performance.now();
await out(await machine());
if (wanted.has('a')) await section("(a) A deploy's time over what cannot be avoided", () => overhead(rounds),
  'From the start of the command to the last answer of the old release, tree of 100 files, one change, one check; less the workers\' own boot (all at once, no deployer) and nginx\'s own reload, both measured in the same round under the same load. Medians, in brackets the least and the most.');
if (wanted.has('b')) await section("(b) The command's own start", start);
if (wanted.has('c') || wanted.has('d')) {
  const both = await guarded(requests);
  if (wanted.has('c')) await section('(c) Requests failed during 20 deploys', async () => both.failed,
    'A request on a connection that was kept open is lost when nginx closes that connection, idle in its eyes, at the same moment: nginx does so on every reload, whoever asks for it.');
  if (wanted.has('d')) await section('(d) How long answers took meanwhile', async () => both.latency);
}
if (wanted.has('e')) await section('(e) Update and snapshot of a large tree', () => tree(rounds));
if (wanted.has('f')) await section('(f) What people use instead', () => others(Math.min(rounds, 3)));
if (wanted.has('g')) await section("(g) What a hook adds to a commit", commit);
if (wanted.has('h')) await section('(h) What a running watch costs', () => watching(Math.max(5, Number(values.deploys))));
progress(`took ${Math.round((performance.now() - began) / 1000)} s`);
process.exit();

async function section(title: string, work: () => Promise<string>, explanation?: string): Promise<void> {
  const text = await guarded(work);
  await out(`\n### ${title}\n\n${explanation === undefined ? '' : `${explanation}\n\n`}${text}`);
}

/** A row that fails ends the bench, and leaves nothing behind. */
async function guarded<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    await endRows();
    progress((error instanceof Error ? (error.stack ?? error.message) : String(error)).slice(0, 4000));
    process.exit(1);
  }
}

/** The figures mean nothing without the machine. */
async function machine(): Promise<string> {
  const first = async (file: string, args: readonly string[]): Promise<string> => (await run(file, args)).split('\n')[0] ?? '';
  const nginx = (await run('/bin/sh', ['-c', `${NGINX} -v 2>&1`])).trim().replace(/^.*\//, '');
  const load = readFileSync('/proc/loadavg', 'latin1').split(' ')[0] ?? '?';
  return `Measured on ${availableParallelism()} processors (${cpus()[0]?.model ?? 'unknown'}), Linux ${readFileSync('/proc/sys/kernel/osrelease', 'latin1').trim()}, Node ${process.versions.node}, nginx ${nginx}, `
    + `svn ${await first('svn', ['--version', '-q'])}, ${await first('git', ['--version'])}; load average ${load} at the start, ${processesOf('/').length} processes.\n`;
}

function out(text: string): Promise<void> {
  return new Promise((resolve) => process.stdout.write(text, () => resolve()));
}
