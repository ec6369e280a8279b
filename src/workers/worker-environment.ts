import type {CommonWorkers} from '../config/config.ts';
import {readEnvFile} from '../config/env-file.ts';
import type {Account} from '../support/accounts.ts';
import {SYSTEM_PATH} from '../support/system-path.ts';
import {WORKER_MARK} from './worker-tree.ts';

export interface Placeholders {
  readonly port: number;
  readonly release: string;
  readonly revision: string;
}

/** Puts `{port}`, `{release}` and `{revision}` in. */
export function fillIn(text: string, values: Placeholders): string {
  return text.replaceAll('{port}', String(values.port)).replaceAll('{release}', values.release).replaceAll('{revision}', values.revision);
}

/** A worker's whole environment: from the configuration, and from nothing else. */
export function workerEnvironment({env, envFile}: CommonWorkers, values: Placeholders, id: string, account: Account | undefined): Record<string, string> {
  return {
    PATH: SYSTEM_PATH,
    HOME: account?.home ?? '/',
    LANG: 'C.UTF-8',
    ...(envFile === undefined ? {} : readEnvFile(envFile)),
    ...Object.fromEntries(Object.entries(env).map(([key, value]) => [key, fillIn(value, values)])),
    PORT: String(values.port),
    OSYW_RELEASE: values.release,
    OSYW_REVISION: values.revision,
    [WORKER_MARK]: id,
  };
}
