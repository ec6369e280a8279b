import type {CheckConfig} from '../config/config.ts';
import {formatDuration} from '../support/durations.ts';
import type {CheckResult} from './check-worker.ts';

/**
 * What most likely has to change when a check is not good, in the words of the configuration; undefined where nobody knows better than
 * what was seen. Shape: `elsewhere`, where the worker's processes listen instead, e.g. `0.0.0.0:8080`.
 */
export function checkHint(check: CheckConfig, result: CheckResult, elsewhere: readonly string[]): string | undefined {
  if (result.good) return undefined;
  if (elsewhere.length > 0) return `its processes listen on ${elsewhere.join(', ')}: give {port} to workers.command, or let it read $PORT, and see workers.host`;
  if (!result.listens) return 'see `osyw-deploy logs`: did it end, does it take {port} from workers.command, or $PORT?';
  if (result.late === true) return `if it needs longer than ${formatDuration(check.timeoutMs)}, ${check.kind === 'http' ? 'name a quicker path in check.http, or ' : ''}set check.timeout`;
  const {answer} = result;
  if (check.kind !== 'http' || answer === undefined) return undefined;
  const {status, location} = answer;
  const asIsSecure = Object.keys(check.headers).some(name => name.toLowerCase() === 'x-forwarded-proto');
  if (location !== undefined && status >= 300 && status < 400) {
    if (/^https:/i.test(location) && !asIsSecure) return 'it sends plain HTTP to https: `check.headers: {X-Forwarded-Proto: https}` asks as nginx does behind TLS';
    return `it sends the check to ${location}: name that path in check.http${check.host === undefined ? ', or its own name in check.host' : ''}, or allow the status with \`check.status: [${status}]\``;
  }
  if ([400, 403, 404, 421].includes(status) && check.host === undefined) {
    return `many applications answer to their own name only: \`check.host: www.example.org\` (the check asks for the address)${status === 404 ? '; or there is no such path: see check.http' : ''}`;
  }
  if (status === 401 || status === 403) return 'name a path in check.http that needs no login';
  if (status === 404) return `there is no ${check.path}: name a path in check.http that answers ${check.status.join(' or ')} when the worker is ready`;
  return status >= 500 ? 'see `osyw-deploy logs` for what went wrong in it' : undefined;
}
