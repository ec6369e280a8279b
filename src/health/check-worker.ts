import {connect, type Socket} from 'node:net';
import type {CheckConfig, Config, HttpCheck} from '../config/config.ts';
import type {Release} from '../deploy/deployment.ts';
import {errnoOf} from '../errors.ts';
import {findAccount} from '../support/accounts.ts';
import {asUser} from '../support/as-user.ts';
import {runCommand} from '../support/run-command.ts';
import {SYSTEM_PATH} from '../support/system-path.ts';
import {fillIn} from '../workers/worker-environment.ts';

export type CheckResult =
  | {readonly good: true; readonly answer?: HttpAnswer}
  /** `listens` is false while nothing accepts connections on the port; `late` when `check.timeout` was over. */
  | {readonly good: false; readonly saw: string; readonly listens: boolean; readonly late?: true; readonly answer?: HttpAnswer};

/** What a check over HTTP was answered, where it was; the location as the worker wrote it. */
export interface HttpAnswer {
  readonly status: number;
  readonly location: string | undefined;
}

/** No more of a body is read than a regular expression can be expected to look at. */
const MAX_BODY_BYTES = 256 * 1024;
const SHOWN_BODY_CHARACTERS = 200;

/** A timer that comes so late says that this process did not run meanwhile: it was stopped, or starved. */
const STOOD_STILL_MS = 50;
const MOST_REPEATS = 3;

/**
 * Checks one worker once, within `check.timeout`. A check that we slept through ourselves says nothing of the worker, and is made again.
 * Errors: the signal's reason when aborted.
 */
export async function checkWorker(config: Config, release: Release, port: number, signal: AbortSignal): Promise<CheckResult> {
  for (let repeats = 0; ; repeats++) {
    const ownDelay = watchOwnDelay(config.check.timeoutMs);
    const result = await checkOnce(config, release, port, signal);
    if (ownDelay() < STOOD_STILL_MS || result.good || repeats === MOST_REPEATS) return result;
  }
}

/** How late our own timer came, when it is asked for; 0 before its time. */
function watchOwnDelay(ms: number): () => number {
  const due = performance.now() + ms;
  let delay = 0;
  // Of a check that was aborted nobody asks any more: it must not keep the process.
  const timer = setTimeout(() => {
    delay = performance.now() - due;
  }, ms).unref();
  return () => {
    clearTimeout(timer);
    return delay;
  };
}

async function checkOnce(config: Config, release: Release, port: number, signal: AbortSignal): Promise<CheckResult> {
  signal.throwIfAborted();
  const {check} = config;
  switch (check.kind) {
    case 'http': return checkHttp(check, config.workers.host, port, signal);
    case 'tcp': return checkTcp(check.timeoutMs, config.workers.host, port, signal);
    case 'command': return checkByCommand(check, config, release, port, signal);
  }
}

/** Of these headers a value is shown; that of any other may be a secret. `X-Forwarded-*` is no pattern for it: there is `X-Forwarded-Access-Token`. */
const SHOWN_HEADER = /^(?:host|user-agent|content-type|accept(?:-\w+)?|x-forwarded-(?:for|host|port|prefix|proto|server))$/i;

/** A command line that repeats the check by hand, but for the values of headers that may be secret: `…` stands for each. It gets into logs and messages. */
export function repeatCheck(check: CheckConfig, host: string, port: number): string {
  switch (check.kind) {
    case 'http': {
      const headers = Object.entries({...(check.host === undefined ? {} : {Host: check.host}), ...check.headers});
      return ['curl', '-i', ...headers.flatMap(([name, value]) => ['-H', quote(`${name}: ${SHOWN_HEADER.test(name) ? value : '…'}`)]), quote(`http://${inUrl(host)}:${port}${check.path}`)].join(' ');
    }
    case 'tcp': return `nc -vz ${host} ${port}`;
    case 'command': return `PORT=${port} ${check.command.map(quote).join(' ')}`;
  }
}

