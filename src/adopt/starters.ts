import {basename} from 'node:path';

/** pid 1, or a session's own. */
const MANAGERS = /^(systemd|init|launchd)$/;

/** Programs that start others again, by their names or titles, and what ends that. */
const SUPERVISORS: readonly (readonly [RegExp, string])[] = [
  [/^(supervisor\.)?supervisord$/, '`supervisorctl stop NAME`, and take its section out of the configuration of supervisord'],
  [/^runsv$/, '`sv down NAME`, and remove its link from the directory of services'],
  [/^PM2 v|God Daemon/, '`pm2 delete NAME && pm2 save`'],
  [/^s6-supervise$/, '`s6-svc -d` on its directory of service, and take it out of the scan directory'],
  [/^(circus\.)?circusd$/, '`circusctl stop NAME`, and take it out of its configuration'],
];

export function isManager([program = '']: readonly string[]): boolean {
  return MANAGERS.test(basename(program.split(' ')[0] ?? ''));
}

/** How to take a program away from the supervisor with this command line; undefined when it is none. */
export function supervisorRemedy([title = '', ...words]: readonly string[]): string | undefined {
  // A title that was written over the words, the program, or what an interpreter runs (`python3 -m circus.circusd`); what follows are arguments.
  const [script = ''] = words.filter(word => !word.startsWith('-'));
  const names = [title, basename(title.split(' ')[0] ?? ''), basename(script)];
  return SUPERVISORS.find(([pattern]) => names.some(name => pattern.test(name)))?.[1];
}
