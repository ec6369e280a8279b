import type {Generation} from '../../../src/deploy/deployment.ts';
import type {Drain} from '../../../src/state/drains.ts';
import type {HistoryLine} from '../../../src/state/history.ts';
import {EMPTY_STATE, type State} from '../../../src/state/state-file.ts';

export const GENERATION: Generation = {
  deploy: '20261123-021100-7f3a9c', release: {id: '000012', revision: 'r41', dir: '/releases/000012'}, configHash: 'abc', since: '2026-11-23T02:11:00.000Z',
  workers: [{slot: 0, port: 8811, id: 'osyw/grüße/0', process: {pid: 4711, startTime: 99, bootId: 'boot'}, startedAt: '2026-11-23T02:11:00.000Z'}],
};

export const STATE: State = {...EMPTY_STATE, serving: GENERATION, nextRelease: 13, lastPort: 8811, served: [{...GENERATION.release, servedAt: GENERATION.since, good: true}]};

export function line(id: string, error: string | null = null): HistoryLine {
  return {
    id, trigger: 'manual', requested_by: 'ann', revision: 'r41', release: '000012', outcome: 'deployed', exit: 0, code: 'OK', error,
    phases: {update: 12}, started_at: '2026-11-23T02:11:00.000Z', ended_at: '2026-11-23T02:11:01.000Z',
  };
}

export function drain(deploy: string): Drain {
  return {version: 1, deploy, since: '2026-11-23T02:11:00.000Z', generation: GENERATION, oldNginxWorkers: [{pid: 5, startTime: 6, bootId: 'boot'}], history: line(deploy)};
}
