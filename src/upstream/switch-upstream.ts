import {rmSync, statSync, unlinkSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {setTimeout as delay} from 'node:timers/promises';
import {isDeepStrictEqual} from 'node:util';
import type {Config} from '../config/config.ts';
import type {ProcessIdentity} from '../deploy/deployment.ts';
import {DeployError, errnoOf, messageOf} from '../errors.ts';
import {ignoreMissing} from '../state/atomic-file.ts';
import {runCommand} from '../support/run-command.ts';
import {lastLines} from '../workers/worker-log.ts';
import {signalProcess} from '../workers/process-identity.ts';
import {SYSTEM_PATH} from '../support/system-path.ts';
import {findMaster, findMasters, nginxChildren, orphansAmong, type NginxMaster} from './nginx-master.ts';
import {beforeReload, observeReload, type BeforeReload, type ReloadVerdict} from './observe-reload.ts';
import {testAside, testInPlace, type TestedConfiguration} from './test-configuration.ts';
import {changeFile, hashOf, makeLive, MOST_CHANGES, readUpstream, writeCandidate, type UpstreamBytes} from './upstream-file.ts';
import {upstreamText, type UpstreamText} from './upstream-text.ts';
import {waitDrained} from './wait-drained.ts';

/** How long nginx may take to carry a reload out. It gives up a taken port after 2.5 s, and parsing may resolve names. */
const RELOAD_TIMEOUT_MS = 15_000;
const RELOAD_COMMAND_TIMEOUT_MS = 60_000;
/** How long a restart may leave nginx without a master. */
const RESTART_TIMEOUT_MS = 5000;
const RESTART_POLL_MS = 50;

/** Durable before the first effect of a switch: with it the old file can be put back and the old nginx workers told from the new. */
export interface SwitchIntent {
  readonly file: string;
  /** base64; null where there was no file. */
  readonly oldBytes: string | null;
  readonly oldHash: string | null;
  readonly newHash: string | null;
  readonly ports: readonly number[];
  /** Null when nginx does not run. */
  readonly master: ProcessIdentity | null;
  /** nginx's workers that accepted before. */
  readonly accepting: readonly ProcessIdentity[];
}

export interface SwitchSteps {
  /** Called before the first effect. */
  intend(intent: SwitchIntent): void;
  /** Called before the reload is asked for. */
  reloading(): void;
}

/** What is left of nginx after a switch: workers of before, which end when their connections do. */
export interface Switched {
  readonly oldNginxWorkers: readonly ProcessIdentity[];
}

/**
 * Lets nginx use these ports, in this order. On return nginx uses them and no old nginx worker accepts any more.
 * Errors: SWITCH_REFUSED, the old bytes are back and nginx uses them; STATE_UNCERTAIN, it cannot be told what nginx uses.
 */
export async function switchUpstream(config: Config, ports: readonly number[], steps: SwitchSteps, rehearsed?: Rehearsal): Promise<Switched> {
  const text = upstreamText(config);
  text.examine();
  return changeUpstream(config, text, old => text.render(old, ports), steps, rehearsed);
}

/**
 * The same for what stood there before a switch: what that changed is as in these bytes again. `written`: the hash of what the switch wrote.
 * Errors: STATE_UNCERTAIN where somebody changed that in a file of the user's; a file of ours is written whole again.
 */
export async function restoreUpstream(config: Config, before: UpstreamBytes, written: string | null, steps: SwitchSteps): Promise<Switched> {
  const text = upstreamText(config);
  const back: Change = now => {
    const isTheirs = config.nginx.edit === true && text.hash(now) !== written && text.hash(now) !== text.hash(before);
    if (isTheirs) throw changedSince(text.file());
    return text.restore(now, before);
  };
  return changeUpstream(config, text, back, steps);
}

/** A test that passed, of these bytes over those, as this master would read them. */
export interface Rehearsal {
  readonly began: number;
  readonly master: NginxMaster;
  readonly oldHash: string | null;
  readonly newHash: string | null;
  readonly tested: TestedConfiguration;
}

/** Longer ago, and somebody may have changed another file of nginx's since. */
const REHEARSAL_IS_FRESH_MS = 3000;

/**
 * Tests a switch to these ports aside, before it is due; nginx reads nothing of it. `master` is the one that was found last; whether it
 * is still the one, the switch finds out. Undefined when that cannot be had, or is refused:
 * the switch then tests, and tells.
 */
export async function rehearseSwitch(config: Config, master: NginxMaster, ports: readonly number[]): Promise<Rehearsal | undefined> {
  const began = performance.now();
  const candidate = join(config.stateDir, 'rehearsal.conf');
  try {
    const text = upstreamText(config);
    const file = text.file();
    const old = readUpstream(file);
    if (old === null) return undefined;
    const bytes = text.render(old, ports);
    writeFileSync(candidate, bytes, {mode: 0o600});
    const tested = await testAside(master, config.nginx, file, candidate);
    return tested === undefined ? undefined : {began, master, oldHash: hashOf(old), newHash: hashOf(bytes), tested};
  } catch {
    return undefined; // Whatever it is, the switch meets it again where it can be told.
  } finally {
    removeIfPossible(candidate);
  }
}

/** The next rehearsal writes over it. */
function removeIfPossible(path: string): void {
  try {
    rmSync(path, {force: true});
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
  }
}

function stillHolds(rehearsed: Rehearsal | undefined, master: NginxMaster, old: UpstreamBytes, bytes: UpstreamBytes): rehearsed is Rehearsal {
  return rehearsed !== undefined && performance.now() - rehearsed.began <= REHEARSAL_IS_FRESH_MS
    && isDeepStrictEqual(rehearsed.master, master) && rehearsed.oldHash === hashOf(old) && rehearsed.newHash === hashOf(bytes);
}

/** What becomes of the bytes that stand there. Errors: SWITCH_REFUSED. */
type Change = (old: UpstreamBytes) => UpstreamBytes;

async function changeUpstream(config: Config, text: UpstreamText, change: Change, steps: SwitchSteps, rehearsed?: Rehearsal): Promise<Switched> {
  const {nginx} = config;
  const master = await findMaster(nginx);
  const file = text.file();
  const old = readUpstream(file);
  const bytes = change(old);
  const before = beforeReload(master);
  steps.intend({file, ports: text.ports(bytes), master: master.process, accepting: before.accepting, ...changeOf(text, old, bytes)});
  const placed = placing(text, file, change, {old, bytes});
  let verdict: ReloadVerdict;
  let told = () => '';
  let asked = false;
  try {
    const {errorLog} = await placed.put(config, master, rehearsed);
    told = errorsFrom(errorLog);
    steps.reloading();
    asked = true;
    verdict = await reload(config, master, before);
  } catch (error) {
    placed.takeBack();
    if (asked && !(error instanceof DeployError)) await letEnd(await settleUnseen(config, error), portsOnlyIn(text, bytes, old), config);
    throw error instanceof DeployError ? error
      : new DeployError('SWITCH_REFUSED', asked ? `nginx was told to reload, which could not be watched: ${messageOf(error)}` : `cannot write ${file}: ${messageOf(error)}`, {cause: error});
  }
  if (verdict.kind === 'live') return {oldNginxWorkers: workersOf(master, before)};
  placed.takeBack();
  if (verdict.kind === 'failed') {
    throw new DeployError('SWITCH_REFUSED', `nginx was told to reload and kept its old configuration, though \`nginx -t\` had passed${verdict.said}${told()}`,
      {hint: "See nginx's error log: a taken `listen` port shows only there (\"still could not bind\"). The old upstream file is back."});
  }
  await letEnd(await settleUnclear(config, master, before, verdict), portsOnlyIn(text, bytes, old), config);
  const what = verdict.workerless === true ? 'was left without a worker by the reload, and has reloaded the old configuration'
    : `did not take the new configuration within ${RELOAD_TIMEOUT_MS / 1000} s`;
  throw new DeployError('SWITCH_REFUSED', `nginx ${what} (master pid ${master.process.pid}, state ${verdict.masterState})`,
    {hint: verdict.masterState === 'T' ? `The master is stopped; let it go on with \`kill -CONT ${master.process.pid}\`. The old upstream file is back.` : "See nginx's error log. The old upstream file is back."});
}

/** Writes these ports into the file while no nginx runs. Errors: SWITCH_REFUSED. */
export function writeUpstreamAhead(config: Config, ports: readonly number[], steps: SwitchSteps): void {
  const text = upstreamText(config);
  text.examine();
  const file = text.file();
  const old = readUpstream(file);
  steps.intend({file, ports, master: null, accepting: [], ...changeOf(text, old, text.render(old, ports))});
  try {
    changeFile(text.candidateFor(file), file, now => {
      if (text.hash(now) !== text.hash(old)) throw changedMeanwhile(file);
      return text.render(now, ports);
    });
  } catch (error) {
    throw error instanceof DeployError ? error : new DeployError('SWITCH_REFUSED', `cannot write ${file}: ${messageOf(error)}`, {cause: error});
  }
}

/**
 * Makes the file say what it said before a switch, and tells nginx nothing. May run twice.
 * Errors: STATE_UNCERTAIN, where somebody made a file of it in which that cannot be done.
 */
export function putUpstreamBack(config: Config, before: UpstreamBytes): void {
  const text = upstreamText(config);
  const file = text.file();
  changeFile(text.candidateFor(file), file, now => restored(text, file, now, before));
}

function restored(text: UpstreamText, file: string, now: UpstreamBytes, before: UpstreamBytes): UpstreamBytes {
  try {
    return text.restore(now, before);
  } catch (error) {
    if (!(error instanceof DeployError)) throw error;
    const ports = text.ports(before).join(', ');
    throw new DeployError('STATE_UNCERTAIN', `what stood in ${file} before the deploy cannot be put back: ${error.message}`,
      {hint: `Nothing was stopped: the old and the new workers run. Let the \`server\` lines name ${ports === '' ? 'what they named before' : `ports ${ports}`} again, reload nginx, then run \`osyw-deploy recover\`.`, cause: error});
  }
}

function changeOf(text: UpstreamText, old: UpstreamBytes, bytes: UpstreamBytes): Pick<SwitchIntent, 'oldBytes' | 'oldHash' | 'newHash'> {
  return {oldBytes: old?.toString('base64') ?? null, oldHash: text.hash(old), newHash: text.hash(bytes)};
}

/**
 * Makes sure that nginx uses what stands in the file now; for recovery, which cannot know what was loaded.
 * Errors: STATE_UNCERTAIN when nginx does not take it, for then nothing is known.
 */
export async function reloadAsItStands(config: Config): Promise<Switched> {
  const master = await findMaster(config.nginx);
  await testInPlace(master, config.nginx, upstreamText(config).file()).catch((error: unknown) => {
    throw error instanceof DeployError ? new DeployError('STATE_UNCERTAIN', error.message, {hint: `Nothing was stopped. ${error.hint} Then run \`osyw-deploy recover\`.`}) : error;
  });
  const before = beforeReload(master);
  const verdict = await reload(config, master, before);
  if (verdict.kind !== 'live') throw new DeployError('STATE_UNCERTAIN', `nginx (master pid ${master.process.pid}) did not reload: ${verdict.kind}`);
  return {oldNginxWorkers: workersOf(master, before)};
}

function changedMeanwhile(file: string): DeployError {
  return new DeployError('SWITCH_REFUSED', `${file} was changed by somebody else a moment ago`, {hint: 'Look at it, then deploy again.'});
}

function changedSince(file: string): DeployError {
  return new DeployError('STATE_UNCERTAIN', `somebody changed ${file} after it had been written, so what stood there before was not put back`,
    {hint: 'Nothing was stopped: the old and the new workers run. Put the file right, reload nginx, then run `osyw-deploy recover`.'});
}

/** The way of the new bytes into the file, and back out of it. What somebody else writes meanwhile stays, or is in the way, but is never overwritten. */
interface Placing {
  put(config: Config, master: NginxMaster, rehearsed: Rehearsal | undefined): Promise<TestedConfiguration>;
  /** Errors: STATE_UNCERTAIN when somebody changed since what a switch changes. */
  takeBack(): void;
}

function placing(text: UpstreamText, file: string, change: Change, first: {readonly old: UpstreamBytes; readonly bytes: UpstreamBytes}): Placing {
  const candidate = text.candidateFor(file);
  let {old, bytes} = first;
  let isLive = false;
  return {
    put: async ({nginx}, master, rehearsed) => {
      for (let tried = 1;; tried++) {
        if (bytes === null) {
          isLive = true;
          changeFile(candidate, file, () => null);
          return testInPlace(master, nginx, file);
        }
        writeCandidate(candidate, file, bytes);
        // Where the test cannot be had aside, the file is in place while it is tested. A reload by somebody else
        // in that moment would load it: harmless, because its workers are healthy by now.
        const tested = stillHolds(rehearsed, master, old, bytes) ? rehearsed.tested
          : old === null ? undefined : await testAside(master, nginx, file, candidate);
        const now = readUpstream(file);
        if (hashOf(now) === hashOf(old)) {
          isLive = true;
          makeLive(candidate, file);
          return tested ?? testInPlace(master, nginx, file);
        }
        if (text.hash(now) !== text.hash(old) || tried === MOST_CHANGES) {
          throw changedMeanwhile(file);
        }
        old = now;
        bytes = change(now);
      }
    },
    takeBack: () => {
      ignoreMissing(() => unlinkSync(candidate));
      if (!isLive) return;
      changeFile(candidate, file, now => {
        const hash = text.hash(now);
        if (hash === text.hash(old)) return now;
        if (hash !== text.hash(bytes)) throw changedSince(file);
        return restored(text, file, now, old);
      });
    },
  };
}

async function reload(config: Config, master: NginxMaster, before: BeforeReload): Promise<ReloadVerdict> {
  const command = config.nginx.reload;
  if (command === undefined) {
    try {
      if (!signalProcess(master.process, 'SIGHUP')) return {kind: 'unclear', pending: true, masterState: 'gone'};
    } catch (error) {
      throw new DeployError('SWITCH_REFUSED', `may not signal nginx's master (pid ${master.process.pid}): ${messageOf(error)}`,
        {hint: 'Run as the account of nginx, or name a command in `nginx.reload`, e.g. [sudo, -n, systemctl, reload, nginx].', cause: error});
    }
    return observeReload(master, before, {timeoutMs: RELOAD_TIMEOUT_MS, sentByUs: true});
  }
  const [file = '', ...args] = command;
  const result = await runCommand({file, args}, {env: {PATH: SYSTEM_PATH, LC_ALL: 'C.UTF-8'}, cwd: '/', timeoutMs: RELOAD_COMMAND_TIMEOUT_MS});
  // The command's word counts for nothing: what nginx did is looked at in any case.
  const verdict = await observeReload(master, before, {timeoutMs: RELOAD_TIMEOUT_MS, sentByUs: false});
  const said = result.exitCode === 0 ? '' : `\n${file} exited with ${result.exitCode ?? result.endedBy ?? result.spawnError}: ${result.stderr.trim()}`;
  return verdict.kind === 'failed' ? {...verdict, said} : verdict;
}

/** What nginx adds to its error log from now on and does not let pass: `nginx -t` ignores a taken port, and only the log names it. */
function errorsFrom(errorLog: string | undefined): () => string {
  const offset = errorLog === undefined ? 0 : statSync(errorLog, {throwIfNoEntry: false})?.size ?? 0;
  return () => {
    const lines = errorLog === undefined ? [] : lastLines(errorLog, offset, 50).filter(line => /\[(emerg|alert|crit)\]/.test(line));
    return [...new Set(lines.map(line => line.replace(/^.*?\[(?=emerg|alert|crit)/, '[')))].map(line => `\n${line}`).join('');
  };
}

/**
 * A reload that was asked for may still be carried out. As long as the master has not begun, it will read the old bytes that are back;
 * else it is asked once more and watched to the end, so that nothing read in between stays loaded.
 * Returns the nginx workers that may have read it in between.
 */
async function settleUnclear(config: Config, master: NginxMaster, before: BeforeReload, verdict: Extract<ReloadVerdict, {kind: 'unclear'}>): Promise<ProcessIdentity[]> {
  if (verdict.pending) return [];
  if (verdict.masterState === 'gone') return settleRestart(config, before);
  const again = beforeReload(master);
  const second = await reload(config, master, {accepting: [...before.accepting, ...again.accepting], all: [...before.all, ...again.all]});
  if (second.kind === 'unclear' && second.pending && second.masterState === 'T') return [];
  if (second.kind === 'unclear' && second.workerless === true) {
    throw new DeployError('STATE_UNCERTAIN', `nginx (master pid ${master.process.pid}) starts no workers, with the new configuration or the old, so nobody answers`,
      {hint: "Nothing of the application was stopped. nginx's error log says why (\"fork() failed\"); mend that, then run `osyw-deploy recover`."});
  }
  if (second.kind !== 'live') {
    throw new DeployError('STATE_UNCERTAIN', `nginx (master pid ${master.process.pid}, state ${verdict.masterState}) did not answer a reload, nor the one that should take it back`);
  }
  return workersOf(master, again);
}

/** The reload was asked for, and could not be watched: what nginx has loaded, one more tells, of the old bytes. */
async function settleUnseen(config: Config, cause: unknown): Promise<readonly ProcessIdentity[]> {
  try {
    return (await reloadAsItStands(config)).oldNginxWorkers;
  } catch (error) {
    throw new DeployError('STATE_UNCERTAIN', `nginx was told to reload, which could not be watched (${messageOf(cause)}), nor could the reload that should take it back: ${messageOf(error)}`);
  }
}

/** nginx was restarted while we watched, and the new one may have read the file before the old bytes were back; or only its master died. */
async function settleRestart(config: Config, before: BeforeReload): Promise<ProcessIdentity[]> {
  const deadline = performance.now() + RESTART_TIMEOUT_MS;
  while (performance.now() < deadline) {
    const {fitting: [master]} = await findMasters(config.nginx);
    if (master !== undefined) {
      const again = beforeReload(master);
      const verdict = await reload(config, master, again);
      if (verdict.kind === 'live') return workersOf(master, again);
      throw new DeployError('STATE_UNCERTAIN', `nginx was restarted during the switch, and its new master (pid ${master.process.pid}) does not reload`);
    }
    await delay(RESTART_POLL_MS);
  }
  orphansAmong(before.all);
  return [];
}

/** Requests that came through what was taken back end before the workers that have them are stopped. */
async function letEnd(nginxWorkers: readonly ProcessIdentity[], ports: readonly number[], {drain}: Config): Promise<void> {
  await waitDrained({nginxWorkers, ports, report: () => undefined, ...drain});
}

function portsOnlyIn(text: UpstreamText, bytes: UpstreamBytes, old: UpstreamBytes): number[] {
  const before = text.ports(old);
  return text.ports(bytes).filter(port => !before.includes(port));
}

function workersOf(master: NginxMaster, before: BeforeReload): ProcessIdentity[] {
  const old = new Set(before.all.map(({pid}) => pid));
  return nginxChildren(master).filter(({process: {pid}, title}) => old.has(pid) && title !== 'other').map(child => child.process);
}
