import {Command, CommanderError, InvalidArgumentError, Option} from 'commander';
import {DeployError} from '../errors.ts';
import {makeContext, type Context, type GlobalOptions} from './context.ts';
import type {Output} from './output.ts';

export interface World {
  readonly output: Output;
  readonly env: NodeJS.ProcessEnv;
  readonly cwd: string;
  readonly signal: AbortSignal;
  onHangup(listener: () => void): void;
  readonly version: string;
  readonly hookScript: string;
}

/** Reads the words of the command line and runs what they say. Returns the exit code. Errors: DeployError. */
export async function runProgram(words: readonly string[], world: World): Promise<number> {
  let exit = 0;
  const program = new Command('osyw-deploy');
  const add = (parent: Command, name: string, summary: string, run: (context: Context, options: Record<string, unknown>) => number | Promise<number>): Command => parent
    .command(name)
    .summary(summary)
    .description(summary)
    .action(async (options: Record<string, unknown>, command: Command) => {
      exit = await run(makeContext(command.optsWithGlobals<GlobalOptions>(), world), options);
    });

  program
    .configureHelp({showGlobalOptions: true})
    .description('Puts a revision from svn or git live behind nginx, and loses no request.')
    .version(world.version, '--version', 'print the version')
    .option('--config <file>', 'the configuration (default: $OSYW_DEPLOY_CONFIG, ./osyw-deploy.yaml, /etc/osyw-deploy/APP.yaml)')
    .option('--app <app>', 'look for /etc/osyw-deploy/APP.yaml')
    .option('--json', 'print JSON on standard output, everything else on standard error')
    .option('--quiet', 'print failures only')
    .option('--verbose', 'print what is waited for, and the output of the build')
    .addHelpText('after', HELP_AFTER)
    .exitOverride()
    .configureOutput({writeOut: world.output.out, writeErr: () => undefined});

  program.commandsGroup('Deploy:');
  add(program, 'init', 'look around and write a commented osyw-deploy.yaml', async (context, options) => (await import('./init.ts')).init(context, options))
    .option('--nginx <file>', 'the main file of the nginx that serves the site, where several run');
  add(program, 'adopt', 'take over workers and an upstream that were set up by hand', async (context, options) => (await import('./adopt.ts')).adopt(context, options))
    .option('--upstream <name>', 'the upstream of the running nginx (default: the only one with servers on this machine)')
    .option('--nginx <file>', 'the main file of the nginx that is meant, where several run')
    .option('--working-copy <directory>', 'where the code is, where the processes do not show it')
    .option('--pid-file <path>', 'the pid files of the old script, e.g. /var/run/osyw_{port}.pid: shown, and proof of nothing')
    .option('--state-dir <directory>', 'the state_dir of the configuration that is written')
    .option('--dry-run', 'show what was found and what would be written; change nothing');
  add(program, 'plan', 'show what `now` would do; change nothing', async (context, options) => (await import('./plan.ts')).plan(context, options))
    .option('--revision <revision>', 'this revision instead of the newest');
  withWait(add(program, 'now', 'deploy the newest revision', async (context, options) => options['requested'] === true
    ? (await import('./now-requested.ts')).nowRequested(context)
    : orByWatch(context, 'now', options, async () => (await import('./now.ts')).now(context, options as {revision?: string; force?: boolean; wait: boolean})))
    .option('--revision <revision>', 'this revision: r41 or 41 for svn, a hash (at least 7 digits) for git')
    .option('--force', 'deploy even what is unchanged'))
    .addOption(new Option('--requested', 'only if a hook filed a request: wait for the deploy that runs, then deploy').conflicts(['revision', 'force']));
  withWait(add(program, 'rollback', 'back to the last release that served well', (context, options) => orByWatch(context, 'rollback', options, async () => (await import('./rollback.ts')).rollback(context, options as {to?: string; wait: boolean})))
    .option('--to <release>', 'back to this one, e.g. 000011'));
  add(program, 'recover', 'settle whatever a crash left', async (context, options) => (await import('./recover.ts')).recover(context, {dryRun: options['dryRun'] === true}))
    .option('--dry-run', 'only say what there is to recover');
  add(program, 'watch', 'deploy whatever is asked for, and keep the workers alive; runs until it is told to end', async context => (await import('./watch.ts')).watch(context));

  program.commandsGroup('Look:');
  add(program, 'status', 'what serves now (exit 0 running, 1 dead, 3 not running, 4 unknown)', async (context, options) => options['watch'] === true ? (await import('./live-status.ts')).liveStatus(context) : (await import('./status.ts')).status(context))
    .option('--watch', 'keep it current, until it is interrupted');
  add(program, 'check', 'run the health check once against what serves (exit 0 all good, 8 not, or nothing serves)', async (context, options) => (await import('./check.ts')).check(context, options))
    .addOption(new Option('--port <port>', 'against whatever listens on this port of workers.host instead').argParser(port))
    .addHelpText('after', CHECK_HELP);
  add(program, 'history', 'what was deployed, by whom, how it went', async (context, options) => (await import('./history.ts')).history(context, {limit: options['limit'] as number | undefined, follow: options['follow'] === true}))
    .addOption(new Option('--limit <n>', 'the newest n only').argParser(count))
    .option('--follow', 'newest last, and go on with what comes');
  add(program, 'logs', "the workers' output", async (context, options) => (await import('./logs.ts')).logs(context, {lines: options['lines'] as number, follow: options['follow'] === true}))
    .addOption(new Option('--lines <n>', 'the last n of each worker').default(20).argParser(count))
    .option('--follow', 'go on with what comes');
  add(program, 'doctor', 'check the machine and the configuration for every known trap (exit 0 no problem, 1 a problem)', async context => (await import('./doctor.ts')).doctor(context))
    .addHelpText('after', DOCTOR_HELP);
  const config = program.command('config').summary('check or show the configuration').description('Check or show the configuration.');
  add(config, 'check', 'say whether the configuration is valid; touch nothing', async context => (await import('./config.ts')).configCheck(context));
  add(config, 'show', 'print the effective configuration, defaults filled in', async context => (await import('./config.ts')).configShow(context));
  program.commandsGroup('Deploy on every commit:');
  const hook = program.command('hook').summary('let every commit deploy').description('Let every commit deploy: a hook of svn or git files a request and returns.');
  withRepository(add(hook, 'install', 'put the hook into the repository; one that is there runs first', async (context, options) => (await import('./hook.ts')).hookInstall(context, options)))
    .option('--group <group>', 'this group may file requests (default: whoever may write the repository)')
    .option('--anyone', 'every account of this machine may file requests');
  withRepository(add(hook, 'uninstall', 'take it away again; what was there before is back', async (context, options) => (await import('./hook.ts')).hookUninstall(context, options)));
  withRepository(add(hook, 'status', 'what is installed, and whether it works (exit 0 it does, 1 it would not, 3 not installed)', async (context, options) => (await import('./hook.ts')).hookStatus(context, options)));

  program.commandsGroup('As a service:');
  const service = program.command('service').summary('let the machine start `watch` at every boot, and again when it ends').description('Let the machine start `watch` at every boot, and again when it ends. The workers outlive it.');
  withRoot(add(service, 'install', 'write the systemd unit (or init script), and how the logs are rotated', async (context, options) => (await import('./service-words.ts')).serviceInstall(context, options)))
    .option('--sysv', 'an LSB init script instead of a unit: it starts and stops the workers, and no `watch`')
    .option('--enable', 'enable it, too, and start the unit (default: say how)')
    .addOption(new Option('--print', 'write to standard output instead').conflicts(['enable', 'root']))
    .addHelpText('after', SERVICE_HELP);
  withRoot(add(service, 'uninstall', 'stop `watch` and take away what was written; the workers run on', async (context, options) => (await import('./service-words.ts')).serviceUninstall(context, options)));
  withRoot(add(service, 'status', 'installed, enabled, running, and would it start? (exit 0 yes, 1 no, 3 not installed)', async (context, options) => (await import('./service-words.ts')).serviceStatus(context, options)));

  program.commandsGroup('As an init script:');
  add(program, 'start', 'start the release that served last', context => orByWatch(context, 'start', {}, async () => (await import('./init-words.ts')).start(context)));
  add(program, 'stop', 'stop the workers; nginx then answers 502', context => orByWatch(context, 'stop', {}, async () => (await import('./init-words.ts')).stop(context)));
  for (const word of ['restart', 'reload']) {
    add(program, word, 'fresh workers of the same release; no request is lost', context => orByWatch(context, word, {}, async () => (await import('./init-words.ts')).restart(context, word)));
  }
  program.command('drain', {hidden: true}).action(async (_options, command: Command) => {
    exit = await (await import('./recover.ts')).drain(makeContext(command.optsWithGlobals<GlobalOptions>(), world));
  });

  try {
    await program.parseAsync(words, {from: 'user'});
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return 0;
    if (error.code === 'commander.help') throw new DeployError('USAGE', 'no command was given', {hint: program.helpInformation().trimEnd()});
    throw new DeployError('USAGE', error.message.replace(/^error: /, ''), {hint: 'See `osyw-deploy --help`, or `osyw-deploy COMMAND --help`.'});
  }
  return exit;
}

