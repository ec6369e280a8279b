import {sharedPidFile} from '../adopt/recognise-command.ts';
import type {Survey} from '../adopt/survey.ts';
import type {Config} from '../config/config.ts';
import {plainText} from '../support/plain-text.ts';
import type {OldHook} from './old-hooks.ts';

/** What was found, for programs. Times are ISO 8601; `hooks` is null where the repository is not on this machine. */
export function shownSurvey({upstream: {name, file, host, ports}, workers, code: {source, revision, mixed, because, newer, edited}, command, variables, pidFiles, oldHands, scripts}: Survey, hooks: readonly OldHook[] | undefined): Record<string, unknown> {
  return {
    upstream: {name, file, host, ports},
    workers: workers.map(({port, process: {pid}, user, startedAt, words, directory}) => ({port, pid, user, started_at: startedAt, command: words, directory: directory ?? null})),
    source: {vcs: source.vcs, working_copy: source.workingCopy, url: source.url ?? null, revision, mixed, because, newer: newer.length, edited},
    command: command ?? null,
    variables,
    pid_files: pidFiles,
    old: oldHands,
    scripts,
    hooks: hooks ?? null,
  };
}

/** The same for people. */
export function foundLines({upstream, workers, code: {source, revision, mixed, because, newer, edited, unversioned}, command, variables, pidFiles, oldHands}: Survey): string[] {
  return [
    `upstream  ${upstream.name} in ${upstream.file}, of nginx pid ${upstream.master.process.pid}`,
    ...workers.map(({port, process: {pid}, user, startedAt, words, directory}) => `worker    ${port}: pid ${pid}, ${user}, since ${startedAt}, in ${directory ?? '?'}: ${words.join(' ')}`),
    `code      ${source.workingCopy} (${source.vcs}; ${because})`,
    `revision  ${revision}${mixed ? ', the newest there: the working copy is mixed, parts of it are older' : ''}`,
    ...(newer.length === 0 ? [] : [`          ${named(newer)} ${newer.length === 1 ? 'is' : 'are'} newer than the oldest worker: what runs may be older than ${revision}`]),
    ...(edited.length === 0 ? [] : [`          edited there: ${named(edited)}; a deploy refuses that until it is committed or reverted`]),
    ...(unversioned.length === 0 ? [] : [`left out  ${named(unversioned)}: not versioned, so in no release; what the workers need of that (uploads, a database, settings) name in release.shared before the first deploy`]),
    ...(command === undefined ? [] : [`command   ${command.join(' ')}`]),
    ...(command === undefined || sharedPidFile(command) === undefined ? [] : [`          ${sharedPidFile(command)} is one pid file for workers of two releases, which run side by side at a switch: take it out, or put {port} into its name`]),
    ...(variables.length === 0 ? [] : [`variables ${variables.join(', ')}: theirs alone; say in workers.env or env_file what of that fresh workers need`]),
    ...pidFiles.map(({path, port, pid, right}) => `pid file  ${path} ${right ? `names the worker on ${port}` : `is wrong: it says ${pid ?? 'nothing'}, and port ${port} is served by another process`}`),
    ...oldHands.map(({what}) => `also      ${what}`),
  ].map(oneLine);
}

/** What comes next, and how the old set-up is taken away. */
export function nextLines({upstream, workers, oldHands, scripts}: Survey, hooks: readonly OldHook[] | undefined, {app, workers: {count, ports}, source}: Config): string[] {
  const pids = workers.map(({process: {pid}}) => pid).join(', ');
  return [
    `The next deploy (\`osyw-deploy plan\` shows it, \`osyw-deploy now\` makes it, at this revision, too) starts ${count} fresh workers on spare ports of ${ports.first}-${ports.last},`,
    `moves upstream ${upstream.name} in ${upstream.file} to them, and then drains and stops pids ${pids}.`,
    'Until then they serve as they are; a deploy that fails leaves them alone. There is no rollback to them once they are stopped.',
    '',
    `Now take the old set-up of ${app} away: a script that ends whoever listens on ${workers.map(({port}) => port).join(', ')} would end workers of later releases, too.`,
    `  - the script that starts and stops them${scripts.length === 0 ? '' : ` (${scripts.join(', ')} ${scripts.length === 1 ? 'names' : 'name'} their ports)`}: out of the boot (update-rc.d NAME remove, systemctl disable NAME), cron, and everybody's reach;`,
    '    `osyw-deploy service install --enable` brings the release back after a boot',
    ...hookLines(hooks, source.vcs),
    ...oldHands.flatMap(({what, remedy}) => [`  - ${what}:`, `    ${remedy}`]),
  ].map(oneLine);
}

function hookLines(hooks: readonly OldHook[] | undefined, vcs: string | undefined): string[] {
  const install = '    then `osyw-deploy hook install`: a hook that is there goes on and runs first';
  if (hooks === undefined) return [`  - the ${vcs === 'git' ? 'hook' : 'post-commit hook'} of the repository, which is not on this machine or not named by source.url: what in it updates and restarts;`, install];
  if (hooks.length === 0) return ['  - no hook of the repository was seen to update or restart by itself; `osyw-deploy hook install` lets each commit deploy'];
  return [...hooks.map(({file, lines}) => `  - ${file}: line${lines.length === 1 ? '' : 's'} ${lines.join(', ')}, which update${lines.length === 1 ? 's' : ''} or restart${lines.length === 1 ? 's' : ''} by ${lines.length === 1 ? 'itself' : 'themselves'};`), install];
}

/** A name a line would be too many. */
function named(paths: readonly string[]): string {
  return `${paths.slice(0, 5).join(', ')}${paths.length > 5 ? ` and ${paths.length - 5} more` : ''}`;
}

/** Text of others that stays on its line. */
function oneLine(text: string): string {
  return plainText(text).replace(/[\n\t]+/g, ' ').trimEnd();
}
