import {runCommand, type Command} from '../support/run-command.ts';

const ENVIRONMENT = {PATH: '/usr/bin:/bin', LC_ALL: 'C'};
const PROBE_TIMEOUT_MS = 5000;
const NAMESPACE = ['unshare', '--pid', '--fork', '--kill-child', '--mount-proc', '--'];
/** The first process of a namespace is treated unlike others by the kernel, so it is this one and not the command. */
const AS_SECOND = ['sh', '-c', '"$@"; exit $?', 'sh'];

/**
 * How to run a command so that nothing of it stays: it is killed when we die, and as root it gets a process namespace of its own,
 * whose every process the kernel kills with the first, whatever session it moved to and whatever it did to its environment.
 */
export async function findContainment(): Promise<(command: Command) => Command> {
  const whole = process.getuid?.() === 0 && await hasNamespaces();
  return ({file, args}) => ({file: 'setpriv', args: ['--pdeathsig', 'KILL', '--', ...(whole ? [...NAMESPACE, ...AS_SECOND] : []), file, ...args]});
}

async function hasNamespaces(): Promise<boolean> {
  const [file = '', ...args] = NAMESPACE;
  const {exitCode} = await runCommand({file, args: [...args, 'true']}, {env: ENVIRONMENT, timeoutMs: PROBE_TIMEOUT_MS});
  return exitCode === 0;
}
