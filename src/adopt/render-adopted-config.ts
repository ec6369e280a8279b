import {appName, line, list, quoted} from '../config/propose-config.ts';
import type {PortRange} from '../workers/spare-ports.ts';
import type {FoundCode} from './find-code.ts';
import type {LocalUpstream} from './find-upstream.ts';
import type {FoundWorker} from './find-workers.ts';
import {sharedPidFile} from './recognise-command.ts';

export interface AdoptedSetUp {
  readonly app: string | undefined;
  readonly upstream: LocalUpstream;
  readonly workers: readonly FoundWorker[];
  readonly code: FoundCode;
  /** With the placeholder, as a release runs it. */
  readonly command: readonly string[];
  readonly variables: readonly string[];
  /** Where the workers ran below the top of the working copy. */
  readonly subdirectory: string | undefined;
  /** A pattern of pid files that name them, with {port}. */
  readonly pidFile: string | undefined;
  readonly ports: PortRange;
  /** Whether all of them answer `GET /` with 200. */
  readonly answers: boolean;
  /** Undefined: where it is by default. */
  readonly stateDir: string | undefined;
  /** The deployer is root. */
  readonly root: boolean;
}

/** A commented osyw-deploy.yaml for what was found. What the variables of the old workers hold may be a secret, so they are named only. */
export function renderAdoptedConfig({app: named, upstream, workers, code, command, variables, subdirectory, pidFile, ports, answers, stateDir, root}: AdoptedSetUp): string {
  const {source} = code;
  const app = named ?? appName(source.workingCopy);
  const {conf, prefix} = namedPlace(upstream);
  const unversioned = code.unversioned.filter(name => /^[\w@+-][\w.@+-]{0,63}$/.test(name));
  const [user] = workers.map(worker => worker.user);
  return [
    `# osyw-deploy for ${app}, as \`osyw-deploy adopt\` found it running. Every other key has a default: \`osyw-deploy config show\` prints them all.`,
    '# The next deploy is made by this file; look it through, then at `osyw-deploy plan`, which changes nothing.',
    '',
    `app: ${quoted(app)}`,
    '',
    'source:',
    line(`  vcs: ${source.vcs}`, 'as the working copy says'),
    line(`  working_copy: ${quoted(source.workingCopy)}`, code.because.replaceAll(/[^\x20-\x7e]/g, '?')),
    ...(source.url === undefined ? [line('  # url: ...', 'where the code comes from; needed when the working copy is not there')] : [line(`  url: ${quoted(source.url)}`, source.passwordLeftOut ? 'a password or a name was left out: source.password_file, source.username' : 'as the working copy says')]),
    ...(source.vcs === 'git' && source.branch !== undefined ? [line(`  branch: ${quoted(source.branch)}`, 'what is checked out now')] : []),
    '',
    'release:',
    line('  shared: []', unversioned.length === 0 ? 'what all releases have in common, such as [data]' : 'what all releases have in common; what is not versioned is in none:'),
    ...(unversioned.length === 0 ? [] : [`  # ${unversioned.slice(0, 20).join(', ')}${unversioned.length > 20 ? ` and ${unversioned.length - 20} more` : ''}`]),
    '',
    'workers:',
    ...(subdirectory === undefined ? [] : [`  # CHECK: the workers were started in ${subdirectory.replaceAll(/[^\x20-\x7e]/g, '?')}; those of a release start at its top.`]),
    line(`  command: ${list(command)}`, 'as they were started; no shell'),
    ...(sharedPidFile(command) === undefined ? [] : ['  # CHANGE: take the option of the pid file out, or put {port} into its name: at a switch the workers of two releases run side by side.']),
    line(`  count: ${workers.length}`, 'as many as the upstream has servers'),
    line(`  ports: ${ports.first}-${ports.last}`, workers.every(({port}) => port >= ports.first && port <= ports.last) ? 'theirs among them' : 'nothing listens on these now'),
    ...(upstream.host === '127.0.0.1' ? [] : [line(`  host: ${quoted(upstream.host)}`, 'as the upstream has it')]),
    ...(root && user !== undefined && !user.startsWith('#') ? [line(`  user: ${quoted(user)}`, 'what they run as')] : []),
    ...(variables.length === 0 ? [] : [
      '  # They were started with these variables, too. What they hold may be a secret and stands nowhere; set here, or in env_file, what the program needs.',
      ...variables.map(name => `  #   ${name}`),
      '  # env: {}',
    ]),
    ...(pidFile === undefined ? [] : [line(`  # pid_file: ${quoted(pidFile)}`, 'if the program turns itself into a daemon')]),
    '',
    'check:',
    ...(answers ? [line('  http: /', 'all of them answer it with 200 now; better a path that shows that a worker is well')]
      : [line('  tcp: true', 'not all of them answer `GET /` with 200; better: http: /healthz')]),
    '',
    'nginx:',
    line(`  upstream: ${quoted(upstream.name)}`, 'as it is'),
    line(`  edit: ${quoted(upstream.file)}`, 'your file: only the `server` lines of the upstream change, by their addresses'),
    ...(upstream.master.binary === '/usr/sbin/nginx' ? [] : [line(`  binary: ${quoted(upstream.master.binary)}`, 'what the running master was started from')]),
    ...(conf === undefined ? [] : [line(`  conf: ${quoted(conf)}`, 'the running master\'s -c')]),
    ...(prefix === undefined ? [] : [line(`  prefix: ${quoted(prefix)}`, 'the running master\'s -p')]),
    line('  # probe: http://127.0.0.1/', 'a page of the site, asked through nginx after the switch'),
    ...(stateDir === undefined ? [] : ['', line(`state_dir: ${quoted(stateDir)}`, 'releases, history, the workers\' output'), `run_dir: ${quoted(`${stateDir}/run`)}`]),
    '',
  ].join('\n');
}

