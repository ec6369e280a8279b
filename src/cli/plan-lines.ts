import type {Changes} from '../working-copy/count-changes.ts';
import {plainText} from '../support/plain-text.ts';
import {STATES, type glanceAtHook} from './hook.ts';
import type {ShownDeploy} from './status-lines.ts';

interface ShownProcess {
  readonly port: number;
  readonly pid: number;
}

/** What `plan` shows; its JSON is the contract's, with more beside. */
export interface ShownPlan {
  readonly revision: string;
  /** What serves now. */
  readonly from: {readonly release: string; readonly revision: string} | null;
  readonly outcome: 'deployed' | 'unchanged';
  /** What would be made; null when nothing would. */
  readonly release: {readonly id: string; readonly dir: string} | null;
  /** The commands that would run in it. */
  readonly build: readonly (readonly string[])[];
  /** Between the two revisions; null where that cannot be told without a fetch. */
  readonly changed: Changes | null;
  readonly ports: readonly number[];
  readonly nginx: {
    readonly file: string;
    /** Unified; empty when the file stays as it is. */
    readonly diff: string;
    /** Whether nginx would take it, in its words; null when it was not asked, and `untested` says why. */
    readonly test: {readonly ok: boolean; readonly output: string} | null;
    readonly untested: string | null;
  };
  readonly stops: readonly ShownProcess[];
  /** What an earlier deploy left to be stopped. */
  readonly draining: readonly (ShownProcess & {readonly release: string; readonly revision: string})[];
  readonly hook: Awaited<ReturnType<typeof glanceAtHook>>;
  /** The one that runs: the plan is that of before it. */
  readonly deploy: ShownDeploy | null;
  /** One that was killed, which `now` settles first. */
  readonly interrupted: ShownDeploy | null;
}

/** The plan for people. */
export function planText(plan: ShownPlan): string {
  const {revision, from, outcome, release, build, changed, ports, nginx, stops, draining, hook, deploy, interrupted} = plan;
  const around = [
    ...draining.map(({port, pid, release: id}) => line('drains', `${port} (pid ${pid}) of release ${id}, and is stopped when nothing is connected any more`)),
    line('hook', hook.state === 'unknown' ? `cannot be told: ${hook.problems[0] ?? ''}` : `${hook.state === 'another' ? 'of another application only' : STATES[hook.state]} in ${hook.repository ?? '?'}`),
    ...(hook.state === 'unknown' ? [] : hook.problems.map(problem => line('', problem))),
    ...(deploy === null ? [] : [line('beside', `deploy ${deploy.id} of ${deploy.revision ?? '?'} runs, in ${deploy.phase}: this is the plan of before its end`)]),
    ...(interrupted === null ? [] : [line('first', `deploy ${interrupted.id} of ${interrupted.revision ?? '?'}, which was killed in ${interrupted.phase}, would be settled`)]),
  ];
  if (outcome === 'unchanged') return asText([`${revision} serves already; nothing would be done`, ...around]);
  return asText([
    line('revision', from === null ? revision : from.revision === revision ? `${revision}, once more` : `${from.revision} → ${revision}${changed === null ? '' : ` (${counted(changed.commits, 'commit')}, ${counted(changed.files, 'path')})`}`),
    ...(release === null ? [] : [line('release', `${release.id} in ${release.dir}`)]),
    ...build.map((words, i) => line(i === 0 ? 'build' : '', words.map(word => /^[\w@%+=:,./-]+$/.test(word) ? word : JSON.stringify(word)).join(' '))),
    line('ports', ports.join(', ')),
    line('stops', stops.map(({port, pid}) => `${port} (pid ${pid})`).join(', ') || 'nothing'),
    ...around,
    line('nginx', `${nginx.file}${nginx.diff === '' ? ' stays as it is' : ''}`),
    line('nginx -t', nginx.test === null ? `not tested: ${nginx.untested ?? ''}` : nginx.test.ok ? `passes${nginx.test.output === '' ? '' : `, and says\n${nginx.test.output}`}` : `\`now\` would end with 9 (SWITCH_REFUSED):\n${nginx.test.output}`),
    ...(nginx.diff === '' ? [] : [nginx.diff.trimEnd()]),
  ]);
}

function line(what: string, text: string): string {
  return `${what.padEnd(9)} ${text}`;
}

function counted(n: number, what: string): string {
  return `${n} ${what}${n === 1 ? '' : 's'}`;
}

function asText(lines: readonly string[]): string {
  return plainText([...lines, ''].join('\n'));
}
