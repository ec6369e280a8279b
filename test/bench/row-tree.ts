import {rmSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {run} from '../support/run.ts';
import type {Site} from '../support/site.ts';
import {scrubbedEnv} from '../support/scrubbed-env.ts';
import {median, ms, spread, table, times} from './numbers.ts';
import {deployed, filler, inRow, progress} from './rig.ts';

const FILES = 10_000;

/** (e) update and snapshot together of a tree of 10,000 files with one changed, once there is a retired tree to bring up to date. */
export async function tree(rounds: number): Promise<string> {
  const rows: string[][] = [];
  for (const vcs of ['svn', 'git'] as const) {
    progress(`(e) a tree of ${FILES} files, ${vcs}`);
    rows.push(await measured(vcs, rounds));
  }
  return table(['10,000 files, 1 changed', 'update', 'build', 'both', '`cp -a` of the tree', 'of `cp -a`', 'limit', 'checkout or clone', 'the first deploy: both'], rows);
}

function measured(vcs: 'svn' | 'git', rounds: number): Promise<string[]> {
  return inRow(async (row) => {
    const site = await row.site({
      vcs, count: 1,
      config: {source: {timeout: '5m'}, check: {http: null, body: null, tcp: true, interval: '100ms', consecutive: 1}, release: {keep: 2}},
    });
    if (vcs === 'svn') await loadIntoSvn(site, filler(FILES - 2));
    else await site.commit(filler(FILES - 2), 'a large tree');
    const costs = async (number: number): Promise<{update: number; build: number}> => {
      await changeOne(site, vcs, `# change ${number}\n`);
      // What was written before must not be paid for by what is measured now.
      await run('sync', []);
      const {update = Number.NaN, build = Number.NaN} = deployed(await site.now([], {withinMs: 120_000})).result?.phases ?? {};
      return {update, build};
    };
    const first = await costs(0);
    for (let number = 1; number < 4; number++) await costs(number);
    const found: {update: number; build: number; copy: number}[] = [];
    const current = async (): Promise<string> => join(site.stateDir, 'releases', (await site.status()).serving?.release ?? '');
    for (let number = 4; number < rounds + 4; number++) {
      const cost = await costs(number);
      found.push({...cost, copy: await timeCopy(await current(), join(site.dir, 'copied'))});
    }
    const both = found.map(({update, build}) => update + build);
    const copy = median(found.map((one) => one.copy));
    return [
      vcs, ms(median(found.map(({update}) => update))), ms(median(found.map(({build}) => build))), `**${spread(both)}**`,
      spread(found.map((one) => one.copy)), `**${times(median(both) / copy)}**`, '0.5 ×', ms(await timeCheckout(vcs, site.dir, vcs === 'svn' ? site.svn.url : site.git.url)),
      ms(first.update + first.build),
    ];
  });
}

/** A commit of so many files takes svn a minute; a dump of them takes seconds. */
async function loadIntoSvn(site: Site, files: Readonly<Record<string, string>>): Promise<void> {
  const nodes = (path: string, kind: 'dir' | 'file', text?: string): string =>
    `Node-path: trunk/${path}\nNode-kind: ${kind}\nNode-action: add\nProp-content-length: 10\n`
    + `${text === undefined ? '' : `Text-content-length: ${text.length}\n`}Content-length: ${10 + (text?.length ?? 0)}\n\nPROPS-END\n${text ?? ''}\n\n`;
  const dirs = [...new Set(Object.keys(files).flatMap((path) => [path.split('/').slice(0, 1), path.split('/').slice(0, 2)].map((parts) => parts.join('/'))))].sort();
  const dump = `SVN-fs-dump-format-version: 2\n\nRevision-number: 1\nProp-content-length: 10\nContent-length: 10\n\nPROPS-END\n\n`
    + dirs.map((path) => nodes(path, 'dir')).join('') + Object.entries(files).map(([path, text]) => nodes(path, 'file', text)).join('');
  await run('svnadmin', ['load', '-q', '--ignore-uuid', site.svn.repository], {env: scrubbedEnv(site.dir), input: dump});
}

/** In Subversion without a working copy: that of the committer would take as long as all the rest. */
async function changeOne(site: Site, vcs: 'svn' | 'git', text: string): Promise<void> {
  const path = 'lib/50/module_5000.py';
  if (vcs === 'git') {
    await site.commit({[path]: text});
    return;
  }
  const changed = join(site.dir, 'changed');
  writeFileSync(changed, text);
  await run('svnmucc', ['--non-interactive', '-m', 'a change', 'put', changed, `${site.svn.url}/${path}`], {env: scrubbedEnv(site.dir)});
}

async function timeCopy(from: string, to: string): Promise<number> {
  await run('sync', []);
  const began = performance.now();
  await run('cp', ['-a', from, to]);
  const took = performance.now() - began;
  rmSync(to, {recursive: true});
  return took;
}

async function timeCheckout(vcs: 'svn' | 'git', dir: string, url: string): Promise<number> {
  const to = join(dir, 'checked-out');
  const began = performance.now();
  await run(vcs, vcs === 'svn' ? ['checkout', '-q', '--non-interactive', url, to] : ['clone', '-q', url, to], {env: scrubbedEnv(dir)});
  const took = performance.now() - began;
  rmSync(to, {recursive: true});
  return took;
}
