import {counted, type Finding, type Level} from '../doctor/finding.ts';
import {plainText} from '../support/plain-text.ts';
import {paint} from './renderer.ts';

const [RED, GREEN, YELLOW, BOLD, DIM, CYAN] = [31, 32, 33, 1, 2, 36];
const LEVELS: readonly Exclude<Level, 'ok'>[] = ['problem', 'warning', 'note'];
const COLOUR = {problem: RED, warning: YELLOW, note: CYAN} as const;

/** `problems`: these alone, and nothing where there are none. `all`: what is fine, too, line by line. */
export type Shown = 'problems' | 'usual' | 'all';

/** The findings for people, problems first; a text of somebody else's stays in its lines. */
export function doctorLines(app: string | null, findings: readonly Finding[], {verbosity, colour}: {verbosity: Shown; colour: boolean}): string[] {
  const of = (level: Level) => findings.filter(one => one.level === level);
  if (verbosity === 'problems') return of('problem').flatMap(finding => told(finding, RED, colour));
  const fine = of('ok');
  return [
    ...(app === null ? [] : [paint({colour}, BOLD, app)]),
    ...LEVELS.flatMap(level => of(level).flatMap(finding => told(finding, COLOUR[level], colour))),
    ...(verbosity === 'all' ? fine.map(({check, says}) => `${paint({colour}, GREEN, '✓')} ${oneLine(check)}: ${oneLine(says)}`) : []),
    ...(fine.length === 0 ? [] : [`${paint({colour}, GREEN, '✓')} ${counted(fine.length, 'check')} found nothing${verbosity === 'all' ? '' : '; --verbose shows them'}`]),
    summary(of('problem').length, of('warning').length, of('note').length, colour),
  ];
}

function told({check, level, says, means, mend, place}: Finding, code: number, colour: boolean): string[] {
  return [
    `${paint({colour}, code, `${level} ${oneLine(check)}`)}${place === undefined ? '' : paint({colour}, DIM, ` in ${oneLine(place)}`)}`,
    ...lines(says).map(line => `  ${line}`),
    ...(means === undefined ? [] : lines(means).map(line => `  ${line}`)),
    ...(mend === undefined ? [] : lines(mend).map(line => `  → ${line}`)),
    '',
  ];
}

function summary(problems: number, warnings: number, notes: number, colour: boolean): string {
  const text = [counted(problems, 'problem'), counted(warnings, 'warning'), counted(notes, 'note')].join(', ');
  return paint({colour}, problems > 0 ? RED : warnings > 0 ? YELLOW : GREEN, text);
}

function lines(text: string): string[] {
  return plainText(text).replaceAll('\t', ' ').split('\n').filter(line => line.trim() !== '');
}

function oneLine(text: string): string {
  return plainText(text).replace(/[\n\t]+/g, ' ');
}
