import {endOfLua} from './lua-block.ts';

/** One word of a directive. */
export interface Word {
  /** As nginx decodes it: without its quotes, escapes replaced, as UTF-8. */
  readonly text: string;
  /** Byte offsets in the file, quotes included; `end` is past the last byte. */
  readonly start: number;
  readonly end: number;
}

export interface Directive {
  readonly name: Word;
  readonly args: readonly Word[];
  /** Undefined for one that ends with `;`, and for a block of Lua, which is not nginx's to read. */
  readonly block: readonly Directive[] | undefined;
  readonly start: number;
  /** Past the `;` or the `}`. */
  readonly end: number;
  /** Where its name begins; the first line is 1. */
  readonly line: number;
}

/** A text that nginx would refuse, or of which it cannot be told how nginx reads it. */
export class ConfigSyntaxError extends Error {
  override readonly name = 'ConfigSyntaxError';
  readonly line: number;

  constructor(line: number, reason: string) {
    super(`line ${line}: ${reason}`);
    this.line = line;
  }
}

/**
 * Blanks, a comment, a word in quotes, a mark, or a bare word, one after the other. `#` and quotes are special only where a word begins,
 * a backslash protects what follows, and `${` is no block. Source: ngx_conf_file.c, ngx_conf_read_token.
 * The repetitions have an end, so that no text exhausts the stack; what is longer is refused below.
 */
const PIECE = /[ \t\r\n]+|#[^\n]*|"(?:[^"\\]+|\\[^]){0,4096}"|'(?:[^'\\]+|\\[^]){0,4096}'|[;{}]|(?!["'])(?:[^ \t\r\n;{\\$]+|\\[^]|\$\{*){1,4096}/y;
/** nginx's buffer; a word or a comment that fills it is refused. Source: ngx_conf_file.c, NGX_CONF_BUFFER. */
const LONGEST_WORD = 4096;
/** Far beyond what nginx's modules allow. */
const DEEPEST = 500;

/** What was read up to the next `;`, `{` or `}`; nothing after the last of them. */
interface Statement {
  readonly words: readonly Word[];
  readonly line: number;
  readonly ends: ';' | '{' | '}' | 'file';
}

/**
 * Reads the text of one file as nginx reads it, and keeps where everything stands.
 * What the directives mean is not looked at, but for `include` and blocks of Lua, which others read.
 * Errors: ConfigSyntaxError.
 */
export function parseConfig(bytes: Buffer): Directive[] {
  const reader = new Reader(bytes);
  const top: Directive[] = [];
  const open: {readonly name: Word; readonly args: readonly Word[]; readonly line: number; readonly block: Directive[]}[] = [];
  for (;;) {
    const {words, line, ends} = reader.statement();
    const into = open.at(-1)?.block ?? top;
    const [name, ...args] = words;
    if (ends === 'file') {
      if (open.length > 0) throw new ConfigSyntaxError(reader.line, 'unexpected end of file, expecting "}"');
      return top;
    }
    if (ends === '}') {
      const closed = open.pop();
      if (closed === undefined) throw new ConfigSyntaxError(reader.line, 'unexpected "}"');
      (open.at(-1)?.block ?? top).push({...closed, start: closed.name.start, end: reader.position});
    } else if (name === undefined) {
      throw new ConfigSyntaxError(line, `unexpected "${ends}"`);
    } else if (ends === ';') {
      into.push({name, args, block: undefined, start: name.start, end: reader.position, line});
    } else if (name.text.endsWith('_by_lua_block')) {
      reader.skipLua();
      into.push({name, args, block: undefined, start: name.start, end: reader.position, line});
    } else if (open.length === DEEPEST) {
      throw new ConfigSyntaxError(line, `more than ${DEEPEST} blocks in one another`);
    } else {
      open.push({name, args, line, block: []});
    }
  }
}

class Reader {
  readonly #bytes: Buffer;
  /** One character a byte, so that places are offsets. */
  readonly #text: string;
  position = 0;
  line = 1;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
    this.#text = bytes.toString('latin1');
  }

  statement(): Statement {
    const words: Word[] = [];
    let first = this.line;
    for (;;) {
      const {position: start, line} = this;
      const piece = this.#piece();
      if (piece === undefined) {
        if (words.length > 0) throw new ConfigSyntaxError(line, 'unexpected end of file, expecting ";" or "}"');
        return {words, line, ends: 'file'};
      }
      const mark = piece[0] ?? '';
      if (' \t\r\n#'.includes(mark)) {
        if (mark === '#') refuseLong(piece.length, line, '"#..."');
        continue;
      }
      if (words.length === 0) first = line;
      if (piece === ';' || piece === '{' || piece === '}') {
        if (piece === '}' && words.length > 0) throw new ConfigSyntaxError(line, 'unexpected "}"');
        return {words, line: first, ends: piece};
      }
      const isQuoted = mark === '"' || mark === "'";
      // The opening quote is not in the buffer, the closing one is.
      refuseLong(piece.length - (isQuoted ? 1 : 0), line, isQuoted ? 'in quotes' : 'word');
      if (isQuoted) this.#refuseGluedOn();
      words.push({text: decoded(isQuoted ? piece.slice(1, -1) : piece), start, end: this.position});
    }
  }

  /** The position is behind the `{`; afterwards behind its `}`. */
  skipLua(): void {
    const end = endOfLua(this.#bytes, this.position);
    if (end === undefined) throw new ConfigSyntaxError(this.line, 'the end of this block of Lua cannot be found');
    this.line += lineFeeds(this.#text.slice(this.position, end));
    this.position = end;
  }

  /** Undefined at the end. */
  #piece(): string | undefined {
    if (this.position === this.#text.length) return undefined;
    PIECE.lastIndex = this.position;
    const piece = PIECE.exec(this.#text)?.[0];
    if (piece === undefined) {
      const mark = this.#text[this.position];
      if (mark === '"' || mark === "'") throw new ConfigSyntaxError(this.line, `a quoted word has no end, probably missing terminating ${mark}`);
      throw new ConfigSyntaxError(this.line, 'unexpected end of file, expecting ";" or "}"');
    }
    this.position += piece.length;
    this.line += lineFeeds(piece);
    return piece;
  }

  #refuseGluedOn(): void {
    const next = this.#text[this.position];
    if (next !== undefined && !' \t\r\n;{)'.includes(next)) throw new ConfigSyntaxError(this.line, `unexpected "${next}" after a quoted word`);
  }
}

function refuseLong(length: number, line: number, what: string): void {
  if (length >= LONGEST_WORD) throw new ConfigSyntaxError(line, `too long parameter (${what}): ${length} bytes`);
}

function lineFeeds(text: string): number {
  let count = 0;
  for (let at = text.indexOf('\n'); at !== -1; at = text.indexOf('\n', at + 1)) count++;
  return count;
}

/** `\"`, `\'` and `\\` lose the backslash, `\t`, `\r` and `\n` become what they mean, every other backslash stays. */
function decoded(word: string): string {
  const text = /[\x80-\xff]/.test(word) ? Buffer.from(word, 'latin1').toString('utf8') : word;
  return text.includes('\\') ? text.replace(/\\(["'\\trn])/g, (_, what: string) => ({t: '\t', r: '\r', n: '\n'})[what] ?? what) : text;
}
