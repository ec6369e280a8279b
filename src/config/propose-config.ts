/** What `osyw-deploy init` saw on this machine. */
export interface Findings {
  /** The current directory. */
  readonly directory: string;
  readonly source: SourceFinding | undefined;
  readonly program: ProgramFinding | undefined;
  readonly nginx: NginxFinding;
  /** The first range of 20 ports that nothing listens on. */
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
  readonly note: string;
}

export interface NginxFinding {
  readonly running: boolean;
  readonly binary: string | undefined;
  /** From the master's command line: -c and -p. */
  readonly conf: string | undefined;
  readonly prefix: string | undefined;
  /** A directory whose *.conf files nginx's main file includes. */
  readonly includedDirectory: string | undefined;
}

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
  const program = findings.program ?? PLACEHOLDER;
  const file = proposedNginxFile(findings, app);
  const included = findings.nginx.includedDirectory !== undefined && file.startsWith(`${findings.nginx.includedDirectory}/`);
  return [
    ...head({findings, app, file, included, workingCopy}),
    `app: ${quoted(app)}`,
    '',
    ...sourceLines(findings, workingCopy),
    '',
    ...releaseLines(program),
    '',
    ...workersLines(findings, program),
    '',
    'check:',
    line('  http: /', 'a path that answers 200 only when a worker is ready to serve, such as /healthz'),
    line('  deadline: 30s', 'the time a worker may take from its start to its first good answers'),
    '',
    ...nginxLines(findings.nginx, app, file),
    '',
    'drain:',
    line('  deadline: 5m', 'connections to old workers that are still open then are cut'),
    '',
    ...stateLines(findings, app),
  ].join('\n').concat('\n');
}

function head({findings, app, file, included, workingCopy}: {
  findings: Findings; app: string; file: string; included: boolean; workingCopy: string;
}): string[] {
  const looks = [
    ...(findings.source === undefined
      ? [`source.working_copy: ${oneLine(findings.directory)} is not under Subversion or git; say where the code comes from (source.url)`] : []),
    ...(findings.source !== undefined && findings.source.workingCopy !== workingCopy
      ? [`source.working_copy: ${oneLine(findings.source.workingCopy)} cannot be one, so ${workingCopy} will be checked out`] : []),
    ...(findings.source?.passwordLeftOut === true
      ? ['source.url held a password, which was left out: put it in a file of its own (source.password_file, mode 0600)'] : []),
    `workers.command: ${findings.program === undefined ? 'not recognised, so the line is only an example' : `made for ${findings.program.what}`}`,
    'check.http: a path that shows that a worker is well',
    ...(findings.nginx.running ? [] : ['nginx: none is running; it must be, before the first deploy']),
    ...(findings.root ? [] : ['nginx: an ordinary user can only deploy behind an nginx that runs under the same account, or with nginx.reload']),
  ];
  const lines = [
    ...(included ? [] : [`include ${file};        (inside http { })`]),
    `proxy_pass http://${app};        (inside the location { } of your site)`,
  ];
  return [
    `osyw-deploy for ${app}. Every other key has a default: \`osyw-deploy config show\` prints them all.`,
    '',
    'Before the first `osyw-deploy now`, look at',
    ...looks.map(look => `  - ${look}`),
    'and then at `osyw-deploy plan`, which changes nothing.',
    '',
    `nginx needs ${lines.length === 1 ? 'this line' : 'these two lines'} in its configuration, after the first deploy has written ${file}:`,
    ...lines.map(text => `  ${text}`),
    ...(included ? [`(${file} is included already.)`] : []),
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
      : ['  # Commands that run in the release\'s directory before any worker starts.', '  build:', ...build.map(words => `    - ${list(words)}`)]),
    line('  shared: []', 'directories that all releases have in common, such as [data, uploads]'),
    line('  keep: 5', 'releases on disk, to roll back to'),
  ];
}

function workersLines({ports, workerUser}: Findings, {command, note, what}: ProgramFinding): string[] {
  return [
    'workers:',
    `  # ${what}: ${note}.`,
    line(`  command: ${list(command)}`, '{port} {release} {revision} are filled in; no shell'),
    line('  count: 2', 'processes that serve at a time'),
    line(`  ports: ${ports.first}-${ports.last}`, 'nothing listens on these now; a deploy needs twice the count'),
    ...(workerUser === undefined ? [] : [line(`  user: ${workerUser}`, 'what the workers run as; root would be too much')]),
  ];
}

function nginxLines(nginx: NginxFinding, app: string, file: string): string[] {
  return [
    'nginx:',
    line(`  upstream: ${quoted(app)}`, `proxy_pass http://${app};`),
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

function proposedNginxFile({nginx, root, stateDirOf}: Findings, app: string): string {
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
