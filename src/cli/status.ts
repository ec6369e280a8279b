import {messageOf} from '../errors.ts';
import type {Context} from './context.ts';
import {statusLines, type ShownStatus} from './status-lines.ts';
import {openLook} from './status-look.ts';

/** As an init script answers. */
export const LSB = {running: 0, dead: 1, notRunning: 3, unknown: 4} as const;

/** `osyw-deploy status`. Exit codes are an init script's: 0 running, 1 dead but recorded, 3 not running, 4 unknown. */
export async function status({output, json, quiet, signal, loadConfig}: Context): Promise<number> {
  let shown: ShownStatus;
  try {
    shown = await openLook(loadConfig(), signal)();
  } catch (error) {
    output.err(`${messageOf(error)}\n`);
    return LSB.unknown;
  }
  if (json) output.out(`${JSON.stringify(shown)}\n`);
  else if (!quiet) output.out(statusLines(shown, {now: Date.now(), colour: output.colour}).map(line => `${line}\n`).join(''));
  if (shown.serving === null) return LSB.notRunning;
  return shown.serving.workers.some(({state}) => state !== 'dead') ? LSB.running : LSB.dead;
}
