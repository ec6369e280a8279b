import {join} from 'node:path';
import {messageOf} from '../errors.ts';
import {readRegularFile, replaceFile} from '../state/atomic-file.ts';
import {isDeliveryId} from './webhook-delivery.ts';

/** Older ones are forgotten: a replay of them costs one look. */
const MOST = 1000;

export interface DeliveryMemory {
  has(id: string): boolean;
  add(id: string): void;
  /** Writes down what was added; durable on return. What cannot be written is reported, and remembered as long as this process lives. */
  keep(): void;
}

/** The ids of deliveries that were looked at, across restarts. A file that cannot be read is begun anew: what it knew costs a look each. */
export function openDeliveryMemory(stateDir: string, report: (text: string) => void): DeliveryMemory {
  const path = join(stateDir, 'deliveries');
  const ids = new Set(readIds(path, report));
  let written = true;
  return {
    has: id => ids.has(id),
    add: id => {
      written = false;
      ids.add(id);
      const [oldest] = ids;
      if (ids.size > MOST && oldest !== undefined) ids.delete(oldest);
    },
    keep: () => {
      if (written) return;
      try {
        replaceFile(path, [...ids].map(id => `${id}\n`).join(''), {mode: 0o600});
        written = true;
      } catch (error) {
        report(`the ids of the webhook's deliveries cannot be written: ${messageOf(error)}`);
      }
    },
  };
}

function readIds(path: string, report: (text: string) => void): string[] {
  try {
    return readRegularFile(path)?.toString('latin1').split('\n').filter(isDeliveryId).slice(-MOST) ?? [];
  } catch (error) {
    report(`the ids of the webhook's deliveries cannot be read: ${messageOf(error)}`);
    return [];
  }
}
