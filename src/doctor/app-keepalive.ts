import {connect} from 'node:net';
import type {CheckConfig} from '../config/config.ts';

/** What a worker did with an idle connection. Milliseconds since its answer. */
export type KeepAlive =
  | {readonly kind: 'closes'; readonly afterMs: number}
  /** It was still open when we had waited enough. */
  | {readonly kind: 'stays'; readonly forMs: number};

/** Node closes after 5 s, and adds a second of its own. */
const LONGEST_MS = 6500;
/** An answer comes in pieces; what is silent for so long has been said. */
const SILENCE_MS = 50;

/** Asks a worker once, over a kept connection, and waits until it closes it. Undefined when it does not answer. */
export function idleLife(host: string, port: number, check: CheckConfig, signal: AbortSignal): Promise<KeepAlive | undefined> {
  return new Promise(resolve => {
    const socket = connect({host, port});
    let answered: number | undefined;
    const end = (result: KeepAlive | undefined) => {
      clearTimeout(timer);
      signal.removeEventListener('abort', abort);
      socket.destroy();
      resolve(result);
    };
    const closed = () => end(answered === undefined ? undefined : {kind: 'closes', afterMs: Math.max(0, Math.round(performance.now() - answered))});
    const abort = () => end(undefined);
    const timer = setTimeout(() => end(answered === undefined || performance.now() - answered < SILENCE_MS ? undefined : {kind: 'stays', forMs: Math.floor((performance.now() - answered) / 1000) * 1000}), LONGEST_MS);
    signal.addEventListener('abort', abort, {once: true});
    socket.once('connect', () => socket.write(requestOf(check, host, port)));
    socket.on('data', () => {
      answered = performance.now();
    });
    socket.once('end', closed);
    socket.once('error', closed);
  });
}

function requestOf(check: CheckConfig, host: string, port: number): string {
  const http = check.kind === 'http' ? check : undefined;
  const headers = Object.entries({Host: http?.host ?? `${host}:${port}`, ...http?.headers, Connection: 'keep-alive'});
  return `GET ${http?.path ?? '/'} HTTP/1.1\r\n${headers.map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n`;
}
