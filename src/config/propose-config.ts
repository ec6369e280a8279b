import {dirname} from 'node:path';
import {placeholderFault} from './placeholders.ts';

/** What `osyw-deploy init` saw on this machine. */
export interface Findings {
  /** The current directory. */
  readonly directory: string;
  readonly source: SourceFinding | undefined;
  readonly program: ProgramFinding | undefined;
  readonly nginx: NginxFinding;
  /** What listens and runs in the working copy already. */
  readonly running: readonly RunningFinding[];
  /** A range of 20 ports that nobody listens on, and that neither an upstream of nginx nor another application names. */
  readonly ports: {readonly first: number; readonly last: number};
  readonly root: boolean;
  readonly home: string;
  /** Where the state goes without a `state_dir`; undefined when it is not known. */
  readonly stateDirOf: (app: string) => string | undefined;
  /** The account that web programs run as on this machine; undefined when not root or there is none. */
  readonly workerUser: string | undefined;
}

export interface SourceFinding {
  readonly vcs: 'svn' | 'git';
  /** The root of the working copy. */
  readonly workingCopy: string;
  /** Undefined when there is none, or none that a configuration may hold. */
  readonly url: string | undefined;
  /** The URL held a password, which was left out. */
  readonly passwordLeftOut: boolean;
  readonly branch: string | undefined;
}

export interface ProgramFinding {
  /** `Flask (app.py)` */
  readonly what: string;
  readonly command: readonly string[];
  readonly build: readonly (readonly string[])[];
  /** Why so; CHECK and CHANGE say what nobody can know from the files alone. */
  readonly note: string;
  readonly env?: Readonly<Record<string, string>>;
  /** What must be changed before it works, or works well; each a sentence that begins with its place. */
  readonly changes?: readonly string[];
  readonly check?: {readonly path: string; readonly reason: string};
}

/** A process that has its working directory there. */
export interface RunningFinding {
  readonly pid: number;
  readonly port: number;
  readonly command: string;
}

export interface UpstreamFinding {
  readonly name: string;
  readonly file: string;
  /** Of its servers on this machine. */
  readonly ports: readonly number[];
}

export interface NginxFinding {
  readonly running: boolean;
  readonly pid: number | undefined;
  /** So many more run here. */
  readonly others: number;
  readonly binary: string | undefined;
  /** From the master's command line: -c and -p. */
  readonly conf: string | undefined;
  readonly prefix: string | undefined;
  /** A directory whose *.conf files nginx's main file includes, and in which this account may write. */
  readonly includedDirectory: string | undefined;
  readonly upstreams: readonly UpstreamFinding[];
}

/** What stands there when nothing was recognised. */
const PLACEHOLDER: ProgramFinding = {
  what: 'nothing that was recognised',
  command: ['./server', '--port', '{port}'],
  build: [],
  note: 'CHANGE THIS: the program that listens on {port}; it gets the number in $PORT too',
};

/** A commented osyw-deploy.yaml for what was found; it is a valid configuration as it stands. */
export function proposeConfig(findings: Findings): string {
  const workingCopy = proposedWorkingCopy(findings);
  const app = appName(workingCopy);
  const program = usable(findings.program) ?? PLACEHOLDER;
  const file = proposedNginxFile(findings, app);
  const upstream = proposedUpstream(findings, app, file);
  return [
    ...head({findings, app, file, upstream, workingCopy}),
    line(`app: ${quoted(app)}`, 'names the state, the lock and the logs'),
    '',
    ...sourceLines(findings, workingCopy),
    '',
    ...releaseLines(program),
    '',
    ...workersLines(findings, program),
    '',
    ...checkLines(program),
    '',
    ...nginxLines(findings.nginx, upstream, file),
    '',
    'drain:',
    line('  deadline: 5m', 'connections to old workers that are still open then are cut'),
    '',
    ...stateLines(findings, app),
  ].join('\n').concat('\n');
}

