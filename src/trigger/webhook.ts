import {statSync} from 'node:fs';
import {createServer, STATUS_CODES, type IncomingMessage, type OutgoingHttpHeaders, type ServerResponse} from 'node:http';
import type {WebhookConfig} from '../config/config.ts';
import {examineWebhookSecrets} from '../config/webhook-secrets.ts';
import {DeployError, errnoOf, messageOf} from '../errors.ts';
import {openDeliveryMemory} from './delivery-memory.ts';
import {gatherLooks} from './gather-looks.ts';
import {openBucket} from './token-bucket.ts';
import {readDelivery} from './webhook-delivery.ts';
import {listenAt} from './webhook-socket.ts';
import {isSigned, type Headers} from './webhook-signature.ts';

export interface WebhookOptions extends WebhookConfig {
  readonly stateDir: string;
  /** The branch that is deployed. It may only narrow; undefined: pushes to any branch count. */
  readonly branch: string | undefined;
  readonly limits?: Partial<typeof LIMITS>;
}

/** What one client may cost. Behind nginx, which has the whole request before it passes it on, none of these is met. */
const LIMITS = {
  headersMs: 5000,
  requestMs: 10_000,
  /** How long a connection stays after its answer, for a client that still sends. */
  lingerMs: 1000,
  lingerBytes: 1 << 20,
  /** How often it is looked for those that are late. */
  lookForLateMs: 1000,
  headerBytes: 8192,
  connections: 64,
  /** Many deliveries within this time are one look. */
  gatherMs: 1000,
};
/** Of wrong signatures so many are told of and answered as such. Right ones are taken all the same. */
const WRONG = {count: 30, perMs: 60_000};
/** Bodies that are held at once, in all; a larger `max_body` leaves fewer connections. */
const MOST_HELD_BYTES = 64 << 20;

interface Answer {
  readonly status: number;
  readonly headers?: OutgoingHttpHeaders;
}

/**
 * Listens for the deliveries of GitHub, GitLab, Gitea and Forgejo. One that is signed and may concern us says "look", and no more.
 * Shape:  `onLook` gets the forge's name, at most once in `gatherMs`; it must do no more than take note, as the forge waits.
 *         A delivery that comes too often gets 429, and a look all the same, later. `close` makes one that is owed, and returns
 *         when nothing listens and nobody is connected any more.
 *         `report` gets sentences for the log, without anything secret; of deliveries it holds nothing but known words and ids.
 *         `secretFile` is read again when it changes.
 * Errors: CONFIG_INVALID when the secrets cannot be used or the place not be listened on.
 */
export async function openWebhook(options: WebhookOptions, onLook: (from: string) => void, report: (text: string) => void): Promise<{close(): Promise<void>}> {
  const limits = {...LIMITS, ...options.limits};
  const secrets = openSecrets(options.secretFile, report);
  const memory = openDeliveryMemory(options.stateDir, report);
  const accepted = openBucket(options.rate);
  const wrong = openBucket(WRONG);
  const looks = gatherLooks(limits.gatherMs, accepted.take, from => {
    try {
      onLook(from);
    } catch (error) {
      report(`the look that ${from} asked for failed: ${messageOf(error)}`);
      return;
    }
    // Not before: a replay after a crash in between is a look too many, the other order one too few.
    memory.keep();
  });

  let tooOften = false;
  function deliver(headers: Headers, body: Buffer): Answer {
    if (!isSigned(headers, body, secrets(), Date.now())) {
      const wait = wrong.take();
      if (wait > 0) return tooMany(wait);
      report('a delivery without a right signature was refused');
      return {status: 401};
    }
    const delivery = readDelivery(headers, body, options.branch);
    if (delivery === undefined) {
      report('a delivery with a right signature was no JSON of a forge, and refused; choose application/json at the forge');
      return {status: 400};
    }
    const {from, id, counts} = delivery;
    if (!counts) return {status: 204};
    // Only what Standard Webhooks signs has its id signed: with any other a replay under a new id costs one look, and the rate bounds those.
    if (id !== undefined && memory.has(id)) return {status: 202};
    const wait = accepted.take();
    if (wait === 0 && id !== undefined) memory.add(id);
    looks.ask(from, wait);
    if (wait === 0) report(`a delivery of ${from}${id === undefined ? '' : ` (${id})`} says that there is something to look at`);
    else if (!tooOften) report('deliveries come more often than watch.webhook.rate allows; they are answered with 429, and looked at later');
    tooOften = wait > 0;
    return wait === 0 ? {status: 202} : tooMany(wait);
  }

  async function serve(request: IncomingMessage, response: ServerResponse, waits: boolean): Promise<void> {
    const refusal = refusalByHead(request, options);
    if (refusal !== undefined && (waits || refusal.status === 413)) {
      // Whoever does not wait to be asked for it sends the body all the same, and hears nothing before it is taken from him.
      void bodyOf(request, 0, limits.lingerBytes);
      return send(response, refusal);
    }
    if (waits) response.writeContinue();
    const body = await bodyOf(request, options.maxBodyBytes, limits.lingerBytes);
    send(response, refusal ?? (body === undefined ? {status: 413} : deliver(request.headersDistinct, body)));
  }

  const listener = (waits: boolean) => (request: IncomingMessage, response: ServerResponse): void => {
    serve(request, response, waits).catch((error: unknown) => {
      report(`a delivery could not be answered: ${messageOf(error)}`);
      request.destroy();
    });
  };
  const server = createServer({
    headersTimeout: limits.headersMs,
    requestTimeout: limits.requestMs,
    keepAliveTimeout: limits.lingerMs,
    connectionsCheckingInterval: limits.lookForLateMs,
    maxHeaderSize: limits.headerBytes,
    insecureHTTPParser: false,
  }, listener(false));
  server.on('checkContinue', listener(true));
  server.maxConnections = Math.max(4, Math.min(limits.connections, Math.floor(MOST_HELD_BYTES / options.maxBodyBytes)));
  // A second request that came along with the first is not looked at: one delivery, one connection.
  server.maxRequestsPerSocket = 1;
  await listenAt(server, options.listen, report);
  server.on('error', error => report(`the webhook's socket: ${messageOf(error)}`));
  return {
    close: () => new Promise(resolve => {
      looks.close();
      server.close(() => resolve());
      server.closeAllConnections();
    }),
  };
}

