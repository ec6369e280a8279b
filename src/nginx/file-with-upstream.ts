import {readdirSync, realpathSync} from 'node:fs';
import {dirname, isAbsolute, join} from 'node:path';
import type {NginxConfig} from '../config/config.ts';
import {readRegularFile} from '../state/atomic-file.ts';
import {findUpstreams, parsed, type ConfigFile, type FoundUpstream} from './effective-config.ts';
import {globToRegExp} from './include-glob.ts';
import type {Directive} from './parse-config.ts';

/**
 * The file with our upstream: `nginx.edit`, or one that it includes, as a main file does. Where none has it, or two have, the named one.
 * nginx is not asked: whether it reads the file, the test of a switch tells.
 */
export function fileWithUpstream({file, upstream, conf}: NginxConfig): string {
  const bytes = readIfPossible(file);
  if (bytes === undefined) return file;
  const named = parsed({path: file, bytes});
  if (upstreamsIn(named, upstream).length > 0) return file;
  const all = withIncluded(named, dirname(conf ?? file));
  const inMain = findUpstreams(all, upstream);
  const found = inMain.length > 0 ? inMain : findUpstreams(all, upstream, 'http');
  return found.length === 1 ? found[0]?.file.path ?? file : file;
}

/** Those in the text of one file, be it a main file or one that is included in `http`. */
export function upstreamsIn(file: ConfigFile, name: string): FoundUpstream[] {
  const found = findUpstreams([file], name);
  return found.length > 0 ? found : findUpstreams([file], name, 'http');
}

/** The main file and all that it includes, as far as this account may read them; none when it may not read the first. nginx is not asked. */
export function filesFrom(main: string): ConfigFile[] {
  const bytes = readIfPossible(main);
  return bytes === undefined ? [] : withIncluded(parsed({path: main, bytes}), dirname(main));
}

/** The file and all that it includes, each once. */
function withIncluded(file: ConfigFile, base: string): ConfigFile[] {
  const files = [file];
  // Grows while it is gone through.
  for (const {directives} of files) {
    for (const path of includesIn(directives).flatMap(pattern => pathsOf(isAbsolute(pattern) ? pattern : join(base, pattern)))) {
      const bytes = files.some(known => known.path === path) ? undefined : readIfPossible(path);
      if (bytes !== undefined) files.push(parsed({path, bytes}));
    }
  }
  return files;
}

function includesIn(directives: readonly Directive[]): string[] {
  return directives.flatMap(({name, args: [first], block}) => [
    ...(name.text === 'include' && first !== undefined ? [first.text] : []),
    ...includesIn(block ?? []),
  ]);
}

/** What glob(3) would find, directory by directory. */
function pathsOf(pattern: string): string[] {
  const [, ...steps] = pattern.split('/');
  return steps.reduce<string[]>((paths, step) => paths.flatMap(path => {
    if (!/[*?[]/.test(step)) return [`${path}/${step}`];
    const names = globToRegExp(step);
    return namesIn(path === '' ? '/' : path).filter(name => names.test(name)).sort().map(name => `${path}/${name}`);
  }), ['']);
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return []; // No directory, or none that we may read: glob(3) passes over it.
  }
}

function readIfPossible(path: string): Buffer | undefined {
  try {
    return readRegularFile(realpathSync(path));
  } catch {
    return undefined; // What cannot be read has no block that could be edited; nginx says what is wrong with it.
  }
}
