import type {Directive, Word} from './parse-config.ts';

/** A `server` line of an upstream block. */
export interface ServerLine {
  readonly directive: Directive;
  /** Where the address stands: what a switch changes, and all that it changes. */
  readonly address: Word;
  /** Undefined when it is no address that nginx could have; a host without a port has 80, nginx's default. */
  readonly target: {readonly host: string; readonly port: number} | {readonly unix: string} | undefined;
  readonly parameters: readonly Word[];
  readonly down: boolean;
  readonly backup: boolean;
}

/** The `server` lines of an upstream block, in order. What an `include` in it brings is not among them. */
export function serverLines({block = []}: Directive): ServerLine[] {
  return block.flatMap(directive => {
    const {name, args: [address, ...parameters]} = directive;
    if (name.text !== 'server' || address === undefined || directive.block !== undefined) return [];
    const has = (word: string) => parameters.some(({text}) => text === word);
    return [{directive, address, target: targetOf(address.text), parameters, down: has('down'), backup: has('backup')}];
  });
}

/** Source: ngx_inet.c, ngx_parse_url. */
function targetOf(address: string): ServerLine['target'] {
  if (/^unix:/i.test(address)) return {unix: address.slice('unix:'.length)};
  const [, inBrackets, plain, digits] = /^(?:\[([^\]]+)\]|([^:[\]/]+))(?::(\d+))?$/.exec(address) ?? [];
  const host = inBrackets ?? plain;
  const port = digits === undefined ? 80 : Number(digits);
  return host === undefined || port < 1 || port > 65_535 ? undefined : {host, port};
}
