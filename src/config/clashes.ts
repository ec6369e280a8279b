import type {Settings} from './schema.ts';
import {shown} from './shown.ts';
import {systemsOf} from './source-url.ts';
import type {Path} from './yaml-tree.ts';

export interface Clash {
  /** The key that the message is about. */
  readonly at: Path;
  /** The keys that must be valid by themselves before the rule makes sense; `at` is always one. */
  readonly needs: readonly Path[];
  /** `is …; expected …`, undefined when there is no clash. */
  readonly fault: (settings: Settings) => string | undefined;
}

/** What makes a unit a worker; a property of the user's would undo it. */
const OWN_PROPERTIES = new Set([
  'Type', 'Description', 'ExecStart', 'ExecStop', 'PIDFile', 'GuessMainPID', 'RemainAfterExit', 'BusName', 'DynamicUser', 'User', 'WorkingDirectory',
  'Environment', 'EnvironmentFile', 'PassEnvironment', 'UnsetEnvironment', 'StandardInput', 'StandardOutput', 'StandardError', 'TTYPath',
  'KillMode', 'KillSignal', 'RestartKillSignal', 'FinalKillSignal', 'SendSIGKILL', 'SendSIGHUP', 'TimeoutSec', 'TimeoutStartSec', 'TimeoutStopSec', 'TimeoutAbortSec',
  'Restart', 'CollectMode', 'Delegate', 'MemoryMax', 'TasksMax',
]);

