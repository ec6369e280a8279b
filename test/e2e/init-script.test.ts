import assert from 'node:assert/strict';
import {copyFileSync, readFileSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {test, type TestContext} from 'node:test';
import {isAlive, listeningPorts} from '../support/leftovers.ts';
import {runCommand, type CommandEnd} from '../support/osyw.ts';
import {get} from '../support/raw-http.ts';
import {makeSite, type Site} from '../support/site.ts';
import {waitUntil} from '../support/wait-until.ts';

// The init script as an administrator calls it, with the real command, workers and nginx.

const LONG_MS = 240_000;
const SHELL = '/bin/sh';

/** `service SITE WORD`, below the site's own root. */
async function installed(t: TestContext): Promise<{site: Site; init: (word: string, wrap?: readonly string[]) => Promise<CommandEnd>}> {
  const site = await makeSite(t, {config: {drain: {quiet: '1s', deadline: '2s'}}});
  const root = join(site.dir, 'root');
  const end = await site.run(['service', 'install', '--sysv', '--root', root]);
  assert.equal(end.exit, 0, end.stderr);
  const script = join(root, 'etc/init.d/osyw-deploy-site');
  // `node` and `cli` take the places of shell and script.
  return {site, init: (word, wrap = []) => runCommand([word], {cwd: site.dir, node: SHELL, cli: script, wrap})};
}

async function killWorkers(site: Site): Promise<void> {
  const workers = site.processes();
  for (const {pid} of workers) process.kill(pid, 'SIGKILL');
  await waitUntil('the workers to be dead', () => workers.every(({pid}) => !isAlive(pid)));
}

type StateName = 'never deployed' | 'running' | 'stopped' | 'dead workers' | 'configuration broken' | 'not root';

const WORDS = ['status', 'fullstatus', 'configtest', 'help', 'dance', 'condrestart', 'try-restart', 'reload', 'force-reload', 'graceful', 'restart', 'start', 'stop'] as const;

/** The exit code of each word in each state, and how many workers listen afterwards: 0 or 2. */
const TABLE: Readonly<Record<StateName, Readonly<Record<(typeof WORDS)[number], readonly [exit: number, workers: 0 | 2]>>>> = {
  'never deployed': {
    status: [3, 0], fullstatus: [3, 0], configtest: [0, 0], help: [0, 0], dance: [2, 0], condrestart: [0, 0], 'try-restart': [0, 0],
    reload: [7, 0], 'force-reload': [7, 0], graceful: [6, 0], restart: [6, 0], start: [6, 0], stop: [0, 0],
  },
  running: {
    status: [0, 2], fullstatus: [0, 2], configtest: [0, 2], help: [0, 2], dance: [2, 2], condrestart: [0, 2], 'try-restart': [0, 2],
    reload: [0, 2], 'force-reload': [0, 2], graceful: [0, 2], restart: [0, 2], start: [0, 2], stop: [0, 0],
  },
  stopped: {
    status: [3, 0], fullstatus: [3, 0], configtest: [0, 0], help: [0, 0], dance: [2, 0], condrestart: [0, 0], 'try-restart': [0, 0],
    reload: [7, 0], 'force-reload': [7, 0], graceful: [0, 2], restart: [0, 2], start: [0, 2], stop: [0, 0],
  },
  'dead workers': {
    status: [1, 0], fullstatus: [1, 0], configtest: [0, 0], help: [0, 0], dance: [2, 0], condrestart: [0, 0], 'try-restart': [0, 0],
    reload: [7, 0], 'force-reload': [7, 0], graceful: [0, 2], restart: [0, 2], start: [0, 2], stop: [0, 0],
  },
  'configuration broken': {
    status: [4, 2], fullstatus: [4, 2], configtest: [6, 2], help: [0, 2], dance: [2, 2], condrestart: [6, 2], 'try-restart': [6, 2],
    reload: [6, 2], 'force-reload': [6, 2], graceful: [6, 2], restart: [6, 2], start: [6, 2], stop: [6, 2],
  },
  'not root': {
    status: [4, 2], fullstatus: [4, 2], configtest: [6, 2], help: [0, 2], dance: [2, 2], condrestart: [4, 2], 'try-restart': [4, 2],
    reload: [4, 2], 'force-reload': [4, 2], graceful: [4, 2], restart: [4, 2], start: [4, 2], stop: [4, 2],
  },
};

test('every word in every state', {timeout: LONG_MS}, async t => {
  const {site, init} = await installed(t);
  const listening = () => listeningPorts(site.ports.first, site.ports.last).length;
  const good = `${site.configFile}.good`;
  copyFileSync(site.configFile, good);
  const status = async () => (await site.run(['status', '--quiet'])).exit;
  const bringTo: Record<StateName, () => Promise<void>> = {
    'never deployed': () => Promise.resolve(),
    running: async () => {
      if (await status() !== 0) assert.equal((await init('start')).exit, 0);
    },
    stopped: async () => {
      if (await status() !== 3) assert.equal((await init('stop')).exit, 0);
    },
    'dead workers': async () => {
      if (await status() === 1) return;
      await bringTo.running();
      await killWorkers(site);
    },
    'configuration broken': async () => {
      await bringTo.running();
      writeFileSync(site.configFile, `${readFileSync(good, 'utf8')}no_such_key: 1\n`);
    },
    'not root': () => bringTo.running(),
  };
  for (const state of Object.keys(TABLE) as StateName[]) {
    if (state === 'running') await site.deployed();
    await t.test(state, async () => {
      const [seen, expected]: Record<string, unknown>[] = [{}, {}];
      for (const word of WORDS) {
        writeFileSync(site.configFile, readFileSync(good, 'utf8'));
        await bringTo[state]();
        const {exit, stdout, stderr} = await init(word, state === 'not root' ? ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', '--'] : []);
        // What it said is shown where it is not what was expected.
        const asExpected = exit === TABLE[state][word][0];
        Object.assign(seen ?? {}, {[word]: [exit, listening(), ...(asExpected ? [] : [stdout, stderr])]});
        Object.assign(expected ?? {}, {[word]: [...TABLE[state][word]]});
      }
      writeFileSync(site.configFile, readFileSync(good, 'utf8'));
      assert.deepEqual(seen, expected);
    });
  }
  await bringTo.running();
  await site.settled({version: '1'});
});

test('the words that put fresh workers in place lose no request', {timeout: LONG_MS}, async t => {
  const {site, init} = await installed(t);
  await site.deployed();
  const traffic = site.traffic();
  const workers = async () => (await site.status()).serving?.workers.map(({pid}) => pid) ?? [];
  for (const word of ['restart', 'reload', 'graceful', 'force-reload', 'condrestart', 'try-restart']) {
    const before = await workers();
    const end = await init(word);
    assert.equal(end.exit, 0, end.stdout + end.stderr);
    assert.equal((await workers()).some(pid => before.includes(pid)), false, word);
  }
  await site.settled({version: '1', release: '000001', traffic});
});

test('after a stop nginx answers 502 from a valid file, and a start brings the same release back, nginx there or not', {timeout: LONG_MS}, async t => {
  const {site, init} = await installed(t);
  await site.deployed();
  assert.equal((await init('stop')).exit, 0);
  await site.nothingRuns();
  assert.equal((await get(site.nginx.port, '/')).status, 502);
  await site.nginx.reload();
  assert.equal((await init('start')).exit, 0);
  await site.settled({version: '1', release: '000001'});
  // A machine that is shut down stops it, and starts it before nginx.
  assert.equal((await init('stop')).exit, 0);
  await site.nginx.stop();
  const end = await init('start');
  assert.equal(end.exit, 0, end.stdout + end.stderr);
  await site.nginx.start();
  await site.settled({version: '1', release: '000001'});
});

test('it stops while nginx is down, too', {timeout: LONG_MS}, async t => {
  const {site, init} = await installed(t);
  await site.deployed();
  await site.nginx.stop();
  const end = await init('stop');
  assert.equal(end.exit, 0, end.stdout + end.stderr);
  await site.nothingRuns();
  await site.nginx.start();
  assert.equal((await get(site.nginx.port, '/')).status, 502);
});
