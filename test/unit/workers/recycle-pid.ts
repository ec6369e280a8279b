// node --import tsx recycle-pid.ts, as the init of a pid namespace: stops a worker whose pid belongs to somebody else by now; prints what came of it.
import {spawn} from 'node:child_process';
import {once} from 'node:events';
import {writeFileSync} from 'node:fs';
import {identify, isAlive} from '../../../src/workers/process-identity.ts';
import {stopWorker} from '../../../src/workers/stop-workers.ts';
import {waitUntil} from '../../support/wait-until.ts';

const worker = spawn('/bin/sleep', ['600'], {stdio: 'ignore'});
const recorded = identify(worker.pid ?? 0);
if (recorded === undefined) throw new Error('the worker does not run');
worker.kill('SIGKILL');
await once(worker, 'exit');
// Start times are ticks of 10 ms, so two of one tick could not be told apart; a pid goes round in no such time by itself.
const died = performance.now();
await waitUntil('another tick', () => performance.now() - died > 20);
// The next process of this namespace gets the pid again.
writeFileSync('/proc/sys/kernel/ns_last_pid', String(recorded.pid - 1));
const innocent = spawn('/bin/sleep', ['600'], {stdio: 'ignore'});
const {end} = await stopWorker({id: 'osyw/d/0/abc', port: 8811, process: recorded}, {signal: 'SIGTERM', timeoutMs: 100});
const its = identify(innocent.pid ?? 0);
console.log(JSON.stringify({samePid: innocent.pid === recorded.pid, end, lives: its !== undefined && isAlive(its)}));
innocent.kill('SIGKILL');
