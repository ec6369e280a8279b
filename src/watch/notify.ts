import {runCommand} from '../support/run-command.ts';
import {SYSTEM_PATH} from '../support/system-path.ts';

/** What systemd is told of a service that it started; nothing at all where nobody asked to be told. */
export interface Notify {
  /** It serves, and is watched over from now on. Only the first counts. */
  ready(): void;
  /** Tells that the configuration is read again while `read` does it. */
  reloading(read: () => void): void;
  stopping(): void;
  /** Ends when all of it was told. */
  close(): Promise<void>;
}

const SILENT: Notify = {ready: () => undefined, reloading: read => read(), stopping: () => undefined, close: () => Promise.resolve()};
const TELL_TIMEOUT_MS = 10_000;
/** How often a start that takes long says that it goes on, where no watchdog says how often. */
const GO_ON_MS = 30_000;

/**
 * Speaks to systemd as sd_notify(3) does, by systemd-notify(1): Node has no datagrams of that kind. One is told after the other.
 * While the event loop turns, the watchdog hears so at half of its time, and until `ready` the start may take so much longer.
 */
export function openNotify(env: Readonly<Record<string, string | undefined>>, say: (text: string) => void): Notify {
  const {NOTIFY_SOCKET: socket, WATCHDOG_USEC: usec, WATCHDOG_PID: watched} = env;
  if (socket === undefined || socket === '') return SILENT;
  const watchdogMs = watched === undefined || watched === String(process.pid) ? Number(usec ?? 0) / 1000 : 0;
  let isReady = false;
  let isStopping = false;
  let waiting = 0;
  let told = Promise.resolve();
  const tell = (...words: readonly string[]): void => {
    waiting++;
    told = told.then(() => tellOne(words, socket)).then(fault => {
      if (fault !== undefined) say(`systemd could not be told ${words.join(' ')}: ${fault}`);
    }).finally(() => waiting--);
  };
  const everyMs = watchdogMs > 0 ? watchdogMs / 2 : GO_ON_MS;
  const goOn = (): void => {
    // One that systemd takes its time to hear is word enough.
    if (waiting > 0 || isStopping) return;
    if (!isReady) tell(`EXTEND_TIMEOUT_USEC=${Math.ceil(everyMs * 2 * 1000)}`);
    else if (watchdogMs > 0) tell('WATCHDOG=1');
  };
  // It keeps nobody alive who failed before he was ready.
  const timer = setInterval(goOn, everyMs).unref();
  return {
    ready: () => {
      if (isReady || isStopping) return;
      isReady = true;
      tell('READY=1');
    },
    reloading: read => {
      const tellIt = isReady && !isStopping;
      if (tellIt) tell('RELOADING=1');
      read();
      if (tellIt) tell('READY=1');
    },
    stopping: () => {
      isStopping = true;
      tell('STOPPING=1');
    },
    close: async () => {
      clearInterval(timer);
      await told;
    },
  };
}

/** Returns why it could not be told. In the name of this process, which root may say and systemd believes alone. */
async function tellOne(words: readonly string[], socket: string): Promise<string | undefined> {
  const {exitCode, spawnError, stderr, endedBy} = await runCommand({file: 'systemd-notify', args: [`--pid=${process.pid}`, ...words]}, {env: {PATH: SYSTEM_PATH, NOTIFY_SOCKET: socket}, cwd: '/', timeoutMs: TELL_TIMEOUT_MS});
  return exitCode === 0 ? undefined : stderr.trim() || (spawnError ?? endedBy ?? `systemd-notify ended with ${exitCode}`);
}
