import assert from 'node:assert/strict';
import {mkdirSync, writeFileSync} from 'node:fs';
import {createServer, type RequestListener} from 'node:http';
import type {AddressInfo} from 'node:net';
import {join} from 'node:path';
import {test, type TestContext} from 'node:test';
import type {CheckConfig, Config, NginxConfig} from '../../../src/config/config.ts';
import {idleLife} from '../../../src/doctor/app-keepalive.ts';
import {atLeast, connectionLimits, USUAL_NGINX} from '../../../src/doctor/nginx.ts';
import {nginxTime, passingTo, scopesOf, settingIn, valuesIn} from '../../../src/doctor/nginx-scopes.ts';
import {hashWithBackup, keepAliveRace, maxFails, nextUpstream, upstreamKeepAlive} from '../../../src/doctor/nginx-balancing.ts';
import {includeGlobs, inclusion} from '../../../src/doctor/nginx-includes.ts';
import {keepAliveResets, shutdownTimeout} from '../../../src/doctor/nginx-reloads.ts';
import {nginxSettings, type NginxSettings} from '../../../src/doctor/nginx-settings.ts';
import type {ConfigFile} from '../../../src/nginx/effective-config.ts';
import {parseConfig} from '../../../src/nginx/parse-config.ts';
import type {NginxChild} from '../../../src/upstream/nginx-master.ts';
import {makeTempDir, removeTempDir} from '../../support/temp-dir.ts';

const signal = new AbortController().signal;
const OLD = [1, 22, 1];
const NEW = [1, 28, 0];

function filesOf(texts: Readonly<Record<string, string>>): ConfigFile[] {
  return Object.entries(texts).map(([path, text]) => ({path, bytes: Buffer.from(text), directives: parseConfig(Buffer.from(text)), fault: undefined}));
}

function settings(texts: string | Readonly<Record<string, string>>, {version = OLD, count = 3, nginx = {}}: {version?: readonly number[]; count?: number; nginx?: Partial<NginxConfig>} = {}): NginxSettings {
  const files = filesOf(typeof texts === 'string' ? {'/etc/nginx/nginx.conf': texts} : texts);
  return nginxSettings(files, scopesOf(files), version, {nginx: {...USUAL_NGINX, upstream: 'web', file: '/etc/nginx/conf.d/web.conf', ...nginx}, count});
}

const site = (inside: string, around = '') => `http { ${around}\n server { listen 80; location / { ${inside} proxy_pass http://web; } } }`;

test('times as nginx writes them', () => {
  assert.deepEqual(['60s', '5', '1m30s', '1m 30s', '200ms', '1h', '0', '0s'].map(nginxTime), [60_000, 5000, 90_000, 90_000, 200, 3_600_000, 0, 0]);
  assert.deepEqual(['', 's', '1x', '-1'].map(nginxTime), [undefined, undefined, undefined, undefined]);
});

test('versions in their order', () => {
  assert.deepEqual([atLeast([1, 27, 4], [1, 27, 4]), atLeast([1, 28, 0], [1, 27, 4]), atLeast([2, 0, 0], [1, 27, 4]), atLeast([1, 27, 3], [1, 27, 4]), atLeast([1, 9, 9], [1, 27, 4])], [true, true, true, false, false]);
});

test('what holds in a location: its own, else of around it, through includes', () => {
  const scopes = scopesOf(filesOf({
    '/etc/nginx/nginx.conf': 'user x;\nhttp {\n include conf.d/*.conf;\n proxy_next_upstream error;\n server {\n  proxy_read_timeout 5s;\n  location / {\n   include snippets/pass;\n  }\n  location /own { proxy_read_timeout 9s; proxy_pass http://web/x; }\n  location /other { proxy_pass http://web2; }\n  location /late { proxy_pass http://$up; }\n }\n}\n',
    '/etc/nginx/conf.d/a.conf': 'keepalive_timeout 7s;\n',
    '/etc/nginx/conf.d/.hidden.conf': 'keepalive_timeout 8s;\n',
    '/etc/nginx/snippets/pass': 'proxy_set_header A b;\nproxy_pass https://web;\n',
  }));
  const passing = passingTo(scopes, 'web');
  assert.deepEqual(passing.map(({by, setting: {file, directive}}) => [by, file, directive.line]), [['proxy', '/etc/nginx/snippets/pass', 2], ['proxy', '/etc/nginx/nginx.conf', 10]]);
  assert.deepEqual(passing.map(({scope}) => [valuesIn(scope, 'proxy_read_timeout'), valuesIn(scope, 'keepalive_timeout'), valuesIn(scope, 'proxy_next_upstream'), settingIn(scope, 'user')?.directive.line, valuesIn(scope, 'none')]), [[['5s'], ['7s'], ['error'], 1, undefined], [['9s'], ['7s'], ['error'], 1, undefined]]);
  assert.deepEqual(passingTo(scopesOf(filesOf({'/n': 'http { server { location / { fastcgi_pass web; } location /g { grpc_pass grpc://web; } location /u { uwsgi_pass web; } } } stream { server { proxy_pass web; } }'})), 'web').map(({by}) => by), ['fastcgi', 'grpc', 'uwsgi']);
});

