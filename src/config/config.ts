/**
 * The effective configuration: every default filled in, every value in one unit.
 * Times carry their unit in the name; paths are absolute. Words: the configuration section of README.md.
 */
export interface Config {
  /** Absolute path of the file it came from. */
  readonly file: string;
  readonly app: string;
  readonly source: SourceConfig;
  readonly release: ReleaseConfig;
  readonly workers: WorkersConfig;
  readonly check: CheckConfig;
  readonly bake: {readonly forMs: number};
  readonly nginx: NginxConfig;
  readonly drain: {readonly quietMs: number; readonly deadlineMs: number};
  readonly hook: HookConfig;
  readonly watch: WatchConfig;
  readonly stateDir: string;
  readonly runDir: string;
}

export interface SourceConfig {
  /** Undefined: found out by looking at the working copy, then at the form of `url`. */
  readonly vcs: 'svn' | 'git' | undefined;
  readonly workingCopy: string;
  /** For any one svn or git command. */
  readonly timeoutMs: number;
  readonly url: string | undefined;
  /** git only. Undefined: the branch that the working copy has checked out, else the repository's HEAD. */
  readonly branch: string | undefined;
  readonly username: string | undefined;
  readonly passwordFile: string | undefined;
  /** Globs, relative to the top of the working copy. A hook's request counts only when one of them changed; empty: any path. */
  readonly paths: readonly string[];
}

export interface HookConfig {
  /** The hook stays until the deploy ends, and tells the committer how it went. */
  readonly wait: boolean;
  readonly waitTimeoutMs: number;
  /** A newer request takes the place of a deploy that has not switched yet. */
  readonly supersede: boolean;
}

export interface WatchConfig {
  /** Between two questions to the repository; 0: it is not asked by itself. */
  readonly pollMs: number;
  /** How long the working copy must be left alone before it is looked at. */
  readonly settleMs: number;
  /** What somebody edits in the working copy is deployed, too, uncommitted as it is. */
  readonly edits: boolean;
  /** Between two checks of a worker that serves. */
  readonly checkMs: number;
  /** Undefined: off. */
  readonly webhook: WebhookConfig | undefined;
}

export interface WebhookConfig {
  readonly listen:
    /** A socket of this mode; `group` is that of nginx's workers, undefined: the deployer's own. */
    | {readonly unix: string; readonly mode: number; readonly group: string | undefined}
    /** A loopback address, without brackets. */
    | {readonly host: string; readonly port: number};
  /** The one that is answered; `/hook`. */
  readonly path: string;
  readonly secretFile: string;
  readonly maxBodyBytes: number;
  /** So many deliveries at once, and as many again in each `perMs`. */
  readonly rate: {readonly count: number; readonly perMs: number};
}

export interface ReleaseConfig {
  readonly tree: 'snapshot' | 'in_place';
  readonly build: readonly (readonly string[])[];
  readonly buildTimeoutMs: number;
  /** Account for the build commands; undefined: the deployer's own. */
  readonly buildUser: string | undefined;
  /** Relative paths inside the release that all releases have in common. */
  readonly shared: readonly string[];
  readonly keep: number;
}

export type WorkersConfig = ProcessWorkers | SystemdWorkers;

/** Workers that we start ourselves; nobody starts them again. */
export interface ProcessWorkers extends CommonWorkers {
  readonly runner: 'process';
  readonly log: string;
}

/** Workers that are a transient unit of systemd each. */
export interface SystemdWorkers extends CommonWorkers {
  readonly runner: 'systemd';
  /** Undefined: their output goes to the journal. */
  readonly log: string | undefined;
  readonly systemd: {
    /** Of each worker, in systemd's words: `512M`, `20%`, `infinity`. */
    readonly memoryMax: string | undefined;
    readonly tasksMax: number | undefined;
    /** Further properties of each unit, in systemd's words. */
    readonly properties: Readonly<Record<string, string>>;
  };
}

export interface CommonWorkers {
  readonly command: readonly string[];
  readonly count: number;
  readonly ports: {readonly first: number; readonly last: number};
  readonly host: string;
  readonly env: Readonly<Record<string, string>>;
  readonly envFile: string | undefined;
  readonly user: string | undefined;
  readonly pidFile: string | undefined;
  readonly stop: {readonly signal: NodeJS.Signals; readonly timeoutMs: number};
}

export interface CheckTiming {
  /** Between two checks of a worker that listens. */
  readonly intervalMs: number;
  /** For one check. */
  readonly timeoutMs: number;
  /** Good checks in a row that make a worker healthy. */
  readonly consecutive: number;
  /** From the start of the workers to all of them healthy. */
  readonly deadlineMs: number;
}

export interface HttpCheck extends CheckTiming {
  readonly kind: 'http';
  /** Path with query, begins with one slash. */
  readonly path: string;
  /** The Host header; undefined: `host:port` of the worker. */
  readonly host: string | undefined;
  readonly headers: Readonly<Record<string, string>>;
  readonly status: readonly number[];
  /** Source of a regular expression that the body must match. */
  readonly body: string | undefined;
}
export type CheckConfig =
  | HttpCheck
  | (CheckTiming & {readonly kind: 'tcp'})
  | (CheckTiming & {readonly kind: 'command'; readonly command: readonly string[]});

export interface NginxConfig {
  readonly upstream: string;
  /** The file that a switch changes: of ours, and written whole. */
  readonly file: string;
  /** It is the user's: it, or one that it includes, has the upstream, and only the addresses of the `server` lines change. */
  readonly edit?: true;
  /** Parameters of each `server` line in nginx's own words, e.g. `{weight: '4', max_fails: '0', fail_timeout: '30s'}`. */
  readonly server: Readonly<Record<string, string>>;
  /** Further lines of the block, without the semicolon. */
  readonly directives: readonly string[];
  readonly binary: string;
  /** nginx's main file; undefined: the one that the binary was built with. */
  readonly conf: string | undefined;
  readonly prefix: string | undefined;
  readonly probe: string | undefined;
  /** A command that reloads nginx, instead of a HUP from us. */
  readonly reload: readonly string[] | undefined;
}
