import {connect, type Socket} from 'node:net';

/** One request over a raw socket: Node's own agent reuses sockets behind the caller's back and calls a clean FIN a reset. */
export interface Ask {
  readonly port: number;
  readonly method?: 'GET' | 'POST';
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Buffer;
  /** Body bytes are sent in this many parts, with a pause between them. */
  readonly parts?: {readonly count: number; readonly pauseMs: number};
  readonly timeoutMs?: number;
  /** A socket that has answered before; else a new one is made. */
  readonly socket?: Socket;
  readonly keepAlive?: boolean;
}

export interface Answer {
  readonly kind: 'answer';
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
  readonly ms: number;
  /** Set when the connection can take another request. */
  readonly socket: Socket | undefined;
}

/** `RST`, `FIN` (closed before the answer was whole), `REFUSED`, `TIMEOUT`, or the system's own code. */
export interface NoAnswer {
  readonly kind: 'none';
  readonly cause: string;
  /** Bytes of an answer that came before the end. */
  readonly bytes: number;
  readonly ms: number;
}

export function ask(options: Ask): Promise<Answer | NoAnswer> {
  const began = performance.now();
  const socket = options.socket ?? connect({port: options.port, host: '127.0.0.1', noDelay: true});
  const body = Buffer.from(options.body ?? '');
  const method = options.method ?? 'GET';
  return new Promise((resolve) => {
    let got: Buffer = Buffer.alloc(0);
    let ended = false;
    const timer = setTimeout(() => fail('TIMEOUT'), options.timeoutMs ?? 15_000);

    function settle(result: Answer | NoAnswer, keep: boolean): void {
      if (ended) return;
      ended = true;
      clearTimeout(timer);
      socket.removeAllListeners('data').removeAllListeners('end').removeAllListeners('error').removeAllListeners('close');
      // A reset of an idle or half-read connection must not end the test.
      socket.on('error', () => {});
      if (!keep) socket.destroy();
      resolve(result);
    }
    function fail(cause: string): void {
      settle({kind: 'none', cause, bytes: got.length, ms: performance.now() - began}, false);
    }
    function read(atEnd: boolean): void {
      const answer = parse(got, atEnd);
      if (!answer) return;
      const keep = options.keepAlive === true && answer.framed && answer.headers['connection']?.toLowerCase() !== 'close';
      settle({kind: 'answer', status: answer.status, headers: answer.headers, body: answer.body, ms: performance.now() - began, socket: keep ? socket : undefined}, keep);
    }

    socket.on('data', (part) => {
      got = got.length === 0 ? part : Buffer.concat([got, part]);
      read(false);
    });
    socket.on('end', () => {
      read(true);
      fail('FIN');
    });
    socket.on('close', () => fail('FIN'));
    socket.on('error', (error: NodeJS.ErrnoException) => fail(cause(error.code)));

    const headers = {host: 'www.example.org', connection: options.keepAlive ? 'keep-alive' : 'close', ...options.headers};
    const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`).join('');
    const length = method === 'POST' ? `content-length: ${body.length}\r\n` : '';
    socket.write(`${method} ${options.path} HTTP/1.1\r\n${lines}${length}\r\n`);
    if (!options.parts) {
      if (body.length > 0) socket.write(body);
      return;
    }
    const {count, pauseMs} = options.parts;
    const size = Math.ceil(body.length / count);
    let sent = 0;
    const next = (): void => {
      if (ended) return;
      socket.write(body.subarray(sent, sent + size));
      sent += size;
      if (sent < body.length) setTimeout(next, pauseMs);
    };
    next();
  });
}

function cause(code: string | undefined): string {
  if (code === 'ECONNRESET' || code === 'EPIPE') return 'RST';
  if (code === 'ECONNREFUSED') return 'REFUSED';
  return code ?? 'UNKNOWN';
}

interface Parsed {
  readonly status: number;
  readonly headers: Record<string, string>;
  readonly body: Buffer;
  /** The answer says itself where it ends. */
  readonly framed: boolean;
}

function parse(bytes: Buffer, atEnd: boolean): Parsed | undefined {
  const end = bytes.indexOf('\r\n\r\n');
  if (end < 0) return undefined;
  const [first = '', ...lines] = bytes.subarray(0, end).toString('latin1').split('\r\n');
  const status = Number(first.split(' ')[1]);
  const headers: Record<string, string> = {};
  for (const line of lines) {
    const colon = line.indexOf(':');
    headers[line.slice(0, colon).toLowerCase()] = line.slice(colon + 1).trim();
  }
  const rest = bytes.subarray(end + 4);
  const length = headers['content-length'];
  if (length !== undefined) return rest.length >= Number(length) ? {status, headers, body: rest.subarray(0, Number(length)), framed: true} : undefined;
  if (headers['transfer-encoding']?.toLowerCase() === 'chunked') {
    const body = unchunk(rest);
    return body && {status, headers, body, framed: true};
  }
  return atEnd ? {status, headers, body: rest, framed: false} : undefined;
}

function unchunk(bytes: Buffer): Buffer | undefined {
  const parts: Buffer[] = [];
  for (let at = 0; ; ) {
    const line = bytes.indexOf('\r\n', at);
    if (line < 0) return undefined;
    const size = Number.parseInt(bytes.toString('latin1', at, line), 16);
    if (bytes.length < line + 2 + size + 2) return undefined;
    if (size === 0) return Buffer.concat(parts);
    parts.push(bytes.subarray(line + 2, line + 2 + size));
    at = line + 2 + size + 2;
  }
}

/** A GET that must be answered; throws when it is not. */
export async function get(port: number, path: string, headers: Readonly<Record<string, string>> = {}): Promise<Answer & {text: string}> {
  const answer = await ask({port, path, headers});
  if (answer.kind === 'none') throw new Error(`GET ${path} on port ${port}: ${answer.cause} after ${Math.round(answer.ms)} ms and ${answer.bytes} bytes`);
  return {...answer, text: answer.body.toString()};
}
