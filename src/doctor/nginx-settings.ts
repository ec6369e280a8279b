import type {NginxConfig} from '../config/config.ts';
import {findUpstreams, type ConfigFile} from '../nginx/effective-config.ts';
import {parseConfig, type Directive} from '../nginx/parse-config.ts';
import {serverLines} from '../nginx/server-lines.ts';
import {passingTo, placeOf, type Passing, type Scope} from './nginx-scopes.ts';

/** What the checks of nginx's settings look at. */
export interface NginxSettings {
  /** As nginx reads them, the main file first. */
  readonly files: readonly ConfigFile[];
  readonly scopes: readonly Scope[];
  /** The blocks that send requests to our upstream. */
  readonly passing: readonly Passing[];
  /** The upstream's directives but for its servers, and those servers' parameters: as the next deploy writes them, or leaves them. */
  readonly directives: readonly Directive[];
  readonly servers: readonly {readonly address: string; readonly parameters: readonly string[]}[];
  /** Where they are written down. */
  readonly place: string;
  /** A line of the block as it is to be written there. */
  write(line: string): string;
  /** Undefined where it is not known. */
  readonly version: readonly number[] | undefined;
}

export function nginxSettings(files: readonly ConfigFile[], scopes: readonly Scope[], version: readonly number[] | undefined, {nginx, count}: {nginx: NginxConfig; count: number}): NginxSettings {
  const common = {files, scopes, version, passing: passingTo(scopes, nginx.upstream)};
  if (!writesBlock(nginx)) {
    const [found] = findUpstreams(files, nginx.upstream);
    const lines = found === undefined ? [] : serverLines(found.directive).filter(({down, backup}) => !down && !backup);
    const place = found === undefined ? 'nginx.edit' : placeOf({file: found.file.path, directive: found.directive});
    return {...common, place, directives: found?.directive.block ?? [], servers: lines.map(({address, parameters}) => ({address: address.text, parameters: parameters.map(({text}) => text)})), write: line => `${line};`};
  }
  const servers = Array.from({length: count}, () => ({address: 'HOST:PORT', parameters: Object.entries(nginx.server).map(([key, value]) => `${key}=${value}`)}));
  const directives = parseConfig(Buffer.from(nginx.directives.map(line => `${line};\n`).join('')));
  const others = (line: string) => nginx.directives.filter(one => one.split(/\s/)[0] !== line.split(/\s/)[0]);
  return {...common, place: 'nginx.directives', directives, servers, write: line => `directives: [${[...others(line), line].map(word => JSON.stringify(word)).join(', ')}]`};
}

/** Whether a deploy writes the whole block, from the configuration alone. */
export function writesBlock(nginx: NginxConfig): boolean {
  return nginx.edit !== true;
}
