import {mkdtempSync, readFileSync, rmdirSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {dirname, join} from 'node:path';
import type {NginxConfig} from '../config/config.ts';
import {messageOf} from '../errors.ts';
import {runCommand, type Command, type CommandResult} from '../support/run-command.ts';
import {SYSTEM_PATH} from '../support/system-path.ts';
import {testCommand, type NginxMaster} from './nginx-master.ts';
import {faultIn, howToInclude, isRead} from './test-configuration.ts';

const TEST_TIMEOUT_MS = 30_000;

/** What nginx says of its whole configuration with other bytes in place of one file; `untested` says why it was not asked. */
export type ShadowTest =
  | {readonly ok: boolean; readonly output: string}
  | {readonly untested: string};

/** What takes no overlay. */
const READ_ONLY = /\(30: Read-only file system\)/;

/** The first line that the script writes once the shadow stands: whatever comes after it is nginx's. */
const STANDS = 'osyw-deploy: the shadow stands';

/**
 * A shadow of the whole tree, for root: each file system under an overlay whose upper half is in memory. `nginx -t` makes its temporary
 * paths, an empty pid file and its logs where they are missing, and writes its complaints into the log; all of that stays in here.
 * What takes no overlay can only be read, so nothing is written past the shadow. Words are arguments, never text of the script.
 */
const SHADOW_OF_ALL = `
t=$1 live=$2; shift 2
shadow() {
  mkdir "$t/$2" "$t/$2/upper" "$t/$2/work" && mount -t overlay -o "lowerdir=$1,upperdir=$t/$2/upper,workdir=$t/$2/work" osyw-deploy "$t/root$1"
}
mount -t tmpfs -o mode=0700 osyw-deploy "$t" && mkdir "$t/root" && shadow / 0 || exit
for kernels in proc sys dev; do mount --rbind "/$kernels" "$t/root/$kernels" || exit; done
n=0
while [ "$1" != -- ]; do
  n=$((n + 1))
  if [ -e "$t/root$1" ] && { [ ! -d "$1" ] || ! shadow "$1" $n 2>/dev/null; }; then mount --bind -- "$1" "$t/root$1" && mount -o remount,bind,ro -- "$t/root$1" || exit; fi
  shift
done
shift
[ -z "$live" ] || cat >"$t/root$live" || exit
echo "${STANDS}"
exec chroot "$t/root" "$@"`;

/** The same for the directory of the one file, all that an account without root may lay anything over; or the file alone. */
const SHADOW_OF_ONE = `
t=$1 live=$2; shift 2
mount -t tmpfs -o mode=0700 osyw-deploy "$t" && mkdir "$t/upper" "$t/work" && cat >"$t/new" || exit
if mount -t overlay -o "lowerdir=\${live%/*},upperdir=$t/upper,workdir=$t/work" osyw-deploy "\${live%/*}" 2>/dev/null; then cat "$t/new" >"$live" || exit
elif [ -f "$live" ]; then mount --bind -- "$t/new" "$live" || exit
else echo "mount: no overlay can be had, and the file is not there yet" >&2; exit 1; fi
echo "${STANDS}"
exec "$@"`;

/**
 * Tests nginx's whole configuration with `bytes` in `live`, there or not, and leaves no trace of it on the disk: in a mount namespace of its
 * own, which root has for the asking and others where the system lets them. What cannot be kept in there: it binds, for a moment, what
 * it should listen on and does not yet, and asks for the names in the configuration; without root it also opens its logs and pid file.
 * Errors: the signal's reason.
 */
export async function testInShadow(master: Pick<NginxMaster, 'binary' | 'args'>, nginx: NginxConfig, live: string, bytes: Buffer, signal: AbortSignal): Promise<ShadowTest> {
  const test = testCommand(master, nginx);
  // Such a name would mean something else in the words of an overlay.
  if (/[,:\\\n]/.test(dirname(live))) return {untested: `${live} has a name that no overlay takes`};
  if (/^\/(?:proc|sys|dev)\//.test(live)) return {untested: `${live} is among the kernel's own files`};
  let place: string;
  try {
    place = mkdtempSync(join(tmpdir(), 'osyw-deploy-shadow-'));
  } catch (error) {
    return {untested: `no directory can be made for it: ${messageOf(error)}`};
  }
  try {
    const attempts = process.getuid?.() === 0 ? [ofAll(place, live, test), ofOne(['unshare', '--mount', '--propagation', 'private'], place, live, test)] : [ofOne(['unshare', '--user', '--map-root-user', '--mount'], place, live, asOneself(test))];
    let why = '';
    for (const command of attempts) {
      const {exitCode, stdout, stderr, spawnError, timedOut} = await runCommand(command, {env: {PATH: SYSTEM_PATH, LC_ALL: 'C.UTF-8'}, cwd: '/', timeoutMs: TEST_TIMEOUT_MS, input: bytes, signal});
      if (timedOut) return {untested: `no answer within ${TEST_TIMEOUT_MS / 1000} s`};
      if (!stdout.startsWith(STANDS)) {
        why = `no private mount namespace can be had: ${spawnError ?? (stderr.trim().split('\n').at(-1) || `it ended with ${exitCode ?? 'a signal'}`)}`;
        continue;
      }
      if (exitCode === undefined) return {untested: 'nginx was ended by a signal'};
      const output = stderr.trim();
      if (exitCode !== 0 && READ_ONLY.test(output)) return {untested: `nginx writes where no shadow can be had: ${output}`};
      if (exitCode !== 0) return {ok: false, output: `${output}${faultIn(output, live)}`};
      return isRead(stdout, live) ? {ok: true, output} : {ok: false, output: `nginx does not read ${live}: no file of its configuration includes it\n${howToInclude(live)}`};
    }
    return {untested: why};
  } finally {
    // What was mounted on it was so for that process alone.
    rmdirSync(place);
  }
}

/**
 * Lets nginx print what it reads, and leaves no trace of that either. `command`: an `nginx -T`. Undefined where no shadow of all can be had,
 * as without root; then nothing was run.
 */
export async function dumpInShadow(command: Command): Promise<CommandResult | undefined> {
  if (process.getuid?.() !== 0) return undefined;
  const place = mkdtempSync(join(tmpdir(), 'osyw-deploy-shadow-'));
  try {
    const result = await runCommand(ofAll(place, '', command), {env: {PATH: SYSTEM_PATH, LC_ALL: 'C.UTF-8'}, cwd: '/', timeoutMs: TEST_TIMEOUT_MS});
    if (!result.stdout.startsWith(STANDS) || (result.exitCode !== 0 && READ_ONLY.test(result.stderr))) return undefined;
    return {...result, stdout: result.stdout.slice(STANDS.length + 1)};
  } finally {
    rmdirSync(place);
  }
}

function ofAll(place: string, live: string, test: Command): Command {
  return {file: 'unshare', args: ['--mount', '--propagation', 'private', '--', 'sh', '-c', SHADOW_OF_ALL, 'sh', place, live, ...fileSystems(), '--', test.file, ...test.args]};
}

function ofOne([file = '', ...args]: readonly string[], place: string, live: string, test: Command): Command {
  return {file, args: [...args, '--', 'sh', '-c', SHADOW_OF_ONE, 'sh', place, live, test.file, ...test.args]};
}

/** Under its own account again: nginx would give its directories away as root, which it is not. */
function asOneself(test: Command): Command {
  return {file: 'unshare', args: ['--user', `--map-user=${process.getuid?.() ?? 0}`, `--map-group=${process.getgid?.() ?? 0}`, '--', test.file, ...test.args]};
}

/** What holds files for nginx beside the root, outer ones first. Left out: the kernel's own, the roots of containers, and what another account's program answers for. */
function fileSystems(): string[] {
  const lines = readFileSync('/proc/self/mountinfo', 'utf8').trimEnd().split('\n');
  const mounts = lines.map(line => {
    const [before = '', after = ''] = line.split(' - ');
    return {at: (before.split(' ')[4] ?? '').replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8))), type: after.split(' ')[0] ?? ''};
  });
  const wanted = mounts.filter(({at, type}) => at !== '/' && !/^\/(?:proc|sys)(?:\/|$)|^\/dev$/.test(at) && !(at.startsWith('/dev/') && type !== 'tmpfs') && !/^(?:overlay|nsfs|autofs|fuse(?:\..*)?|binfmt_misc|rpc_pipefs)$/.test(type) && !/[,:\\\n]/.test(at));
  return [...new Set(wanted.map(({at}) => at))].sort((a, b) => a.length - b.length);
}
