import {readFileSync} from 'node:fs';

export interface Account {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
  readonly home: string;
}

/** Who runs a process or owns a file, be it that no name is known. */
export type Identity = Omit<Account, 'home'>;

/** An account of this machine by name, from /etc/passwd; undefined when there is none. */
export function findAccount(name: string): Account | undefined {
  return accounts().find(account => account.name === name);
}

/** The account of a uid; undefined when it has no name. */
export function accountOf(uid: number): Account | undefined {
  return accounts().find(account => account.uid === uid);
}

/** All of them, in the order of the file. */
export function accounts(): Account[] {
  return readFileSync('/etc/passwd', 'utf8').split('\n').flatMap(line => {
    const [name, , uid, gid, , home] = line.split(':');
    return name === undefined || home === undefined ? [] : [{name, uid: Number(uid), gid: Number(gid), home}];
  });
}
