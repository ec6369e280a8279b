import type {NginxConfig} from '../config/config.ts';

/** The first line of a file of ours: what begins otherwise is somebody else's and never overwritten. */
export const HEADER = '# Written by osyw-deploy; do not edit, the next deploy writes it anew.';

/**
 * The upstream file, whole. One `server` line a port, in slot order: `ip_hash` goes by the place in the list.
 * No port at all is the stopped application: the block stays valid and nginx answers 502.
 */
export function renderUpstream(nginx: NginxConfig, app: string, host: string, ports: readonly number[]): string {
  const parameters = Object.entries(nginx.server).map(([key, value]) => ` ${key}=${value}`).join('');
  const address = host.includes(':') ? `[${host}]` : host;
  const servers = ports.length === 0 ? [`server ${address}:1 down;`] : ports.map(port => `server ${address}:${port}${parameters};`);
  return [
    HEADER,
    applicationLine(app),
    `upstream ${nginx.upstream} {`,
    ...nginx.directives.map(line => `    ${line};`),
    ...servers.map(line => `    ${line}`),
    '}',
    '',
  ].join('\n');
}

/** The ports that the `server` lines of an upstream file name, in order; those marked `down` are left out. */
export function portsIn(text: string): number[] {
  const lines = withoutComments(text).matchAll(/(?<![\w.-])server\s+(?:\[[^\]]*\]|[^\s;:{}]+):(\d+)([^;{}]*);/g);
  return [...lines].filter(([, , rest]) => !/\bdown\b/.test(rest ?? '')).map(([, port]) => Number(port));
}

/** Whether a deploy of this application wrote it. */
export function isOwn(text: string, app: string): boolean {
  return text.startsWith(HEADER) && text.split('\n')[1] === applicationLine(app);
}

/**
 * Whether a file may be written over: this application's by its header, empty, or a hand-written block of this upstream and nothing else.
 * Comments count for nothing; a block with braces within, be it in quotes, is left to a person.
 */
export function mayReplace(text: string, upstream: string, app: string): boolean {
  if (text.startsWith(HEADER)) return isOwn(text, app);
  const bare = withoutComments(text).trim();
  if (bare === '') return true;
  const name = upstream.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  return new RegExp(`^upstream\\s+(?:"${name}"|'${name}'|${name})\\s*\\{[^{}]*\\}$`).test(bare);
}

/** As nginx reads: `#` begins a comment only where a word could begin, and never in quotes. Source: ngx_conf_file.c, ngx_conf_read_token. */
function withoutComments(text: string): string {
  return text.replace(/"(?:\\[^]|[^"\\])*"|'(?:\\[^]|[^'\\])*'|(?<=^|[\s;{}])#[^\n]*/g, found => found.startsWith('#') ? '' : found);
}

function applicationLine(app: string): string {
  return `# Application: ${app}`;
}
