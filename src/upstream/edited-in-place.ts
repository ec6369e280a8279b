import {accessSync, constants, statSync} from 'node:fs';
import {basename, dirname, join} from 'node:path';
import type {Config} from '../config/config.ts';
import {DeployError, messageOf} from '../errors.ts';
import {fileWithUpstream, upstreamsIn} from '../nginx/file-with-upstream.ts';
import {ConfigSyntaxError, parseConfig, type Directive} from '../nginx/parse-config.ts';
import {serverLines, type ServerLine} from '../nginx/server-lines.ts';
import {plainText} from '../support/plain-text.ts';
import {portsIn} from './render-upstream.ts';
import {withAddresses} from './splice-addresses.ts';
import {followLinks, hashOf, readUpstream, type UpstreamBytes} from './upstream-file.ts';
import type {UpstreamText} from './upstream-text.ts';

/** Where the slots of a stopped application point: nobody listens there, so nginx answers 502, and the lines keep what else they say. */
const NOWHERE = 1;

/**
 * `nginx.edit`: a file of the user's, in which only the addresses of the `server` lines of our upstream change.
 * A slot is such a line that is neither `backup` nor `down`: those stay as they are and are not counted.
 */
export function editedInPlace({nginx, app, workers: {host, ports: range}}: Config): UpstreamText {
  const written = host.includes(':') ? `[${host}]` : host;
  const addressOf = (port: number) => `${written}:${port}`;
  const file = () => followLinks(fileWithUpstream(nginx));

  const refusal = (reason: string) => {
    const own = join(dirname(nginx.conf ?? '/etc/nginx/nginx.conf'), `${app}.upstream.conf`);
    return new DeployError('SWITCH_REFUSED', `${fileWithUpstream(nginx)} cannot be edited: ${reason}`,
      {hint: `Mend that; or let a deploy write a file of its own: \`nginx.file: ${own}\` instead of \`nginx.edit\`, and in your file, in place of the block, \`include ${own};\` and, where requests go, \`proxy_pass http://${nginx.upstream};\`.`});
  };

  const slotsIn = (bytes: UpstreamBytes): ServerLine[] => {
    if (bytes === null) throw refusal('it is not there');
    const [block, second] = blocksIn(bytes, nginx.upstream, reason => refusal(reason));
    if (block === undefined) throw refusal(`\`upstream ${nginx.upstream}\` stands neither in it nor in just one file that it includes`);
    if (second !== undefined) throw refusal(`it has \`upstream ${nginx.upstream}\` twice, in lines ${block.line} and ${second.line}`);
    const decides = block.block?.find(({name: {text}}) => text === 'include' || text.startsWith('balancer_by_lua'));
    if (decides !== undefined) throw refusal(`line ${decides.line}: with \`${plainText(decides.name.text)}\` it is not the \`server\` lines alone that say where requests go`);
    const lines = serverLines(block);
    const onSpare = lines.find(({backup, target}) => backup && isOn(host, target) && target.port >= range.first && target.port <= range.last);
    if (onSpare !== undefined) throw refusal(`line ${onSpare.directive.line}: the backup ${plainText(onSpare.address.text)} has one of \`workers.ports\`, which a worker will get`);
    const slots = lines.filter(({down, backup}) => !down && !backup);
    const other = slots.find(({target}) => !isOn(host, target));
    if (other !== undefined) {
      throw refusal(`line ${other.directive.line}: \`server ${plainText(other.address.text)}\` is no port of \`workers.host\`, ${host}; what listens there is not deployed, and would go on to get requests`);
    }
    if (slots.length === 0) throw refusal(`line ${block.line}: \`upstream ${nginx.upstream}\` has no \`server ${addressOf(range.first)};\` whose address could change`);
    return slots;
  };

  const render = (old: UpstreamBytes, ports: readonly number[]): Buffer => {
    const slots = slotsIn(old);
    // As many lines as there are: the next start finds what each of them says.
    const addresses = ports.length === 0 ? slots.map(() => addressOf(NOWHERE)) : ports.map(addressOf);
    return withAddresses(old ?? Buffer.alloc(0), slots, addresses);
  };

  const ports = (bytes: UpstreamBytes): number[] => {
    try {
      return slotsIn(bytes).flatMap(({target}) => target !== undefined && 'port' in target && target.port !== NOWHERE ? [target.port] : []);
    } catch (error) {
      if (!(error instanceof DeployError)) throw error;
      // Rather a port too many than one too few: no worker is stopped whose port is named.
      return portsIn(bytes?.toString('utf8') ?? '');
    }
  };

  return {
    file,
    examine: () => {
      const path = file();
      const bytes = readUpstream(path);
      slotsIn(bytes);
      try {
        for (const one of [path, dirname(path)]) accessSync(one, constants.W_OK);
      } catch (error) {
        throw refusal(`it cannot be written: ${messageOf(error)}`);
      }
      const {nlink, uid} = statSync(path);
      if (nlink > 1) throw refusal('it has a second name (a hard link), which would keep the old text');
      // A rename puts a file of ours in its place, and only root can give one away.
      if (process.geteuid?.() !== 0 && uid !== process.geteuid?.()) throw refusal(`it belongs to another account (uid ${uid}), and would belong to ours afterwards`);
    },
    // Two applications may have their blocks in one file.
    candidateFor: path => join(dirname(path), `.${basename(path)}.${app}.osyw-new`),
    render,
    restore: (now, before) => {
      const [slots, old] = [slotsIn(now), slotsIn(before)];
      // Nobody changed anything else: then it is the old file, to the byte.
      if (now !== null && render(before, ports(now)).equals(now)) return before;
      const texts = old.map(({directive}) => before?.subarray(directive.start, directive.end) ?? Buffer.alloc(0));
      return withAddresses(now ?? Buffer.alloc(0), slots, old.map(({address}) => address.text), texts);
    },
    ports,
    hash: bytes => {
      try {
        return hashOf(slotsIn(bytes).map(({address}) => address.text).join('\n'));
      } catch (error) {
        if (!(error instanceof DeployError)) throw error;
        return null;
      }
    },
    isOwn: () => false,
  };
}

function blocksIn(bytes: Buffer, name: string, refusal: (reason: string) => DeployError): Directive[] {
  try {
    const directives = parseConfig(bytes);
    return upstreamsIn({path: '', bytes, directives, fault: undefined}, name).map(({directive}) => directive);
  } catch (error) {
    if (error instanceof ConfigSyntaxError) throw refusal(plainText(error.message));
    throw error;
  }
}

function isOn(host: string, target: ServerLine['target']): target is {host: string; port: number} {
  return target !== undefined && 'host' in target && target.host.toLowerCase() === host.toLowerCase();
}
