export interface GitChange {
  readonly path: string;
  /** `000000` when it is not there. */
  readonly oldMode: string;
  readonly newMode: string;
  readonly newBlob: string;
}

/** Reads `git diff-tree -r -z --raw --no-renames A B`; undefined when a name is not UTF-8, for it could not be told exactly. */
export function parseRawDiff(output: string): GitChange[] | undefined {
  if (output.includes('\ufffd')) return undefined;
  const records = output.split('\0');
  const changes: GitChange[] = [];
  for (let i = 0; i + 1 < records.length; i += 2) {
    const [oldMode, newMode, , newBlob] = (records[i] ?? '').replace(/^:/, '').split(' ');
    const path = records[i + 1];
    if (oldMode === undefined || newMode === undefined || newBlob === undefined || path === undefined) return undefined;
    changes.push({path, oldMode, newMode, newBlob});
  }
  return changes;
}
