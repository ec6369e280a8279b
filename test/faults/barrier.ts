import {execFileSync} from 'node:child_process';
import {existsSync, mkdtempSync, readFileSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {fileURLToPath} from 'node:url';
import type {RunningCommand} from '../support/osyw.ts';
import {makeTempDir} from '../support/temp-dir.ts';
import {waitUntil} from '../support/wait-until.ts';

let built: string | undefined;

/** The command that stops where it is told to: see wire-with-barriers.ts. Built once, outside of dist; gone with this process. */
export function cliWithBarriers(): string {
  if (built === undefined) {
    const outfile = join(makeTempDir(), 'osyw-deploy-barriers.cjs');
    execFileSync(process.execPath, [fileURLToPath(new URL('build-with-barriers.mjs', import.meta.url)), outfile], {stdio: 'inherit'});
    built = outfile;
  }
  return built;
}

/** A place where one command stops. */
export interface Barrier {
  /** What the command has to be started with. */
  readonly options: {readonly cli: string; readonly env: Readonly<Record<string, string>>};
  /** True when the command waits at the point, false when it ended without having come there. */
  reached(command: RunningCommand): Promise<boolean>;
  /** Where it waits. */
  point(): string;
  open(): void;
  /** Every point that it passed, in order. */
  passed(): string[];
}

/** `point`: a name, or `@12` for the twelfth that is passed; undefined stops nowhere. */
export function raiseBarrier(dir: string, point: string | undefined): Barrier {
  const place = mkdtempSync(join(dir, 'barrier-'));
  const at = join(place, 'at');
  return {
    options: {cli: cliWithBarriers(), env: {OSYW_TEST_BARRIER_DIR: place, ...(point !== undefined && {OSYW_TEST_BARRIER: point})}},
    reached: async ({child}) => {
      const ended = (): boolean => child.exitCode !== null || child.signalCode !== null;
      await waitUntil(`the command to come to ${point}`, () => existsSync(at) || ended(), {withinMs: 50_000, everyMs: 2});
      return existsSync(at) && !ended();
    },
    point: () => readFileSync(at, 'utf8'),
    open: () => writeFileSync(join(place, 'go'), ''),
    passed: () => existsSync(join(place, 'passed')) ? readFileSync(join(place, 'passed'), 'utf8').trimEnd().split('\n') : [],
  };
}
