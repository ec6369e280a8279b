import {accountOf} from '../../src/support/accounts.ts';

const uid = process.getuid?.() ?? 0;

/** Who runs the tests; undefined where the account has no name, as in a container. */
export const ownAccount = accountOf(uid)?.name;

/** The same, as it is told to people. */
export const ownName = ownAccount ?? `uid ${uid}`;

/** The same as the owner of a process. */
export const ownUser = ownName.replace(/^uid /, '#');
