import {onResize, terminalRows, type Output} from './output.ts';

/** A terminal that shows one thing, and shows it anew. */
export interface Screen {
  draw(lines: readonly string[]): void;
  /** What was on the terminal before is back, then what was drawn last; the cursor too. */
  close(): void;
}

// The alternate screen; no cursor; no wrapping, as only the terminal knows how wide a character is.
const ENTER = '\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J';
const LEAVE = '\x1b[?7h\x1b[?25h\x1b[?1049l';

/** Takes over the terminal. It is given back while the process is stopped, too. */
export function openScreen(output: Output): Screen {
  let shown: readonly string[] = [];
  const draw = (before = '') => output.out(`${before}${frame(shown, terminalRows())}`);
  const stop = () => {
    output.out(LEAVE);
    process.kill(process.pid, 'SIGSTOP');
  };
  const goOn = () => draw(ENTER);
  process.on('SIGTSTP', stop).on('SIGCONT', goOn);
  const ignoreResize = onResize(() => draw('\x1b[2J'));
  output.out(ENTER);
  return {
    draw: lines => {
      shown = lines;
      draw();
    },
    close: () => {
      process.off('SIGTSTP', stop).off('SIGCONT', goOn);
      ignoreResize();
      output.out(`${LEAVE}${shown.map(line => `${line}\n`).join('')}`);
    },
  };
}

/** One write, line over line: a screen that is emptied first flickers. The last row stays free, else the terminal would scroll. */
export function frame(lines: readonly string[], rows: number): string {
  return `\x1b[H${lines.slice(0, rows - 1).map(line => `\x1b[2K${line}\r\n`).join('')}\x1b[J`;
}
