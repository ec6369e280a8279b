/** The candidate that `word` was probably meant to be; undefined when none is near. */
export function nearest(word: string, candidates: readonly string[]): string | undefined {
  if (word.length > 64) return undefined;
  const lower = word.toLowerCase().replaceAll('-', '_');
  const ranked = candidates
    .map(candidate => ({candidate, edits: editDistance(lower, candidate.toLowerCase())}))
    .toSorted((a, b) => a.edits - b.edits);
  const [best] = ranked;
  const allowed = Math.max(1, Math.floor(lower.length / 3));
  if (best !== undefined && best.edits <= Math.min(2, allowed)) return best.candidate;
  // `password` for `password_file`, `ports_range` for `ports`.
  const longer = candidates.find(candidate => lower.length > 3 && candidate.length > 3
    && (candidate.startsWith(lower) || lower.startsWith(`${candidate}_`)));
  if (longer !== undefined) return longer;
  return best !== undefined && best.edits <= allowed ? best.candidate : undefined;
}

function editDistance(from: string, to: string): number {
  let row = Array.from({length: to.length + 1}, (_, index) => index);
  for (let i = 1; i <= from.length; i++) {
    const next = [i];
    for (let j = 1; j <= to.length; j++) {
      const replace = (row[j - 1] ?? 0) + (from[i - 1] === to[j - 1] ? 0 : 1);
      next.push(Math.min(replace, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[to.length] ?? 0;
}
