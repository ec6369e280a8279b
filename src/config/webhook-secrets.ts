import {readRegularFile, utf8Of} from './regular-file.ts';

const MAX_BYTES = 4096;
/** Whoever sees one signed delivery may try out secrets at home, for ever. */
const LEAST_LENGTH = 16;
/** In front of a secret that is base64, as Standard Webhooks (and so GitLab's signing token) writes it. */
export const ENCODED = 'whsec_';
const LEAST_ENCODED_BYTES = 24;

/**
 * The secrets of the webhook, one a line: the one that is used now, and the one before while it is changed at the forge.
 * Shape: `fault` is set when there are none to use, and follows the name of the file; it never holds a part of a secret.
 */
export function examineWebhookSecrets(path: string): {secrets: readonly string[]; fault: string | undefined} {
  const file = readRegularFile(path, MAX_BYTES);
  if (file.kind === 'missing') return refused('is not there; expected a file that only its owner can read');
  if (file.kind === 'refused') return refused(`${file.reason}; expected one or two lines`);
  if ((file.stats.mode & 0o077) !== 0) return refused('others can use; expected mode 0600');
  const text = utf8Of(file.bytes);
  if (text === undefined) return refused('is not UTF-8 text without NUL bytes; expected one or two lines');
  const secrets = text.split(/\r?\n/).filter(line => line !== '');
  if (secrets.length === 0) return refused('is empty; expected one secret, or two while it is changed, one a line');
  if (secrets.length > 2) return refused(`has ${secrets.length} lines; expected one secret, or two while it is changed, one a line`);
  const faults = secrets.flatMap((secret, index) => {
    const fault = faultOf(secret);
    return fault === undefined ? [] : [`${fault} on line ${index + 1}`];
  });
  return faults[0] === undefined ? {secrets, fault: undefined} : refused(`has ${faults[0]}`);
}

function refused(fault: string): {secrets: readonly string[]; fault: string} {
  return {secrets: [], fault};
}

function faultOf(secret: string): string | undefined {
  if (secret.trim() !== secret) return 'a space at an end of the secret; expected none, as it would count';
  // oxlint-disable-next-line no-control-regex
  if (/[\u0000-\u001f\u007f]/.test(secret)) return 'a control character in the secret; expected visible text';
  if (secret.length < LEAST_LENGTH) return `a secret of ${secret.length} characters; expected at least ${LEAST_LENGTH}, such as \`openssl rand -hex 32\` makes`;
  return secret.startsWith(ENCODED) && (decoded(secret)?.length ?? 0) < LEAST_ENCODED_BYTES
    ? `a secret that begins with ${ENCODED} and is no base64 of at least ${LEAST_ENCODED_BYTES} bytes; expected it as the forge shows it` : undefined;
}

/** The bytes of a secret that begins with `whsec_`; undefined for any other. */
export function decoded(secret: string): Buffer | undefined {
  const text = secret.startsWith(ENCODED) ? secret.slice(ENCODED.length) : '';
  return /^[A-Za-z0-9+/]+={0,2}$/.test(text) && text.length % 4 === 0 ? Buffer.from(text, 'base64') : undefined;
}
