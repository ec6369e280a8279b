import {chmodSync, lstatSync, mkdirSync, unlinkSync} from 'node:fs';
import {createServer, type IncomingMessage, type ServerResponse} from 'node:http';
import {join} from 'node:path';
import type {Config} from '../config/config.ts';
import type {DeployEvent, DeployResult} from '../deploy/events.ts';
import {DeployError, messageOf} from '../errors.ts';

/** What a client asks for: a command of the command line, in its own words. */
export interface ControlRequest {
  readonly command: string;
  readonly options: Readonly<Record<string, unknown>>;
  readonly requestedBy: string;
  /** The configuration that the client would use: its file, and when that was last changed. */
  readonly config: {readonly file: string; readonly changed: string};
}

/** A line of the answer. */
export type ControlLine = DeployEvent | {readonly event: 'said'; readonly text: string} | ({readonly event: 'result'} & DeployResult);

export interface ControlAnswer {
  /** `other`: this watch is not for that configuration. */
  readonly kind: 'run' | 'other';
  run(tell: (line: ControlLine) => void): Promise<void>;
}

const MOST_BODY_BYTES = 64 * 1024;
const MOST_UNREAD_BYTES = 1024 * 1024;
const MOST_CONNECTIONS = 64;
const REQUEST_TIMEOUT_MS = 5000;

/** Of one application: several may share a `run_dir`. */
export function controlPath({runDir, app}: Pick<Config, 'runDir' | 'app'>): string {
  return join(runDir, `${app}.sock`);
}

/**
 * Listens for clients of this account, and root: the socket's mode keeps all others out. The caller is the only watch of the
 * application, so a socket that lies there is one of a watch that died.
 * Errors: CONFIG_INVALID when `run_dir` cannot be used.
 */
export async function openControl(config: Pick<Config, 'runDir' | 'app'>, answer: (request: ControlRequest) => ControlAnswer): Promise<{close(): Promise<void>}> {
  const {runDir} = config;
  const path = controlPath(config);
  const server = createServer({requestTimeout: REQUEST_TIMEOUT_MS, headersTimeout: REQUEST_TIMEOUT_MS, connectionsCheckingInterval: REQUEST_TIMEOUT_MS, maxHeaderSize: 8192}, (request, response) => {
    const done = serve(request, response, answer).finally(() => running.delete(done));
    running.add(done);
  });
  server.maxConnections = MOST_CONNECTIONS;
  const running = new Set<Promise<void>>();
  try {
    // One that was there has the rights that its owner gave it.
    if (mkdirSync(runDir, {recursive: true, mode: 0o711}) !== undefined) chmodSync(runDir, 0o711);
    refuseOpenDirectory(runDir);
    if (lstatSync(path, {throwIfNoEntry: false})?.isSocket() === true) unlinkSync(path);
    await listen();
  } catch (error) {
    throw new DeployError('CONFIG_INVALID', `cannot listen on ${path}: ${messageOf(error)}`, {hint: 'Set `run_dir` to a place that this account may write; the path of a socket may have 107 bytes.', cause: error});
  }
  return {
    close: async () => {
      const closed = new Promise(resolve => server.close(resolve));
      // Each of them ends: a request that is not whole by its time limit, a command by the end of the watch.
      server.closeIdleConnections();
      await Promise.all(running);
      server.closeAllConnections();
      await closed;
    },
  };

  function listen(): Promise<void> {
    return new Promise((resolve, reject) => {
      server.once('error', reject);
      // There is no moment at which another account could connect.
      const before = process.umask(0o177);
      try {
        server.listen(path, resolve);
      } finally {
        process.umask(before);
      }
    });
  }
}

/** Whoever may write there could put a socket of his own in our place, and hear what root asks of it. */
function refuseOpenDirectory(path: string): void {
  const {uid, mode} = lstatSync(path);
  if ((uid !== 0 && uid !== process.geteuid?.()) || (mode & 0o022) !== 0) throw new Error(`others may write the directory ${path}`);
}

async function serve(request: IncomingMessage, response: ServerResponse, answer: (request: ControlRequest) => ControlAnswer): Promise<void> {
  // Whoever goes away in the middle leaves the deploy running.
  response.on('error', () => undefined);
  const refuse = (status: number, text: string) => response.writeHead(status, {'Content-Type': 'text/plain', Connection: 'close'}).end(`${text}\n`);
  try {
    if (request.url !== '/run') return void refuse(404, 'not found');
    if (request.method !== 'POST') return void refuse(405, 'POST only');
    const asked = parse(await bodyOf(request));
    if (asked === undefined) return void refuse(400, 'not a request');
    const {kind, run} = answer(asked);
    if (kind === 'other') return void refuse(409, 'another configuration');
    response.writeHead(200, {'Content-Type': 'application/x-ndjson', 'X-Pid': String(process.pid)});
    await run(line => {
      // One that does not read must not fill our memory.
      if (response.writableLength > MOST_UNREAD_BYTES) response.destroy();
      else response.write(`${JSON.stringify(line)}\n`);
    });
    response.end();
  } catch (error) {
    if (response.headersSent) response.destroy();
    else refuse(error instanceof TooLarge ? 413 : 400, messageOf(error));
  }
}

class TooLarge extends Error {}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > MOST_BODY_BYTES) throw new TooLarge('too large');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function parse(body: string): ControlRequest | undefined {
  let value: unknown;
  try {
    value = JSON.parse(body);
  } catch {
    return undefined; // Answered as what it is.
  }
  if (!isObject(value) || !isObject(value['options']) || !isObject(value['config'])) return undefined;
  const {command, requestedBy, config: {file, changed}} = value as unknown as ControlRequest;
  const texts = [command, requestedBy, file, changed];
  return texts.every(text => typeof text === 'string' && text.length < 4096) ? value as unknown as ControlRequest : undefined;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
