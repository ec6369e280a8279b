/** So many digits of the digest: two edits of one name would be one deploy too few. */
export const DIGEST_DIGITS = 12;
const EDITED = new RegExp(String.raw`^([^+]+)\+edits:([0-9a-f]{${DIGEST_DIGITS}})$`);

/**
 * The name of what is deployed, in its parts: the revision as its system writes it, and what tells its edits from others.
 * Shape: `r41+edits:1f0c9a7be2d4` → `r41`, `1f0c9a7be2d4`; of a revision as it was committed `edits` is undefined.
 */
export function splitEdits(name: string): {readonly revision: string; readonly edits: string | undefined} {
  const [, revision = name, edits] = EDITED.exec(name) ?? [];
  return {revision, edits};
}

/** The name of a revision with edits; `digest` is hex, of any length from 12 digits on. */
export function withEdits(revision: string, digest: string): string {
  return `${revision}+edits:${digest.slice(0, DIGEST_DIGITS)}`;
}
