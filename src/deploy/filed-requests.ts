import type {FiledRequest, Request} from './events.ts';
import {asFailure, type Run} from './run.ts';
import type {DeployTools} from './tools.ts';
import type {HistoryLine} from '../state/history.ts';
import type {State} from '../state/state-file.ts';
import {splitEdits} from '../support/edited-revision.ts';

/** A deploy that kills the deployer each time is not begun for ever. */
const MOST_KILLED = 3;

type Answering = Pick<Request, 'trigger' | 'filed'>;

/**
 * Makes the journal the owner of the requests that this deploy answers: on disk there first, then gone from the spool.
 * Errors: the system's; then nothing is deployed, for what cannot be taken would be there again and again.
 */
export function takeFiled(request: Request, tools: DeployTools, run: Run): void {
  if (request.filed.length === 0) return;
  run.journal = tools.records.beginJournal({type: 'deploy', version: 1, id: run.id, trigger: run.trigger, requestedBy: run.requestedBy, configHash: tools.config.hash, filed: request.filed});
  tools.records.unfile(request.filed);
  tools.records.addToHistory(...overtaken(request).map(supersededLine));
}

/** Takes them again, for a deploy that was killed. The spool is written by others, and whatever they did there, the recovery goes on. */
export function takeFiledAgain(request: Answering, tools: DeployTools): void {
  orNote(tools, () => tools.records.unfile(request.filed));
  tools.records.addToHistory(...overtaken(request).map(supersededLine));
}

/** A commit that came after the newest request: it is deployed here, and its own request is on its way. */
export function overtakenBy(revision: string, request: Request, tools: DeployTools): void {
  const newest = request.filed.at(-1);
  // The hint may as well be of a commit elsewhere, which nothing overtook. By its number svn tells; a hash tells nothing.
  if (newest?.revision == null || [revision, splitEdits(revision).revision].includes(newest.revision) || isOlder(revision, newest.revision)) return;
  tools.records.addToHistory(supersededLine(newest));
}

/** A deploy that did not come to an end leaves its newest request to the next. The older ones were overtaken all the same. */
export function fileNewestAgain({filed}: Answering, {deploy, killed}: {deploy: string; killed: 0 | 1}, tools: DeployTools): void {
  const newest = filed.at(-1);
  if (newest === undefined || newest.killed + killed >= MOST_KILLED) return;
  orNote(tools, () => tools.records.fileAgain({...newest, killed: newest.killed + killed}, deploy));
}

/**
 * Whether there is anything to deploy for a request that nobody stands behind: a newer revision than any that was tried,
 * and a change of a path that counts. What failed, or was rolled back from, only a person takes again.
 */
export async function isNews(revision: string, state: State, tools: DeployTools, signal: AbortSignal): Promise<boolean> {
  if (!mayBeNews(revision, state)) return false;
  const tried = triedIn(state);
  return tried === undefined || tools.workingCopy().touches(tried, revision, signal);
}

/** The same as far as it can be told without the repository. */
export function mayBeNews(revision: string, state: State): boolean {
  const tried = triedIn(state);
  return tried === undefined || !([tried, state.serving?.release.revision, state.leftAlone].includes(revision) || isOlder(revision, tried));
}

/** A state of before this field has none. */
function triedIn(state: State): string | undefined {
  return (state.tried as string | null | undefined) ?? state.serving?.release.revision;
}

/** The newest of them is what the deploy is made for, unless a person asked for it. */
function overtaken({trigger, filed}: Answering): readonly FiledRequest[] {
  return trigger === 'manual' ? filed : filed.slice(0, -1);
}

function supersededLine({id, trigger = 'hook', requestedBy, revision, filedAt}: FiledRequest): HistoryLine {
  return {id, trigger, requested_by: requestedBy, revision, release: null, outcome: 'superseded', exit: 0, code: 'OK', error: null, phases: {}, started_at: filedAt, ended_at: new Date().toISOString()};
}

/** By the numbers of Subversion, edits or not; a git branch that was rewritten is followed wherever it points. */
function isOlder(revision: string, than: string): boolean {
  const [a, b] = [revision, than].map(text => /^r(\d+)$/.exec(splitEdits(text).revision)?.[1]);
  return a !== undefined && b !== undefined && Number(a) < Number(b);
}

function orNote(tools: DeployTools, effect: () => void): void {
  try {
    effect();
  } catch (error) {
    tools.report({event: 'note', text: `the spool: ${asFailure(error).message}`});
  }
}
