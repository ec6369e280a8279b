import {spawn} from 'node:child_process';
import {CLI} from './osyw.ts';
import {scrubbedEnv} from './scrubbed-env.ts';

/** Runs words on a terminal of its own: what it prints is our output; orders come by our input: `size ROWS COLUMNS`, `type HEX`. */
const ON_A_TERMINAL = `
import fcntl, os, pty, select, signal, struct, sys, termios
def size(fd, rows, columns):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack('HHHH', int(rows), int(columns), 0, 0))
pid, fd = pty.fork()
if pid == 0:
    size(0, sys.argv[1], sys.argv[2])
    os.execv(sys.argv[3], sys.argv[3:])
orders = b''
while True:
    ready = select.select([fd, 0], [], [])[0]
    if fd in ready:
        try:
            data = os.read(fd, 65536)
        except OSError:
            break
        if not data:
            break
        os.write(1, data)
    if 0 in ready:
        more = os.read(0, 4096)
        if not more:
            os.kill(pid, signal.SIGKILL)
            break
        orders += more
        *whole, orders = orders.split(b'\\n')
        for words in (line.decode().split() for line in whole):
            if words[0] == 'size':
                size(fd, words[1], words[2])
            else:
                os.write(fd, bytes.fromhex(words[1]))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 255)
`;

/** What a person sees. */
export interface Screen {
  readonly lines: readonly string[];
  /** On the screen of its own, which is gone at the end. */
  readonly alternate: boolean;
  readonly cursor: boolean;
  readonly wraps: boolean;
  /** Lines that left at the top. */
  readonly scrolled: number;
}

export interface OnTerminal {
  /** All bytes so far. */
  output(): string;
  screen(): Screen;
  resize(rows: number, columns: number): void;
  type(text: string): void;
  readonly ended: Promise<number | null>;
  /** Takes the terminal away. */
  end(): void;
}

/** The command on a terminal of its own. */
export function startOnTerminal(args: readonly string[], {cwd, rows, columns, env = {}}: {cwd: string; rows: number; columns: number; env?: Readonly<Record<string, string>>}): OnTerminal {
  const child = spawn('/usr/bin/python3', ['-c', ON_A_TERMINAL, String(rows), String(columns), process.execPath, CLI, ...args], {cwd, env: scrubbedEnv(cwd, {TERM: 'xterm', ...env}), stdio: ['pipe', 'pipe', 'inherit']});
  let output = '';
  let height = rows;
  child.stdout.setEncoding('utf8').on('data', (part: string) => (output += part));
  // It may have ended already.
  child.stdin.on('error', () => undefined);
  return {
    output: () => output,
    screen: () => screenOf(output, height),
    resize: (to, columnsTo) => {
      height = to;
      child.stdin.write(`size ${to} ${columnsTo}\n`);
    },
    type: text => void child.stdin.write(`type ${Buffer.from(text).toString('hex')}\n`),
    ended: new Promise(resolve => child.once('close', resolve)),
    end: () => void child.stdin.end(),
  };
}

/** As a terminal of so many rows shows it. Errors: for what it does not know. */
export function screenOf(output: string, rows: number): Screen {
  const screens = {main: [''], alternate: ['']};
  const at = {main: 0, alternate: 0};
  const columns = {main: 0, alternate: 0};
  let on: 'main' | 'alternate' = 'main';
  let [cursor, wraps, scrolled] = [true, true, 0];
  for (const [token] of output.matchAll(/\x1b\[[?\d;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+|\x1b$/g)) {
    const lines = screens[on];
    if (token === '\x1b[?1049h' || token === '\x1b[?1049l') on = token.endsWith('h') ? 'alternate' : 'main';
    else if (token === '\x1b[?25h' || token === '\x1b[?25l') cursor = token.endsWith('h');
    else if (token === '\x1b[?7h' || token === '\x1b[?7l') wraps = token.endsWith('h');
    else if (token === '\x1b[H') [at[on], columns[on]] = [0, 0];
    else if (token === '\x1b[2J') lines.fill('');
    else if (token === '\x1b[J') lines.splice(at[on], Infinity, (lines[at[on]] ?? '').slice(0, columns[on]));
    else if (token === '\x1b[2K') lines[at[on]] = '';
    else if (/^\x1b\[\d*m$/.test(token) || token === '\x1b') continue;
    else if (token === '\r') columns[on] = 0;
    else if (token === '\n') {
      at[on]++;
      if (on === 'alternate' && at[on] >= rows) {
        lines.shift();
        at[on]--;
        scrolled++;
      }
      lines[at[on]] ??= '';
    } else if (token.startsWith('\x1b')) throw new Error(`the terminal of the test does not know ${JSON.stringify(token)}`);
    else {
      const line = lines[at[on]] ?? '';
      lines[at[on]] = line.slice(0, columns[on]).padEnd(columns[on]) + token + line.slice(columns[on] + token.length);
      columns[on] += token.length;
    }
  }
  return {lines: screens[on], alternate: on === 'alternate', cursor, wraps, scrolled};
}
