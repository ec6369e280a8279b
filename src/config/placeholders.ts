import {nearest} from './nearest.ts';
import {clipped} from './shown.ts';

const KNOWN = ['port', 'release', 'revision'];

/** `has the unknown placeholder {prt}; …` for the first one that is not ours; undefined when all are. */
export function placeholderFault(text: string): string | undefined {
  // A word in braces only: JSON and format strings have quotes, dashes or nothing between theirs.
  for (const [, word = ''] of text.matchAll(/\{([A-Za-z_][A-Za-z0-9_]*)\}/g)) {
    if (KNOWN.includes(word)) continue;
    const meant = nearest(word, KNOWN);
    return `has the unknown placeholder {${clipped(word, 40)}}; expected {port}, {release} or {revision}`
      + (meant === undefined ? '' : ` (did you mean {${meant}}?)`);
  }
  return undefined;
}
