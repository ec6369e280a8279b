import type {Generation, Phase, Release, Trigger, Worker} from './deployment.ts';
import {confirm, endUnchanged, journalSwitch, nowLive, recordServing, rollBack, saveEnded, settle, undo, without, type BeforeSwitch, type Deployed} from './deploy.ts';
import type {FiledRequest} from './events.ts';
import {fileNewestAgain, takeFiledAgain} from './filed-requests.ts';
import {historyLine, resultOf, startRun, type Failure, type Run} from './run.ts';
import {portsOf, type DeployTools} from './tools.ts';
import {DeployError, FAILURES} from '../errors.ts';
import type {JournalEntry} from '../state/journal.ts';
import type {SwitchIntent} from '../upstream/switch-upstream.ts';

/** What the journal says of a deploy that did not end. */
export interface Unfinished {
  readonly id: string;
  readonly trigger: Trigger;
  readonly requestedBy: string;
  readonly startedAt: string;
  readonly configHash: string;
  readonly phase: Phase;
  /** The requests that it answers, oldest first. */
  readonly filed: readonly FiledRequest[];
  readonly revision: string | null;
  /** The revision, where it is the newest that the repository had. */
  readonly newest: string | undefined;
  readonly release: Release | undefined;
  readonly existing: boolean;
  /** By mark; `worker` once its process is on record. */
  readonly workers: readonly {readonly id: string; readonly port: number; readonly worker: Worker | undefined}[];
  readonly intent: SwitchIntent | undefined;
  readonly reloading: boolean;
  readonly switched: Extract<JournalEntry, {type: 'switched'}> | undefined;
  readonly rollingBack: string | undefined;
  /** Why it was being taken back when it was killed. */
  readonly aborting: string | undefined;
  /** It had found that there is nothing to deploy. */
  readonly unchanged: Extract<JournalEntry, {type: 'unchanged'}> | undefined;
}

/** Pure: folds the journal; undefined when its deploy ended, or there was none. */
export function unfinished(entries: readonly JournalEntry[]): Unfinished | undefined {
  const [first] = entries;
  if (first === undefined || entries.some(({type}) => type === 'closed')) return undefined;
  if (first.type !== 'deploy') throw new DeployError('STATE_UNCERTAIN', `the journal begins with "${first.type}", not with a deploy`);
  const last = <T extends JournalEntry['type']>(type: T) => entries.findLast((entry): entry is Extract<JournalEntry, {type: T}> => entry.type === type);
  const workers = new Map<string, {id: string; port: number; worker: Worker | undefined}>();
  for (const entry of entries) {
    if (entry.type === 'starting') workers.set(entry.worker, {id: entry.worker, port: entry.port, worker: undefined});
    if (entry.type === 'started') workers.set(entry.worker.id, {id: entry.worker.id, port: entry.worker.port, worker: entry.worker});
  }
  return {
    id: first.id, trigger: first.trigger, requestedBy: first.requestedBy, startedAt: first.at, configHash: first.configHash,
    phase: last('phase')?.phase ?? 'update',
    filed: first.filed ?? [],
    revision: last('revision')?.revision ?? null,
    newest: last('revision')?.newest === true ? last('revision')?.revision : undefined,
    release: last('release')?.release,
    existing: last('release')?.existing ?? false,
    workers: [...workers.values()],
    // The first: a recovery that switched once more saw nginx workers that had the new configuration already.
    intent: entries.find((entry): entry is Extract<JournalEntry, {type: 'switching'}> => entry.type === 'switching')?.intent,
    reloading: last('reloading') !== undefined,
    switched: last('switched'),
    rollingBack: last('rolling_back')?.reason,
    aborting: last('aborting')?.code,
    unchanged: last('unchanged'),
  };
}

/**
 * Settles a deploy that was killed: before the switch it is taken back, after it it goes forward, in between nginx is asked.
 * The caller holds the lock. May run twice: the second time there is nothing.
 * Errors: STATE_UNCERTAIN, and nothing was stopped.
 */
export async function recover(tools: DeployTools): Promise<Deployed | undefined> {
  const facts = unfinished(tools.records.readJournal());
  if (facts === undefined) {
    refuseLostState(tools);
    return undefined;
  }
  tools.report({event: 'note', text: `recovering deploy ${facts.id}, which was interrupted in ${facts.phase}`});
  const run = startRun(facts, tools.report);
  run.newest = facts.newest;
  run.journal = tools.records.continueJournal();
  try {
    takeFiledAgain(facts, tools);
    return await recoverFrom(facts, tools, run);
  } finally {
    run.journal.close();
  }
}

