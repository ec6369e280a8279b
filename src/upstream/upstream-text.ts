import type {Config} from '../config/config.ts';
import {fileWithUpstream} from '../nginx/file-with-upstream.ts';
import {editedInPlace} from './edited-in-place.ts';
import type {UpstreamBytes} from './upstream-file.ts';
import {writtenWhole} from './written-whole.ts';

/** What a switch makes of the upstream file, and what it finds in it: the two ways differ in nothing else. */
export interface UpstreamText {
  /** The file behind links that holds the block, or is to hold it. */
  file(): string;
  /** Looks, before anything is done, whether a switch could change it. Errors: SWITCH_REFUSED. */
  examine(): void;
  /** The dotfile beside it that a change is prepared in: nginx's `include conf.d/*` does not match it. */
  candidateFor(file: string): string;
  /** The bytes with these ports in place of those in `old`; no port at all is the stopped application, and nginx answers 502. Errors: SWITCH_REFUSED, with what to do. */
  render(old: UpstreamBytes, ports: readonly number[]): Buffer;
  /** `now` with what a switch changes in it as it was in `before`. Errors: SWITCH_REFUSED. */
  restore(now: UpstreamBytes, before: UpstreamBytes): UpstreamBytes;
  /** The ports where nginx sends requests by it, in the order of the slots. */
  ports(bytes: UpstreamBytes): number[];
  /** sha256 of what a switch changes in it: as long as it is the same, nobody else changed that. Null where there is none. */
  hash(bytes: UpstreamBytes): string | null;
  /** Whether a deploy of this application wrote it. */
  isOwn(bytes: UpstreamBytes): boolean;
}

/** The file that a switch changes, by the name that nginx has for it: links are not followed. */
export function namedFile({nginx}: Pick<Config, 'nginx'>): string {
  return nginx.edit === true ? fileWithUpstream(nginx) : nginx.file;
}

export function upstreamText(config: Config): UpstreamText {
  return config.nginx.edit === true ? editedInPlace(config) : writtenWhole(config);
}
