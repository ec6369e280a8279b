import {DeployError} from '../errors.ts';
import {environmentFileOf, removeEnvironmentFile} from './environment-file.ts';
import {commandLine, isAlive, signalProcess} from './process-identity.ts';
import {KILL_TIMEOUT_MS, killLeft, untilGone, type StopResult, type StoppableWorker} from './stop-workers.ts';
import {systemctl, together} from './units.ts';
import {workerTree} from './worker-tree.ts';

/** How much longer than the grace systemd may take; it kills by itself when the grace is over. */
const ANSWER_MS = 5000;
/** As systemctl(1) has it: the unit is not loaded, so there is nothing to stop. */
const NOT_LOADED = 5;

/**
 * Stops workers that are units, by name, and all that is in the cgroup of each: the signal to its main process, the grace, then SIGKILL to whatever is left.
 * Calls that come together are one call of systemctl. May run twice, and before the unit is known to have been started.
 * Errors: CLEANUP_INCOMPLETE when systemd does not stop it.
 */
export function unitStopper({runDir, stop}: {runDir: string; stop: {timeoutMs: number}}): (worker: StoppableWorker, unit: string) => Promise<StopResult> {
  const stopUnits = together(async units => {
    const result = await systemctl(['stop', '--', ...units], stop.timeoutMs + ANSWER_MS);
    return () => result;
  });
  return async (worker, unit) => {
    const result = {port: worker.port, pid: worker.process?.pid};
    const before = workerTree(worker);
    // A deployer that was killed may have left the command that is about to start the unit.
    const starting = before.filter(({pid}) => isStarting(pid, unit));
    for (const one of starting) signalProcess(one, 'SIGKILL');
    // Systemd answers in turn: what that command had asked of it comes before our stop, once it can ask no more.
    if (starting.length > 0) await untilGone(starting, KILL_TIMEOUT_MS);
    const main = worker.process !== undefined && isAlive(worker.process) ? [worker.process] : before;
    const [{exitCode, timedOut, stderr}, obeyed] = await Promise.all([stopUnits(unit), untilGone(main, stop.timeoutMs)]);
    if (exitCode !== 0 && exitCode !== NOT_LOADED && !timedOut) {
      throw new DeployError('CLEANUP_INCOMPLETE', `systemd does not stop ${unit}: ${stderr.trim()}`, {hint: `See \`systemctl status ${unit}\`, then run \`osyw-deploy recover\`.`});
    }
    const end = before.length === 0 ? 'gone' : obeyed ? 'stopped' : 'killed';
    const stopped = await killLeft({...result, end, left: []}, before, worker);
    if (stopped.left.length === 0) removeEnvironmentFile(environmentFileOf(runDir, unit));
    return stopped;
  };
}

function isStarting(pid: number, unit: string): boolean {
  const [file = '', word] = commandLine(pid);
  return file.endsWith('/systemd-run') && word === `--unit=${unit}`;
}