async function checkHttp(check: HttpCheck, host: string, port: number, signal: AbortSignal): Promise<CheckResult> {
  const began = performance.now();
  const late: CheckResult = {good: false, saw: `no complete answer within ${check.timeoutMs} ms`, listens: true, late: true};
  const socket = await open(check.timeoutMs, host, port, signal);
  if (socket === 'late') return late;
  if (socket instanceof Error) return unconnected(socket);
  const {request} = await import('node:http');
  return new Promise((resolve, reject) => {
    const deadline = AbortSignal.any([signal, AbortSignal.timeout(Math.max(1, Math.ceil(check.timeoutMs - (performance.now() - began))))]);
    const fail = (error: Error) => {
      if (signal.aborted) reject(signal.reason as Error);
      else resolve(deadline.aborted ? late : {good: false, saw: error.message, listens: true});
    };
    const outgoing = request({
      host, port, path: check.path, createConnection: () => socket, signal: deadline,
      headers: {...(check.host === undefined ? {} : {Host: check.host}), 'User-Agent': 'osyw-deploy', ...check.headers, Connection: 'close'},
    });
    outgoing.on('error', fail);
    outgoing.on('response', answer => {
      const chunks: Buffer[] = [];
      let size = 0;
      const judge = () => {
        const body = Buffer.concat(chunks).toString('utf8');
        const status = answer.statusCode ?? 0;
        const said: HttpAnswer = {status, location: answer.headers.location};
        if (!check.status.includes(status)) resolve({good: false, saw: `status ${status}, expected ${check.status.join(' or ')}${shown(body)}`, listens: true, answer: said});
        else if (check.body !== undefined && !new RegExp(check.body).test(body)) resolve({good: false, saw: `status ${status}, but the body does not match /${check.body}/${shown(body)}`, listens: true, answer: said});
        else resolve({good: true, answer: said});
      };
      answer.on('data', (chunk: Buffer) => {
        chunks.push(chunk);
        size += chunk.length;
        if (size > MAX_BODY_BYTES) {
          judge();
          outgoing.destroy();
        }
      });
      answer.on('end', judge);
      answer.on('error', fail);
    });
    outgoing.end();
  });
}

async function checkTcp(timeoutMs: number, host: string, port: number, signal: AbortSignal): Promise<CheckResult> {
  const socket = await open(timeoutMs, host, port, signal);
  if (socket === 'late') return {good: false, saw: `no connection within ${timeoutMs} ms`, listens: true, late: true};
  if (socket instanceof Error) return unconnected(socket);
  socket.destroy();
  return {good: true};
}

/** A connection, or why there is none. To ask so often, while workers start, is cheap only without a request around it. */
function open(timeoutMs: number, host: string, port: number, signal: AbortSignal): Promise<Socket | Error | 'late'> {
  return new Promise((resolve, reject) => {
    const socket = connect({host, port});
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', abort);
    };
    const abort = () => {
      end();
      socket.destroy();
      reject(signal.reason as Error);
    };
    const timer = setTimeout(() => {
      end();
      socket.destroy();
      resolve('late');
    }, timeoutMs);
    signal.addEventListener('abort', abort, {once: true});
    socket.once('connect', () => {
      end();
      resolve(socket);
    });
    // Stays, for what befalls the connection before a request takes it over.
    socket.on('error', error => {
      end();
      resolve(error);
    });
  });
}

function unconnected(error: Error): CheckResult {
  const refused = errnoOf(error) === 'ECONNREFUSED';
  return {good: false, saw: refused ? 'nothing listens (connection refused)' : error.message, listens: !refused};
}

async function checkByCommand(check: Extract<CheckConfig, {kind: 'command'}>, config: Config, release: Release, port: number, signal: AbortSignal): Promise<CheckResult> {
  const account = config.workers.user === undefined ? undefined : findAccount(config.workers.user);
  const [file = '', ...args] = check.command.map(word => fillIn(word, {port, release: release.id, revision: release.revision}));
  const result = await runCommand(asUser({file, args}, account), {
    cwd: release.dir,
    env: {PATH: SYSTEM_PATH, HOME: account?.home ?? '/', LANG: 'C.UTF-8', PORT: String(port), OSYW_RELEASE: release.id, OSYW_REVISION: release.revision},
    timeoutMs: check.timeoutMs,
    signal,
  });
  if (result.exitCode === 0) return {good: true};
  const how = result.timedOut ? `did not end within ${check.timeoutMs} ms`
    : result.spawnError !== undefined ? `cannot be run: ${result.spawnError}`
    : result.exitCode === undefined ? `was ended by ${result.endedBy ?? 'a signal'}` : `exited with ${result.exitCode}`;
  return {good: false, saw: `${file} ${how}${shown(result.stderr || result.stdout)}`, listens: true, ...(result.timedOut ? {late: true} : {})};
}

function shown(body: string): string {
  const text = body.slice(0, SHOWN_BODY_CHARACTERS);
  return text === '' ? '' : `: ${JSON.stringify(text)}${body.length > text.length ? '…' : ''}`;
}

function inUrl(host: string): string {
  return host.includes(':') ? `[${host}]` : host;
}

function quote(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll(`'`, `'\\''`)}'`;
}