test('kept connections of clients at a reload', () => {
  const judge = (text: string, version: readonly number[], open = 100) => keepAliveResets(settings(text, {version}), open);
  assert.deepEqual([judge(site(''), OLD).level, judge(site(''), OLD).mend], ['warning', 'keepalive_timeout 0;']);
  assert.deepEqual([judge(site(''), NEW).level, judge(site(''), NEW).mend], ['warning', 'keepalive_min_timeout 1s;']);
  assert.match(`${judge(site(''), OLD).means}`, /so about 25 if all of the 100 connections/);
  assert.deepEqual([judge(site('', 'keepalive_min_timeout 1s;'), NEW).level, judge(site('keepalive_timeout 0;'), OLD).level, judge(site('', 'keepalive_timeout 0s;'), OLD).level], ['ok', 'ok', 'ok']);
  assert.equal(judge(site('keepalive_timeout 65;', 'keepalive_timeout 0;'), OLD).level, 'warning', 'the inner one counts');
});

test('what nginx cuts at a reload', () => {
  const judge = (main: string) => shutdownTimeout(settings(`${main} ${site('')}`), {deadlineMs: 300_000});
  assert.deepEqual([judge('').level, judge('').mend], ['note', 'worker_shutdown_timeout 300s;']);
  assert.deepEqual([judge('worker_shutdown_timeout 10s;').level, judge('worker_shutdown_timeout 5m;').level, judge('worker_shutdown_timeout 0;').level], ['warning', 'ok', 'note']);
});

test('what is tried on another worker', () => {
  const judge = (text: string) => nextUpstream(settings(text), 3).map(({level, mend, place}) => [level, mend, place]);
  const at = '/etc/nginx/nginx.conf';
  assert.deepEqual(judge(site('')), [['ok', undefined, `${at}:2`]]);
  assert.deepEqual(judge(site('', 'proxy_next_upstream off;')), [['warning', 'proxy_next_upstream error timeout;', `${at}:1`]]);
  assert.deepEqual(judge(site('proxy_next_upstream http_502;')), [['warning', 'proxy_next_upstream error timeout;', `${at}:2`]]);
  assert.deepEqual(judge(site('proxy_next_upstream error http_503 non_idempotent;')), [['warning', 'proxy_next_upstream error http_503;', `${at}:2`]]);
  assert.deepEqual(judge(site('proxy_next_upstream error;', 'proxy_next_upstream off;')), [['ok', undefined, `${at}:2`]]);
  assert.deepEqual(judge('http { server { location / { fastcgi_next_upstream off; fastcgi_pass web; } } }').map(([, mend]) => mend), ['fastcgi_next_upstream error timeout;']);
  assert.deepEqual(nextUpstream(settings(site('proxy_next_upstream off;')), 1).map(({level}) => level), ['note'], 'with one worker there is no other');
});

test('max_fails as the next deploy writes it', () => {
  const judge = (server: Record<string, string>, count: number) => {
    const nginx = {...USUAL_NGINX, server};
    return maxFails(settings(site(''), {count, nginx: {server}}), {nginx, workers: {count}} as unknown as Config).map(({check, level}) => `${check} ${level}`);
  };
  assert.deepEqual(judge({max_fails: '0'}, 3), ['nginx-max-fails ok']);
  assert.deepEqual(judge({max_fails: '2'}, 3), ['nginx-max-fails warning']);
  assert.deepEqual(judge({}, 3), ['nginx-max-fails warning'], "nginx's own is 1");
  assert.deepEqual(judge({max_fails: '2'}, 1), ['nginx-max-fails warning']);
  assert.deepEqual(judge({max_fails: '0'}, 1), ['nginx-max-fails ok', 'single-worker note']);
});

