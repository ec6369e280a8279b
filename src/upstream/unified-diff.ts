/** Lines around a change, as `diff -u` shows them. */
const CONTEXT = 3;

/** The difference of two texts that differ in one place as a unified diff with one hunk; empty when they are the same. */
export function unifiedDiff(before: string, after: string, name: string): string {
  if (before === after) return '';
  const [a, b] = [toLines(before), toLines(after)];
  // The table is quadratic, and a file of the user's may be long: what both begin and end with stays out of it.
  const least = Math.min(a.length, b.length);
  let head = 0;
  while (head < least && a[head] === b[head]) head++;
  let tail = 0;
  while (tail < least - head && a.at(-1 - tail) === b.at(-1 - tail)) tail++;
  const from = Math.max(0, head - CONTEXT);
  const cut = (lines: readonly string[]) => lines.slice(from, lines.length - Math.max(0, tail - CONTEXT));
  const [left, right] = [cut(a), cut(b)];
  const body = compare(left, right).map(line => line.replace(NO_NEWLINE, '\n\\ No newline at end of file'));
  return [`--- ${name}`, `+++ ${name}`, `@@ -${span(left, from)} +${span(right, from)} @@`, ...body, ''].join('\n');
}

/** Marks a last line without its end, so that it differs from the same line with one. */
const NO_NEWLINE = '\0';

function toLines(text: string): string[] {
  return text === '' ? [] : text.endsWith('\n') ? text.slice(0, -1).split('\n') : `${text}${NO_NEWLINE}`.split('\n');
}

function span(lines: readonly string[], from: number): string {
  return `${lines.length === 0 ? from : from + 1},${lines.length}`;
}

/** By the longest common subsequence; an upstream block has a few lines, so the quadratic table is small. */
function compare(a: readonly string[], b: readonly string[]): string[] {
  const common = Array.from({length: a.length + 1}, () => new Array<number>(b.length + 1).fill(0));
  const at = (i: number, j: number) => common[i]?.[j] ?? 0;
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      const row = common[i];
      if (row !== undefined) row[j] = a[i] === b[j] ? at(i + 1, j + 1) + 1 : Math.max(at(i + 1, j), at(i, j + 1));
    }
  }
  const lines: string[] = [];
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      lines.push(` ${a[i]}`);
      i++;
      j++;
    } else if (i < a.length && (j >= b.length || at(i + 1, j) >= at(i, j + 1))) lines.push(`-${a[i++]}`);
    else lines.push(`+${b[j++]}`);
  }
  return lines;
}
