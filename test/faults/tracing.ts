import {readFileSync} from 'node:fs';

/**
 * A system call of the deployer's own process that meets a fault. strace follows its threads and lets go of every child at its
 * exec, so svn, git, build commands and workers are never traced. A call is counted in its thread; all file calls but those that
 * copy a tree are made in the main one.
 */
export interface Injection {
  readonly call: string;
  /** `SIGKILL`: instead of the call; else the errno that it fails with. */
  readonly fault: string;
  /** The how manieth, from 1. */
  readonly at: number;
  /** All from that one on, as on a disk that stays full. */
  readonly lasting?: boolean;
  /** Only calls on these very paths, or on descriptors of them; where it is missing all count. */
  readonly paths?: readonly string[];
}

/** The words to put before a command; what it does is written to `record`. */
export function tracing(record: string, calls: readonly string[], more: readonly string[] = []): string[] {
  return ['strace', '-f', '-b', 'execve', '-qq', '-y', '-s', '400', '-o', record, '-e', `trace=${calls.join(',')}`, ...more];
}

export function injecting(record: string, {call, fault, at, lasting = false, paths = []}: Injection): string[] {
  const how = fault === 'SIGKILL' ? 'signal=SIGKILL' : `error=${fault}`;
  // The writes to the journal tell the phase.
  return tracing(record, [...new Set([call, 'write'])], ['-e', `inject=${call}:${how}:when=${at}${lasting ? '+' : ''}`, ...paths.flatMap(path => ['-P', path])]);
}

export interface Call {
  readonly name: string;
  /** Of the main thread, that of the command itself. */
  readonly main: boolean;
  /** As strace writes it. */
  readonly text: string;
  /** Undefined for one that did not return, because the process was killed. */
  readonly returned: string | undefined;
  readonly injected: boolean;
}

/** Only the calls that have names; signals and ends are left out. A call that another thread interrupted is told where it returned. */
export function readCalls(record: string): Call[] {
  const begun = new Map<string, string>();
  let main: string | undefined;
  return readFileSync(record, 'latin1').split('\n').flatMap((line): Call[] => {
    const [, thread = '', text = ''] = /^(\d+) +(.*)$/.exec(line) ?? [];
    main ??= thread;
    const unfinished = /^(\w+\(.*) <unfinished \.\.\.>$/.exec(text);
    if (unfinished?.[1] !== undefined) {
      begun.set(thread, unfinished[1]);
      return [];
    }
    const resumed = /^<\.\.\. \w+ resumed>(.*)$/.exec(text);
    const whole = resumed === null ? text : `${begun.get(thread) ?? ''}${resumed[1] ?? ''}`;
    const [, name, returned] = /^(\w+)\(.*\) += (.*)$/.exec(whole) ?? /^(\w+)\(/.exec(whole) ?? [];
    return name === undefined ? [] : [{name, main: thread === main, text: whole, returned: returned?.startsWith('?') === true ? undefined : returned, injected: whole.endsWith('(INJECTED)')}];
  });
}

/** What changes files, directories, processes. */
const CHANGES = ['kill', 'tgkill', 'tkill', 'pidfd_send_signal', 'rename', 'renameat', 'renameat2', 'unlink', 'unlinkat', 'rmdir', 'mkdir', 'mkdirat',
  'symlink', 'symlinkat', 'link', 'linkat', 'truncate', 'ftruncate', 'fchmod', 'fchown', 'chown', 'lchown', 'openat', 'creat', 'write', 'pwrite64', 'writev', 'pwritev'] as const;

export function tracingChanges(record: string): string[] {
  return tracing(record, CHANGES);
}

/**
 * What a command changed, but for what every command needs that takes the lock: the note in `lock` of who has it, and the lines in the
 * deployer's own log. What leaves everything as it was is no change: a call that failed (`mkdir` of a directory that is there), an
 * `open` to read, a write to a pipe, a socket or an eventfd.
 */
export function changes(record: string, stateDir: string): string[] {
  const allowed = [`<${stateDir}/lock>`, `<${stateDir}/log/osyw-deploy.log>`, '</dev/null>'];
  return readCalls(record).filter(({name, text, returned}) => {
    if (returned === undefined || returned.startsWith('-1 ')) return false;
    if (name === 'openat' && !/O_(WRONLY|RDWR|CREAT|TRUNC)/.test(text)) return false;
    if (/write/.test(name) && /^\w+\(\d+<(pipe|socket|anon_inode):/.test(text)) return false;
    return !(['openat', 'ftruncate'].includes(name) || /write/.test(name)) || !allowed.some(path => text.includes(path));
  }).map(({text}) => text.slice(0, 200));
}
