import {utf8Of} from '../config/regular-file.ts';
import type {Headers} from './webhook-signature.ts';

/** What a signed delivery says. All of it is a hint but for its being there. */
export interface Delivery {
  /** For the record: which forge, as its headers have it. */
  readonly from: string;
  /** The same when the forge sends it again; undefined when it has none. */
  readonly id: string | undefined;
  /** False when it surely changes nothing of what is deployed. */
  readonly counts: boolean;
}

/** Forgejo sends Gitea's headers too, and both send GitHub's. */
const FORGES = ['forgejo', 'gitea', 'gitlab', 'github'] as const;
const PUSHES: readonly unknown[] = ['push', 'Push Hook'];
/** X-Gitlab-Event-UUID comes last: hooks that a hook's work set off share it. */
const IDS = ['webhook-id', 'x-github-delivery', 'x-gitea-delivery', 'x-forgejo-delivery', 'idempotency-key', 'x-gitlab-event-uuid'] as const;
const ID = /^[A-Za-z0-9_.:-]{1,100}$/;

/** Undefined when it is malformed: no JSON object, or an id or event that is not one. `branch` undefined: any counts. */
export function readDelivery(headers: Headers, body: Buffer, branch: string | undefined): Delivery | undefined {
  const payload = payloadOf(body);
  const events = FORGES.map(forge => ({forge, said: headers[`x-${forge}-event`] ?? []}));
  const ids = IDS.map(name => headers[name] ?? []);
  if (payload === undefined || events.some(({said}) => said.length > 1) || ids.some(said => said.length > 1)) return undefined;
  const event = events.find(({said}) => said.length === 1);
  const id = ids.flat()[0];
  if (id !== undefined && !ID.test(id)) return undefined;
  return {from: event?.forge ?? 'webhook', id, counts: counts(event?.said[0], payload, branch)};
}

export function isDeliveryId(text: string): boolean {
  return ID.test(text);
}

type Payload = Readonly<Record<string, unknown>>;

/** It may only narrow what is looked at: what cannot be told counts. */
function counts(event: string | undefined, {ref, after, deleted, object_kind: kind, event_name: name}: Payload, branch: string | undefined): boolean {
  // A hook of the whole GitLab says in the body what it is about.
  const what = event === undefined || event === 'System Hook' ? kind ?? name : event;
  if (what !== undefined && !PUSHES.includes(what)) return false;
  if (deleted === true || (typeof after === 'string' && /^0+$/.test(after))) return false;
  if (typeof ref !== 'string' || !ref.startsWith('refs/')) return true;
  return ref.startsWith('refs/heads/') && (branch === undefined || ref === `refs/heads/${branch}`);
}

/** JSON, or a form with JSON in its `payload`, which GitHub sends unless told otherwise. */
function payloadOf(body: Buffer): Payload | undefined {
  const text = utf8Of(body);
  const json = text?.startsWith('payload=') === true ? new URLSearchParams(text).get('payload') : text;
  try {
    const said: unknown = JSON.parse(json ?? '');
    return typeof said === 'object' && said !== null && !Array.isArray(said) ? said as Payload : undefined;
  } catch {
    return undefined; // Of no use, and said so by the answer.
  }
}
