// node test/run-tests.mjs [PART OF A FILE NAME]: the tests, the fast ones first. Node 20 knows no globs, so the files are found here.
import {spawnSync} from 'node:child_process';
import {existsSync, readdirSync} from 'node:fs';
import {availableParallelism} from 'node:os';
import {join} from 'node:path';
import {fileURLToPath} from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const wanted = process.argv[2] ?? '';

// Real processes with real deadlines: more files at once than this, and the machine's own slowness looks like a failure.
const concurrency = wanted.startsWith('faults') ? 1 : Math.min(4, Math.max(2, availableParallelism()));

// The faults are a run of their own: they take the whole machine, and long.
const found = (wanted.startsWith('faults') ? ['faults'] : ['unit', 'contract', 'e2e']).flatMap(testsIn).filter((file) => file.includes(wanted));
if (found.length === 0) {
  console.error(`no test file has "${wanted}" in its name`);
  process.exit(1);
}
// One run for all of them, so that Node's summary at the end counts all; it starts them in the order of the arguments.
const {status, signal} = spawnSync(
  process.execPath,
  ['--import', 'tsx', '--test', `--test-concurrency=${concurrency}`, ...(process.stdout.isTTY ? [] : ['--test-reporter=spec']), ...found],
  {cwd: root, stdio: 'inherit', env: environment()},
);
process.exit(signal ? 1 : status);

function testsIn(folder) {
  const dir = join(root, 'test', folder);
  if (!existsSync(dir)) return [];
  return readdirSync(dir, {recursive: true})
    .filter((file) => file.endsWith('.test.ts'))
    .sort()
    .map((file) => join('test', folder, file));
}

/** The tests must not depend on who runs them: nothing of osyw-deploy's own settings, of a hook's git, or of a test runner above this one. How much of the faults is to be run is said in OSYW_FAULTS* and OSYW_SOAK_SEED. */
function environment() {
  const kept = Object.entries(process.env).filter(([name]) => !/^(OSYW_(?!FAULTS|SOAK)|GIT_|NODE_TEST_CONTEXT$|NODE_OPTIONS$)/.test(name));
  return Object.fromEntries(kept);
}