test('what a block of the user says counts, where only its addresses change', () => {
  const text = 'http { upstream web { ip_hash; server 127.0.0.1:8811 weight=4 max_fails=2; server 127.0.0.1:8812; server 127.0.0.1:9 down; } server { location / { proxy_pass http://web; } } }';
  const nginx = {...USUAL_NGINX, edit: true as const};
  const [found] = maxFails(settings(text, {nginx: {edit: true}}), {nginx, workers: {count: 2}} as unknown as Config);
  assert.deepEqual([found?.level, found?.mend, found?.place], ['warning', 'server 127.0.0.1:8811 weight=4 max_fails=0;\nserver 127.0.0.1:8812 max_fails=0;', '/etc/nginx/nginx.conf:1']);
  assert.equal(settings(text.replace('ip_hash', 'hash $uri consistent'), {nginx: {edit: true}}).write('hash $uri'), 'hash $uri;');
});

test('a method that takes no backup', () => {
  const judge = (text: string) => hashWithBackup(filesOf({'/n': `http { upstream web { ${text} } }`}), 'web').map(({mend}) => mend);
  assert.deepEqual(judge('ip_hash; server a:1; server a:2 weight=3 backup;'), ['server a:2 weight=3;']);
  assert.deepEqual(judge('random; server a:1 backup;'), ['server a:1;']);
  assert.deepEqual([judge('least_conn; server a:1; server a:2 backup;'), judge('ip_hash; server a:1;')], [[], []]);
});

test('how long nginx keeps a connection to a worker, and the worker itself', () => {
  const of = (directives: string[], version = OLD) => settings(site(''), {version, nginx: {directives}});
  assert.equal(upstreamKeepAlive(of([])), undefined);
  assert.equal(upstreamKeepAlive(of(['keepalive 0'], [1, 31, 5])), undefined);
  assert.deepEqual(upstreamKeepAlive(of([], [1, 31, 5])), {timeoutMs: 60_000, configured: false}, '1.29.7 and newer keep some by themselves');
  assert.deepEqual(upstreamKeepAlive(of(['keepalive 16', 'keepalive_timeout 4s'])), {timeoutMs: 4000, configured: true});
  const judge = (directives: string[], seen: Parameters<typeof keepAliveRace>[1]) => keepAliveRace(of(directives, [1, 31, 5]), seen).map(({level, mend}) => [level, mend]);
  assert.deepEqual(judge(['keepalive 16'], {kind: 'closes', afterMs: 5000}), [['warning', 'directives: ["keepalive 16", "keepalive_timeout 4s"]']]);
  assert.deepEqual(judge(['keepalive 16', 'keepalive_timeout 4s'], {kind: 'closes', afterMs: 5000}), [['ok', undefined]]);
  assert.deepEqual(judge(['keepalive 16'], {kind: 'closes', afterMs: 3}), [['ok', undefined]]);
  assert.deepEqual(judge(['keepalive 16'], {kind: 'stays', forMs: 6000}), [['note', undefined]]);
  assert.deepEqual(judge(['keepalive 16', 'keepalive_timeout 5s'], {kind: 'stays', forMs: 6000}), [['ok', undefined]]);
  assert.deepEqual(judge(['keepalive 16'], undefined), [['note', undefined]]);
  const unused = (inside: string) => keepAliveRace(settings(site(inside, 'proxy_http_version 1.1; proxy_set_header Connection "";'), {nginx: {directives: ['keepalive 16']}}), {kind: 'closes', afterMs: 90_000}).map(({check}) => check);
  assert.deepEqual(unused(''), ['nginx-upstream-keepalive']);
  assert.deepEqual(unused('proxy_set_header Host $host;'), ['nginx-upstream-keepalive', 'nginx-upstream-keepalive-unused'], 'one header in the block hides those around it');
});

