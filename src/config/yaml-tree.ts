import {Composer, Lexer, Parser, isAlias, isMap, isScalar, isSeq} from 'yaml';
import type {CST, Document, Node, ParsedNode, YAMLMap} from 'yaml';
import type {Problem} from './problems.ts';
import {clipped, visible} from './shown.ts';

export type Path = readonly (string | number)[];

export interface YamlTree {
  /** Plain data; maps have no prototype, so `__proto__` is a key like any other. */
  readonly value: unknown;
  /** What is wrong with the file as YAML. */
  readonly problems: readonly Problem[];
  /** False when the value is only part of what the file says. */
  readonly whole: boolean;
  /** Offset of the value, or of its key, or of the nearest thing above it that is in the file. */
  readonly offsetOf: (path: Path, part: 'key' | 'value') => number;
}

// The YAML library recurses where the file nests: without these bounds 1 MB of `[` ends the process, and 1 MB of commas
// keeps it busy for a quarter of a minute. A real configuration has some hundred lexemes and five levels.
const MAX_LEXEMES = 50_000;
const MAX_DEPTH = 40;
const MAX_VALUES = 20_000;

/** Reads one YAML 1.2 document. `asWritten`: maps whose scalars are taken as the text that stands in the file. */
export function readYamlTree(text: string, asWritten: readonly string[]): YamlTree {
  const tokens = tokensOf(text);
  if ('offset' in tokens) return brokenTree([tokens]);

  const composer = new Composer<ParsedNode>({
    // Both are done below, in linear time.
    uniqueKeys: false,
    prettyErrors: false,
    merge: false,
    schema: 'core',
    logLevel: 'silent',
  });
  const documents = [...composer.compose(tokens, true, text.length)];
  const [document, second] = documents;
  if (document === undefined) return brokenTree([]);
  const complaints = [...document.errors, ...document.warnings].map(complaint => ({
    offset: complaint.pos[0],
    message: `is not valid YAML: ${clipped(visible(complaint.message), 200)}; expected a YAML 1.2 file without custom tags`,
  }));
  if (second !== undefined) {
    complaints.push({offset: second.range[0], message: 'a second document begins here; expected one application a file'});
  }
  if (document.errors.length > 0) return brokenTree(complaints);

  const reader = new PlainReader(document, asWritten);
  const value = document.contents === null ? null : reader.read(document.contents, []);
  return {
    value,
    problems: [...complaints, ...reader.problems],
    whole: !reader.gaveUp,
    offsetOf: (path, part) => offsetOf(document, path, part),
  };
}

function brokenTree(problems: readonly Problem[]): YamlTree {
  return {value: null, problems, whole: problems.length === 0, offsetOf: () => 0};
}

function tokensOf(text: string): CST.Token[] | {offset: number; message: string} {
  const parser = new Parser();
  const tokens: CST.Token[] = [];
  let offset = 0;
  let lexemes = 0;
  for (const lexeme of new Lexer().lex(text)) {
    if (++lexemes > MAX_LEXEMES) {
      return {offset, message: `the file goes on after ${MAX_LEXEMES} words and signs; expected a configuration of some hundred`};
    }
    offset += lexeme.length;
    tokens.push(...parser.next(lexeme));
  }
  tokens.push(...parser.end());
  return tooDeep(tokens) ?? tokens;
}

function tooDeep(tokens: readonly CST.Token[]): {offset: number; message: string} | undefined {
  const open: {token: CST.Token; depth: number}[] = tokens.map(token => ({token, depth: 0}));
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    const {token, depth} = next;
    if (depth > MAX_DEPTH) {
      return {offset: token.offset, message: `is nested deeper than ${MAX_DEPTH} levels; expected a configuration of about five`};
    }
    if (token.type === 'document' && token.value !== undefined) open.push({token: token.value, depth: depth + 1});
    if ('items' in token) {
      for (const item of token.items) {
        if (item.key) open.push({token: item.key, depth: depth + 1});
        if (item.value) open.push({token: item.value, depth: depth + 1});
      }
    }
  }
  return undefined;
}

class PlainReader {
  readonly problems: Problem[] = [];
  gaveUp = false;
  private values = 0;
  private readonly document: Document.Parsed;
  private readonly asWritten: ReadonlySet<string>;

  constructor(document: Document.Parsed, asWritten: readonly string[]) {
    this.document = document;
    this.asWritten = new Set(asWritten);
  }

  read(node: Node, path: Path): unknown {
    if (this.gaveUp) return null;
    if (++this.values > MAX_VALUES || path.length > MAX_DEPTH) {
      this.gaveUp = true;
      this.problems.push({offset: startOf(node), message: 'grows without end when its aliases (*name) are followed; expected plain values'});
      return null;
    }
    if (isAlias(node)) {
      const target = node.resolve(this.document);
      if (target !== undefined) return this.read(target, path);
      this.problems.push({offset: startOf(node), message: `the alias *${clipped(visible(node.source), 40)} has no anchor before it; expected &name on an earlier value`});
      return null;
    }
    if (isMap(node)) return this.readMap(node, path);
    if (isSeq(node)) return node.items.map((item, index) => this.read(item as Node, [...path, index]));
    if (!isScalar(node)) return null;
    if (this.asWritten.has(path.slice(0, -1).join('.'))) return node.source ?? '';
    return node.value;
  }

  private readMap(map: YAMLMap, path: Path): Record<string, unknown> {
    const plain = Object.create(null) as Record<string, unknown>;
    for (const {key, value} of map.items) {
      if (!isScalar(key)) {
        this.problems.push({offset: startOf(key), message: `${nameOf(path)} has a key that is not a word; expected \`key: value\``});
        continue;
      }
      const name = key.source ?? String(key.value);
      if (Object.hasOwn(plain, name)) {
        this.problems.push({offset: startOf(key), message: `${nameOf([...path, name])} stands here a second time; expected each key once`});
        continue;
      }
      const inside = [...path, name];
      plain[name] = value === null || value === undefined
        ? (this.asWritten.has(path.join('.')) ? '' : null)
        : this.read(value as Node, inside);
    }
    return plain;
  }
}

/** `workers.ports`, `release.build[0]`; `the file` for the whole. */
export function nameOf(path: Path): string {
  if (path.length === 0) return 'the file';
  const parts = path.map((part, index) => (typeof part === 'number' ? `[${part}]` : `${index > 0 ? '.' : ''}${part}`));
  return clipped(visible(parts.join('')), 100);
}

function offsetOf(document: Document.Parsed, path: Path, part: 'key' | 'value'): number {
  let node: Node | null = document.contents;
  let nearest = node === null ? 0 : startOf(node);
  for (const [index, step] of path.entries()) {
    if (isAlias(node)) node = node.resolve(document) ?? null;
    if (isMap(node)) {
      const pair = node.items.find(({key}) => isScalar(key) && (key.source ?? String(key.value)) === step);
      if (pair === undefined) return nearest;
      nearest = startOf(pair.key);
      node = (pair.value ?? null) as Node | null;
      if (part === 'key' && index === path.length - 1) return nearest;
      // An empty value has no place of its own that an eye would find.
      if (isScalar(node) && node.source === '' && node.type === 'PLAIN') return nearest;
    } else if (isSeq(node)) {
      node = (node.items[Number(step)] ?? null) as Node | null;
    } else {
      return nearest;
    }
    if (node === null) return nearest;
    if (index === path.length - 1) nearest = startOf(node);
  }
  return nearest;
}

function startOf(node: unknown): number {
  return typeof node === 'object' && node !== null && 'range' in node && Array.isArray(node.range) ? Number(node.range[0]) : 0;
}
