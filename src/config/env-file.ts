import {DeployError} from '../errors.ts';
import {readRegularFile, utf8Of} from './regular-file.ts';

const MAX_BYTES = 1_000_000;

/**
 * The variables of an env file: `KEY=value` lines, `#` comments, one pair of quotes around a value is taken off; no
 * substitution. Errors: CONFIG_INVALID with every bad line as `file:line: …`, never with a value, as it may be a secret.
 */
export function readEnvFile(path: string): Record<string, string> {
  const {values, problems} = examineEnvFile(path);
  if (problems.length > 0) throw new DeployError('CONFIG_INVALID', problems.join('\n'));
  return values;
}

/** Who else than its owner can read it is the configuration's business (places.ts). */
export function examineEnvFile(path: string): {values: Record<string, string>; problems: string[]} {
  const file = readRegularFile(path, MAX_BYTES);
  if (file.kind === 'missing') return {values: {}, problems: [`${path}: is not there; expected a file of KEY=value lines`]};
  if (file.kind === 'refused') return {values: {}, problems: [`${path}: ${file.reason}; expected a file of KEY=value lines`]};
  const text = utf8Of(file.bytes);
  return text === undefined
    ? {values: {}, problems: [`${path}: is not UTF-8 text without NUL bytes; expected KEY=value lines`]}
    : parseEnvLines(text, path);
}

function parseEnvLines(text: string, path: string): {values: Record<string, string>; problems: string[]} {
  const values: Record<string, string> = {};
  const lineOf = new Map<string, number>();
  const problems: string[] = [];
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    const number = index + 1;
    const trimmed = line.trim();
    if (trimmed === '' || trimmed.startsWith('#')) continue;
    const [, key, written = ''] = /^([A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*(.*)$/s.exec(trimmed) ?? [];
    const value = unquoted(written);
    const before = key === undefined ? undefined : lineOf.get(key);
    if (key === undefined || key === '__proto__') {
      problems.push(`${path}:${number}: is not KEY=value; expected a name of letters, digits and _, then =`);
    } else if (value === undefined) {
      problems.push(`${path}:${number}: the quote of ${key} is not closed; expected the same quote at the end of the line`);
    } else if (value.includes('\r')) {
      problems.push(`${path}:${number}: ${key} holds a carriage return; expected text of one line`);
    } else if (before !== undefined) {
      problems.push(`${path}:${number}: ${key} is already set on line ${before}; expected each name once`);
    } else {
      values[key] = value;
      lineOf.set(key, number);
    }
  }
  return {values, problems};
}

function unquoted(written: string): string | undefined {
  const quote = written[0];
  if (quote !== '"' && quote !== '\'') return written;
  return written.length > 1 && written.endsWith(quote) ? written.slice(1, -1) : undefined;
}
