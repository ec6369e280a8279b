import {connect, type PeerCertificate} from 'node:tls';
import type {Finding} from './finding.ts';

const ANSWER_MS = 8000;
const SOON_DAYS = 21;
const DAY_MS = 86_400_000;

/** Whether the certificate of an https repository is going to expire, or has. Nothing for any other URL. */
export async function certificate(url: string | undefined, signal: AbortSignal, now = Date.now()): Promise<Finding[]> {
  const server = url?.startsWith('https://') === true && URL.canParse(url) ? new URL(url) : undefined;
  if (server === undefined) return [];
  const check = 'source-certificate';
  const port = server.port === '' ? 443 : Number(server.port);
  const host = server.hostname.replace(/^\[|\]$/g, '');
  const found = await certificateOf(host, port, signal);
  // Whether the server answers at all is told by another check.
  if (found === undefined) return [];
  const ends = Date.parse(found.valid_to);
  const days = Math.floor((ends - now) / DAY_MS);
  const says = `the certificate of ${server.hostname} ${ends < now ? 'expired on' : 'is valid until'} ${new Date(ends).toISOString().slice(0, 10)}`;
  if (days >= SOON_DAYS) return [{check, level: 'ok', says, place: 'source.url'}];
  return [{
    check, level: ends < now ? 'problem' : 'warning', says: ends < now ? says : `${says}, ${days} days`, place: 'source.url', means: `${ends < now ? 'every' : 'from then on every'} deploy fails in update (UPDATE_FAILED); it is renewed on the machine of the repository`,
    mend: `certbot renew    # on ${server.hostname}`,
  }];
}

function certificateOf(host: string, port: number, signal: AbortSignal): Promise<PeerCertificate | undefined> {
  return new Promise(resolve => {
    // Only the dates are looked at; that svn and git trust it is theirs to say.
    const socket = connect({host, port, rejectUnauthorized: false, ...(/^[\d.]+$|:/.test(host) ? {} : {servername: host})});
    const end = (found: PeerCertificate | undefined) => {
      clearTimeout(timer);
      signal.removeEventListener('abort', abort);
      socket.destroy();
      resolve(found);
    };
    const abort = () => end(undefined);
    const timer = setTimeout(abort, ANSWER_MS);
    signal.addEventListener('abort', abort, {once: true});
    socket.once('secureConnect', () => {
      const found = socket.getPeerCertificate();
      end(found.valid_to === undefined ? undefined : found);
    });
    socket.once('error', abort);
  });
}
