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
  return [...text.matchAll(/^\s*server\s+\S*?:(\d+)([^;]*);/gm)].filter(([, , rest]) => !/\bdown\b/.test(rest ?? '')).map(([, port]) => Number(port));
}

/**
 * Whether a file may be written over: this application's by its header, empty, or a hand-written block of this upstream and nothing else.
 * Comments count for nothing.
 */
export function mayReplace(text: string, upstream: string, app: string): boolean {
  if (text.startsWith(HEADER)) return text.split('\n')[1] === applicationLine(app);
  const bare = text.replace(/(^|\s)#[^\n]*/g, '$1').trim();
  if (bare === '') return true;
  const name = upstream.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  return new RegExp(`^upstream\\s+(?:"${name}"|'${name}'|${name})\\s*\\{[^{}]*\\}$`).test(bare);
}

function applicationLine(app: string): string {
  return `# Application: ${app}`;
}
