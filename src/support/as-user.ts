import type {Command} from './run-command.ts';

/**
 * The same command under another account: its groups, no capabilities, no way to new privileges.
 * Unchanged when `user` is undefined or already ours.
 */
export function asUser(command: Command, user: {name: string; uid: number; gid: number} | undefined): Command {
  if (user === undefined || user.uid === process.getuid?.()) return command;
  return {
    file: '/usr/bin/setpriv',
    args: [
      '--reuid', String(user.uid), '--regid', String(user.gid), '--init-groups',
      '--no-new-privs', '--bounding-set=-all', '--inh-caps=-all', '--', command.file, ...command.args,
    ],
  };
}
