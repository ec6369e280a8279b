import {relative} from 'node:path';
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
  readonly switched: readonly string[];
  /** A command died, or is at work, in here: locked directories and incomplete ones. */
  readonly unfinished: readonly string[];
}

const EDITED = new Set(['modified', 'added', 'deleted', 'replaced', 'merged']);

export function parseSvnStatus(xml: string, workingCopy: string): SvnStatus {
  const status = {
    edited: [] as string[], conflicted: [] as string[], treeConflicted: [] as string[], obstructed: [] as string[],
    missing: [] as string[], switched: [] as string[], unfinished: [] as string[],
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
  }
  return status;
}
