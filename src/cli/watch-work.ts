import {statSync} from 'node:fs';
import {join} from 'node:path';
import type {Deployed} from '../deploy/deploy.ts';
import type {Worker} from '../deploy/deployment.ts';
import type {Request} from '../deploy/events.ts';
import {unfinished} from '../deploy/recover.ts';
import {onTrialSince, rollbackTarget} from '../deploy/retention.ts';
import type {DeployTools} from '../deploy/tools.ts';
import {readJournal} from '../state/journal.ts';
import type {State} from '../state/state-file.ts';
import {isEmpty} from '../trigger/request-spool.ts';
import {deployForFiled} from './deploy-filed.ts';
import type {Change} from './turn.ts';

/** What a watch is to do, until a turn under the lock answers it. */
export interface WatchWork {
  /** Supervision asks for a deploy that replaces this worker of what serves on a spare port. */
  replace(worker: Worker): void;
  /** Supervision asks for the last good release, instead of this one. */
  rollBack(release: string, reason: string): void;
  /** Whether supervision asks for something. */
  isSupervision(): boolean;
  /** Whether the journal tells of a deploy that has not ended. Errors: STATE_UNCERTAIN. */
  isInterrupted(): boolean;
  /** Whether there is anything at all to do. Errors: STATE_UNCERTAIN. */
  isThere(): boolean;
  /** Begins it, under the lock; undefined when there was nothing to do after all. `first`: what died before this watch is brought back, and no more is done. */
  begin(change: Change, first: boolean, signal: AbortSignal): Promise<Deployed> | undefined;
}

interface Asked {
  readonly replace: Map<string, Worker>;
  rollBack: {readonly release: string; readonly reason: string} | undefined;
}

export function watchWork(stateDir: string): WatchWork {
  const asked: Asked = {replace: new Map(), rollBack: undefined};
  const isInterrupted = journalLook(stateDir);
  const isSupervision = () => asked.replace.size > 0 || asked.rollBack !== undefined;
  return {
    replace: worker => void asked.replace.set(worker.id, worker),
    rollBack: (release, reason) => {
      asked.rollBack = {release, reason};
    },
    isSupervision,
    isInterrupted,
    isThere: () => isSupervision() || !isEmpty(stateDir) || isInterrupted(),
    begin: (change, first, signal) => {
      const request = supervisedWork(change.tools.records.state(), asked, first, change.tools);
      asked.rollBack = undefined;
      asked.replace.clear();
      if (request !== undefined) return change.deploy(request, signal);
      // A build may take long, and nothing is supervised yet.
      return !first && change.filed().length > 0 ? deployForFiled(change, signal) : undefined;
    },
  };
}

function supervisedWork(state: State, asked: Asked, first: boolean, tools: DeployTools): Request | undefined {
  const {serving} = state;
  if (serving === null) return undefined;
  const own = {requestedBy: 'watch', force: true, filed: []} as const;
  const target = asked.rollBack?.release === serving.release.id && onTrialSince(state) !== undefined ? rollbackTarget(state) : undefined;
  if (target !== undefined) {
    tools.report({event: 'note', text: `${asked.rollBack?.reason ?? ''}; back to release ${target.id} (${target.revision})`});
    return {...own, trigger: 'rollback', target: {kind: 'release', release: target}};
  }
  const slots = serving.workers.filter(({id}) => asked.replace.has(id)).map(({slot}) => slot);
  if (slots.length > 0) return {...own, trigger: 'watch', target: {kind: 'release', release: serving.release, slots}};
  // Later on each of them is started again by itself.
  const dead = first && serving.workers.every(worker => !tools.workers.isAlive(worker));
  return dead ? {...own, trigger: 'boot', target: {kind: 'release', release: serving.release}} : undefined;
}

/** The journal is read when it is another one than at the last look. */
function journalLook(stateDir: string): () => boolean {
  let [seen, interrupted] = ['', false];
  return () => {
    const stat = statSync(join(stateDir, 'journal.ndjson'), {throwIfNoEntry: false, bigint: true});
    const now = `${stat?.ino} ${stat?.size} ${stat?.mtimeNs}`;
    if (now !== seen) interrupted = unfinished(readJournal(stateDir)) !== undefined;
    seen = now;
    return interrupted;
  };
}
