import {setTimeout as delay} from 'node:timers/promises';

const TIMEOUT_MS = 5000;
/** A second look, so that one answer cut by the reload itself does not send a good release back. */
const ATTEMPTS = 2;
const PAUSE_MS = 100;

/** Asks once through nginx, on a fresh connection. Undefined when all is well (any status below 500), else what was seen. */
export async function probeThroughNginx(url: string): Promise<string | undefined> {
  let saw: string | undefined;
  for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
    if (attempt > 1) await delay(PAUSE_MS);
    saw = await probeOnce(url);
    if (saw === undefined) return undefined;
  }
  return saw;
}

async function probeOnce(url: string): Promise<string | undefined> {
  const {request} = url.startsWith('https:') ? await import('node:https') : await import('node:http');
  return new Promise(resolve => {
    const outgoing = request(url, {
      agent: false,
      // The probe asks whether nginx and the workers answer; on loopback its certificate is for another name.
      rejectUnauthorized: false,
      headers: {Connection: 'close', 'User-Agent': 'osyw-deploy'},
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    outgoing.on('error', error => resolve(`${url}: ${error.name === 'AbortError' || error.name === 'TimeoutError' ? `no answer within ${TIMEOUT_MS / 1000} s` : error.message}`));
    outgoing.on('response', answer => {
      answer.resume();
      const status = answer.statusCode ?? 0;
      resolve(status < 500 ? undefined : `${url} answered ${status}`);
    });
    outgoing.end();
  });
}