/** Where nginx sends requests to workers that some deploy of ours started, and no record says which: those cannot be drained, only guessed at. */
export function refuseLostState({records, upstream, workers}: DeployTools): void {
  const {serving, served, nextRelease} = records.state();
  if (serving !== null || served.length > 0 || nextRelease > 1) return;
  const own = upstream.ownFile();
  const ports = own === undefined ? [] : workers.answering(upstream.filePorts());
  if (own === undefined || ports.length === 0) return;
  const anew = own.byHeader ? 'take the first line (the comment) out of that file: what listens there then counts as started by hand, is replaced, and is left for you to stop.'
    : 'end what listens there yourself, then deploy; until that serves nginx answers 502.';
  throw new DeployError('STATE_UNCERTAIN', `${own.file} was written by a deploy and names ports ${ports.join(', ')}, where somebody listens; but the state directory knows of no deploy`, {
    hint: `Nothing was touched. Was \`state_dir\` changed, or emptied? Put the old one back. To begin anew, ${anew} \`osyw-deploy recover --dry-run\` shows the processes.`,
  });
}

async function recoverFrom(facts: Unfinished, tools: DeployTools, run: Run): Promise<Deployed> {
  const before = tools.records.state();
  if (facts.unchanged !== undefined) {
    run.newest = facts.unchanged.revision ?? undefined;
    return endUnchanged(facts.unchanged.revision, before, tools, run);
  }
  const was: BeforeSwitch = {intent: facts.intent, oldNginxWorkers: facts.switched?.oldNginxWorkers ?? [], before, historyNow: false};
  if (before.serving?.deploy === facts.id) return closeRecorded(before.serving, tools, run);
  if (facts.switched !== undefined) {
    const generation = generationOf(facts, facts.switched.workers);
    if (facts.rollingBack !== undefined) return orUncertain(() => rollBack(generation, facts.rollingBack ?? '', was, tools, run));
    // After a reboot, or when everything was killed, there is nothing to judge and nothing to go back to.
    const anybody = [...generation.workers, ...(before.serving?.workers ?? [])].some(worker => tools.workers.isAlive(worker));
    if (!anybody && tools.config.bakeMs > 0 && before.serving !== null) return orUncertain(() => rollBack(generation, 'everything ended before the bake had passed', was, tools, run));
    if (!anybody) return recordServing(generation, was, tools, run);
    return orUncertain(async () => settle(generation, {fault: await confirm(without(generation, before.serving), tools)}, was, tools, run));
  }
  if (facts.intent === undefined) return takeBack(facts, tools, run);
  return settleSwitch(facts, facts.intent, was, tools, run);
}

/** The switch was begun and not confirmed: both sets of workers stay up until nginx is known to use one of them. */
async function settleSwitch(facts: Unfinished, intent: SwitchIntent, was: BeforeSwitch, tools: DeployTools, run: Run): Promise<Deployed> {
  const {upstream} = tools;
  const file = upstream.file();
  if (file !== intent.file) {
    throw new DeployError('STATE_UNCERTAIN', `the killed deploy changed ${intent.file}, and the upstream file is ${file} now: another one is configured, or a link leads elsewhere`,
      {hint: `Nothing was stopped: the old and the new workers run. Let the configuration or the link lead to ${intent.file} again, then run \`osyw-deploy recover\`.`});
  }
  const hash = upstream.fileHash();
  if (hash !== intent.oldHash && hash !== intent.newHash) {
    throw new DeployError('STATE_UNCERTAIN', `${intent.file} holds neither what stood there before the deploy nor what the deploy wrote; somebody changed it`,
      {hint: 'Nothing was stopped: the old and the new workers run. Put the file right, reload nginx, then run `osyw-deploy recover`.'});
  }
  const oldIsLoaded = await upstream.acceptsOnly(intent.accepting);
  // Workers that come back where dead ones were: what nginx has loaded names them either way.
  const comeback = intent.oldHash === intent.newHash;
  // No nginx has nothing loaded; when it starts it reads the file.
  if (oldIsLoaded === undefined || (oldIsLoaded && !comeback)) {
    upstream.putBack(intent.oldBytes);
    return takeBack(facts, tools, run);
  }
  const fresh = facts.workers.flatMap(({worker}) => worker !== undefined && intent.ports.includes(worker.port) ? [worker] : []);
  // Those that were to go on beside the fresh ones serve either way.
  const goOn = was.before.serving?.release.id === facts.release?.id ? was.before.serving?.workers ?? [] : [];
  const workers = [...fresh, ...goOn];
  const generation = generationOf(facts, intent.ports.flatMap(port => workers.find(worker => worker.port === port) ?? []));
  const healthy = facts.aborting === undefined && generation.workers.length === intent.ports.length && await allGood(generation, tools);
  if (!healthy) {
    await backToOld(facts, intent, tools);
    return takeBack(facts, tools, run);
  }
  let reached = was;
  try {
    const {oldNginxWorkers} = hash === intent.newHash ? await upstream.reload() : await upstream.switchTo(portsOf(generation), journalSwitch(run, () => undefined));
    reached = {...reached, oldNginxWorkers};
  } catch (error) {
    if (!(error instanceof DeployError) || error.code !== 'SWITCH_REFUSED') throw error;
    // nginx will not have the new file; whether it still has that of the killed deploy, only a reload of the old one settles.
    await backToOld(facts, intent, tools);
    return takeBack(facts, tools, run);
  }
  return orUncertain(async () => settle(generation, await nowLive(generation, reached, tools, run), reached, tools, run));
}

