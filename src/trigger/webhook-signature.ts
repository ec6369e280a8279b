import {createHmac, randomBytes, timingSafeEqual} from 'node:crypto';
import {decoded} from '../config/webhook-secrets.ts';

/** As they came: each name in lower case, with every value that it was sent with. */
export type Headers = Readonly<Record<string, readonly string[] | undefined>>;

/** Standard Webhooks' own proposal; a clock that is further off is wrong. */
const WINDOW_S = 300;
const MOST_SIGNATURES = 8;
const HEX = '([0-9a-f]{64})$';

/** HMAC-SHA256 over the body, under the secret as it is typed at the forge; Gitea and Forgejo send several of these at once. */
const OF_THE_BODY: Readonly<Record<string, RegExp>> = {
  'x-hub-signature-256': new RegExp(`^sha256=${HEX}`),
  'x-gitea-signature': new RegExp(`^${HEX}`),
  'x-forgejo-signature': new RegExp(`^${HEX}`),
};

const comparison = randomBytes(32);

/**
 * Whether somebody sent this who knows one of the secrets. Every signature that is there must be right: none is rescued by another,
 * and GitLab's plain token counts only where nothing is signed. Signatures of SHA-1 count as none.
 * Source: GitHub "Validating webhook deliveries"; Gitea services/webhook/deliver.go; GitLab "Webhooks", signing tokens; the
 * specification of Standard Webhooks.
 */
export function isSigned(headers: Headers, body: Buffer, secrets: readonly string[], nowMs: number): boolean {
  const verdicts = Object.entries(OF_THE_BODY).flatMap(([name, form]) => {
    const said = headers[name];
    return said === undefined ? [] : [isOfTheBody(onlyOne(said)?.match(form)?.[1], body, secrets)];
  });
  if (headers['webhook-signature'] !== undefined) verdicts.push(isOfTheMessage(headers, body, secrets, nowMs));
  if (verdicts.length > 0) return verdicts.every(right => right);
  return isToken(onlyOne(headers['x-gitlab-token']), secrets);
}

function isOfTheBody(hex: string | undefined, body: Buffer, secrets: readonly string[]): boolean {
  if (hex === undefined) return false;
  const said = Buffer.from(hex, 'hex');
  return anyOf(secrets, secret => isEqual(said, createHmac('sha256', secret).update(body).digest()));
}

/** Standard Webhooks, as GitLab's signing token: `ID.TIMESTAMP.BODY`, under the bytes that the secret encodes. */
function isOfTheMessage(headers: Headers, body: Buffer, secrets: readonly string[], nowMs: number): boolean {
  const id = onlyOne(headers['webhook-id']);
  const timestamp = onlyOne(headers['webhook-timestamp']);
  // A dot in the id could be read as the end of it, with other parts behind.
  if (id === undefined || !/^[A-Za-z0-9_-]{1,100}$/.test(id)) return false;
  if (timestamp === undefined || !/^\d{1,11}$/.test(timestamp) || Math.abs(nowMs / 1000 - Number(timestamp)) > WINDOW_S) return false;
  const said = (onlyOne(headers['webhook-signature']) ?? '').split(' ', MOST_SIGNATURES).flatMap(one => {
    const [, base64] = /^v1,([A-Za-z0-9+/]{43}=)$/.exec(one) ?? [];
    return base64 === undefined ? [] : [Buffer.from(base64, 'base64')];
  });
  const keys = secrets.flatMap(secret => decoded(secret) ?? []);
  return anyOf(keys, key => {
    const right = createHmac('sha256', key).update(`${id}.${timestamp}.`).update(body).digest();
    return anyOf(said, one => isEqual(one, right));
  });
}

/** Digests of both are compared: they have the same length, and say nothing of where two texts differ. */
function isToken(token: string | undefined, secrets: readonly string[]): boolean {
  if (token === undefined) return false;
  const digest = (bytes: Buffer) => createHmac('sha256', comparison).update(bytes).digest();
  // Node reads a header byte by byte; a secret may be more than ASCII.
  const said = digest(Buffer.from(token, 'latin1'));
  return anyOf(secrets, secret => isEqual(said, digest(Buffer.from(secret))));
}

/** Sent twice, one value may be checked here and the other one believed by somebody in between. */
function onlyOne(values: readonly string[] | undefined): string | undefined {
  return values?.length === 1 ? values[0] : undefined;
}

/** Asks for all of them, so that the time does not tell which one it was. */
function anyOf<T>(candidates: readonly T[], isRight: (candidate: T) => boolean): boolean {
  return candidates.map(isRight).includes(true);
}

/** timingSafeEqual throws where the lengths differ, which are no secret. */
function isEqual(a: Buffer, b: Buffer): boolean {
  return a.length === b.length && timingSafeEqual(a, b);
}
