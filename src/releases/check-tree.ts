import {realpathSync} from 'node:fs';
import {join, normalize} from 'node:path';
import {dirname} from 'node:path/posix';
import {DeployError} from '../errors.ts';
import type {Account} from '../support/accounts.ts';
import {asUser} from '../support/as-user.ts';
import {runCommand} from '../support/run-command.ts';
import {asText, inTree, isMissing, parseLine, type Tree} from './tree-manifest.ts';

/** Refuses links of the repository that lead out of the release. Errors: BUILD_FAILED naming the link and where it leads. */
export function refuseLinksOut(dir: string, tree: Tree): void {
  for (const [path, line] of tree) {
    if (!line.startsWith('l')) continue;
    const {link} = parseLine(line);
    const leads = normalize(join(dirname(path), link));
    const out = link.startsWith('/') || leads === '..' || leads.startsWith('../') || leadsOutByLinks(dir, path, link);
    if (out) {
      throw new DeployError('BUILD_FAILED', `The versioned link ${asText(path)} leads out of the release: ${asText(link)}.`, {
        hint: 'Make the link relative and inside the tree, or share the path (`release.shared`).',
      });
    }
  }
}

/** `a/..` is not where it seems to be when `a` is a link itself. */
function leadsOutByLinks(dir: string, path: string, link: string): boolean {
  if (!/[^./][^/]*\/(?:.*\/)?\.\.(?:\/|$)/.test(link)) return false;
  try {
    const root = realpathSync(dir);
    const real = realpathSync(inTree(dir, path), {encoding: 'utf8'});
    return real !== root && !real.startsWith(`${root}/`);
  } catch (error) {
    return !isMissing(error);
  }
}

/** Refuses what no release has a use for. Errors: BUILD_FAILED naming the path. */
export function refuseSpecialFiles(tree: Tree): void {
  const KINDS: Readonly<Record<string, string>> = {p: 'a FIFO', s: 'a socket', b: 'a block device', c: 'a character device'};
  for (const [path, line] of tree) {
    const kind = KINDS[line.charAt(0)];
    if (kind !== undefined) throw new DeployError('BUILD_FAILED', `The build left ${kind} in the release: ${asText(path)}.`, {hint: 'Mend the build commands so that they leave files, directories and links only.'});
  }
}

/**
 * Takes setuid and setgid bits away; how many files had one. Done with the rights of the account that owns the tree: it may put
 * a link in a file's place at any moment, and root's chmod would follow it.
 */
export async function stripPrivileges(dir: string, tree: Tree, owner: Account | undefined, signal: AbortSignal): Promise<number> {
  const paths = [...tree].filter(([, line]) => {
    const {type, mode} = parseLine(line);
    return type !== 'l' && (mode & 0o6000) !== 0;
  }).map(([path]) => Buffer.from(path, 'latin1'));
  for (let i = 0; i < paths.length; i += PATHS_AT_ONCE) {
    const args = ['u-s,g-s', '--', ...paths.slice(i, i + PATHS_AT_ONCE).map(path => `./${path.toString('utf8')}`)];
    const result = await runCommand(asUser({file: '/bin/chmod', args}, owner), {cwd: dir, env: {PATH: '/usr/bin:/bin', LC_ALL: 'C'}, timeoutMs: CHMOD_TIMEOUT_MS, signal});
    if (result.exitCode !== 0) throw new DeployError('BUILD_FAILED', `setuid and setgid bits cannot be taken away in ${dir}: ${result.stderr.trim()}`);
  }
  return paths.length;
}

const PATHS_AT_ONCE = 500;
const CHMOD_TIMEOUT_MS = 60_000;