/** nginx uses the old workers again, and the requests that the new ones had from it have ended. */
async function backToOld({workers}: Unfinished, intent: SwitchIntent, {upstream, report}: DeployTools): Promise<void> {
  upstream.putBack(intent.oldBytes);
  const {oldNginxWorkers} = await upstream.reload();
  await upstream.waitDrained(oldNginxWorkers, workers.map(({port}) => port), ({connections}) => report({event: 'note', text: `waiting for ${connections} connections to the new workers to end`}));
}

async function takeBack(facts: Unfinished, tools: DeployTools, run: Run): Promise<Deployed> {
  const before = tools.records.state();
  const failure: Failure = {code: 'INTERNAL', message: `interrupted in ${facts.phase}`, hint: 'The deploy was killed; the next one starts anew.'};
  const left = await undo({
    workers: facts.workers.map(({id, port, worker}) => ({id, port, process: worker?.process})),
    release: facts.release, existing: facts.existing, updated: true,
  }, before, tools);
  if (left.length > 0) throw new DeployError('CLEANUP_INCOMPLETE', `processes of the interrupted deploy ${facts.id} do not die: pids ${left.join(', ')}`);
  const line = historyLine(run, {outcome: 'aborted', failure, release: facts.release?.id ?? null, revision: facts.revision});
  // What had failed by itself was tried; what was killed, or stopped by a signal, stands until it is answered.
  const tried = facts.aborting !== undefined && facts.aborting !== 'INTERRUPTED';
  if (!tried) fileNewestAgain(facts, {deploy: facts.id, killed: 1}, tools);
  tools.records.addToHistory(line);
  saveEnded(before, tried ? run : {newest: undefined}, facts.release, tools);
  run.journal?.append({type: 'closed', outcome: 'aborted'});
  return {result: resultOf(line, before.serving?.release.id ?? null, failure.hint), drain: undefined};
}

/** The state names it already; only the last lines were missing. */
function closeRecorded(generation: Generation, tools: DeployTools, run: Run): Deployed {
  const line = historyLine(run, {outcome: 'deployed', failure: undefined, release: generation.release.id, revision: generation.release.revision});
  const drain = tools.records.drains().find(({deploy}) => deploy === run.id);
  if (drain === undefined || drain.history === null) tools.records.addToHistory(line);
  run.journal?.append({type: 'closed', outcome: 'deployed'});
  return {result: resultOf(line, null, null), drain: drain?.deploy};
}

function generationOf(facts: Unfinished, workers: readonly Worker[]): Generation {
  if (facts.release === undefined) throw new DeployError('STATE_UNCERTAIN', `the journal of deploy ${facts.id} has a switch but no release`);
  return {deploy: facts.id, release: facts.release, configHash: facts.configHash, since: new Date().toISOString(), workers};
}

async function allGood(generation: Generation, tools: DeployTools): Promise<boolean> {
  const checks = await Promise.all(generation.workers.map(worker => tools.health.check(generation.release, worker)));
  return checks.every(({good}) => good);
}

/** A recovery that cannot tell is an error, whoever found out. */
async function orUncertain(work: () => Promise<Deployed>): Promise<Deployed> {
  const deployed = await work();
  if (deployed.result.code === 'STATE_UNCERTAIN') throw new DeployError('STATE_UNCERTAIN', deployed.result.error ?? '', {hint: deployed.result.hint ?? FAILURES.STATE_UNCERTAIN.hint});
  return deployed;
}
