// node test/run-faults.mjs: the fault suites, then a table of what was met where, and how much of it held.
import {spawnSync} from 'node:child_process';
import {existsSync, mkdtempSync, readFileSync, rmSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {fileURLToPath} from 'node:url';

const PHASES = ['update', 'build', 'start', 'check', 'switch', 'bake', 'drain', 'record', 'abort', 'rollback', 'recover'];

const dir = mkdtempSync(join(tmpdir(), 'osyw-faults-'));
const report = process.env.OSYW_FAULTS_REPORT ?? join(dir, 'runs.ndjson');
// What an earlier run left in the same file is not of this one.
const before = lines().length;
let status;
let runs;
try {
  ({status} = spawnSync(process.execPath, [fileURLToPath(new URL('run-tests.mjs', import.meta.url)), 'faults'], {stdio: 'inherit', env: {...process.env, OSYW_FAULTS_REPORT: report}}));
  runs = lines().slice(before).map((line) => JSON.parse(line));
} finally {
  rmSync(dir, {recursive: true, force: true});
}
console.log(`\nRuns that held, of those that were made:\n\n${table(runs)}\n`);
// A fault that was met and did not hold is a failed test, too.
process.exit(status ?? 1);

function lines() {
  return existsSync(report) ? readFileSync(report, 'utf8').split('\n').filter((line) => line !== '') : [];
}

/** Faults down, phases across; in a phase that is none of a deploy, as before its first, in the last column. */
function table(all) {
  const columns = [...PHASES.filter((phase) => all.some((run) => run.phase === phase)), 'else'];
  const columnOf = ({phase}) => (PHASES.includes(phase) ? phase : 'else');
  const cell = (some) => (some.length === 0 ? '' : `${some.filter(({held}) => held).length}/${some.length}`);
  const row = (head, some) => `| ${[...head, ...columns.map((column) => cell(some.filter((run) => columnOf(run) === column))), cell(some)].join(' | ')} |`;
  const kinds = [...new Set(all.map(({suite, fault}) => `${suite}\n${fault}`))].sort();
  return [
    `| ${['suite', 'fault', ...columns, 'all'].join(' | ')} |`,
    `| --- | --- |${' ---: |'.repeat(columns.length + 1)}`,
    ...kinds.map((kind) => {
      const [suite, fault] = kind.split('\n');
      return row([suite, fault], all.filter((run) => run.suite === suite && run.fault === fault));
    }),
    row(['all', ''], all),
  ].join('\n');
}
