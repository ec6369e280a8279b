import type {HistoryLine} from '../state/history.ts';
import {formatDuration} from '../support/durations.ts';
import {plainText} from '../support/plain-text.ts';
import type {Usage} from '../workers/usage.ts';
import {paint} from './renderer.ts';

export interface ShownWorker {
  readonly port: number;
  readonly pid: number;
  readonly state: 'starting' | 'healthy' | 'unhealthy' | 'draining' | 'dead';
  readonly started_at: string;
  readonly restarts: number;
  /** What its check saw that was not good. */
  readonly saw: string | null;
  readonly memory: Usage['memory'] | null;
  readonly cpu: Usage['cpu'] | null;
}

export interface ShownDrain {
  readonly release: string;
  readonly revision: string;
  readonly workers: readonly ShownWorker[];
  readonly connections: number;
  /** Pids of those of before the switch that live. */
  readonly nginx_workers: readonly number[];
  readonly since: string;
}

export interface ShownDeploy {
  readonly id: string;
  readonly phase: string;
  readonly revision: string | null;
  readonly since: string;
  /** When the phase began. */
  readonly phase_since: string;
}

/** What `status` shows; its JSON is the contract's. Times are ISO 8601. */
export interface ShownStatus {
  readonly app: string;
  readonly serving: {readonly release: string; readonly revision: string; readonly since: string; readonly workers: readonly ShownWorker[]} | null;
  readonly draining: readonly ShownDrain[];
  readonly deploy: ShownDeploy | null;
  readonly interrupted: ShownDeploy | null;
  readonly pending: {readonly revision: string | null; readonly since: string} | null;
  readonly upstream: {readonly name: string; readonly file: string; readonly ports: readonly number[]};
  readonly watch: {readonly pid: number; readonly since: string} | null;
  /** Newest first. */
  readonly deploys: readonly HistoryLine[];
}

const [RED, GREEN, YELLOW, BOLD, DIM] = [31, 32, 33, 1, 2];
const STATE_COLOUR = {starting: YELLOW, healthy: GREEN, unhealthy: RED, draining: YELLOW, dead: RED} as const;

interface Cell {
  readonly text: string;
  readonly colour?: number;
  readonly right?: boolean;
}

/** The status for people, line by line. Units: `now` milliseconds since 1970. */
export function statusLines({app, serving, draining, deploy, interrupted, pending, upstream, watch, deploys}: ShownStatus, {now, colour}: {now: number; colour: boolean}): string[] {
  const ago = (iso: string) => formatAge(now - Date.parse(iso));
  const say = (code: number, text: string) => paint({colour}, code, oneLine(text));
  const lines = [`${say(BOLD, app)}: ${serving === null ? say(RED, 'nothing serves') : oneLine(`release ${serving.release} (${serving.revision}) serves since ${serving.since}`)}`];
  if (serving !== null) lines.push(...table(workerRows(serving.workers, now), colour));
  for (const {release, revision, since, workers, connections, nginx_workers: nginxWorkers} of draining) {
    lines.push(`${say(YELLOW, `release ${release} (${revision}) drains`)} since ${since}, ${waitsFor(nginxWorkers, connections)}`, ...table(workerRows(workers, now), colour));
  }
  if (deploy !== null) lines.push(`${say(YELLOW, `deploy ${deploy.id}`)} of ${oneLine(deploy.revision ?? '?')} is in ${say(BOLD, deploy.phase)} for ${ago(deploy.phase_since)}, began ${ago(deploy.since)} ago`);
  if (interrupted !== null) lines.push(`${say(RED, `deploy ${interrupted.id} of ${interrupted.revision ?? '?'} was killed in ${interrupted.phase}`)}: \`osyw-deploy recover\` settles it, and so does whatever deploys next`);
  if (pending !== null) lines.push(`a request for ${oneLine(pending.revision ?? 'the newest revision')} waits since ${pending.since} (${ago(pending.since)})`);
  lines.push(oneLine(`upstream ${upstream.name} in ${upstream.file}: ports ${upstream.ports.join(', ') || 'none'}`));
  lines.push(watch === null ? 'no watch runs' : `a watch runs, pid ${watch.pid}, since ${watch.since} (${ago(watch.since)})`);
  if (deploys.length > 0) lines.push('last deploys', ...table(deploys.map(deployRow), colour));
  return lines;
}

