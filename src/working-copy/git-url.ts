import {isAbsolute, resolve} from 'node:path';
import {fileURLToPath} from 'node:url';
import {DeployError} from '../errors.ts';
import {shownText} from './shown-text.ts';

export interface GitRemote {
  readonly url: string;
  /** What GIT_ALLOW_PROTOCOL calls it: nothing but the way that this URL goes is allowed. */
  readonly protocol: 'https' | 'http' | 'ssh' | 'git' | 'file';
  /** The repository's directory, when it is on this machine. */
  readonly path: string | undefined;
}

const PROTOCOLS = ['https', 'http', 'ssh', 'git', 'file'] as const;

/**
 * A remote that git may be given. An allow-list, because `ext::` runs a command and a leading dash is an option.
 * `from`: the directory that a relative path starts at. Errors: CONFIG_INVALID.
 */
export function gitRemote(url: string, from: string): GitRemote {
  const scheme = /^([a-z][a-z0-9+.-]*):\/\//i.exec(url)?.[1]?.toLowerCase();
  const protocol = PROTOCOLS.find(name => name === scheme);
  if (protocol === 'file') return {url, protocol, path: fileURLToPath(url)};
  if (protocol !== undefined && !/^[^:]+:\/\/(?:[^/@]*@)?-/.test(url)) return {url, protocol, path: undefined};
  if (scheme === undefined && !url.includes('::') && !url.startsWith('-')) {
    if (isAbsolute(url)) return {url, protocol: 'file', path: url};
    if (/^[^/:]+:[^-]/.test(url)) return {url, protocol: 'ssh', path: undefined};
    if (!url.includes(':') && url !== '') return {url: resolve(from, url), protocol: 'file', path: resolve(from, url)};
  }
  throw new DeployError('CONFIG_INVALID', `"${shownText(url)}" is not a git URL that osyw-deploy takes.`, {
    hint: 'Expected https://, http://, ssh:// or git:// with a host, user@host:path, file:// or an absolute path.',
  });
}

/** The same repository, whatever small way it is written in. */
export function sameRemote(a: GitRemote, b: GitRemote): boolean {
  return canonical(a) === canonical(b);
}

function canonical({url, path}: GitRemote): string {
  const text = path ?? url.replace(/^([a-z+]+:\/\/)(?:[^/@]*@)?([^/]*)/i, (_, scheme: string, host: string) => (scheme + host).toLowerCase());
  return text.replace(/\/+$/, '').replace(/\/\.git$/, '').replace(/\.git$/, '');
}
