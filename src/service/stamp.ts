import {createHash} from 'node:crypto';

/** What stands in the place of a file of ours. `changed`: written by us, and changed by hand since. */
export type FoundText = {readonly kind: 'ours'} | {readonly kind: 'changed'} | {readonly kind: 'foreign'};

const STAMP = /^# Written by `osyw-deploy service install`; sum ([0-9a-f]{16})\n/m;

/** The text with a line that says whose it is, and a sum by which a later change is seen. Behind `#!`, which must stay the first. */
export function stamped(text: string): string {
  const [first = ''] = /^#!.*\n/.exec(text) ?? [];
  return `${first}# Written by \`osyw-deploy service install\`; sum ${sumOf(text)}\n${text.slice(first.length)}`;
}

export function readStamp(text: string): FoundText {
  const sum = STAMP.exec(text)?.[1];
  if (sum === undefined) return {kind: 'foreign'};
  return {kind: sumOf(text.replace(STAMP, '')) === sum ? 'ours' : 'changed'};
}

function sumOf(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 16);
}
