import type {ChildProcess} from 'node:child_process';
import {mkdirSync, openSync, readFileSync, rmSync, writeFileSync} from 'node:fs';
import {connect} from 'node:net';
import {join} from 'node:path';
import {leasePorts} from './free-ports.ts';
import {childrenOf, isAlive} from './leftovers.ts';
import {endChild, run, spawnBound} from './run.ts';
import {scrubbedEnv} from './scrubbed-env.ts';
import {waitUntil} from './wait-until.ts';

export const NGINX = '/usr/sbin/nginx';

export interface NginxRig {
  readonly prefix: string;
  readonly conf: string;
  readonly pidFile: string;
  /** The file that osyw-deploy writes; `conf.d/*.conf` is included. */
  readonly upstreamFile: string;
  readonly port: number;
  /** `http://127.0.0.1:PORT`. */
  readonly url: string;
  masterPid(): number;
  start(): Promise<void>;
  stop(): Promise<void>;
  /** The end that a power cut makes: nothing is cleaned up. `start` may follow. */
  kill(): Promise<void>;
  /** Somebody reloads nginx, and it is done: what accepted before does no more. */
  reload(): Promise<void>;
  logs(): {error: string; access: string};
  /** The ports in the upstream block as it is on disk, in its order. */
  upstreamPorts(): number[];
  /** Somebody else's file beside ours, with this text; returns its path and the way to take it away again. */
  foreignFile(text: string): {path: string; remove(): void};
  /** Somebody else's file that nginx cannot read. */
  brokenInclude(): {path: string; remove(): void};
}

/**
 * An nginx of the test's own in `prefix`: own configuration, pid file, logs, temporary paths and port, two workers.
 * Shape:  `upstream` text of the block before the first deploy; `inline`: it stands in nginx.conf itself; `server` further lines of the server block.
 */
export async function startNginx(prefix: string, options: {upstream?: string; inline?: boolean; server?: string; main?: string; as?: {uid: number; gid: number}; bareEnvironment?: boolean} = {}): Promise<NginxRig> {
  for (const dir of ['conf.d', 'logs', 'tmp']) mkdirSync(join(prefix, dir), {recursive: true});
  const lease = await leasePorts(1);
  const conf = join(prefix, 'nginx.conf');
  const pidFile = join(prefix, 'nginx.pid');
  const upstreamFile = options.inline === true ? conf : join(prefix, 'conf.d', 'myweb.conf');
  // A hand-written block of before the first deploy: port 1 refuses, so nginx answers 502.
  const upstream = options.upstream ?? 'upstream myweb {\n    server 127.0.0.1:1;\n}\n';
  if (options.inline !== true) writeFileSync(upstreamFile, upstream);
  writeFileSync(conf, configuration(prefix, lease.first, {...options, http: options.inline === true ? upstream : ''}));
  if (options.as) await run('chown', ['-R', `${options.as.uid}:${options.as.gid}`, prefix]);
  let child: ChildProcess | undefined;
  let foreign = 0;
  const running = (): ChildProcess => {
    if (child?.pid === undefined) throw new Error('nginx does not run');
    return child;
  };

  const rig: NginxRig = {
    prefix,
    conf,
    pidFile,
    upstreamFile,
    port: lease.first,
    url: `http://127.0.0.1:${lease.first}`,
    masterPid: () => running().pid ?? 0,
    async start() {
      const output = openSync(join(prefix, 'logs', 'output.log'), 'a');
      const started = spawnBound(NGINX, ['-p', prefix, '-c', conf], {stdio: ['ignore', output, output], env: options.bareEnvironment ? {} : scrubbedEnv(prefix), ...options.as});
      child = started;
      await waitUntil('nginx to listen', async () => {
        if (started.exitCode !== null) throw new Error(`nginx ended: ${readFileSync(join(prefix, 'logs', 'output.log'), 'utf8')}`);
        return (await listens(lease.first)) && readFileSync(pidFile, 'utf8').trim() === String(started.pid);
      });
    },
    async stop() {
      if (!child) return;
      child.kill('SIGCONT');
      await endChild(child);
      child = undefined;
    },
    async kill() {
      const workers = childrenOf(rig.masterPid());
      await endChild(running(), 'SIGKILL');
      child = undefined;
      for (const {pid} of workers) if (isAlive(pid)) process.kill(pid, 'SIGKILL');
      await waitUntil('the workers of nginx to end', () => workers.every(({pid}) => !isAlive(pid)));
    },
    async reload() {
      const master = rig.masterPid();
      const accepting = () => childrenOf(master).filter(({command}) => command === 'nginx: worker process').map(({pid}) => pid);
      const before = accepting();
      process.kill(master, 'SIGHUP');
      await waitUntil('nginx to have reloaded', () => accepting().length >= 2 && !accepting().some((pid) => before.includes(pid)), {withinMs: 10_000});
    },
    logs: () => ({error: readFileSync(join(prefix, 'logs', 'error.log'), 'utf8'), access: readFileSync(join(prefix, 'logs', 'access.log'), 'utf8')}),
    upstreamPorts: () => [...readFileSync(upstreamFile, 'utf8').matchAll(/^[^#\n]*\bserver\s+[^;\s]+:(\d+)/gm)].map((match) => Number(match[1])),
    foreignFile(text) {
      const path = join(prefix, 'conf.d', `somebody-else-${++foreign}.conf`);
      writeFileSync(path, text);
      return {path, remove: () => rmSync(path)};
    },
    brokenInclude: () => rig.foreignFile('server { listen 127.0.0.1:1; this_is_no_directive; }\n'),
  };
  await rig.start();
  return rig;
}

function configuration(prefix: string, port: number, options: {server?: string; main?: string; http: string}): string {
  const paths = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `    ${name}_temp_path ${prefix}/tmp/${name};\n`).join('');
  return `daemon off;
worker_processes 2;
pid ${prefix}/nginx.pid;
error_log ${prefix}/logs/error.log notice;
${options.main ?? ''}
events { worker_connections 1024; }
http {
    access_log ${prefix}/logs/access.log;
    client_max_body_size 50m;
${paths}${options.http}    include conf.d/*.conf;
    server {
        listen 127.0.0.1:${port} backlog=1024;
        ${options.server ?? ''}
        location / {
            proxy_pass http://myweb;
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }
    }
}
`;
}

/** True when somebody listens on the port of 127.0.0.1. */
export function listens(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({port, host: '127.0.0.1'});
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
