import {randomBytes} from 'node:crypto';

/**
 * The mark of a worker that was set up by hand. Its processes do not carry it, so they are known by the recorded one and by descent alone;
 * one that is started again in its place does. Shape: `osyw/20261123-135054-a1b2c3/0/adopted-0123456789ab`.
 */
export function newAdoptedId(app: string, deploy: string, slot: number): string {
  return `${app}/${deploy}/${slot}/adopted-${randomBytes(6).toString('hex')}`;
}

export function isAdoptedId(id: string): boolean {
  return /\/adopted-[0-9a-f]{12}$/.test(id);
}
