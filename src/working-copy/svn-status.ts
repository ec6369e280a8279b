import {relative} from 'node:path';
import type {Edit} from './edits.ts';
import {childOf, parseSvnXml} from './svn-xml.ts';

/** What `svn status --xml` found, by what a deploy makes of it. Paths are relative to the working copy. */
export interface SvnStatus {
  /** Modified, added, deleted or replaced, in text or properties. */
  readonly edited: readonly string[];
  readonly conflicted: readonly string[];
  /** Tree conflicts alone. */
  readonly treeConflicted: readonly string[];
  /** Something of another kind stands where a versioned file or directory belongs. */
  readonly obstructed: readonly string[];
  readonly missing: readonly string[];
  /** All of these, as edits; but for `copied` with every path. */
  readonly edits: readonly Edit[];
  /** Copied here with their history: of a directory the paths below it are not named. */
  readonly copied: readonly string[];
  readonly switched: readonly string[];
  /** A command died, or is at work, in here: locked directories and incomplete ones. */
  readonly unfinished: readonly string[];
}

const EDITED = new Set(['modified', 'added', 'deleted', 'replaced', 'merged']);

/** A path that an update would change. */
export interface SvnIncoming {
  readonly path: string;
  /** `none`: its properties alone. A directory is called modified, too, when something in it is. */
  readonly change: string;
  readonly props: boolean;
  /** What is there now: `normal`, `modified`, `unversioned`, `missing` … */
  readonly item: string;
  /** The revision of it, where it is versioned. */
  readonly base: string | undefined;
}

/** Reads `svn status --show-updates --xml`. */
export function parseSvnIncoming(xml: string, workingCopy: string): SvnIncoming[] {
  return (childOf(parseSvnXml(xml), 'target')?.children ?? []).flatMap(entry => {
    const there = childOf(entry, 'repos-status')?.attributes;
    if (there === undefined) return [];
    const is = childOf(entry, 'wc-status')?.attributes ?? {};
    const path = relative(workingCopy, entry.attributes['path'] ?? '') || '.';
    return [{path, change: there['item'] ?? 'none', props: there['props'] === 'modified', item: is['item'] ?? 'none', base: is['revision']}];
  });
}

/** Reads `svn status --verbose --xml` of what was copied: every path of it. */
export function parseCopied(xml: string, workingCopy: string): Edit[] {
  return parseSvnXml(xml).children.filter(({name}) => name === 'target').flatMap(({children}) => children).flatMap(entry => {
    const item = childOf(entry, 'wc-status')?.attributes['item'] ?? '';
    if (NOT_VERSIONED.has(item)) return [];
    return [{path: relative(workingCopy, entry.attributes['path'] ?? ''), gone: item === 'deleted' || item === 'missing', added: true, replaced: item === 'replaced'}];
  });
}

const NOT_VERSIONED = new Set(['unversioned', 'ignored', 'external', 'none', '']);

export function parseSvnStatus(xml: string, workingCopy: string): SvnStatus {
  const status = {
    edited: [] as string[], conflicted: [] as string[], treeConflicted: [] as string[], obstructed: [] as string[],
    missing: [] as string[], edits: [] as Edit[], copied: [] as string[], switched: [] as string[], unfinished: [] as string[],
  };
  if (!xml.includes('<entry')) return status;
  for (const entry of childOf(parseSvnXml(xml), 'target')?.children ?? []) {
    const path = relative(workingCopy, entry.attributes['path'] ?? '') || '.';
    const is = childOf(entry, 'wc-status')?.attributes ?? {};
    const item = is['item'] ?? '';
    const props = is['props'] ?? 'none';
    if (is['wc-locked'] === 'true' || item === 'incomplete') status.unfinished.push(path);
    if (is['switched'] === 'true') status.switched.push(path);
    if (is['tree-conflicted'] === 'true') status.treeConflicted.push(path);
    if (item === 'conflicted' || props === 'conflicted' || is['tree-conflicted'] === 'true') status.conflicted.push(path);
    else if (item === 'obstructed') status.obstructed.push(path);
    else if (item === 'missing') status.missing.push(path);
    else if (EDITED.has(item) || props === 'modified') status.edited.push(path);
    else continue;
    status.edits.push({path, gone: item === 'deleted' || item === 'missing', added: item === 'added', replaced: item === 'replaced'});
    if (is['copied'] === 'true') status.copied.push(path);
  }
  // What an update that broke off has not brought yet is nobody's edit.
  return status.unfinished.length === 0 ? status : {...status, edits: status.edits.filter(({path}) => !status.missing.includes(path))};
}