/** What says which nginx is meant, where it is not the only one with what its binary was built for. */
export function namedPlace({master: {args}, mainFile, oneOfSeveral}: LocalUpstream): {conf: string | undefined; prefix: string | undefined} {
  const prefix = args.includes('-p') ? args[args.indexOf('-p') + 1] : undefined;
  return {conf: args.includes('-c') || oneOfSeveral ? mainFile : undefined, prefix: prefix?.startsWith('/') === true ? prefix.replace(/(?<=.)\/+$/, '') : undefined};
}

/** What a login, a shell, sudo, systemd or we give to any program. */
const USUAL = /^(?:PATH|HOME|LANG|LANGUAGE|LC_\w+|PWD|OLDPWD|SHLVL|_|USER|LOGNAME|USERNAME|SHELL|TERM|COLORTERM|MAIL|HOSTNAME|HIST\w+|LS_COLORS|LESS\w*|EDITOR|VISUAL|PAGER|DISPLAY|PS[1-4]|IFS|SSH_\w+|XDG_\w+|DBUS_\w+|SUDO_\w+|INVOCATION_ID|JOURNAL_STREAM|SYSTEMD_\w+|MEMORY_PRESSURE_\w+|LISTEN_\w+|NOTIFY_SOCKET|MAINPID|MANAGERPID|WATCHDOG_\w+|PORT|OSYW_RELEASE|OSYW_REVISION|OSYW_WORKER_ID)$/;

/** Names of variables that only these processes have. */
export function ownVariables(workers: readonly FoundWorker[]): string[] {
  const names = new Set(workers.flatMap(({environment}) => [...environment.keys()]));
  return [...names].filter(name => /^[A-Za-z_][A-Za-z0-9_]{0,127}$/.test(name) && !USUAL.test(name)).toSorted();
}

/** The ports that `workers.ports` had best have: the present ones and those behind them, twice as many as are needed at least; else the first range that is free. */
export function rangeAround(present: readonly number[], taken: ReadonlySet<number>): PortRange | undefined {
  const first = Math.min(...present);
  const enough = Math.max(USUAL_RANGE, 2 * present.length);
  if (first <= 1024) return undefined;
  let free = 0;
  for (let port = first; port <= Math.min(65_535, first + WIDEST_RANGE); port++) {
    if (!taken.has(port) || present.includes(port)) free++;
    if (free >= enough) return {first, last: port};
  }
  return undefined;
}

const USUAL_RANGE = 20;
const WIDEST_RANGE = 200;
