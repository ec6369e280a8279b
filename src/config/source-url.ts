import {isAbsolute, normalize} from 'node:path';
import {shown} from './shown.ts';

const SCHEMES: Readonly<Record<string, readonly ('svn' | 'git')[]>> = {
  svn: ['svn'],
  'svn+ssh': ['svn'],
  http: ['svn', 'git'],
  https: ['svn', 'git'],
  file: ['svn', 'git'],
  ssh: ['git'],
  git: ['git'],
};
const EXPECTED = 'svn://, svn+ssh://, http(s)://, file://, ssh:// or git:// with a host, user@host:path, or an absolute path';

/**
 * What is wrong with `source.url`, as `is …; expected …`; undefined when nothing is.
 * An allow-list: git's `ext::` and svn's tunnels run commands, and a host that begins with a dash is an option to ssh.
 */
export function sourceUrlFault(url: string): string | undefined {
  const refused = `is ${shown(url)}; expected ${EXPECTED}`;
  // oxlint-disable-next-line no-control-regex
  if (/[\u0000-\u001f\u007f]/.test(url) || url.startsWith('-')) return refused;
  if (url.startsWith('/')) return isAbsolute(url) && normalize(url) === url ? undefined : refused;

  const withScheme = /^([a-z][a-z+]*):\/\/([^/]*)(\/.*)?$/i.exec(url);
  if (withScheme === null) return isScpLike(url) ? undefined : refused;
  const [, scheme = '', authority = '', path = ''] = withScheme;
  if (!Object.hasOwn(SCHEMES, scheme.toLowerCase())) return refused;

  // A password may hold a slash, so the userinfo is looked for in all that stands before the last `@` too.
  const userinfo = authority.includes('@') ? authority.slice(0, authority.lastIndexOf('@')) : '';
  if (userinfo.includes(':') || (/:(?!\d+$)/.test(authority.replace(/\[.*\]/, '')) && path.includes('@'))) {
    return 'holds a password; expected it in a file of its own: use source.username and source.password_file';
  }
  if (/\s/.test(url) || !/^[A-Za-z0-9._~%+]?[A-Za-z0-9._~%+-]*$/.test(userinfo) || userinfo.startsWith('-')) return refused;
  const host = authority.slice(userinfo === '' ? 0 : userinfo.length + 1);
  if (scheme.toLowerCase() === 'file') return host === '' || host === 'localhost' ? undefined : refused;
  return /^(?:[A-Za-z0-9_][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?$/.test(host) ? undefined : refused;
}

/** The systems that a URL can belong to, by its form alone. */
export function systemsOf(url: string): readonly ('svn' | 'git')[] {
  const scheme = /^([a-z][a-z+]*):\/\//i.exec(url)?.[1]?.toLowerCase();
  if (scheme === undefined) return ['git'];
  return Object.hasOwn(SCHEMES, scheme) ? (SCHEMES[scheme] ?? []) : [];
}

function isScpLike(url: string): boolean {
  return /^[A-Za-z0-9_][A-Za-z0-9._-]*@(?:[A-Za-z0-9_][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\]):(?![-:])[^\s]+$/.test(url);
}