const HELP_AFTER = `
A first deploy:
  osyw-deploy init         write osyw-deploy.yaml, then look it through
  osyw-deploy doctor       see what may go wrong here, and how to mend it
  osyw-deploy plan         see what would happen
  osyw-deploy now          let it happen

Then, on the machine of the repository:
  osyw-deploy hook install   every commit deploys itself

Exit codes answer "what is serving now?": 0 the new release (or the same, unchanged);
1 to 9 and 13 the old one; 10 the new one, something old is left to stop;
11 the old one again; 12 look before you touch.`;

const CHECK_HELP = `
It says what each worker answered and how long it took, and asks through nginx where \`nginx.probe\` is set. What is not good comes with
what most likely has to change. With --port it helps to write the \`check\` section: start the program by hand, and check its port.`;

const DOCTOR_HELP = `
Each finding says what was seen, what it means, and the command or line that mends it; nothing is changed.
A problem loses requests, fails a deploy or leaks a secret: exit 1. Warnings and notes alone: exit 0.
--verbose also shows what is fine, --quiet problems alone. Without a usable configuration, which is a problem,
the machine alone is looked at. As root everything is tried as the account that deploys; another account sees less.`;

const SERVICE_HELP = `
Written are /etc/systemd/system/osyw-deploy-APP.service (with --sysv /etc/init.d/osyw-deploy-APP),
/etc/logrotate.d/osyw-deploy-APP and, where something must be below /run, /etc/tmpfiles.d/osyw-deploy-APP.conf.
A file there that is not ours, or was changed by hand, stays; nothing is written then.

The unit runs \`osyw-deploy watch\`. Stopping, restarting or killing it leaves the workers alone: \`osyw-deploy stop\`
stops them. After a boot it brings back what served, and nginx.service is started after that; if something cannot be
brought back it is started all the same. \`systemctl reload\` reads the configuration again.

The init script starts and stops the workers themselves. It starts no \`watch\`: after a stop nothing is to bring them
back. The line of /etc/inittab that runs one stands in the script.`;

/** Where a watch runs it is the one that deploys, with what it knows of the workers at hand. */
async function orByWatch(context: Context, command: string, options: Record<string, unknown>, itself: () => Promise<number>): Promise<number> {
  return await (await import('./through-watch.ts')).throughWatch(context, command, options) ?? itself();
}

function withWait(command: Command): Command {
  return command.option('--no-wait', 'return when the new release serves; the old one drains in the background');
}

function withRoot(command: Command): Command {
  return command.option('--root <directory>', 'below this directory instead of /, for packagers');
}

function withRepository(command: Command): Command {
  return command.option('--repository <path>', 'the repository on this machine (default: where the configuration says the code comes from)');
}

function port(text: string): number {
  if (!/^[1-9]\d{0,4}$/.test(text) || Number(text) > 65_535) throw new InvalidArgumentError('It must be a port, from 1 to 65535.');
  return Number(text);
}

function count(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError('It must be a whole number.');
  return Number(text);
}
