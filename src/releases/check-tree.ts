import {chmodSync, realpathSync} from 'node:fs';
import {join, normalize} from 'node:path';
import {dirname} from 'node:path/posix';
import {DeployError} from '../errors.ts';
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

/** Takes setuid and setgid bits away; the paths that had one. */
export function stripPrivileges(dir: string, tree: Tree): string[] {
  const stripped: string[] = [];
  for (const [path, line] of tree) {
    const {type, mode} = parseLine(line);
    if (type === 'l' || (mode & 0o6000) === 0) continue;
    chmodSync(inTree(dir, path), mode & 0o1777);
    stripped.push(path);
  }
  return stripped;
}