function workerRows(workers: readonly ShownWorker[], now: number): Cell[][] {
  if (workers.length === 0) return [];
  const head = ['port', 'pid', 'state', 'age', 'restarts', 'memory', 'cpu'].map((text): Cell => ({text, colour: DIM, right: text !== 'state'}));
  return [head, ...workers.map(({port, pid, state, started_at: startedAt, restarts, memory, cpu, saw}): Cell[] => [
    number(String(port)), number(String(pid)), {text: state, colour: STATE_COLOUR[state]},
    number(state === 'dead' ? '-' : formatAge(now - Date.parse(startedAt))), number(String(restarts)),
    number(memory === null ? '-' : formatBytes(memory)), number(cpu === null ? '-' : `${(cpu * 100).toFixed(1)} %`),
    {text: saw ?? '', colour: RED},
  ])];
}

function deployRow({started_at: startedAt, trigger, requested_by: by, revision, outcome, code, phases}: HistoryLine): Cell[] {
  const good = outcome === 'deployed' && code === 'OK';
  return [
    {text: startedAt.slice(0, 19).replace('T', ' ')}, {text: revision?.slice(0, 12) ?? '-'},
    {text: good ? outcome : `${outcome} ${code}`, colour: good ? GREEN : RED},
    number(formatDuration(Object.values(phases).reduce((sum, ms) => sum + ms, 0))),
    {text: `${trigger} by ${by}`},
  ];
}

function waitsFor(nginxWorkers: readonly number[], connections: number): string {
  const nginx = nginxWorkers.length === 0 ? [] : [`${counted(nginxWorkers.length, 'old nginx worker')} (${nginxWorkers.join(', ')})`];
  const open = connections === 0 ? [] : [counted(connections, 'connection')];
  const all = [...nginx, ...open];
  return all.length === 0 ? 'waits for its workers to end' : `waits for ${all.join(' and ')}`;
}

function counted(n: number, what: string): string {
  return `${n} ${what}${n === 1 ? '' : 's'}`;
}

function number(text: string): Cell {
  return {text, right: true};
}

/** Columns as wide as their widest cell, and no blanks at the end of a line. */
function table(rows: readonly (readonly Cell[])[], colour: boolean): string[] {
  const shown = rows.map(row => row.map(cell => ({...cell, text: oneLine(cell.text)})));
  const widths = (shown[0] ?? []).map((_, column) => Math.max(...shown.map(row => row[column]?.text.length ?? 0)));
  return shown.map(row => {
    const last = row.findLastIndex(({text}) => text !== '');
    return `  ${row.slice(0, last + 1).map(({text, colour: code, right}, column) => {
      const blanks = ' '.repeat(Math.max(0, (widths[column] ?? 0) - text.length));
      const painted = code === undefined || text === '' ? text : paint({colour}, code, text);
      return right === true ? blanks + painted : column === last ? painted : painted + blanks;
    }).join('  ')}`;
  });
}

/** A text of somebody else that stays on its line. */
function oneLine(text: string): string {
  return plainText(text).replace(/[\n\t]+/g, ' ').trimEnd();
}

/** Of something that goes on: two units at most, as nobody reads the seconds of a week. */
export function formatAge(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const [minutes, hours, days] = [Math.floor(seconds / 60), Math.floor(seconds / 3600), Math.floor(seconds / 86_400)];
  if (minutes === 0) return `${seconds} s`;
  if (hours === 0) return `${minutes} m ${seconds % 60} s`;
  return days === 0 ? `${hours} h ${minutes % 60} m` : `${days} d ${hours % 24} h`;
}

function formatBytes(bytes: number): string {
  const mebibytes = bytes / 1024 ** 2;
  return mebibytes < 1000 ? `${mebibytes.toFixed(1)} MiB` : `${(mebibytes / 1024).toFixed(2)} GiB`;
}
