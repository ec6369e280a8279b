import {chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import type {TestContext} from 'node:test';
import {fileURLToPath} from 'node:url';
import {stringify} from 'yaml';
import {runProgram} from '../../../src/cli/program.ts';
import {DeployError, FAILURES} from '../../../src/errors.ts';
import {renderHook, type HookedApplication} from '../../../src/trigger/hook-script.ts';
import {processesOf} from '../../support/leftovers.ts';
import {makeTempDir, removeTempDir} from '../../support/temp-dir.ts';
import {waitUntil} from '../../support/wait-until.ts';

export const TEMPLATE = readFileSync(fileURLToPath(new URL('../../../hooks/hook.sh', import.meta.url)), 'utf8');
export const isRoot = process.getuid?.() === 0;
/** For what another account must do: `skip` of a test. */
export const needsRoot = isRoot ? false : 'only root can be another account';
/** An account that every Debian has, in the group of its name and in no other. */
export const GAMES = {uid: 5, gid: 60};
export const MAIL = {uid: 8, gid: 8};

/** An application's state, with a stand-in for node that says how it was started, and no deployer. */
export interface Deployed {
  readonly dir: string;
  readonly stateDir: string;
  readonly spool: string;
  readonly line: HookedApplication;
  /** What the started processes said, oldest first. */
  started(): Started[];
  /** The processes that are started from now on stay. Returns what lets them go. */
  hold(): () => void;
  requests(): string[];
}

export interface Started {
  readonly pid: number;
  readonly args: string;
  readonly cwd: string;
  readonly env: readonly string[];
  /** Its descriptors, `number target`. */
  readonly descriptors: readonly string[];
  readonly session: number;
  readonly uid: number;
  /** As /proc/PID/cgroup has them. */
  readonly cgroups: readonly string[];
}

/** A directory of the test's, gone with it, once nobody works there. */
export function scratch(test: TestContext): string {
  const dir = makeTempDir();
  test.after(async () => {
    rmSync(join(dir, 'hold'), {force: true});
    // Several looks in a row: a process that becomes another program has no arguments for a moment.
    let quiet = 0;
    await waitUntil('the processes of the test to end', () => (quiet = processesOf(dir).length === 0 ? quiet + 1 : 0) >= 5, {withinMs: 15_000, everyMs: 20});
    removeTempDir(dir);
  });
  return dir;
}

export function makeDeployed(dir: string, line: Partial<HookedApplication> = {}): Deployed {
  const stateDir = line.stateDir ?? join(dir, 'state');
  const spool = line.spool ?? join(stateDir, 'spool');
  const said = join(dir, 'started');
  mkdirSync(spool, {recursive: true, mode: 0o700});
  chmodSync(stateDir, 0o711);
  mkdirSync(said, {recursive: true});
  chmodSync(said, 0o777);
  writeFileSync(join(stateDir, 'waiting'), '', {mode: 0o600});
  const node = join(dir, 'node');
  // The descriptors first, and without a redirection: for that a shell moves its own.
  writeFileSync(node, `#!/bin/sh
find /proc/$$/fd -type l -fprintf "${said}/.fds.$$" 'fd %f %l\\n'
{
  echo "args $*"
  echo "cwd $(pwd)"
  echo "uid $(id -u)"
  echo "session $(ps -o sid= -p $$ | tr -d ' ')"
  sed 's/^/cgroup /' /proc/$$/cgroup
  tr '\\0' '\\n' </proc/$$/environ | sed 's/^/env /'
  sort "${said}/.fds.$$"
} >"${said}/.$$" 2>/dev/null
mv "${said}/.$$" "${said}/$$"
while [ -e "${dir}/hold" ]; do sleep 0.1; done
`, {mode: 0o755});
  return {
    dir, stateDir, spool,
    line: {app: 'site', spool, umask: '077', waitSeconds: 0, uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0, stateDir, node, script: '/nowhere/osyw-deploy.cjs', config: join(dir, 'osyw-deploy.yaml'), ...line},
    started: () => existsSync(said) ? readdirSync(said).filter(name => !name.startsWith('.')).map(name => parseStarted(Number(name), readFileSync(join(said, name), 'utf8'))).sort((a, b) => a.pid - b.pid) : [],
    hold: () => {
      writeFileSync(join(dir, 'hold'), '');
      return () => rmSync(join(dir, 'hold'), {force: true});
    },
    requests: () => existsSync(spool) ? readdirSync(spool).sort() : [],
  };
}

function parseStarted(pid: number, text: string): Started {
  const all = (key: string) => text.split('\n').filter(line => line.startsWith(`${key} `)).map(line => line.slice(key.length + 1));
  const one = (key: string) => all(key)[0] ?? '';
  return {pid, args: one('args'), cwd: one('cwd'), env: all('env').sort(), descriptors: all('fd'), session: Number(one('session')), uid: Number(one('uid')), cgroups: all('cgroup')};
}

/** Writes the hook as an install would. */
export function putHook(file: string, ...applications: readonly HookedApplication[]): void {
  writeFileSync(file, renderHook(TEMPLATE, applications), {mode: 0o755});
}

export function writeExecutable(file: string, ...lines: readonly string[]): void {
  writeFileSync(file, ['#!/bin/sh', ...lines, ''].join('\n'), {mode: 0o755});
  chmodSync(file, 0o755);
}

export interface Said {
  readonly exit: number;
  readonly out: string;
  readonly err: string;
  readonly code: string;
  readonly json: Readonly<Record<string, unknown>>;
}

/** The command, in this process: a failure is told as main.ts tells it. */
export async function osyw(cwd: string, ...words: readonly string[]): Promise<Said> {
  let out = '';
  let err = '';
  let exit: number;
  let code = 'OK';
  const output = {out: (text: string) => void (out += text), err: (text: string) => void (err += text), terminal: false, colour: false};
  try {
    exit = await runProgram(words, {output, env: {}, cwd, signal: new AbortController().signal, onHangup: () => undefined, version: '1.2.3', hookScript: TEMPLATE});
  } catch (error) {
    if (!(error instanceof DeployError)) throw error;
    exit = FAILURES[error.code].exit;
    code = error.code;
    err += `${error.message}\n→ ${error.hint}\n`;
  }
  return {exit, out, err, code, json: words.includes('--json') && exit !== 2 ? JSON.parse(out) as Record<string, unknown> : {}};
}

/** An osyw-deploy.yaml of an application that comes from `source`. */
export function writeConfig(dir: string, source: {readonly url?: string; readonly vcs?: 'svn' | 'git'; readonly working_copy?: string}, more: {readonly app?: string; readonly state?: string; readonly file?: string; readonly hook?: object} = {}): string {
  const file = join(dir, more.file ?? 'osyw-deploy.yaml');
  writeFileSync(file, stringify({
    app: more.app ?? 'site',
    source: {working_copy: join(dir, 'copy'), ...source},
    workers: {command: ['/usr/bin/python3', 'osyw.py', '{port}'], ports: '8811-8830'},
    nginx: {upstream: 'myweb', file: join(dir, 'upstream.conf')},
    ...(more.hook === undefined ? {} : {hook: more.hook}),
    state_dir: join(dir, more.state ?? 'state'),
    run_dir: join(dir, 'run'),
  }), {mode: 0o600});
  return file;
}
