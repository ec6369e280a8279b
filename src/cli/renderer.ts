import type {DeployEvent, DeployResult} from '../deploy/events.ts';
import {PHASES, type Phase} from '../deploy/deployment.ts';
import {formatDuration} from '../support/durations.ts';
import {plainText} from '../support/plain-text.ts';
import type {Output} from './output.ts';

/** Shows a deploy as it goes. */
export interface Renderer {
  event(event: DeployEvent): void;
  result(result: DeployResult): void;
}

export interface Verbosity {
  readonly json: boolean;
  readonly quiet: boolean;
  readonly verbose: boolean;
}

/** JSON for programs, live lines for a terminal, plain lines for everything else. */
export function openRenderer(output: Output, {json, quiet, verbose}: Verbosity): Renderer {
  if (json) return jsonRenderer(output);
  return output.terminal && !quiet && !verbose ? liveRenderer(output) : plainRenderer(output, {quiet, verbose});
}

function jsonRenderer(output: Output): Renderer {
  return {
    event: event => {
      if (event.event === 'phase') output.out(`${JSON.stringify(event)}\n`);
    },
    result: ({hint, ...result}) => {
      output.out(`${JSON.stringify({event: 'result', ...result})}\n`);
      if (result.error !== null) output.err(failureText(result.error, hint));
    },
  };
}

function plainRenderer(output: Output, {quiet, verbose}: {quiet: boolean; verbose: boolean}): Renderer {
  let lastNote: string | undefined;
  return {
    event: event => {
      if (quiet) return;
      if (event.event === 'phase' && event.state === 'ended') output.out(`${paint(output, 1, event.phase.padEnd(7))} ${formatDuration(event.ms ?? 0)}\n`);
      if (event.event === 'output' && verbose) output.out(`        | ${plainText(event.line)}\n`);
      if (event.event === 'note' && verbose && event.text !== lastNote) output.out(`        ${plainText(event.text)}\n`);
      if (event.event === 'note') lastNote = event.text;
    },
    result: result => tellResult(output, result, quiet),
  };
}

const TICK_MS = 120;
const CLEAR_LINE = '\r\x1b[K';

/** One line a phase; the running one is rewritten with its time and what it waits for. */
function liveRenderer(output: Output): Renderer {
  let running: {phase: Phase; since: number; note: string} | undefined;
  let timer: NodeJS.Timeout | undefined;
  const draw = () => {
    if (running === undefined) return;
    const left = `  ${mark(running.phase)} ${running.phase.padEnd(7)} ${formatDuration(performance.now() - running.since).padStart(8)}  `;
    output.out(`${CLEAR_LINE}${left}${fit(running.note, left.length)}`);
  };
  const end = () => {
    clearInterval(timer);
    timer = undefined;
    running = undefined;
  };
  return {
    event: event => {
      if (event.event === 'phase' && event.state === 'began') {
        running = {phase: event.phase, since: performance.now(), note: ''};
        timer ??= setInterval(draw, TICK_MS).unref();
        draw();
      } else if (event.event === 'phase') {
        end();
        output.out(`${CLEAR_LINE}  ${paint(output, 32, '✓')} ${event.phase.padEnd(7)} ${formatDuration(event.ms ?? 0).padStart(8)}\n`);
      } else if (running !== undefined) {
        running.note = plainText(event.event === 'note' ? event.text : event.line).replaceAll('\n', ' ');
        draw();
      } else if (event.event === 'note') {
        output.out(`    ${plainText(event.text)}\n`);
      }
    },
    result: result => {
      end();
      tellResult(output, result, false);
    },
  };
}

function mark(phase: Phase): string {
  return String(PHASES.indexOf(phase) + 1);
}

function fit(text: string, used: number): string {
  const room = Math.max(10, (process.stdout.columns || 80) - used - 1);
  return text.length > room ? `${text.slice(0, room - 1)}…` : text;
}

function tellResult(output: Output, result: DeployResult, quiet: boolean): void {
  if (result.error !== null) {
    output.err(`${paint(output, 31, `${result.code} (exit ${result.exit})`)}: ${failureText(result.error, result.hint)}`);
  }
  // What ended before it began has nothing to sum up.
  if (result.error !== null && result.revision === null && Object.keys(result.phases).length === 0) return;
  if (!quiet || result.error !== null) (result.error === null ? output.out : output.err)(`${paint(output, result.error === null ? 32 : 31, summary(result))}\n`);
}

/** The last line: what happened, and what serves now. */
function summary({outcome, release, revision, previous, phases, exit}: DeployResult): string {
  const took = formatDuration(Object.values(phases).reduce((sum, ms) => sum + ms, 0));
  const what = `${revision ?? 'no revision'}${release === null ? '' : ` as release ${release}`}`;
  const old = previous === null ? 'nothing serves' : `release ${previous} still serves`;
  switch (outcome) {
    case 'deployed': return release === null ? `stopped release ${previous ?? '?'}: nginx answers 502 until the next start` : `deployed ${what} in ${took}${exit === 0 ? '' : '; it serves, but something old is left to stop'}`;
    case 'unchanged': return release === null ? 'unchanged: nothing serves' : `unchanged: release ${release ?? '?'} (${revision ?? '?'}) serves, and its workers are healthy`;
    case 'aborted': return `aborted ${what} after ${took}: ${old}`;
    case 'rolled_back': return `rolled back from ${what} after ${took}: ${old}`;
    case 'superseded': return `superseded: a newer revision than ${revision ?? '?'} was asked for`;
    case 'uncertain': return `uncertain: it cannot be told what serves; nothing was stopped`;
  }
}

function failureText(error: string, hint: string | null): string {
  return `${plainText(error)}\n${hint === null ? '' : `→ ${plainText(hint)}\n`}`;
}

/** Wraps a text in a colour, where there is colour. */
export function paint({colour}: Pick<Output, 'colour'>, code: number, text: string): string {
  return colour ? `\x1b[${code}m${text}\x1b[0m` : text;
}
