import type {ServerLine} from '../nginx/server-lines.ts';

interface Splice {
  readonly start: number;
  readonly end: number;
  readonly bytes: Buffer;
}

const LF = 0x0a;
const QUOTES = Buffer.from('"\'');

/**
 * The bytes with these addresses in the slots, in order; every other byte stays.
 * More addresses than slots: lines are added after the last slot, each with its text, or with its own of `texts`, by slot. Fewer: slots go from the end.
 */
export function withAddresses(bytes: Buffer, slots: readonly ServerLine[], addresses: readonly string[], texts?: readonly Buffer[]): Buffer {
  const last = slots.at(-1);
  if (last === undefined) return bytes;
  const added = addresses.slice(slots.length).map((address, i) => {
    const text = texts?.[slots.length + i];
    return text ?? spliced(bytes.subarray(last.directive.start, last.directive.end), [addressSplice(bytes, last, address, last.directive.start)]);
  });
  return spliced(bytes, [
    ...slots.map((slot, i) => {
      const address = addresses[i];
      return address === undefined ? removal(bytes, slot) : addressSplice(bytes, slot, address, 0);
    }),
    ...(added.length === 0 ? [] : [addition(bytes, last, added)]),
  ]);
}

/** Quotes stay. */
function addressSplice(whole: Buffer, {address}: ServerLine, text: string, from: number): Splice {
  const quotes = QUOTES.includes(whole[address.start] ?? 0) ? 1 : 0;
  return {start: address.start + quotes - from, end: address.end - quotes - from, bytes: Buffer.from(text)};
}

/** Each on a line of its own, indented alike, where the one before has one; else behind it on the same line. */
function addition(bytes: Buffer, {directive}: ServerLine, added: readonly Buffer[]): Splice {
  const indentation = indentationOf(bytes, directive.start);
  const lineEnd = endOfLine(bytes, directive.end);
  const alone = indentation !== undefined && isBlankOrComment(bytes.subarray(directive.end, lineEnd));
  const between = alone ? Buffer.concat([Buffer.from(bytes[lineEnd] === LF || bytes[lineEnd] === undefined ? '\n' : '\r\n'), indentation]) : Buffer.from(' ');
  const at = alone ? lineEnd : directive.end;
  return {start: at, end: at, bytes: Buffer.concat(added.flatMap(text => [between, text]))};
}

/** Its whole line where nothing else stands there; a comment behind it stays. */
function removal(bytes: Buffer, {directive: {start, end}}: ServerLine): Splice {
  const indentation = indentationOf(bytes, start);
  const lineEnd = endOfLine(bytes, end);
  const rest = bytes.subarray(end, lineEnd).toString('latin1');
  if (indentation !== undefined && /^[ \t]*$/.test(rest)) {
    const next = bytes.indexOf(LF, lineEnd);
    return {start: start - indentation.length, end: next === -1 ? bytes.length : next + 1, bytes: Buffer.alloc(0)};
  }
  if (indentation !== undefined) return {start, end, bytes: Buffer.alloc(0)};
  let from = start;
  while (bytes[from - 1] === 0x20 || bytes[from - 1] === 0x09) from--;
  return {start: from, end, bytes: Buffer.alloc(0)};
}

/** The blanks before it, when nothing else stands before it on its line. */
function indentationOf(bytes: Buffer, start: number): Buffer | undefined {
  const before = bytes.subarray(start === 0 ? 0 : bytes.lastIndexOf(LF, start - 1) + 1, start);
  return /^[ \t]*$/.test(before.toString('latin1')) ? before : undefined;
}

/** Before the line feed, and before the carriage return of a Windows line end. */
function endOfLine(bytes: Buffer, from: number): number {
  const feed = bytes.indexOf(LF, from);
  const end = feed === -1 ? bytes.length : feed;
  return bytes[end - 1] === 0x0d && feed !== -1 && end > from ? end - 1 : end;
}

function isBlankOrComment(bytes: Buffer): boolean {
  return /^[ \t]*(?:#[^\n]*)?$/.test(bytes.toString('latin1'));
}

/** The splices in the order of their places, none over another. */
function spliced(bytes: Buffer, splices: readonly Splice[]): Buffer {
  const parts: Buffer[] = [];
  let at = 0;
  for (const {start, end, bytes: put} of splices.toSorted((a, b) => a.start - b.start)) {
    parts.push(bytes.subarray(at, start), put);
    at = end;
  }
  return Buffer.concat([...parts, bytes.subarray(at)]);
}