/** What a person has to do or to know before the first deploy, a sentence each: it stands at the head of the proposal, and `init` says it. */
export function remarksOn(findings: Findings): {readonly adopt: string | undefined; readonly look: readonly string[]} {
  const {source, program, nginx, root, running} = findings;
  const workingCopy = proposedWorkingCopy(findings);
  return {
    adopt: adoptRemark(running, nginx.upstreams),
    look: [
      ...(source === undefined ? [`source.working_copy: ${findings.directory} is not under Subversion or git; say where the code comes from (source.url)`] : []),
      ...(source !== undefined && source.workingCopy !== workingCopy ? [`source.working_copy: ${source.workingCopy} cannot be one, so ${workingCopy} will be checked out`] : []),
      ...(source?.passwordLeftOut === true ? ['source.url held a password or a name, which was left out: the name belongs in source.username, a password or a token in a file of its own (source.password_file, mode 0600)'] : []),
      `workers.command: ${usable(program) === undefined ? 'not recognised, so the line is only an example' : `made for ${program?.what ?? ''}`}`,
      ...(usable(program)?.changes ?? []),
      'check.http: a path that shows that a worker is well',
      ...(nginx.running ? [] : ['nginx: none is running; it must be, before the first deploy']),
      ...(nginx.others === 0 ? [] : [`nginx.conf: ${nginx.others + 1} nginx run here, and this is the one of pid ${nginx.pid ?? '?'}; is it the one that serves the site? \`osyw-deploy init --nginx FILE\` names another by its main file`]),
      ...(root ? [] : ['nginx: an ordinary user can only deploy behind an nginx that runs under the same account, or with nginx.reload']),
    ].map(oneLine),
  };
}

