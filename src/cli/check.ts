import {existsSync} from 'node:fs';
import type {Config} from '../config/config.ts';
import type {Release, Worker} from '../deploy/deployment.ts';
import {FAILURES} from '../errors.ts';
import {checkHint} from '../health/check-hint.ts';
import {checkWorker, repeatCheck, type CheckResult} from '../health/check-worker.ts';
import {listensOn} from '../health/port-owner.ts';
import {readState} from '../state/state-file.ts';
import {plainText} from '../support/plain-text.ts';
import {probeThroughNginx} from '../upstream/probe.ts';
import {wire} from '../wire.ts';
import type {Context} from './context.ts';
import {paint} from './renderer.ts';

/** One check, as it is shown; its JSON is the same. */
interface ShownCheck {
  readonly port: number;
  /** Null for a port that was only named. */
  readonly pid: number | null;
  readonly good: boolean;
  readonly saw: string;
  readonly status: number | null;
  readonly ms: number;
  /** What most likely has to change, and a command line that repeats it; null when it is good. */
  readonly hint: string | null;
  readonly repeat: string | null;
}

interface ShownChecks {
  readonly app: string;
  readonly good: boolean;
  /** Null with `--port`, and when nothing serves. */
  readonly release: string | null;
  readonly revision: string | null;
  readonly workers: readonly ShownCheck[];
  /** Null when none is configured, or a port was named. */
  readonly probe: {readonly url: string; readonly good: boolean; readonly saw: string | null; readonly ms: number} | null;
}

const [RED, GREEN] = [31, 32];

/**
 * `osyw-deploy check`: the configured check, once, of each worker that serves, and the probe through nginx; or of whatever listens on a port.
 * Changes nothing. Exit code: 0 all of it good, 8 something is not, or nothing serves.
 */
export async function check(context: Context, {port}: {readonly port?: number}): Promise<number> {
  const config = context.loadConfig();
  const shown = await (port === undefined ? checkServing(config, context.signal) : checkPort(config, port, context.signal));
  if (context.json) context.output.out(`${JSON.stringify(shown)}\n`);
  else if (!context.quiet || !shown.good) context.output.out(tell(shown, context.output.colour));
  return shown.good ? 0 : FAILURES.NEVER_HEALTHY.exit;
}

async function checkServing(config: Config, signal: AbortSignal): Promise<ShownChecks> {
  const {serving} = readState(config.stateDir);
  if (serving === null) return {app: config.app, good: false, release: null, revision: null, workers: [], probe: null};
  const {release} = serving;
  const {health} = wire(config, () => undefined);
  const [workers, probe] = await Promise.all([
    Promise.all(serving.workers.map(async worker => {
      const {result, ms} = await timed(() => health.check(release, worker, signal));
      return shownCheck(config, {port: worker.port, pid: worker.process.pid, result, ms, elsewhere: elsewhere(config, worker, result)});
    })),
    probed(config.nginx.probe),
  ]);
  return {app: config.app, good: workers.every(({good}) => good) && probe?.good !== false, release: release.id, revision: release.revision, workers, probe};
}

/** Of a program that was perhaps started by hand, to see whether a check that is being written fits it. */
async function checkPort(config: Config, port: number, signal: AbortSignal): Promise<ShownChecks> {
  const {workingCopy} = config.source;
  const release: Release = {id: '000000', revision: 'none', dir: existsSync(workingCopy) ? workingCopy : '/'};
  const {result, ms} = await timed(() => checkWorker(config, release, port, signal));
  const one = shownCheck(config, {port, pid: null, result, ms, elsewhere: []});
  return {app: config.app, good: one.good, release: null, revision: null, workers: [one], probe: null};
}

function shownCheck(config: Config, {port, pid, result, ms, elsewhere: others}: {port: number; pid: number | null; result: CheckResult; ms: number; elsewhere: readonly string[]}): ShownCheck {
  const {check: asked, workers: {host}} = config;
  const status = result.answer?.status ?? null;
  const common = {port, pid, good: result.good, status, ms};
  if (!result.good) return {...common, saw: result.saw, hint: checkHint(asked, result, others) ?? null, repeat: repeatCheck(asked, host, port)};
  return {...common, saw: status !== null ? `status ${status}` : asked.kind === 'tcp' ? 'accepts connections' : 'exited with 0', hint: null, repeat: null};
}

/** Where the worker listens, when it is not where it should. */
function elsewhere({workers: {host}}: Config, worker: Worker, result: CheckResult): string[] {
  if (result.good || result.listens) return [];
  return listensOn(worker).map(({address, port}) => `${address}:${port}`).filter(place => place !== `${host}:${worker.port}`);
}

async function probed(url: string | undefined): Promise<ShownChecks['probe']> {
  if (url === undefined) return null;
  const {result, ms} = await timed(() => probeThroughNginx(url));
  return {url, good: result === undefined, saw: result ?? null, ms};
}

async function timed<T>(work: () => Promise<T>): Promise<{result: T; ms: number}> {
  const began = performance.now();
  const result = await work();
  return {result, ms: Math.round(performance.now() - began)};
}

function tell({app, release, revision, workers, probe}: ShownChecks, colour: boolean): string {
  const mark = (good: boolean) => paint({colour}, good ? GREEN : RED, good ? 'good' : 'BAD ');
  if (workers.length === 0) return `${app}: nothing serves; \`osyw-deploy now\` deploys, \`osyw-deploy check --port PORT\` checks what listens there\n`;
  return [
    plainText(`${app}: ${release === null ? 'a port that was named' : `release ${release} (${revision ?? '?'}) serves`}`),
    ...workers.flatMap(({port, pid, good, saw, ms, hint, repeat}) => [
      `  ${mark(good)}  ${port}${pid === null ? '' : ` (pid ${pid})`}  ${plainText(saw)}, ${ms} ms`,
      ...(hint === null ? [] : [plainText(`        → ${hint}`)]),
      ...(repeat === null ? [] : [plainText(`        to repeat it: ${repeat}`)]),
    ]),
    ...(probe === null ? [] : [`  ${mark(probe.good)}  through nginx: ${plainText(probe.saw ?? probe.url)}, ${probe.ms} ms`]),
    '',
  ].join('\n');
}
