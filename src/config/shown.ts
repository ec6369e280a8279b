/** A value of the configuration as a message names it: `"3"`, `10`, `a list`, `missing`. Never a secret. */
export function shown(value: unknown): string {
  if (value === undefined) return 'missing';
  if (value === null) return 'empty';
  if (typeof value === 'string') return clipped(visible(JSON.stringify(masked(value))), 90);
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object') return 'a map of keys';
  return typeof value === 'number' || typeof value === 'boolean' ? String(value) : typeof value;
}

/** The same text with every password, as far as its form gives it away, replaced by `***`. */
export function masked(text: string): string {
  // The greedy `.*` up to the last `@` also covers passwords that hold a slash, a space or an `@` of their own.
  return text
    .replace(/(:\/\/).*@/s, '$1***@')
    .replace(/(\b(?!(?:password|secret)_file\b)[\w-]*(?:passw|secret|token|credential)[\w-]*["']?\s*[:=]\s*)\S.*/is, '$1***');
}

/** Control characters written out, so that a hostile file cannot steer the terminal. */
export function visible(text: string): string {
  // oxlint-disable-next-line no-control-regex
  return text.replaceAll(/[\u0000-\u0008\u000a-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g,
    character => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

export function clipped(text: string, length: number): string {
  return text.length > length ? `${text.slice(0, length - 1)}…` : text;
}
