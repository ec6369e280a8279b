import {includedFiles, type ConfigFile} from '../nginx/effective-config.ts';
import type {Directive} from '../nginx/parse-config.ts';

/** A directive, and the file that it stands in. */
export interface Setting {
  readonly file: string;
  readonly directive: Directive;
}

/** A block of nginx's configuration with its includes put in: `http`, `server`, `location` …; the outermost has no name. */
export interface Scope {
  readonly name: string;
  readonly settings: readonly Setting[];
  readonly outer: Scope | undefined;
  /** The directive that opens it. */
  readonly opened: Setting | undefined;
}

/** A block that sends requests to an upstream. */
export interface Passing {
  readonly scope: Scope;
  /** `proxy`, `fastcgi`, `uwsgi`, `scgi` or `grpc`: what the names of its directives begin with. */
  readonly by: string;
  readonly setting: Setting;
}

/** Includes may go round in a circle only where nginx does not read them; this ends it. */
const DEEPEST = 32;

/** All blocks, the outermost first. */
export function scopesOf(files: readonly ConfigFile[]): Scope[] {
  const [main] = files;
  if (main === undefined) return [];
  const scopes: Scope[] = [];
  const open = (name: string, settings: readonly Setting[], outer: Scope | undefined, opened: Setting | undefined) => {
    const scope = {name, settings, outer, opened};
    scopes.push(scope);
    for (const setting of settings) {
      const {name: word, block} = setting.directive;
      if (block !== undefined) open(word.text, flattened(files, setting.file, block, DEEPEST), scope, setting);
    }
  };
  open('', flattened(files, main.path, main.directives, DEEPEST), undefined, undefined);
  return scopes;
}

function flattened(files: readonly ConfigFile[], file: string, directives: readonly Directive[], depth: number): Setting[] {
  return directives.flatMap(directive => {
    const [pattern] = directive.args;
    if (directive.name.text !== 'include' || pattern === undefined || depth === 0) return [{file, directive}];
    return [{file, directive}, ...includedFiles(files, pattern.text).flatMap(included => flattened(files, included.path, included.directives, depth - 1))];
  });
}

/** The directive that holds in a block: its own, else that of the nearest around it. So nginx inherits all but a few, and the last one of a block counts. */
export function settingIn(scope: Scope | undefined, name: string): Setting | undefined {
  if (scope === undefined) return undefined;
  return scope.settings.findLast(({directive}) => directive.name.text === name) ?? settingIn(scope.outer, name);
}

/** The values of a directive that holds in a block; undefined where nobody says it. */
export function valuesIn(scope: Scope | undefined, name: string): readonly string[] | undefined {
  return settingIn(scope, name)?.directive.args.map(({text}) => text);
}

/** The blocks that pass requests to an upstream by its name. One that is put together of variables cannot be told. */
export function passingTo(scopes: readonly Scope[], upstream: string): Passing[] {
  return scopes.flatMap(scope => scope.settings.flatMap(setting => {
    const {name, args: [target]} = setting.directive;
    const by = /^(proxy|fastcgi|uwsgi|scgi|grpc)_pass$/.exec(name.text)?.[1];
    if (by === undefined || target === undefined || isWithin(scope, 'stream')) return [];
    return target.text.replace(/^(?:https?|grpcs?|suwsgi|uwsgi):\/\//, '').replace(/\/.*$/s, '') === upstream ? [{scope, by, setting}] : [];
  }));
}

function isWithin(scope: Scope | undefined, name: string): boolean {
  return scope !== undefined && (scope.name === name || isWithin(scope.outer, name));
}

/** `/etc/nginx/nginx.conf:12`. */
export function placeOf({file, directive}: Setting): string {
  return `${file}:${directive.line}`;
}

/** Milliseconds of a time as nginx writes it: `60s`, `1m 30s` without the blank, `5`; undefined when it is none. Source: ngx_parse.c, ngx_parse_time. */
export function nginxTime(text: string): number | undefined {
  if (/^\d+$/.test(text)) return Number(text) * 1000;
  const units: Readonly<Record<string, number>> = {ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000, w: 7 * 86_400_000, M: 30 * 86_400_000, y: 365 * 86_400_000};
  if (!/^(?:\d+(?:ms|[smhdwMy])\s*)+(?:\d+)?$/.test(text)) return undefined;
  return [...text.matchAll(/(\d+)(ms|[smhdwMy]|$)/g)].reduce((sum, [, amount, unit]) => sum + Number(amount) * (units[unit ?? ''] ?? 1000), 0);
}