/** What two keys may not say together. The rules on directories that have defaults are in places.ts. */
export const CLASHES: readonly Clash[] = [
  {
    at: ['workers', 'ports'],
    needs: [['workers', 'count']],
    fault: ({workers: {ports, count}}) => {
      const size = ports.last - ports.first + 1;
      return size >= 2 * count ? undefined
        : `is a range of ${size} ports; expected at least ${2 * count}, twice workers.count, as old and new workers run side by side`;
    },
  },
  {
    at: ['workers', 'pid_file'],
    needs: [['workers', 'count']],
    fault: ({workers: {pid_file: pidFile, count}}) => (pidFile !== undefined && count > 1 && !pidFile.includes('{port}')
      ? `is one file for ${count} workers; expected a name with {port}` : undefined),
  },
  {
    at: ['workers', 'command'],
    needs: [['workers', 'runner']],
    // Systemd puts variables in where it finds a `$`; and when it reads a transient unit that it wrote down itself, after a daemon-reload,
    // version 252 has a backslash before each of these. Seen with 252: `sh -c "a; b"` was `sh -c "a\; b"` at the next restart.
    fault: ({workers: {command, runner}}) => {
      const word = runner === 'systemd' ? command.find(one => /[$;`]/.test(one)) : undefined;
      return word === undefined ? undefined : `has the word ${shown(word)}, and systemd does not keep a $, a ; or a \` as it is; expected it in a script that the command names`;
    },
  },
  {
    at: ['workers', 'pid_file'],
    needs: [['workers', 'runner']],
    fault: ({workers: {pid_file: pidFile, runner}}) => (runner === 'systemd' && pidFile?.includes('%') === true
      ? `is ${shown(pidFile)}, and systemd does not keep a % as it is; expected a path without` : undefined),
  },
  {
    at: ['workers', 'systemd'],
    needs: [['workers', 'runner']],
    fault: ({workers: {systemd, runner}}) => (runner !== 'systemd' && Object.values(systemd).some(value => value !== undefined)
      ? 'goes with workers.runner: systemd; expected nothing beside runner: process' : undefined),
  },
  {
    at: ['workers', 'systemd', 'properties'],
    needs: [],
    fault: ({workers: {systemd: {properties = {}}}}) => {
      const own = Object.keys(properties).find(name => OWN_PROPERTIES.has(name));
      const key = own === 'MemoryMax' ? 'workers.systemd.memory_max' : own === 'TasksMax' ? 'workers.systemd.tasks_max' : undefined;
      return own === undefined ? undefined : `has ${own}, which osyw-deploy sets itself; expected ${key === undefined ? 'other properties of systemd' : `it as ${key}`}`;
    },
  },
  {
    at: ['source', 'url'],
    needs: [['source', 'vcs']],
    fault: ({source: {url, vcs}}) => (url !== undefined && vcs !== undefined && !systemsOf(url).includes(vcs)
      ? `does not belong to source.vcs: ${vcs}; expected a URL of ${vcs}${vcs === 'svn' ? ' (a local repository is file:///path)' : ''}` : undefined),
  },
  {
    at: ['source', 'branch'],
    needs: [['source', 'vcs'], ['source', 'url']],
    fault: ({source: {branch, vcs, url}}) => {
      const svn = vcs === 'svn' || (vcs === undefined && url !== undefined && !systemsOf(url).includes('git'));
      return branch !== undefined && svn ? 'is a word of git; expected the branch in source.url, as .../branches/NAME' : undefined;
    },
  },
  {
    at: ['release', 'shared'],
    needs: [],
    fault: ({release: {shared}}) => {
      for (const [index, path] of shared.entries()) {
        const other = shared.find((candidate, place) => place !== index && (candidate === path || path.startsWith(`${candidate}/`)));
        if (other !== undefined) return `lists ${path} and ${other}; expected paths of which none is inside another`;
      }
      return undefined;
    },
  },
  ...(['tcp', 'command'] as const).map((kind): Clash => ({
    at: ['check', kind],
    needs: [['check', 'http'], ['check', 'tcp']],
    fault: ({check}) => {
      const other = check.http !== undefined ? 'http' : kind === 'command' && check.tcp !== undefined ? 'tcp' : undefined;
      return check[kind] !== undefined && other !== undefined
        ? `stands beside check.${other}; expected exactly one of http, tcp and command` : undefined;
    },
  })),
  ...(['host', 'headers', 'status', 'body'] as const).map((key): Clash => ({
    at: ['check', key],
    needs: [['check', 'http'], ['check', 'tcp'], ['check', 'command']],
    fault: ({check}) => (check[key] !== undefined && check.http === undefined && (check.tcp ?? check.command) !== undefined
      ? `goes with check.http; expected none of it beside check.${check.tcp === undefined ? 'command' : 'tcp'}` : undefined),
  })),
  ...([['listen', 'secret_file'], ['secret_file', 'listen']] as const).map(([key, other]): Clash => ({
    at: ['watch', 'webhook', key],
    needs: [['watch', 'webhook', other]],
    fault: ({watch: {webhook}}) => (webhook[key] !== undefined && webhook[other] === undefined
      ? `stands without watch.webhook.${other}; expected both, or none of them to leave the webhook off` : undefined),
  })),
  ...(['mode', 'group'] as const).map((key): Clash => ({
    at: ['watch', 'webhook', key],
    needs: [['watch', 'webhook', 'listen']],
    fault: ({watch: {webhook}}) => (webhook[key] !== undefined && webhook.listen !== undefined && !('unix' in webhook.listen)
      ? 'goes with a unix socket; expected none of it beside an address with a port' : undefined),
  })),
  {
    at: ['watch', 'webhook', 'listen'],
    needs: [['workers', 'ports']],
    fault: ({watch: {webhook: {listen}}, workers: {ports}}) => (listen !== undefined && 'port' in listen && listen.port >= ports.first && listen.port <= ports.last
      ? `names port ${listen.port}, one of workers.ports; expected another one` : undefined),
  },
  {
    at: ['nginx', 'file'],
    needs: [['nginx', 'edit']],
    fault: ({nginx: {file, edit}}) => (file === undefined && edit === undefined
      ? 'is missing; expected the absolute path of a file that is written whole, such as /etc/nginx/conf.d/app.conf, or in nginx.edit that of a file of yours' : undefined),
  },
  {
    at: ['nginx', 'edit'],
    needs: [['nginx', 'file']],
    fault: ({nginx: {file, edit}}) => (file !== undefined && edit !== undefined
      ? 'stands beside nginx.file; expected exactly one of them: a file that is written whole, or one in which only addresses change' : undefined),
  },
  ...(['server', 'directives'] as const).map((key): Clash => ({
    at: ['nginx', key],
    needs: [['nginx', 'edit']],
    fault: ({nginx}) => (nginx.edit !== undefined && Object.values(nginx[key] ?? {}).some(value => value !== undefined)
      ? 'goes with nginx.file; expected it in the file that nginx.edit names: there every line keeps what it says, but for the addresses' : undefined),
  })),
  {
    at: ['nginx', 'file'],
    needs: [['nginx', 'conf']],
    fault: ({nginx: {file, conf}}) => (file === (conf ?? '/etc/nginx/nginx.conf')
      ? `is nginx's main file; expected a file for the upstream alone, as it is written whole` : undefined),
  },
];
