import {readdirSync} from 'node:fs';
import {dirname, join} from 'node:path';
import {lstatIfThere} from '../support/lstat-if-there.ts';
import type {GitChange} from './git-diff.ts';

/**
 * Untracked and ignored files that stand where a new tree brings a file: git itself keeps the untracked, and overwrites the ignored.
 * `changes`: from the tree that is checked out now to the new one.
 */
export function findObstructions(workingCopy: string, changes: readonly GitChange[]): string[] {
  const removed = new Set(changes.filter(change => change.newMode === '000000').map(change => change.path));
  const found = new Set<string>();
  const parentsSeen = new Set<string>();
  for (const {path, oldMode, newMode} of changes) {
    if (oldMode !== '000000' || newMode === '000000') continue;
    for (let parent = dirname(path); parent !== '.' && !parentsSeen.has(parent); parent = dirname(parent)) {
      parentsSeen.add(parent);
      const stat = lstatIfThere(join(workingCopy, parent));
      if (stat !== undefined && !stat.isDirectory() && !removed.has(parent)) found.add(parent);
    }
    const stat = lstatIfThere(join(workingCopy, path));
    if (stat === undefined) continue;
    if (stat.isDirectory()) {
      for (const file of filesBelow(workingCopy, path)) if (!removed.has(file)) found.add(file);
    } else if (!dirnames(path).some(parent => removed.has(parent) || found.has(parent))) {
      found.add(path);
    }
  }
  return [...found];
}

function dirnames(path: string): string[] {
  const parents: string[] = [];
  for (let parent = dirname(path); parent !== '.'; parent = dirname(parent)) parents.push(parent);
  return parents;
}

function filesBelow(root: string, directory: string): string[] {
  return readdirSync(join(root, directory), {withFileTypes: true}).flatMap(entry => {
    const path = join(directory, entry.name);
    return entry.isDirectory() ? filesBelow(root, path) : [path];
  });
}
