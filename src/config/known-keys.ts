import {nearest} from './nearest.ts';
import {settingsSchema} from './schema.ts';
import {nameOf} from './yaml-tree.ts';
import type {Path} from './yaml-tree.ts';

export interface Refusal {
  readonly path: Path;
  readonly part: 'key' | 'value';
  readonly message: string;
}

// valibot never looks at these three, and reports one unknown key at most; so keys are checked here, before it.
const POISONOUS = new Set(['__proto__', 'constructor', 'prototype']);

/** The same data without the keys that the schema does not know, and a refusal for each of those. */
export function withKnownKeys(value: unknown): {value: unknown; refusals: readonly Refusal[]} {
  const refusals: Refusal[] = [];
  return {value: keepKnown(settingsSchema, value, [], refusals), refusals};
}

function keepKnown(schema: unknown, value: unknown, path: Path, refusals: Refusal[]): unknown {
  const form = formOf(schema);
  if (form === undefined) return value;
  // A section whose keys are all commented out is an empty section.
  const given = form.entries !== undefined && (value === null || value === undefined) ? {} : value;
  if (Array.isArray(given)) {
    refusals.push({path, part: 'key', message: `${nameOf(path)} is a list; expected a map of keys`});
    return undefined;
  }
  if (typeof given !== 'object' || given === null) return given;

  const known: Record<string, unknown> = {};
  for (const [key, inside] of Object.entries(given)) {
    const here = [...path, key];
    const rule = form.entries === undefined ? form.rest : Object.hasOwn(form.entries, key) ? form.entries[key] : undefined;
    if (POISONOUS.has(key) || rule === undefined) {
      refusals.push({path: here, part: 'key', message: unknownKey(here, Object.keys(form.entries ?? {}))});
    } else {
      known[key] = keepKnown(rule, inside, here, refusals);
    }
  }
  for (const [key, rule] of Object.entries(form.entries ?? {})) {
    if (!Object.hasOwn(known, key) && formOf(rule)?.entries !== undefined) known[key] = {};
  }
  return known;
}

function unknownKey(path: Path, siblings: readonly string[]): string {
  const name = nameOf(path);
  if (siblings.length === 0) return `${name} is not a name that can be used; expected another one`;
  const key = String(path.at(-1));
  const meant = nearest(key, siblings) ?? pathsEndingIn(key).find(candidate => candidate !== path.join('.'));
  return meant === undefined
    ? `${name} is not a key of osyw-deploy; expected one of ${siblings.join(', ')}`
    : `${name} is not a key of osyw-deploy; did you mean ${meant}?`;
}

/** Where else a key of this name belongs: `upstream` is `nginx.upstream`. */
function pathsEndingIn(key: string, schema: unknown = settingsSchema, above: readonly string[] = []): string[] {
  return Object.entries(formOf(schema)?.entries ?? {}).flatMap(([name, rule]) => [
    ...(name === key ? [[...above, name].join('.')] : []),
    ...pathsEndingIn(key, rule, [...above, name]),
  ]);
}

interface Form {
  /** The keys of a section; undefined for a map with keys of the user's own. */
  readonly entries: Readonly<Record<string, unknown>> | undefined;
  readonly rest: unknown;
}

function formOf(schema: unknown): Form | undefined {
  if (!isRecord(schema)) return undefined;
  if (schema['wrapped'] !== undefined) return formOf(schema['wrapped']);
  if (schema['type'] === 'record') return {entries: undefined, rest: schema['value']};
  return isRecord(schema['entries']) ? {entries: schema['entries'], rest: undefined} : undefined;
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null;
}
