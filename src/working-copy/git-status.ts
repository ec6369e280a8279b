import type {Edit} from './edits.ts';

/** What `git status --porcelain=v2 --branch -z --untracked-files=no` found. */
export interface GitStatus {
  /** Undefined before the first commit. */
  readonly head: string | undefined;
  readonly conflicted: readonly string[];
  /** Changed, staged, of another type or mode. */
  readonly edited: readonly string[];
  /** Gone from the work tree and nothing else. */
  readonly missing: readonly string[];
  /** All of these. */
  readonly edits: readonly Edit[];
}

/** The mode, in HEAD, of what HEAD has not. */
const NOT_THERE = '000000';

export function parseGitStatus(output: string): GitStatus {
  let head: string | undefined;
  const conflicted: string[] = [];
  const edited: string[] = [];
  const missing: string[] = [];
  const edits: Edit[] = [];
  const addEdit = (path: string, {gone, added}: Pick<Edit, 'gone' | 'added'>) => edits.push({path, gone, added, replaced: false});
  const records = output.split('\0');
  for (let i = 0; i < records.length; i++) {
    const record = records[i] ?? '';
    const [kind, xy] = record.split(' ', 2);
    if (kind === '#') {
      const oid = /^# branch\.oid ([0-9a-f]+)$/.exec(record)?.[1];
      if (oid !== undefined) head = oid;
    } else if (kind === 'u') {
      conflicted.push(fieldsAfter(record, 10));
      addEdit(fieldsAfter(record, 10), {gone: false, added: false});
    } else if (kind === '1') {
      (xy === '.D' ? missing : edited).push(fieldsAfter(record, 8));
      // Taken out of the index it is gone, whatever is left in the work tree.
      addEdit(fieldsAfter(record, 8), {gone: xy === 'D.', added: record.split(' ', 4)[3] === NOT_THERE});
    } else if (kind === '2') {
      edited.push(fieldsAfter(record, 9));
      addEdit(fieldsAfter(record, 9), {gone: false, added: true});
      i++; // The old name of a rename is a record of its own.
    }
  }
  return {head, conflicted, edited, missing, edits};
}

/** The rest of a record after its first `count` fields: a path may hold spaces. */
function fieldsAfter(record: string, count: number): string {
  let at = 0;
  for (let i = 0; i < count; i++) at = record.indexOf(' ', at) + 1;
  return record.slice(at);
}
