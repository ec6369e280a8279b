import {basename, dirname, join} from 'node:path';
import type {Config} from '../config/config.ts';
import {DeployError} from '../errors.ts';
import {HEADER, isOwn, mayReplace, portsIn, renderUpstream} from './render-upstream.ts';
import {followLinks, hashOf, type UpstreamBytes} from './upstream-file.ts';
import type {UpstreamText} from './upstream-text.ts';

/** `nginx.file`: a file of ours. */
export function writtenWhole({nginx, app, workers}: Config): UpstreamText {
  const refuseOthers = (old: UpstreamBytes) => {
    if (old === null || mayReplace(textOf(old), nginx.upstream, app)) return;
    const file = followLinks(nginx.file);
    throw new DeployError('SWITCH_REFUSED', `${file} is not ours to write: it holds more than \`upstream ${nginx.upstream}\` and does not begin with "${HEADER}" and the name of this application`,
      {hint: 'Move what else stands there to another file, name a file of its own in `nginx.file`, or name this one in `nginx.edit`: then only the addresses of its `server` lines change.'});
  };
  return {
    file: () => followLinks(nginx.file),
    examine: () => void followLinks(nginx.file),
    candidateFor: file => join(dirname(file), `.${basename(file)}.osyw-new`),
    render: (old, ports) => {
      refuseOthers(old);
      return Buffer.from(renderUpstream(nginx, app, workers.host, ports));
    },
    restore: (now, before) => {
      refuseOthers(now);
      return before;
    },
    ports: bytes => portsIn(textOf(bytes)),
    hash: hashOf,
    isOwn: bytes => isOwn(textOf(bytes), app),
  };
}

function textOf(bytes: UpstreamBytes): string {
  return bytes?.toString('utf8') ?? '';
}
