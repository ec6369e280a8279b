import {chmodSync, chownSync, lstatSync, mkdirSync, unlinkSync} from 'node:fs';
import {connect, type Server} from 'node:net';
import {dirname} from 'node:path';
import type {WebhookConfig} from '../config/config.ts';
import {DeployError, errnoOf, messageOf} from '../errors.ts';
import {ignoreMissing} from '../state/atomic-file.ts';
import {findGroup} from '../support/groups.ts';
import {lstatIfThere} from '../support/lstat-if-there.ts';
import {octal} from '../support/octal.ts';

type Unix = Extract<WebhookConfig['listen'], {readonly unix: string}>;

/** Listens where the configuration says. Errors: CONFIG_INVALID when that cannot be. */
export async function listenAt(server: Server, listen: WebhookConfig['listen'], report: (text: string) => void): Promise<void> {
  try {
    if ('port' in listen) await listening(server, () => server.listen({...listen, exclusive: true}));
    else await listenOnSocket(server, listen, report);
  } catch (error) {
    if (error instanceof DeployError) throw error;
    const where = 'port' in listen ? `${listen.host} port ${listen.port}` : listen.unix;
    throw refused(errnoOf(error) === 'EADDRINUSE' ? `${where}: somebody else listens there` : `${where}: ${messageOf(error)}`, error);
  }
}

async function listenOnSocket(server: Server, {unix, mode, group}: Unix, report: (text: string) => void): Promise<void> {
  const gid = group === undefined ? process.getgid?.() ?? 0 : findGroup(group)?.gid;
  if (gid === undefined) throw refused(`this machine has no group "${group}"`);
  makeDirectory(dirname(unix), mode, gid);
  await removeStale(unix);
  await listening(server, () => {
    // Bound within this call, with no rights for anybody until it has the right group.
    const before = process.umask(0o777);
    try {
      server.listen({path: unix});
    } finally {
      process.umask(before);
    }
  });
  chownSync(unix, -1, gid);
  chmodSync(unix, mode);
  const closed = closedDirectory(dirname(unix), mode, gid);
  if (closed !== undefined) report(`${closed}, so nobody ${(mode & 0o006) === 0 ? `of the group ${group ?? gid}` : 'else'} can connect to ${unix}`);
}

function listening(server: Server, listen: () => void): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.once('listening', () => {
      server.off('error', reject);
      resolve();
    });
    listen();
  });
}

/** One of ours, which those may pass who may connect. One that is there keeps its rights: other things may lie in it. */
function makeDirectory(directory: string, mode: number, gid: number): void {
  const there = lstatIfThere(directory);
  if (there === undefined) {
    const first = mkdirSync(directory, {recursive: true}) ?? directory;
    // The umask had its say.
    for (let path = directory; path.length > first.length; path = dirname(path)) chmodSync(dirname(path), 0o755);
    chownSync(directory, -1, gid);
    chmodSync(directory, 0o700 | (mode & 0o060 ? 0o010 : 0) | (mode & 0o006 ? 0o001 : 0));
    return;
  }
  if (!there.isDirectory()) throw refused(`${directory} is not a directory`);
  // Whoever may write there may put a socket of his own in the place of ours.
  if ((there.uid !== 0 && there.uid !== process.getuid?.()) || (there.mode & 0o022) !== 0) {
    throw refused(`${directory} (uid ${there.uid}, mode ${octal(there.mode & 0o7777)}) can be written by others; expected a directory of the deployer's own`);
  }
}

/** A socket that nobody listens on any more, of a process that was killed. */
async function removeStale(path: string): Promise<void> {
  const there = lstatIfThere(path);
  if (there === undefined) return;
  if (!there.isSocket()) throw refused(`${path} is there and no socket; it was left alone`);
  const answer = await new Promise<string>(resolve => {
    const probe = connect(path, () => {
      probe.destroy();
      resolve('somebody else listens there');
    });
    probe.once('error', error => resolve(errnoOf(error) ?? messageOf(error)));
  });
  if (answer === 'ENOENT') return;
  if (answer !== 'ECONNREFUSED') throw refused(`${path}: ${answer}`);
  ignoreMissing(() => unlinkSync(path));
}

/** The first directory on the way that those who may connect cannot pass; undefined when there is none, or nobody else may. */
function closedDirectory(directory: string, mode: number, gid: number): string | undefined {
  if ((mode & 0o066) === 0) return undefined;
  const above = dirname(directory) === directory ? undefined : closedDirectory(dirname(directory), mode, gid);
  if (above !== undefined) return above;
  const there = lstatSync(directory);
  const passes = (there.mode & 0o001) !== 0 || ((mode & 0o006) === 0 && there.gid === gid && (there.mode & 0o010) !== 0);
  return passes ? undefined : `${directory} has mode ${octal(there.mode & 0o7777)} and the group ${there.gid}`;
}

function refused(message: string, cause?: unknown): DeployError {
  return new DeployError('CONFIG_INVALID', `watch.webhook.listen: ${message}`, {
    hint: 'Mend watch.webhook.listen; a unix socket wants a directory of its own, such as /run/osyw-deploy/app/webhook.sock.',
    ...(cause === undefined ? {} : {cause}),
  });
}
