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

const [TAB, LF, CR, BLANK, QUOTE, HASH, DOLLAR, APOSTROPHE, CLOSING, SEMICOLON, BACKSLASH, OPEN_BRACE, CLOSE_BRACE] = Buffer.from('\t\n\r "#$\');\\{}');
/** nginx's buffer; a word or a comment that fills it is refused. Source: ngx_conf_file.c, NGX_CONF_BUFFER. */
const LONGEST_WORD = 4096;

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
    } else {
      open.push({name, args, line, block: []});
    }
  }
}

/** nginx's own machine of states, byte by byte. Source: ngx_conf_file.c, ngx_conf_read_token. */
class Reader {
  readonly #bytes: Buffer;
  position = 0;
  line = 1;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  statement(): Statement {
    const words: Word[] = [];
    let line = this.line;
    for (;;) {
      this.#skipBlanks();
      const byte = this.#bytes[this.position];
      if (byte === undefined) {
        if (words.length > 0) throw new ConfigSyntaxError(this.line, 'unexpected end of file, expecting ";" or "}"');
        return {words, line, ends: 'file'};
      }
      if (words.length === 0) line = this.line;
      const end = byte === SEMICOLON ? ';' : byte === OPEN_BRACE ? '{' : byte === CLOSE_BRACE ? '}' : undefined;
      if (end === undefined) {
        words.push(byte === QUOTE || byte === APOSTROPHE ? this.#quoted(byte) : this.#bare());
        continue;
      }
      if (end === '}' && words.length > 0) throw new ConfigSyntaxError(this.line, 'unexpected "}"');
      this.position++;
      return {words, line, ends: end};
    }
  }

  /** The position is behind the `{`; afterwards behind its `}`. */
  skipLua(): void {
    const end = endOfLua(this.#bytes, this.position);
    if (end === undefined) throw new ConfigSyntaxError(this.line, 'the end of this block of Lua cannot be found');
    for (let i = this.position; i < end; i++) if (this.#bytes[i] === LF) this.line++;
    this.position = end;
  }

  #skipBlanks(): void {
    for (;; this.position++) {
      const byte = this.#bytes[this.position];
      if (byte === HASH) this.#skipComment();
      const now = this.#bytes[this.position];
      if (now === LF) this.line++;
      if (!isBlank(now)) return;
    }
  }

  #skipComment(): void {
    const start = this.position;
    while (this.position < this.#bytes.length && this.#bytes[this.position] !== LF) this.position++;
    this.#refuseLonger(start, '"#..."');
  }

  #quoted(mark: number): Word {
    const start = this.position++;
    const inside = this.position;
    const {line} = this;
    for (let byte = this.#bytes[this.position]; byte !== mark; byte = this.#bytes[this.position]) {
      if (byte === undefined) throw new ConfigSyntaxError(line, `a quoted word has no end, probably missing terminating ${String.fromCharCode(mark)}`);
      this.#step(byte);
    }
    const text = decoded(this.#bytes.subarray(inside, this.position));
    this.position++;
    this.#refuseLonger(inside, 'in quotes', line);
    const next = this.#bytes[this.position];
    if (next !== undefined && !isBlank(next) && next !== SEMICOLON && next !== OPEN_BRACE && next !== CLOSING) throw new ConfigSyntaxError(this.line, `unexpected "${String.fromCharCode(next)}" after a quoted word`);
    return {text, start, end: this.position};
  }

  #bare(): Word {
    const start = this.position;
    const {line} = this;
    let variable = false;
    for (;;) {
      const byte = this.#bytes[this.position];
      if (byte === undefined) throw new ConfigSyntaxError(this.line, 'unexpected end of file, expecting ";" or "}"');
      // `${name}` is no block; any other `{` ends the word.
      if (this.position > start && (isBlank(byte) || byte === SEMICOLON || (byte === OPEN_BRACE && !variable))) break;
      if (!(variable && byte === OPEN_BRACE)) variable = byte === DOLLAR;
      this.#step(byte);
    }
    this.#refuseLonger(start, 'word', line);
    return {text: decoded(this.#bytes.subarray(start, this.position)), start, end: this.position};
  }

  /** Over one byte, or over a backslash with what it protects. */
  #step(byte: number): void {
    const over = byte === BACKSLASH ? 2 : 1;
    for (let i = 0; i < over; i++) if (this.#bytes[this.position++] === LF) this.line++;
  }

  #refuseLonger(start: number, what: string, line = this.line): void {
    if (this.position - start >= LONGEST_WORD) throw new ConfigSyntaxError(line, `too long parameter (${what}): ${this.position - start} bytes`);
  }
}

function isBlank(byte: number | undefined): boolean {
  return byte === BLANK || byte === TAB || byte === CR || byte === LF;
}

/** `\"`, `\'` and `\\` lose the backslash, `\t`, `\r` and `\n` become what they mean, every other backslash stays. */
function decoded(word: Buffer): string {
  return word.toString('utf8').replace(/\\(["'\\trn])/g, (_, what: string) => ({t: '\t', r: '\r', n: '\n'})[what] ?? what);
}