test('files for two generations of nginx workers', t => {
  const dir = makeTempDir();
  t.after(() => removeTempDir(dir));
  mkdirSync(join(dir, 'sys/fs'), {recursive: true});
  mkdirSync(join(dir, '17'));
  const worker = (pid: number, title: NginxChild['title']): NginxChild => ({process: {pid, startTime: 1, bootId: ''}, title});
  const judge = (limit: number, used: number, most: number, children = [worker(17, 'worker'), worker(18, 'worker')]) => {
    writeFileSync(join(dir, '17/limits'), `Limit   Soft Limit   Hard Limit   Units\nMax open files            ${limit}                 9999                 files     \n`);
    writeFileSync(join(dir, 'sys/fs/file-nr'), `${used}\t0\t${most}\n`);
    return connectionLimits(scopesOf(filesOf({'/n': 'events { worker_connections 1024; }'})), children, dir).map(({check, level, mend}) => [check, level, mend]);
  };
  assert.deepEqual(judge(1024, 0, 1e6), [['nginx-open-files', 'ok', undefined]]);
  assert.deepEqual(judge(1023, 0, 1e6), [['nginx-open-files', 'warning', 'worker_rlimit_nofile 2048;']]);
  // Two workers, twice: 4096.
  assert.deepEqual(judge(1024, 1000, 5095), [['nginx-open-files', 'ok', undefined], ['open-files', 'warning', 'sysctl -w fs.file-max=8192']]);
  assert.deepEqual(judge(1024, 1000, 5096), [['nginx-open-files', 'ok', undefined]]);
  assert.deepEqual(judge(1024, 0, 1e6, [worker(18, 'shutting down')]).map(([check]) => check), ['nginx-lingering'], 'of a worker that is gone nothing is known');
});

test('which files nginx loads', () => {
  const file = '/etc/nginx/conf.d/web.conf';
  const levels = (texts: Readonly<Record<string, string>>) => includeGlobs(settings(texts), {file, candidate: '/etc/nginx/conf.d/.web.conf.osyw-new'}).map(({level, mend}) => [level, mend]);
  const main = (pattern: string) => ({'/etc/nginx/nginx.conf': `http { include ${pattern}; }`, [file]: ''});
  assert.deepEqual(levels(main('conf.d/*.conf')), [['ok', undefined]]);
  assert.deepEqual(levels(main('conf.d/*')), [['warning', 'include /etc/nginx/conf.d/*.conf;']]);
  assert.deepEqual(levels(main('/etc/nginx/conf.d/web.conf*')), [['warning', 'include /etc/nginx/conf.d/*.conf;']]);
  assert.deepEqual(levels({...main('conf.d/*.conf'), '/etc/nginx/nginx.conf': 'http { include conf.d/*.conf; include conf.d/.*; }'}), [['problem', 'include /etc/nginx/conf.d/*.conf;']]);
  assert.deepEqual(levels(main('sites-enabled/*')), []);
  const included = (texts: Readonly<Record<string, string>>, path: string) => inclusion(settings(texts), {upstream: 'web', file: path}).map(({check, level}) => `${check} ${level}`);
  assert.deepEqual(included({...main('conf.d/*.conf')}, file), ['nginx-includes-upstream ok', 'nginx-passes-to-upstream warning']);
  assert.deepEqual(included({'/etc/nginx/nginx.conf': `http { include conf.d/*.conf; }`}, '/etc/nginx/conf.d/not-yet.conf'), ['nginx-includes-upstream ok', 'nginx-passes-to-upstream warning'], 'the first deploy writes it');
  assert.deepEqual(included({'/etc/nginx/nginx.conf': site('')}, file), ['nginx-includes-upstream problem', 'nginx-passes-to-upstream ok']);
});

test('how long a worker keeps an idle connection', async t => {
  const check = {kind: 'tcp', intervalMs: 1, timeoutMs: 1, consecutive: 1, deadlineMs: 1} satisfies CheckConfig;
  const asked = async (listener: RequestListener, keepAliveTimeout: number) => idleLife('127.0.0.1', await listening(t, listener, keepAliveTimeout), check, signal);
  const closes = await asked((_, response) => response.end('ok'), 700);
  assert.ok(closes?.kind === 'closes' && closes.afterMs >= 600 && closes.afterMs < 3000, JSON.stringify(closes));
  const atOnce = await asked((_, response) => response.writeHead(200, {connection: 'close'}).end('ok'), 60_000);
  assert.ok(atOnce?.kind === 'closes' && atOnce.afterMs < 500, JSON.stringify(atOnce));
  assert.equal(await asked(request => request.socket.destroy(), 60_000), undefined, 'it never answered');
  assert.equal(await idleLife('127.0.0.1', 1, check, signal), undefined, 'nobody listens');
});

function listening(t: TestContext, listener: RequestListener, keepAliveTimeout: number): Promise<number> {
  const server = createServer({keepAliveTimeout}, listener);
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return new Promise(resolve => server.listen(0, '127.0.0.1', () => resolve((server.address() as AddressInfo).port)));
}
