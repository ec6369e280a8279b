import {Document, isSeq, visit} from 'yaml';
import {octal} from '../support/octal.ts';
import type {CheckConfig, Config, WebhookConfig} from './config.ts';

type Plain = string | number | boolean | readonly Plain[] | {readonly [key: string]: Plain | undefined};

/** The effective configuration as YAML in the words of osyw-deploy.yaml. Of secrets it names the files only. */
export function renderConfig(config: Config): string {
  const document = new Document(configAsObject(config));
  document.commentBefore = ` The effective configuration of ${config.file}`;
  visit(document, {
    Seq: (_key, seq) => {
      // A list of words on one line, a list of commands one a line.
      if (!seq.items.some(isSeq)) seq.flow = true;
    },
  });
  return document.toString({lineWidth: 0});
}

/** The same as data, with the keys of osyw-deploy.yaml; what has no value is left out. */
export function configAsObject(config: Config): Record<string, unknown> {
  const {source, release, workers, nginx} = config;
  return withoutUndefined({
    app: config.app,
    source: {
      vcs: source.vcs,
      working_copy: source.workingCopy,
      timeout: durationText(source.timeoutMs),
      url: source.url,
      branch: source.branch,
      username: source.username,
      password_file: source.passwordFile,
      paths: source.paths,
    },
    release: {
      tree: release.tree,
      build: release.build,
      build_timeout: durationText(release.buildTimeoutMs),
      build_user: release.buildUser,
      shared: release.shared,
      keep: release.keep,
    },
    workers: {
      command: workers.command,
      count: workers.count,
      ports: `${workers.ports.first}-${workers.ports.last}`,
      host: workers.host,
      env: workers.env,
      env_file: workers.envFile,
      user: workers.user,
      pid_file: workers.pidFile,
      log: workers.log,
      runner: workers.runner,
      systemd: workers.runner === 'systemd' ? {memory_max: workers.systemd.memoryMax, tasks_max: workers.systemd.tasksMax, properties: workers.systemd.properties} : undefined,
      stop: {signal: workers.stop.signal, timeout: durationText(workers.stop.timeoutMs)},
    },
    check: checkAsObject(config.check),
    bake: {for: durationText(config.bake.forMs)},
    nginx: {
      upstream: nginx.upstream,
      ...(nginx.edit === true ? {edit: nginx.file} : {
        file: nginx.file,
        server: Object.fromEntries(Object.entries(nginx.server)
          .map(([name, value]) => [name, /^\d{1,9}$/.test(value) ? Number(value) : value])),
        directives: nginx.directives,
      }),
      binary: nginx.binary,
      conf: nginx.conf,
      prefix: nginx.prefix,
      probe: nginx.probe,
      reload: nginx.reload,
    },
    drain: {quiet: durationText(config.drain.quietMs), deadline: durationText(config.drain.deadlineMs)},
    hook: {wait: config.hook.wait, wait_timeout: durationText(config.hook.waitTimeoutMs), supersede: config.hook.supersede},
    watch: {poll: durationText(config.watch.pollMs), settle: durationText(config.watch.settleMs), edits: config.watch.edits, check: durationText(config.watch.checkMs), webhook: config.watch.webhook === undefined ? undefined : webhookAsObject(config.watch.webhook)},
    state_dir: config.stateDir,
    run_dir: config.runDir,
  });
}

function checkAsObject(check: CheckConfig): {readonly [key: string]: Plain | undefined} {
  const timing = {
    interval: durationText(check.intervalMs),
    timeout: durationText(check.timeoutMs),
    consecutive: check.consecutive,
    deadline: durationText(check.deadlineMs),
  };
  switch (check.kind) {
    case 'http': {
      const {path, host, headers, status, body} = check;
      return {http: path, host, headers, status, body, ...timing};
    }
    case 'tcp': return {tcp: true, ...timing};
    case 'command': return {command: check.command, ...timing};
  }
}

function webhookAsObject({listen, path, secretFile, maxBodyBytes, rate}: WebhookConfig): {readonly [key: string]: Plain | undefined} {
  return {
    listen: 'unix' in listen ? `unix:${listen.unix}` : listen.host.includes(':') ? `[${listen.host}]:${listen.port}` : `${listen.host}:${listen.port}`,
    path,
    secret_file: secretFile,
    ...('unix' in listen ? {mode: octal(listen.mode), group: listen.group} : {}),
    max_body: sizeText(maxBodyBytes),
    rate: `${rate.count}/${durationText(rate.perMs).slice(-1)}`,
  };
}

/** Bytes in the largest unit that loses nothing. */
function sizeText(bytes: number): string {
  const fitting = ([['m', 1024 * 1024], ['k', 1024]] as const).find(([, unit]) => bytes % unit === 0);
  return fitting === undefined ? String(bytes) : `${bytes / fitting[1]}${fitting[0]}`;
}

/** Milliseconds in the largest unit that loses nothing: `90s`, `2m`, `1500ms`. */
function durationText(ms: number): string {
  const units = [['d', 86_400_000], ['h', 3_600_000], ['m', 60_000], ['s', 1000]] as const;
  const fitting = units.find(([, size]) => ms > 0 && ms % size === 0);
  if (ms === 0) return '0s';
  return fitting === undefined ? `${ms}ms` : `${ms / fitting[1]}${fitting[0]}`;
}

function withoutUndefined(value: {readonly [key: string]: Plain | undefined}): Record<string, unknown> {
  return Object.fromEntries(Object.entries(value).flatMap(([key, inside]) => {
    if (inside === undefined) return [];
    const isMap = typeof inside === 'object' && !Array.isArray(inside);
    return [[key, isMap ? withoutUndefined(inside as {readonly [key: string]: Plain | undefined}) : inside]];
  }));
}