/** The path must be the very bytes: nothing is decoded, cleaned or cut off, so there is nothing to trick. */
function refusalByHead({url, method, headers}: IncomingMessage, {path, maxBodyBytes}: WebhookOptions): Answer | undefined {
  if (url !== path) return {status: 404};
  if (method !== 'POST') return {status: 405, headers: {allow: 'POST'}};
  if (headers['content-encoding'] !== undefined && headers['content-encoding'] !== 'identity') return {status: 415};
  return Number(headers['content-length'] ?? 0) > maxBodyBytes ? {status: 413} : undefined;
}

/**
 * The bytes as they came. Undefined when there are more than `most`, or the client went away. Somebody who goes on sending is heard
 * out for a while, as closing at once could take the answer from him before he read it.
 */
function bodyOf(request: IncomingMessage, most: number, linger: number): Promise<Buffer | undefined> {
  return new Promise(resolve => {
    let parts: Buffer[] = [];
    let length = 0;
    request.on('data', (part: Buffer) => {
      length += part.length;
      if (length <= most) {
        parts.push(part);
        return;
      }
      parts = [];
      resolve(undefined);
      if (length > most + linger) request.destroy();
    });
    request.once('end', () => resolve(Buffer.concat(parts)));
    request.once('error', () => resolve(undefined));
  });
}

/** The body says what the status says: nothing of us, whoever asks. */
function send(response: ServerResponse, {status, headers}: Answer): void {
  const text = status === 204 ? '' : `${STATUS_CODES[status]}\n`;
  response.writeHead(status, {...headers, ...(status === 204 ? {} : {'content-type': 'text/plain', 'content-length': String(text.length)})});
  response.end(text);
}

function tooMany(waitMs: number): Answer {
  return {status: 429, headers: {'retry-after': String(Math.ceil(waitMs / 1000))}};
}

/** The secrets as they are in the file now; while it cannot be used, as they were. */
function openSecrets(path: string, report: (text: string) => void): () => readonly string[] {
  const refusal = (fault: string) => `watch.webhook.secret_file ${path} ${fault}`;
  let stamp = stampOf(path);
  const first = examineWebhookSecrets(path);
  if (first.fault !== undefined) throw new DeployError('CONFIG_INVALID', refusal(first.fault));
  let secrets = first.secrets;
  return () => {
    const now = stampOf(path);
    if (now !== stamp) {
      stamp = now;
      const {secrets: found, fault} = examineWebhookSecrets(path);
      if (fault === undefined) secrets = found;
      report(fault === undefined ? 'the secrets of the webhook were read again' : `${refusal(fault)}; those of before are used on`);
    }
    return secrets;
  };
}

function stampOf(path: string): string {
  try {
    const {dev, ino, ctimeNs} = statSync(path, {bigint: true});
    return `${dev}-${ino}-${ctimeNs}`;
  } catch (error) {
    return errnoOf(error) ?? messageOf(error);
  }
}
