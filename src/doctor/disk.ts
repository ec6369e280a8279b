import {existsSync, readdirSync, statfsSync, type Dirent} from 'node:fs';
import {dirname, join} from 'node:path';
import type {Config} from '../config/config.ts';
import {errnoOf} from '../errors.ts';
import {mountOf, RESERVE_BYTES, RESERVE_INODES} from '../releases/free-space.ts';
import {lstatIfThere} from '../support/lstat-if-there.ts';
import {shellWord} from '../service/quoting.ts';
import {megabytes, type Finding} from './finding.ts';
import {namedFile} from '../upstream/upstream-text.ts';

export interface TreeSize {
  readonly bytes: number;
  readonly entries: number;
}

/** A look at a larger tree would take longer than its figure is worth. */
const MOST_ENTRIES = 200_000;
/** Less than this many releases more, and it will not be long. */
const COMFORT = 3;
/** svn's and git's own records are no part of a release. */
const RECORDS = new Set(['.svn', '.git']);

/** Whether the next release fits, on the file system of the releases: space and inodes. `tree`: what the present one holds. */
export function roomForRelease(stateDir: string, tree: TreeSize, keep: number): Finding[] {
  const there = nearest(stateDir);
  const {bavail, bsize, ffree, files} = statfsSync(there);
  const mount = mountOf(there);
  const bytes = {free: bavail * bsize, need: tree.bytes + RESERVE_BYTES, more: tree.bytes * COMFORT + RESERVE_BYTES};
  const entries = {free: ffree, need: tree.entries + RESERVE_INODES, more: tree.entries * COMFORT + RESERVE_INODES};
  const mend = `du -xh --max-depth=3 ${shellWord(mount)} | sort -h | tail -n 20`;
  const fewer = keep > 2 ? `, or keep fewer releases (keep: ${Math.max(2, keep - 2)})` : '';
  const judge = (check: string, {free, need, more}: {free: number; need: number; more: number}, shown: (n: number) => string): Finding => {
    const says = `${shown(free)} free on ${mount}, the next release takes about ${shown(need)}`;
    if (free >= more) return {check, level: 'ok', says, place: stateDir};
    return {check, level: free < need ? 'problem' : 'warning', says, place: stateDir, means: `${free < need ? 'the next deploy is' : 'soon a deploy will be'} refused for want of room (BUILD_FAILED): make some${fewer}`, mend};
  };
  return [
    judge('disk-space', bytes, megabytes),
    // Some file systems count no inodes and say 0 of 0.
    ...(files > 0 ? [judge('disk-inodes', entries, n => `${n} inodes`)] : []),
  ];
}

/** Whether there is room for the little that each deploy writes elsewhere: the working copy, nginx's file, run_dir. */
export function roomElsewhere(config: Config): Finding[] {
  const {source, runDir, stateDir} = config;
  const places = [source.workingCopy, dirname(namedFile(config)), runDir].map(path => ({path, mount: mountOf(nearest(path))}));
  const seen = new Set([mountOf(nearest(stateDir))]);
  return places.flatMap(({path, mount}) => {
    if (seen.has(mount)) return [];
    seen.add(mount);
    const {bavail, bsize, ffree, files} = statfsSync(nearest(path));
    const free = bavail * bsize;
    const full = free < LEAST_BYTES || (files > 0 && ffree < LEAST_INODES);
    const says = `${megabytes(free)} free on ${mount}${files > 0 ? `, ${ffree} inodes` : ''}`;
    return [full ? {check: 'disk-elsewhere', level: 'problem' as const, says, place: path, means: 'a deploy cannot write there, and fails before its switch', mend: `du -xh --max-depth=3 ${shellWord(mount)} | sort -h | tail -n 20`} : {check: 'disk-elsewhere', level: 'ok' as const, says, place: path}];
  });
}

const LEAST_BYTES = 4 * 1024 * 1024;
const LEAST_INODES = 50;

/** What a tree holds, links not followed, on disk. Undefined when it is not there. */
export function sizeOf(directory: string): TreeSize | undefined {
  if (lstatIfThere(directory) === undefined) return undefined;
  let [bytes, entries] = [0, 0];
  const pending = [directory];
  for (let at = pending.pop(); at !== undefined && entries < MOST_ENTRIES; at = pending.pop()) {
    for (const entry of listing(at)) {
      if (at === directory && RECORDS.has(entry.name)) continue;
      const path = join(at, entry.name);
      entries++;
      bytes += (lstatIfThere(path)?.blocks ?? 0) * BLOCK;
      if (entry.isDirectory()) pending.push(path);
    }
  }
  return {bytes, entries};
}

/** Of `st_blocks`. Source: stat(3type). */
const BLOCK = 512;

function listing(directory: string): Dirent[] {
  try {
    return readdirSync(directory, {withFileTypes: true});
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
    return []; // Gone meanwhile, or not ours to read.
  }
}

/** The path itself, or the nearest one above it that is there. */
export function nearest(path: string): string {
  return existsSync(path) || path === '/' ? path : nearest(dirname(path));
}
