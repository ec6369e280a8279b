import {setFlagsFromString} from 'node:v8';
import {runInNewContext} from 'node:vm';

// The space for what lives shortly grows to 48 MB in a process that does much at once now and then, and does not shrink again.
setFlagsFromString('--semi-space-growth-factor=1');
setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

/** Gives back what a deploy needed, at once: V8 by itself takes its time. Takes some 20 ms. */
export function giveBackMemory(): void {
  collect();
}
