import {existsSync, realpathSync} from 'node:fs';
import {basename, dirname, join, resolve} from 'node:path';
import type {ConfigFile} from '../nginx/effective-config.ts';
import {globToRegExp} from '../nginx/include-glob.ts';
import {counted, type Finding} from './finding.ts';
import {placeOf, type Scope, type Setting} from './nginx-scopes.ts';
import type {NginxSettings} from './nginx-settings.ts';

/** Whether nginx reads the upstream file, or will once a deploy has written it; and whether any request is sent there. */
export function inclusion({files, scopes, passing}: NginxSettings, {upstream, file}: {upstream: string; file: string}): Finding[] {
  const read = files.some(({path}) => realPath(path) === realPath(file)) || (!existsSync(file) && includes(files, scopes).some(({pattern}) => fits(pattern, file)));
  const found: Finding[] = [read ? {check: 'nginx-includes-upstream', level: 'ok', says: `nginx reads ${file}`, place: file} : {
    check: 'nginx-includes-upstream', level: 'problem', place: files[0]?.path ?? file, says: `the running nginx does not read ${file}: no file of its configuration includes it`,
    means: 'the switch of every deploy is refused (SWITCH_REFUSED); the line belongs into `http { }`', mend: `include ${file};`,
  }];
  if (passing.length === 0) {
    found.push({
      check: 'nginx-passes-to-upstream', level: 'warning', place: files[0]?.path ?? file, says: `no location of nginx sends requests to upstream ${upstream} by its name`,
      means: 'a deploy changes nothing that a client would see', mend: `proxy_pass http://${upstream};`,
    });
  } else {
    found.push({check: 'nginx-passes-to-upstream', level: 'ok', says: `${counted(passing.length, 'location')} of nginx ${passing.length === 1 ? 'sends' : 'send'} requests to upstream ${upstream}`, place: passing.map(({setting}) => placeOf(setting)).join(', ')});
  }
  return found;
}

/** Names that editors, package managers and people give to what is not to be loaded. */
const STRAYS = (name: string) => [`${name}.tmp`, `${name}~`, `${name}.bak`, `${name}.dpkg-dist`, `${name}.rpmnew`];

/** Whether an `include` would load what is not meant to be: our candidate, or a copy that somebody left beside the upstream file. */
export function includeGlobs({files, scopes}: NginxSettings, {file, candidate}: {file: string; candidate: string}): Finding[] {
  const check = 'nginx-include-temporary';
  const [directory, name] = [dirname(file), basename(file)];
  const matching = includes(files, scopes).filter(({pattern}) => fits(pattern, file) || fits(pattern, candidate));
  if (matching.length === 0) return [];
  const found = matching.flatMap(({pattern, setting}): Finding[] => {
    const mend = `include ${join(directory, '*.conf')};`;
    if (fits(pattern, candidate)) {
      return [{check, level: 'problem', place: placeOf(setting), says: `include ${pattern} fits ${candidate}, which a deploy writes before it is renamed into place`, means: 'a reload at that moment finds the upstream twice and fails', mend}];
    }
    const stray = STRAYS(name).find(one => fits(pattern, join(directory, one)));
    if (stray === undefined) return [];
    return [{check, level: 'warning', place: placeOf(setting), says: `include ${pattern} fits ${stray}, too`, means: 'a copy that an editor or a package leaves there is loaded: nginx finds the upstream twice, and every reload fails until it is gone', mend}];
  });
  return found.length > 0 ? found : [{check, level: 'ok', says: `${matching.map(({pattern}) => `include ${pattern}`).join(', ')} loads no temporary file`}];
}

function includes(files: readonly ConfigFile[], scopes: readonly Scope[]): {pattern: string; setting: Setting}[] {
  const main = files[0]?.path ?? '/';
  const found = scopes.flatMap(({settings}) => settings).filter(({directive: {name, args}}) => name.text === 'include' && args[0] !== undefined)
    .map(setting => ({pattern: resolve(dirname(main), setting.directive.args[0]?.text ?? ''), setting}));
  return [...new Map(found.map(one => [one.setting.directive, one])).values()];
}

function fits(pattern: string, path: string): boolean {
  return /[*?[]/.test(pattern) ? globToRegExp(pattern).test(path) : pattern === path;
}

function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path; // Not there, or not ours to follow: it is then only equal to itself.
  }
}
