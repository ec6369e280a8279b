import {asObject, contentOf, isProgram, isThere, noteOfPort, objectIn, plainWords, type PortWay} from './project-files.ts';
import type {ProgramFinding} from './propose-config.ts';

/** What a framework starts from, once `npm run build` has made it. */
const FRAMEWORKS: readonly {readonly needs: string; readonly what: string; readonly words: readonly string[]; readonly env?: Readonly<Record<string, string>>}[] = [
  {needs: 'next', what: 'Next.js', words: ['node_modules/next/dist/bin/next', 'start', '-H', '127.0.0.1', '-p', '{port}']},
  {needs: 'nuxt', what: 'Nuxt', words: ['.output/server/index.mjs'], env: {HOST: '127.0.0.1'}},
  {needs: '@nestjs/core', what: 'Nest', words: ['dist/main.js']},
  {needs: '@sveltejs/adapter-node', what: 'SvelteKit', words: ['build'], env: {HOST: '127.0.0.1'}},
];

/** Node with package.json, or with a file that starts a server. */
export function recogniseNode(directory: string): ProgramFinding | undefined {
  const node = nodePath();
  const manifest = objectIn(contentOf(directory, 'package.json'));
  if (manifest === undefined) {
    const file = ['server.js', 'server.mjs', 'server.cjs', 'index.js', 'index.mjs', 'app.js', 'app.mjs', 'main.js'].find(name => startsServer(contentOf(directory, name)));
    return file === undefined ? undefined : ofFile({directory, node, file, words: [file], what: `Node (${file})`, build: [], env: {}});
  }
  const needs = {...asObject(manifest['dependencies']), ...asObject(manifest['devDependencies'])};
  const scripts = asObject(manifest['scripts']) ?? {};
  const framework = FRAMEWORKS.find(one => one.needs in needs);
  const makes = typeof scripts['build'] === 'string';
  if (framework !== undefined && makes) {
    return {what: `${framework.what} (package.json)`, command: [node, ...framework.words], build: [...install(directory, needs, true), ['npm', 'run', 'build']], env: {NODE_ENV: 'production', ...framework.env}, note: 'the program itself rather than npm, so that a signal reaches it; its port is in $PORT, too'};
  }
  const started = startWords(scripts['start']);
  const main = typeof manifest['main'] === 'string' && /^[\w./-]+$/.test(manifest['main']) ? manifest['main'] : undefined;
  const words = started?.words ?? [['server.js', 'index.js', 'app.js', 'main.js', 'server.mjs', 'index.mjs'].find(name => main === undefined && contentOf(directory, name) !== '') ?? main ?? 'server.js'];
  if (started === undefined && typeof scripts['start'] === 'string' && scripts['start'].trim() !== '') {
    return {what: 'Node (package.json)', command: ['npm', 'run', '--silent', 'start'], build: install(directory, needs, makes), note: 'only npm can read its `start`; CHECK that the program ends when npm is told to, and that it listens on $PORT of 127.0.0.1'};
  }
  const file = words.find(word => /\.[cm]?js$/.test(word)) ?? words[0] ?? 'server.js';
  const made = makes && !isThere(directory, file);
  return ofFile({directory, node, file, words, what: 'Node (package.json)', build: [...install(directory, needs, made), ...(made ? [['npm', 'run', 'build']] : [])], env: started?.env ?? {}});
}

export function nodePath(): string {
  return ['/usr/bin/node', '/usr/local/bin/node'].find(isProgram) ?? process.execPath;
}

/** `node server.js` with its options and variables; undefined for what needs a shell, or is another program. */
function startWords(start: unknown): {words: string[]; env: Record<string, string>} | undefined {
  const words = typeof start === 'string' ? plainWords(start) : undefined;
  if (words === undefined) return undefined;
  const env: Record<string, string> = {};
  while (/^[A-Z_][A-Z0-9_]*=/.test(words[0] ?? '')) {
    const [, name = '', value = ''] = /^([^=]+)=(.*)$/.exec(words.shift() ?? '') ?? [];
    env[name] = value;
  }
  return words[0] === 'node' && words.length > 1 ? {words: words.slice(1), env} : undefined;
}

function ofFile({directory, node, file, words, what, build, env}: {directory: string; node: string; file: string; words: readonly string[]; what: string; build: ProgramFinding['build']; env: Readonly<Record<string, string>>}): ProgramFinding {
  const source = contentOf(directory, file);
  const way = portWayOf(source);
  const {note, changes} = noteOfPort(words.includes('{port}') ? {kind: 'words', words: []} : way, file);
  const more = way.kind === 'words' && !words.includes('{port}') ? way.words : [];
  const missing = source === '' && !build.some(command => command.join(' ') === 'npm run build') ? [`workers.command names ${file}, which is not there: it is only a guess`] : [];
  return {what, command: [node, ...words, ...more], build, env, note: `${note}${/\bexpress\b|\bkoa\b/.test(source) && !/NODE_ENV/.test(Object.keys(env).join()) ? '; env: {NODE_ENV: production} makes it quicker' : ''}`, changes: [...missing, ...changes]};
}

function startsServer(source: string): boolean {
  return /\bcreateServer\(|\.listen\(/.test(source);
}

function portWayOf(source: string): PortWay {
  if (/process\.env(?:\.PORT\b|\[['"]PORT['"]\])|\{[^}]*\bPORT\b[^}]*\}\s*=\s*process\.env/.test(source)) return {kind: 'environment'};
  if (/\bprocess\.argv\b/.test(source)) return {kind: 'words', words: ['{port}']};
  const fixed = /\.listen\(\s*(\d{2,5})\b/.exec(source)?.[1] ?? /\b(?:port|PORT)\s*[=:]\s*(\d{2,5})\b/.exec(source)?.[1];
  return fixed === undefined ? {kind: 'unknown'} : {kind: 'fixed', port: fixed};
}

/** `makes`: something is built of it, which takes what only developers need. */
function install(directory: string, needs: object, makes: boolean): readonly (readonly string[])[] {
  if (Object.keys(needs).length === 0) return [];
  if (isThere(directory, 'pnpm-lock.yaml')) return [['pnpm', 'install', '--frozen-lockfile', ...(makes ? [] : ['--prod'])]];
  if (isThere(directory, 'yarn.lock')) return [['yarn', 'install', '--frozen-lockfile', ...(makes ? [] : ['--production'])]];
  const omit = makes ? [] : ['--omit=dev'];
  return isThere(directory, 'package-lock.json') ? [['npm', 'ci', ...omit]] : [['npm', 'install', '--no-audit', '--no-fund', ...omit]];
}
