import {join} from 'node:path';
import {contentOf, isProgram, isThere, namesIn, noteOfPort, objectIn, asObject, type PortWay} from './project-files.ts';
import type {ProgramFinding} from './propose-config.ts';

const LISTEN = '127.0.0.1:{port}';

/** Rack and Rails, by whichever server the Gemfile has. */
export function recogniseRuby(directory: string): ProgramFinding | undefined {
  if (contentOf(directory, 'config.ru') === '') return undefined;
  const gems = `${contentOf(directory, 'Gemfile.lock')}\n${contentOf(directory, 'Gemfile')}`;
  const rails = isThere(directory, 'config/application.rb');
  const bundled = gems.trim() !== '';
  const servers: readonly (readonly [RegExp, readonly string[]])[] = [
    [/^\s*(?:gem ['"])?puma\b/m, ['puma', '--bind', `tcp://${LISTEN}`]],
    [/^\s*(?:gem ['"])?unicorn\b/m, ['unicorn', '--listen', LISTEN]],
    [/^\s*(?:gem ['"])?falcon\b/m, ['falcon', 'serve', '--bind', `http://${LISTEN}`]],
    [/^\s*(?:gem ['"])?thin\b/m, ['thin', 'start', '--address', '127.0.0.1', '--port', '{port}']],
  ];
  const server = servers.find(([gem]) => gem.test(gems))?.[1];
  const words = server ?? ['puma', '--bind', `tcp://${LISTEN}`];
  const check = rails && /rails\/health#show/.test(contentOf(directory, 'config/routes.rb')) ? {path: '/up', reason: 'the health check of Rails itself'} : undefined;
  return {
    what: rails ? 'Rails (config.ru)' : 'Rack (config.ru)',
    command: ['bundle', 'exec', ...words],
    build: bundled ? [['bundle', 'config', 'set', '--local', 'deployment', 'true'], ['bundle', 'install'], ...(rails && namesIn(join(directory, 'app/assets')).length > 0 ? [['env', 'RAILS_ENV=production', 'SECRET_KEY_BASE_DUMMY=1', 'bundle', 'exec', 'rails', 'assets:precompile']] : [])] : [['bundle', 'install']],
    env: rails ? {RAILS_ENV: 'production'} : {RACK_ENV: 'production'},
    note: `${server === undefined ? 'CHECK that puma is in the Gemfile' : `by ${words[0]}, which the Gemfile has`}${rails ? '; SECRET_KEY_BASE belongs into workers.env_file, mode 0600' : ''}`,
    changes: server === undefined ? ['workers.command takes puma, for the Gemfile names no server that is known here'] : [],
    ...(check === undefined ? {} : {check}),
  };
}

/** What keeps PHP running on a port of its own; with php-fpm there is no such thing. */
export function recognisePhp(directory: string): ProgramFinding | undefined {
  const composer = objectIn(contentOf(directory, 'composer.json'));
  const root = isThere(directory, 'public/index.php') ? 'public' : isThere(directory, 'index.php') ? '.' : undefined;
  if (composer === undefined && root === undefined) return undefined;
  const needs = asObject(composer?.['require']) ?? {};
  const build = composer === undefined || Object.keys(needs).every(name => name === 'php' || name.startsWith('ext-')) ? [] : [['composer', 'install', '--no-dev', '--no-interaction', '--optimize-autoloader']];
  const kept = (what: string, command: readonly string[], note: string): ProgramFinding => ({what, command, build, note});
  if ('laravel/octane' in needs) return kept('Laravel Octane (composer.json)', ['php', 'artisan', 'octane:start', '--host=127.0.0.1', '--port={port}'], 'the application stays in memory; CHECK which server config/octane.php names');
  if (isThere(directory, '.rr.yaml')) return kept('RoadRunner (.rr.yaml)', [isProgram(join(directory, 'rr')) ? './rr' : 'rr', 'serve', '-o', `http.address=${LISTEN}`], 'CHECK that .rr.yaml opens no other port (rpc, metrics), which several workers cannot share');
  if ('runtime/frankenphp-symfony' in needs || /\bfrankenphp\b/.test(contentOf(directory, 'Caddyfile'))) return kept('FrankenPHP', ['frankenphp', 'php-server', '--listen', LISTEN, '--root', root ?? 'public'], 'the application stays in memory');
  const swoole = namesIn(directory).find(name => /^\w[\w.-]*\.php$/.test(name) && /\b(?:Swoole|OpenSwoole)\\\\?Http\\\\?Server\b/i.test(contentOf(directory, name)));
  if (swoole !== undefined) {
    const way = phpPortWay(contentOf(directory, swoole));
    const {note, changes} = noteOfPort(way, swoole);
    return {...kept(`Swoole (${swoole})`, ['php', swoole, ...(way.kind === 'words' ? way.words : [])], note), changes};
  }
  if (root === undefined) return undefined;
  return {
    ...kept(`PHP (${root === '.' ? '' : `${root}/`}index.php)`, ['php', '-S', LISTEN, '-t', root], 'CHANGE this: `php -S` is for development. php-fpm is no worker on a port of its own, nginx speaks FastCGI with it; FrankenPHP, RoadRunner, Swoole or Octane are'),
    changes: ['workers.command is `php -S`, which is for development; php-fpm would be no worker on a port of its own. FrankenPHP, RoadRunner, Swoole or Laravel Octane are'],
  };
}

function phpPortWay(source: string): PortWay {
  if (/getenv\(\s*['"]PORT['"]|\$_(?:ENV|SERVER)\[\s*['"]PORT['"]/.test(source)) return {kind: 'environment'};
  if (/\$argv\[/.test(source)) return {kind: 'words', words: ['{port}']};
  const fixed = /Server\(\s*['"][^'"]*['"]\s*,\s*(\d{2,5})/.exec(source)?.[1];
  return fixed === undefined ? {kind: 'unknown'} : {kind: 'fixed', port: fixed};
}

export function recogniseGo(directory: string): ProgramFinding | undefined {
  if (contentOf(directory, 'go.mod') === '') return undefined;
  const sourceIn = (folder: string) => namesIn(folder).filter(name => name.endsWith('.go') && !name.endsWith('_test.go')).map(name => contentOf(folder, name)).join('\n');
  const own = sourceIn(directory);
  const commands = namesIn(join(directory, 'cmd')).filter(name => /^[\w-]+$/.test(name) && /^package main\b/m.test(sourceIn(join(directory, 'cmd', name))));
  const command = /^package main\b/m.test(own) ? undefined : commands.find(name => ['server', 'web', 'api', 'serve'].includes(name)) ?? commands[0];
  const source = command === undefined ? own : sourceIn(join(directory, 'cmd', command));
  const flag = /\.(?:String|Int|Uint)(?:Var)?\(\s*(?:&\w+\s*,\s*)?"((?:http-?)?(?:port|addr|address|listen|bind))"/.exec(source)?.[1];
  const way: PortWay = flag !== undefined ? {kind: 'words', words: [`-${flag}`, /port/.test(flag) ? '{port}' : LISTEN]}
    : /\b(?:Getenv|LookupEnv)\("PORT"\)/.test(source) ? {kind: 'environment'} : fixedPort(/"[\w.]*:(\d{2,5})"/.exec(source)?.[1]);
  const {note, changes} = noteOfPort(way, 'the program');
  return {what: `Go (go.mod${command === undefined ? '' : `, cmd/${command}`})`, command: ['./server', ...(way.kind === 'words' ? way.words : [])], build: [['go', 'build', '-o', 'server', command === undefined ? '.' : `./cmd/${command}`]], note, changes};
}

export function recogniseRust(directory: string): ProgramFinding | undefined {
  const manifest = contentOf(directory, 'Cargo.toml');
  const name = /^\[\[bin\]\][^[]*?^name\s*=\s*"([\w-]+)"/ms.exec(manifest)?.[1] ?? /^\[package\][^[]*?^name\s*=\s*"([\w-]+)"/ms.exec(manifest)?.[1];
  if (name === undefined) return undefined;
  const source = contentOf(directory, 'src/main.rs');
  const way: PortWay = /\bvar(?:_os)?\(\s*"PORT"\s*\)/.test(source) ? {kind: 'environment'} : fixedPort(/"[\d.]+:(\d{2,5})"|\]\s*,\s*(\d{2,5})\s*\)/.exec(source)?.[1]);
  const {note, changes} = noteOfPort(way, 'the program');
  return {what: 'Rust (Cargo.toml)', command: [`target/release/${name}`], build: [['cargo', 'build', '--release', ...(isThere(directory, 'Cargo.lock') ? ['--locked'] : [])]], note, changes};
}

/** Spring Boot and others that are one jar, there already or made by Maven or Gradle. */
export function recogniseJava(directory: string): ProgramFinding | undefined {
  const [pom, gradle] = [contentOf(directory, 'pom.xml'), `${contentOf(directory, 'build.gradle')}${contentOf(directory, 'build.gradle.kts')}`];
  const there = namesIn(directory).find(name => /^[\w.-]+\.jar$/.test(name));
  const withoutParent = pom.replace(/<parent>[^]*?<\/parent>/, '').replace(/<dependencies>[^]*$/, '');
  const [artifact, version] = ['artifactId', 'version'].map(key => new RegExp(`<${key}>([\\w.-]+)</${key}>`).exec(withoutParent)?.[1]);
  const name = /rootProject\.name\s*=\s*['"]([\w.-]+)['"]/.exec(`${contentOf(directory, 'settings.gradle')}\n${contentOf(directory, 'settings.gradle.kts')}`)?.[1];
  const gradleVersion = /^version\s*=\s*['"]([\w.-]+)['"]/m.exec(gradle)?.[1];
  const made = artifact !== undefined && version !== undefined ? {jar: `target/${artifact}-${version}.jar`, by: [isProgram(join(directory, 'mvnw')) ? './mvnw' : 'mvn', '--batch-mode', '--quiet', '-DskipTests', 'package'], from: 'pom.xml'}
    : gradle !== '' && name !== undefined ? {jar: `build/libs/${name}${gradleVersion === undefined ? '' : `-${gradleVersion}`}.jar`, by: [isProgram(join(directory, 'gradlew')) ? './gradlew' : 'gradle', '--no-daemon', '--quiet', 'assemble'], from: 'build.gradle'} : undefined;
  const jar = made?.jar ?? there;
  if (jar === undefined) return undefined;
  const spring = /spring-boot/.test(`${pom}${gradle}`);
  return {
    what: `Java (${made?.from ?? jar})`,
    command: ['java', ...(spring ? [] : ['-Dserver.port={port}']), '-jar', jar, ...(spring ? ['--server.port={port}', '--server.address=127.0.0.1'] : [])],
    build: made === undefined ? [] : [made.by],
    note: spring ? 'Spring Boot takes its port so; check.deadline must be longer than it takes to boot' : 'CHECK how it learns its port: it has the number in $PORT, too; check.deadline must be longer than it takes to boot',
  };
}

/** What people keep beside their code that is executable, and no server. */
const TOOLS = /^(?:(?:configure|gradlew|mvnw|rr|manage|deploy|install|build|tests?|setup|run-?tests?|bootstrap|release)(?:\.\w+)?|.*\.(?:so|dylib|jar))$/i;

/** The one executable of the directory, whatever it was written in. */
export function recogniseExecutable(directory: string): ProgramFinding | undefined {
  const programs = namesIn(directory).filter(name => /^[\w][\w.-]*$/.test(name) && !TOOLS.test(name) && isProgram(join(directory, name)));
  const own = programs.find(name => /^(?:server|serve|app|web|main|start|run)(?:\.\w+)?$/i.test(name));
  const name = own ?? (programs.length === 1 ? programs[0] : undefined);
  if (name === undefined) return undefined;
  const source = contentOf(directory, name);
  const script = source.startsWith('#!');
  // As a word it is no trouble for a program that reads $PORT.
  const way: PortWay = !script ? {kind: 'unknown'} : /\bPORT\b/.test(source) ? {kind: 'environment'} : /\$\{?1\b|\$@|\bargv\b|\bARGV\b/.test(source) ? {kind: 'words', words: ['{port}']} : {kind: 'unknown'};
  const {note} = noteOfPort(way, name);
  const exec = script && /^#!.*\b(?:ba|da|z|k)?sh\b/.test(source) && !/^\s*exec\s/m.test(source) ? '; a shell script should `exec` the server, so that a signal reaches it' : '';
  return {what: `${script ? 'a script' : 'a program'} (${name})`, command: [`./${name}`, ...(way.kind === 'words' ? way.words : [])], build: [], note: `${note}${script ? '' : '; write {port} after its flag, if it has one'}${exec}`};
}

function fixedPort(port: string | undefined): PortWay {
  return port === undefined ? {kind: 'unknown'} : {kind: 'fixed', port};
}
