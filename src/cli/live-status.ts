import {setTimeout as delay} from 'node:timers/promises';
import {messageOf} from '../errors.ts';
import {plainText} from '../support/plain-text.ts';
import type {Context} from './context.ts';
import {isUnread} from './output.ts';
import {paint} from './renderer.ts';
import {openScreen} from './screen.ts';
import {statusLines, type ShownStatus} from './status-lines.ts';
import {openLook} from './status-look.ts';
import {LSB} from './status.ts';
import {configStamp} from './through-watch.ts';

const LOOK_MS = 1000;
/** A file that is just being replaced is there at the next look. */
const FAILED_LOOKS = 2;

/** Where the looks go. */
interface View {
  show(status: ShownStatus): void;
  /** It cannot be looked. */
  fail(message: string): void;
  close(): void;
}

/** `osyw-deploy status --watch`: looks every second, until it is interrupted or nobody reads it any more; that is 0. 4 without a usable configuration. */
export async function liveStatus(context: Context): Promise<number> {
  const {signal, output} = context;
  try {
    context.loadConfig();
  } catch (error) {
    output.err(`${messageOf(error)}\n`);
    return LSB.unknown;
  }
  const look = lookAsConfigured(context);
  const view = openView(context);
  try {
    for (let failed = 0; !signal.aborted && !isUnread();) {
      const second = delay(LOOK_MS, undefined, {signal}).catch(() => undefined);
      try {
        view.show(await look());
        failed = 0;
      } catch (error) {
        if (!signal.aborted && ++failed >= FAILED_LOOKS) view.fail(messageOf(error));
      }
      await second;
    }
  } finally {
    view.close();
  }
  return 0;
}

/** By the configuration as it is at each look. Errors: those of the look; CONFIG_INVALID. */
function lookAsConfigured({loadConfig, loadConfigAgain, signal}: Context): () => Promise<ShownStatus> {
  let config = loadConfig();
  let {changed} = configStamp(config.file);
  let look = openLook(config, signal);
  return () => {
    const now = configStamp(config.file).changed;
    if (now !== changed) {
      config = loadConfigAgain();
      look = openLook(config, signal);
      changed = now;
    }
    return look();
  };
}

function openView(context: Context): View {
  if (context.quiet) return {show: () => undefined, fail: message => context.output.err(`${plainText(message)}\n`), close: () => undefined};
  return context.output.terminal && context.env['TERM'] !== 'dumb' && !context.json ? screenView(context) : blockView(context);
}

/** Drawn every second, whatever a look waits for: a worker that hangs keeps it until `check.timeout`. */
function screenView({output}: Context): View {
  const screen = openScreen(output);
  let [seen, failure]: [ShownStatus | undefined, string | undefined] = [undefined, undefined];
  const draw = () => screen.draw([
    ...(failure === undefined ? [] : [...paint(output, 31, plainText(failure)).split('\n'), '']),
    ...(seen === undefined ? [] : statusLines(seen, {now: Date.now(), colour: output.colour})),
  ]);
  const timer = setInterval(draw, LOOK_MS);
  const change = (status: ShownStatus | undefined, message: string | undefined) => {
    const isSame = status !== undefined && seen !== undefined && isUnchanged(seen, status) && failure === message;
    [seen, failure] = [status ?? seen, message];
    // What only ages waits for its second.
    if (!isSame) draw();
  };
  return {
    show: status => change(status, undefined),
    fail: message => change(undefined, message),
    close: () => {
      clearInterval(timer);
      screen.close();
    },
  };
}

function blockView({output, json}: Context): View {
  let [seen, failure]: [ShownStatus | undefined, string | undefined] = [undefined, undefined];
  return {
    show: status => {
      failure = undefined;
      if (seen !== undefined && isUnchanged(seen, status)) return;
      const blank = seen === undefined ? '' : '\n';
      seen = status;
      output.out(json ? `${JSON.stringify(status)}\n` : `${blank}${statusLines(status, {now: Date.now(), colour: output.colour}).map(line => `${line}\n`).join('')}`);
    },
    fail: message => {
      if (message !== failure) output.err(`${plainText(message)}\n`);
      failure = message;
    },
    close: () => undefined,
  };
}

/** But for memory and CPU, which are never the same. */
function isUnchanged(before: ShownStatus, now: ShownStatus): boolean {
  const facts = (status: ShownStatus) => JSON.stringify(status, (key, value: unknown) => key === 'memory' || key === 'cpu' ? undefined : value);
  return facts(before) === facts(now);
}