/** The processes that run out of here already, and which of nginx's upstreams leads to them. */
function adoptRemark(running: readonly RunningFinding[], upstreams: readonly UpstreamFinding[]): string | undefined {
  if (running.length === 0) return undefined;
  const upstream = upstreams.find(({ports}) => ports.some(port => running.some(one => one.port === port)));
  const processes = running.map(({pid, port, command}) => `pid ${pid} on port ${port} (${command})`).join(', ');
  return oneLine(`it runs here already: ${processes}${upstream === undefined ? '' : `, and nginx's upstream ${upstream.name} in ${upstream.file} sends requests there`}. \`osyw-deploy adopt\` takes over what runs; a first \`now\` would start workers beside it.`);
}

/** A file's name may have what a configuration cannot hold. */
function usable(program: ProgramFinding | undefined): ProgramFinding | undefined {
  const words = program === undefined ? [] : [...program.command, ...Object.values(program.env ?? {})];
  return words.every(word => placeholderFault(word) === undefined) ? program : undefined;
}

function head({findings, app, file, upstream, workingCopy}: {findings: Findings; app: string; file: string; upstream: string; workingCopy: string}): string[] {
  const {adopt, look} = remarksOn(findings);
  const directory = dirname(file);
  const included = directory === findings.nginx.includedDirectory;
  return [
    `osyw-deploy for ${app}. Every other key has a default: \`osyw-deploy config show\` prints them all.`,
    '',
    ...(adopt === undefined ? [] : [adopt, '']),
    'Before the first `osyw-deploy now`, look at',
    ...look.map(text => `  - ${text}`),
    'and then at `osyw-deploy plan`, which changes nothing.',
    '',
    ...(included ? [`nginx includes ${file} already.`] : [
      'nginx has to read what a deploy writes. Before the first one write into its http { }',
      // A pattern that matches nothing yet is no fault; a file that is missing would be.
      `  include ${file.replace(/\.conf$/, '*.conf')};`,
      ...(findings.root && directory === '/etc/nginx' ? ['and reload it.'] : [`and reload it; the directory must be there: mkdir -p ${directory}`]),
    ]),
    'After it, let the location { } of your site lead there:',
    `  proxy_pass http://${upstream};`,
    ...(workingCopy === findings.source?.workingCopy ? ['This file is none of the repository; leave it here, or move it to a place that only you can write and name it with --config.'] : []),
  ].map(text => (text === '' ? '#' : `# ${text}`)).concat('');
}

function sourceLines({source}: Findings, workingCopy: string): string[] {
  const url = source?.url;
  return [
    'source:',
    ...(source === undefined ? [line('  # vcs: git', 'or svn; found out by looking when left out')]
      : [line(`  vcs: ${source.vcs}`, 'found in the current directory')]),
    line(`  working_copy: ${quoted(workingCopy)}`, 'brought to the new revision by the deploy; local edits stop it'),
    url === undefined ? line('  # url: https://example.org/repository', 'where the code comes from; needed when the working copy is not there')
      : line(`  url: ${quoted(url)}`, 'as the working copy says'),
    ...(source?.vcs === 'git' && source.branch !== undefined ? [line(`  branch: ${quoted(source.branch)}`, 'what is checked out now')] : []),
  ];
}

function releaseLines({build}: ProgramFinding): string[] {
  return [
    'release:',
    ...(build.length === 0
      ? [line('  build: []', 'commands that run in the release\'s directory before any worker starts: [[make, all]]')]
      : ['  # Commands that run in the release\'s directory before any worker starts; they need no shell.', '  build:', ...build.map(words => line(`    - ${list(words)}`, reasonFor(words)))]),
    line('  shared: []', 'directories that all releases have in common, such as [data, uploads]'),
    line('  keep: 5', 'releases on disk, to roll back to'),
  ];
}

/** Why a build has this command. */
function reasonFor(words: readonly string[]): string {
  const text = words.join(' ');
  const reasons: readonly (readonly [RegExp, string])[] = [
    [/ compileall /, 'a mistake in the syntax ends the deploy here; workers start quicker'],
    [/ -m venv /, 'a virtual environment of this release alone'],
    [/^npm ci\b|--frozen|^pipenv|pipenv sync|--no-dev|deployment true/, 'what the lock file names, and nothing else'],
    [/ install\b/, 'what the project says it needs'],
    [/ run build$|assets:precompile/, 'makes what is served'],
  ];
  return reasons.find(([pattern]) => pattern.test(text))?.[1] ?? 'makes the program';
}

function workersLines({ports, workerUser}: Findings, {command, note, what, env}: ProgramFinding): string[] {
  return [
    'workers:',
    oneLine(`  # ${what}: ${note}.`),
    line(`  command: ${list(command)}`, '{port} {release} {revision} are filled in; no shell'),
    line('  count: 2', 'processes that serve at a time'),
    line(`  ports: ${ports.first}-${ports.last}`, 'nobody listens on these, and nginx names none; a deploy needs twice the count'),
    ...(env === undefined || Object.keys(env).length === 0 ? [] : [line(`  env: {${Object.entries(env).map(([name, value]) => `${name}: ${quoted(value)}`).join(', ')}}`, 'beside PATH, HOME, LANG and PORT, which they have')]),
    ...(workerUser === undefined ? [] : [line(`  user: ${workerUser}`, 'what the workers run as; root would be too much')]),
  ];
}

function checkLines({check}: ProgramFinding): string[] {
  return [
    'check:',
    line(`  http: ${check?.path ?? '/'}`, check?.reason ?? 'a path that answers 200 only when a worker is ready to serve, such as /healthz'),
    line('  # host: www.example.org', 'where the application answers to its own name only'),
    line('  # headers: {X-Forwarded-Proto: https}', 'where it sends plain HTTP to https; `osyw-deploy check --port` tries it'),
    line('  deadline: 30s', 'the time a worker may take from its start to its first good answers'),
  ];
}

function nginxLines(nginx: NginxFinding, upstream: string, file: string): string[] {
  return [
    'nginx:',
    line(`  upstream: ${quoted(upstream)}`, `proxy_pass http://${upstream};`),
    line(`  file: ${quoted(file)}`, 'written whole by osyw-deploy: the upstream block and nothing else'),
    ...(nginx.binary === undefined || nginx.binary === '/usr/sbin/nginx' ? [] : [line(`  binary: ${quoted(nginx.binary)}`, 'what the running master was started from')]),
    ...(nginx.conf === undefined ? [] : [line(`  conf: ${quoted(nginx.conf)}`, 'the running master\'s -c')]),
    ...(nginx.prefix === undefined ? [] : [line(`  prefix: ${quoted(nginx.prefix)}`, 'the running master\'s -p')]),
    line('  # probe: http://127.0.0.1/', 'a page of the site, asked through nginx after the switch'),
  ];
}

function stateLines({stateDirOf, root}: Findings, app: string): string[] {
  const stateDir = stateDirOf(app) ?? `/var/lib/osyw-deploy/${app}`;
  return [
    line(`state_dir: ${quoted(stateDir)}`, 'releases, history, the workers\' output'),
    ...(root ? [line(`run_dir: /run/osyw-deploy/${app}`, 'what need not survive a boot')] : []),
  ];
}

function proposedWorkingCopy({source, directory, stateDirOf, root, home}: Findings): string {
  const found = source?.workingCopy ?? directory;
  const stateDir = stateDirOf(appName(found));
  const clashes = stateDir !== undefined && (`${stateDir}/`.startsWith(`${found}/`) || `${found}/`.startsWith(`${stateDir}/`));
  const fits = /^\/[^/]+\/[^/]+/.test(found) && oneLine(found) === found;
  return fits && !clashes ? found : `${root ? '/srv' : home}/${appName(found)}`;
}

/** Two blocks of one name nginx refuses; the one that was written by hand may be another application's. */
function proposedUpstream({nginx}: Findings, app: string, file: string): string {
  const taken = nginx.upstreams.filter(one => one.file !== file).map(({name}) => name);
  return [app, `${app}_deploy`, `${app}_deploy_2`].find(name => !taken.includes(name)) ?? app;
}

function proposedNginxFile({nginx, root, stateDirOf}: Findings, app: string): string {
  if (!root && nginx.includedDirectory !== undefined) return `${nginx.includedDirectory}/${app}.conf`;
  if (!root) return `${stateDirOf(app) ?? `/var/lib/osyw-deploy/${app}`}/nginx/${app}.conf`;
  return `${nginx.includedDirectory ?? '/etc/nginx'}/${app}${nginx.includedDirectory === undefined ? '.upstream' : ''}.conf`;
}

export function appName(directory: string): string {
  const [own = '', parent = ''] = directory.split('/').toReversed().map(part =>
    part.toLowerCase().replaceAll(/[^a-z0-9_-]+/g, '-').replaceAll(/^[-_]+|-+$/g, '').slice(0, 63));
  // The usual names of the directory itself say nothing about the application.
  const says = !['', 'trunk', 'main', 'master', 'src', 'html', 'www', 'app'].includes(own);
  return [says ? own : parent, own].find(name => name !== '') ?? 'app';
}

export function line(text: string, reason: string): string {
  return `${text.padEnd(37)} # ${reason}`;
}

export function list(words: readonly string[]): string {
  return `[${words.map(quoted).join(', ')}]`;
}

/** A plain word as it is, anything else as JSON, which YAML reads too. */
export function quoted(word: string): string {
  return /^[A-Za-z_/.][A-Za-z0-9_/.@+-]*$/.test(word) && !/^(true|false|null|yes|no|on|off|\.\w+)$/i.test(word) ? word : JSON.stringify(word);
}

function oneLine(text: string): string {
  // oxlint-disable-next-line no-control-regex
  return text.replaceAll(/[\u0000-\u001f\u007f\u0085\u2028\u2029]/g, '?');
}
