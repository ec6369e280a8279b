import {type ChildProcess, spawn} from 'node:child_process';
import {once} from 'node:events';
import {createInterface} from 'node:readline';
import assert from 'node:assert/strict';
import type {ProcessIdentity} from '../../../src/deploy/deployment.ts';
import {identify} from '../../../src/workers/process-identity.ts';

export interface Holder {
  readonly pid: number;
  /** A detached process that it started while it held the lock. */
  readonly child: ProcessIdentity;
  kill(): Promise<void>;
  /** Ends what is left of it. */
  end(): Promise<void>;
}

const SOURCE = `
  import {spawn} from 'node:child_process';
  import {tryLock} from ${JSON.stringify(new URL('../../../src/state/deploy-lock.ts', import.meta.url).href)};
  import {takeDrain} from ${JSON.stringify(new URL('../../../src/state/drains.ts', import.meta.url).href)};
  const [what, path, deploy] = process.argv.slice(1);
  globalThis.held = what === 'lock' ? tryLock(path, 'held by a test') : takeDrain(path, deploy);
  if (globalThis.held === undefined || 'heldBy' in globalThis.held) throw new Error('taken');
  const child = spawn('sleep', ['60'], {detached: true, stdio: 'ignore'});
  console.log(child.pid);
  process.stdin.resume().on('end', () => process.exit());
`;

/** A process that takes a lock or a drain and keeps it until it is killed, at the latest when we end. */
export async function startHolder(what: 'lock' | 'drain', path: string, deploy = ''): Promise<Holder> {
  const holder: ChildProcess = spawn(process.execPath, ['--import', import.meta.resolve('tsx'), '--input-type=module', '--eval', SOURCE, what, path, deploy], {stdio: ['pipe', 'pipe', 'inherit']});
  assert.ok(holder.stdout && holder.pid !== undefined);
  const ended = once(holder, 'exit');
  const lines = createInterface(holder.stdout)[Symbol.asyncIterator]();
  const first = await lines.next();
  const child = identify(Number(first.value));
  assert.ok(child, 'the holder says the pid of its child');
  const kill = async (): Promise<void> => {
    holder.kill('SIGKILL');
    await ended;
  };
  return {
    pid: holder.pid, child, kill,
    end: async () => {
      if (identify(child.pid)?.startTime === child.startTime) process.kill(child.pid, 'SIGKILL');
      await kill();
    },
  };
}
