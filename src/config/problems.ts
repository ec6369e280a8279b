import {clipped, masked, visible} from './shown.ts';

export interface Problem {
  /** Where in the file's text, in UTF-16 units; undefined: the message names its own place. */
  readonly offset: number | undefined;
  /** `workers.count is "3"; expected a whole number from 1 to 200`. */
  readonly message: string;
}

const MAX_SHOWN = 50;
const MAX_LINE = 120;

/** All problems in the order of the file, each with its line and a caret. */
export function renderProblems(file: string, text: string, problems: readonly Problem[]): string {
  const ordered = problems.toSorted((a, b) => (a.offset ?? Infinity) - (b.offset ?? Infinity));
  const shown = ordered.slice(0, MAX_SHOWN).map(problem => renderProblem(file, text, problem));
  const left = ordered.length - shown.length;
  return [...shown, ...(left > 0 ? [`… and ${left} more`] : [])].join('\n');
}

function renderProblem(file: string, text: string, {offset, message}: Problem): string {
  if (offset === undefined) return message;
  const place = Math.min(offset, text.length);
  const lineStart = place === 0 ? 0 : text.lastIndexOf('\n', place - 1) + 1;
  const lineEnd = text.indexOf('\n', place);
  const lineNumber = text.slice(0, lineStart).split('\n').length;
  const line = text.slice(lineStart, lineEnd === -1 ? text.length : lineEnd).replace(/\r$/, '');
  const column = place - lineStart;
  const head = `${file}:${lineNumber}:${column + 1}: ${message}`;
  if (line.trim() === '') return head;

  const from = Math.max(0, column - MAX_LINE / 2);
  const before = visible(line.slice(from, column));
  const quoted = clipped(visible(masked(line).slice(from)), MAX_LINE);
  return `${head}\n  ${quoted}\n  ${before.replaceAll(/[^\t]/g, ' ')}^`;
}
