import {readFileSync} from 'node:fs';
import {accounts} from './accounts.ts';

export interface Group {
  readonly name: string;
  readonly gid: number;
  /** The accounts that /etc/group names; those whose primary group it is are not among them. */
  readonly members: readonly string[];
}

/** A group of this machine by name or number, from /etc/group; undefined when there is none. */
export function findGroup(nameOrGid: string): Group | undefined {
  return groups().find(({name, gid}) => name === nameOrGid || String(gid) === nameOrGid);
}

/** The name of a group, else its number. */
export function groupName(gid: number): string {
  return groups().find(group => group.gid === gid)?.name ?? String(gid);
}

/** Uids of all whose primary group it is, or whom /etc/group names. */
export function membersOf(gid: number): number[] {
  const named = groups().find(group => group.gid === gid)?.members ?? [];
  return accounts().filter(account => account.gid === gid || named.includes(account.name)).map(({uid}) => uid);
}

function groups(): Group[] {
  return readFileSync('/etc/group', 'utf8').split('\n').flatMap(line => {
    const [name, , gid, members] = line.split(':');
    return name === undefined || members === undefined ? [] : [{name, gid: Number(gid), members: members.split(',').filter(member => member !== '')}];
  });
}
