import {existsSync, statSync} from 'node:fs';
import type {IncomingMessage} from 'node:http';
import type {Config} from '../config/config.ts';
import {DeployError, FAILURES} from '../errors.ts';
import {controlPath, type ControlLine, type ControlRequest} from '../watch/control-server.ts';
import {requester} from './change.ts';
import type {Context} from './context.ts';

const CONNECT_TIMEOUT_MS = 1000;

/**
 * Lets the running `watch` do it, and shows how it goes: the exit code, as of the command itself. Undefined when no watch answers, or
 * one of another configuration; then the command does it by itself.
 */
export async function throughWatch(context: Context, command: string, options: Record<string, unknown>): Promise<number | undefined> {
  const config = configOf(context);
  if (config === undefined || !existsSync(controlPath(config))) return undefined;
  const asked: ControlRequest = {command, options, requestedBy: requester(context), config: configStamp(config.file)};
  const answer = await ask(controlPath(config), JSON.stringify(asked));
  if (answer === undefined) return undefined;
  const letGo = () => answer.destroy();
  context.signal.addEventListener('abort', letGo, {once: true});
  const renderer = context.renderer();
  let rest = '';
  try {
    for await (const chunk of answer.setEncoding('utf8') as AsyncIterable<string>) {
      const lines = (rest + chunk).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines.map(text => JSON.parse(text) as ControlLine)) {
        if (line.event === 'result') {
          const {event: _event, ...result} = line;
          renderer.result(result);
          return result.exit;
        }
        if (line.event === 'said') context.output.err(line.text);
        else renderer.event(line);
      }
    }
  } catch (error) {
    if (!context.signal.aborted && !isCutOff(error)) throw error;
  } finally {
    context.signal.removeEventListener('abort', letGo);
  }
  const pid = String(answer.headers['x-pid'] ?? '?');
  if (context.signal.aborted) {
    context.output.err(`The deploy goes on in \`osyw-deploy watch\` (pid ${pid}); \`osyw-deploy status\` shows how it stands.\n`);
    return FAILURES.INTERRUPTED.exit;
  }
  throw new DeployError('INTERNAL', `\`osyw-deploy watch\` (pid ${pid}) ended before it had said how the ${command} went`, {hint: '`osyw-deploy status` shows what serves; `osyw-deploy recover`, or whatever deploys next, settles what was begun.'});
}

/** Tells this configuration from another, and from itself after an edit. */
export function configStamp(file: string): {file: string; changed: string} {
  const {mtimeNs, ino} = statSync(file, {bigint: true});
  return {file, changed: `${ino}-${mtimeNs}`};
}

/** A configuration that cannot be read is told by the command itself. */
function configOf(context: Context): Config | undefined {
  try {
    return context.loadConfig();
  } catch {
    return undefined;
  }
}

async function ask(path: string, body: string): Promise<IncomingMessage | undefined> {
  const {request} = await import('node:http');
  return new Promise(resolve => {
    const outgoing = request({socketPath: path, path: '/run', method: 'POST', headers: {'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body), Expect: '100-continue'}});
    const giveUp = () => {
      outgoing.destroy();
      resolve(undefined);
    };
    // Nobody answers there, or may not be asked: what a command can do it does without.
    const timer = setTimeout(giveUp, CONNECT_TIMEOUT_MS);
    outgoing.on('error', giveUp);
    // What was asked for in full would be done, however late it is read: so it is sent only to one that is there.
    outgoing.once('continue', () => {
      clearTimeout(timer);
      outgoing.end(body);
    });
    outgoing.once('response', answer => {
      clearTimeout(timer);
      if (answer.statusCode === 200) resolve(answer);
      else giveUp();
    });
    outgoing.flushHeaders();
  });
}

function isCutOff(error: unknown): boolean {
  return error instanceof SyntaxError || (error instanceof Error && 'code' in error && ['ECONNRESET', 'ERR_STREAM_PREMATURE_CLOSE'].includes(String(error.code)));
}
