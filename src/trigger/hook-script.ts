import {createHash} from 'node:crypto';
import {DeployError} from '../errors.ts';

/** One application's line in a hook: what the script is told about it. */
export interface HookedApplication {
  readonly app: string;
  readonly spool: string;
  /** Three octal digits: who can read a request is the matter of the spool's rights, of which it is the key (`SPOOL_MODES`). */
  readonly umask: string;
  /** 0 unless `hook.wait`. */
  readonly waitSeconds: number;
  /** The deployer's account: its state is its own. */
  readonly uid: number;
  readonly gid: number;
  readonly stateDir: string;
  /** Absolute paths of the node that runs us, of our own file, and of the configuration. */
  readonly node: string;
  readonly script: string;
  readonly config: string;
}

/** What stands in a hook's place. */
export type HookText =
  | {readonly kind: 'ours'; readonly applications: readonly HookedApplication[]; /** Rendered from this very template. */ readonly current: boolean}
  /** It has our mark, but is not what we wrote. */
  | {readonly kind: 'changed'}
  | {readonly kind: 'foreign'};

const PLACEHOLDER = /^ {2}: "\$1" # APP .*\n/m;
const MARK = '# Written by `osyw-deploy hook install`';
const WORD = String.raw`'((?:[^'\n]|'\\'')*)'`;
const LINE = new RegExp(String.raw`^  "\$1" ${WORD} ${WORD} ([0-7]{3}) (\d+) (\d+) (\d+) ${WORD} ${WORD} ${WORD} ${WORD}$`);
/** Over all that stands above it. Without it a hook of an earlier version and one that was edited would look the same. */
const SUM = /^# ([0-9a-f]{16}) is the checksum of the lines above: a hook that was changed by hand is not rewritten\.\n$/;

/** The text of a hook. Errors: USAGE when a name or path has a control character, which no line of a script can hold. */
export function renderHook(template: string, applications: readonly HookedApplication[]): string {
  if (!PLACEHOLDER.test(template)) throw new Error('the hook template has no place for the applications');
  const lines = applications.map(one => `${renderLine(one)}\n`).join('');
  // By a function: in a plain replacement text `$1` would be the match's.
  const text = template.replace(PLACEHOLDER, () => lines);
  return `${text}# ${checksum(text)} is the checksum of the lines above: a hook that was changed by hand is not rewritten.\n`;
}

/** Reads back what `renderHook` wrote, be it from the template of another version. */
export function parseHook(text: string, template: string): HookText {
  // Wherever a hand has moved it to.
  if (!text.split('\n').some(line => line.startsWith(MARK))) return {kind: 'foreign'};
  const last = text.lastIndexOf('\n', text.length - 2) + 1;
  const body = text.slice(0, last);
  const applications = linesOf(body).map(parseLine);
  if (SUM.exec(text.slice(last))?.[1] !== checksum(body) || applications.length === 0 || !applications.every(one => one !== undefined)) return {kind: 'changed'};
  return {kind: 'ours', applications, current: renderHook(template, applications) === text};
}

/** Whether two lines are about the same application: one state directory has one spool, one configuration one application. */
export function sameApplication(a: HookedApplication, b: HookedApplication): boolean {
  return a.stateDir === b.stateDir || a.config === b.config;
}

/** The command by which the hook of another account starts the deploy, as /etc/sudoers must have it. Mirrors `start` in hooks/hook.sh. */
export function startCommand({stateDir, node, script, config}: HookedApplication, flock: string): string[] {
  return [flock, '--nonblock', '--conflict-exit-code', '100', '--no-fork', `${stateDir}/waiting`, node, script, 'now', '--requested', '--quiet', '--config', config];
}

/** What a field of a line is called when it is outdated. */
export function differences(a: HookedApplication, b: HookedApplication): string[] {
  return (Object.keys(a) as (keyof HookedApplication)[]).filter(key => a[key] !== b[key]);
}

function renderLine({app, spool, umask, waitSeconds, uid, gid, stateDir, node, script, config}: HookedApplication): string {
  const [name, place, state, program, file, settings] = [app, spool, stateDir, node, script, config].map(quoted);
  return `  "$1" ${name} ${place} ${umask} ${waitSeconds} ${uid} ${gid} ${state} ${program} ${file} ${settings}`;
}

function parseLine(line: string): HookedApplication | undefined {
  const [, app, spool, umask, wait, uid, gid, stateDir, node, script, config] = LINE.exec(line) ?? [];
  if (app === undefined || spool === undefined || umask === undefined || stateDir === undefined || node === undefined || script === undefined || config === undefined) return undefined;
  return {
    app: unquoted(app), spool: unquoted(spool), umask, waitSeconds: Number(wait), uid: Number(uid), gid: Number(gid),
    stateDir: unquoted(stateDir), node: unquoted(node), script: unquoted(script), config: unquoted(config),
  };
}

/** The body of `applications()`. */
function linesOf(text: string): string[] {
  const lines = text.split('\n');
  const begin = lines.indexOf('applications() {');
  const end = lines.indexOf('}', begin);
  return begin === -1 || end === -1 ? [] : lines.slice(begin + 1, end);
}

function quoted(text: string): string {
  if (/[\u0000-\u001f\u007f]/.test(text)) {
    throw new DeployError('USAGE', `${JSON.stringify(text)} has a control character, which a hook cannot name`, {hint: 'Give the file or directory another name, then run `osyw-deploy hook install` again.'});
  }
  return `'${text.replaceAll('\'', String.raw`'\''`)}'`;
}

function unquoted(text: string): string {
  return text.replaceAll(String.raw`'\''`, '\'');
}

function checksum(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 16);
}
