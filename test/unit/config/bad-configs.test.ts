import assert from 'node:assert/strict';
import {describe, test} from 'node:test';
import {parseConfig} from '../../../src/config/load-config.ts';
import {ENV, FILE, MINIMAL, refusalOf, withLine} from './config-text.ts';

interface Case {
  readonly situation: string;
  /** The line of the minimal configuration that is replaced, and by what. */
  readonly line: number;
  readonly by: string;
  readonly at: string;
  readonly says: RegExp;
}

const source = (text: string) => `  working_copy: /srv/shop/copy\n  ${text}`;
const workers = (text: string) => `  ports: 8811-8830\n  ${text}`;
const nginx = (text: string) => `  file: /etc/nginx/conf.d/shop.conf\n  ${text}`;
const section = (text: string) => `  file: /etc/nginx/conf.d/shop.conf\n${text}`;

const CASES: readonly Case[] = [
  {situation: 'app with capitals', line: 1, by: 'app: Shop', at: '1:6', says: /app is "Shop"; expected .*lower-case/},
  {situation: 'app that climbs', line: 1, by: 'app: ../x', at: '1:6', says: /app is "\.\.\/x"/},
  {situation: 'app like an option', line: 1, by: 'app: -rf', at: '1:6', says: /app is "-rf"/},
  {situation: 'app of 64 letters', line: 1, by: `app: ${'a'.repeat(64)}`, at: '1:6', says: /at most 63/},
  {situation: 'app as a number', line: 1, by: 'app: 12', at: '1:6', says: /app is 12; expected/},
  {situation: 'app missing', line: 1, by: '# nothing', at: '2:1', says: /app is missing; expected a name/},
  {situation: 'app empty', line: 1, by: 'app:', at: '1:1', says: /app is empty; expected a name/},
  {situation: 'typo at the top', line: 9, by: section('helth: 1'), at: '10:1', says: /helth is not a key/},
  {situation: 'typo with a near key', line: 9, by: section('chek: {}'), at: '10:1', says: /did you mean check\?/},
  {situation: 'key in the wrong section', line: 9, by: section('upstream: x'), at: '10:1', says: /did you mean nginx\.upstream\?/},
  {situation: '__proto__ as a key', line: 9, by: section('__proto__: {polluted: yes}'), at: '10:1', says: /__proto__ is not a key/},
  {situation: 'constructor in a section', line: 6, by: workers('constructor: {prototype: 1}'), at: '7:3', says: /workers\.constructor is not a key/},
  {situation: '__proto__ in env', line: 6, by: workers('env: {__proto__: x}'), at: '7:9', says: /__proto__ is not a name/},
  {situation: 'duplicate key', line: 6, by: workers('ports: 9000-9100'), at: '7:3', says: /workers\.ports stands here a second time/},
  {situation: 'duplicate key, once quoted', line: 1, by: 'app: shop\n"app": shop', at: '2:1', says: /second time/},
  {situation: 'section as a list', line: 9, by: section('check: [http]'), at: '10:1', says: /check is a list; expected a map/},
  {situation: 'section as text', line: 9, by: section('check: /healthz'), at: '10:8', says: /check is "\/healthz"; expected a map/},

  {situation: 'working copy is the root', line: 3, by: '  working_copy: /', at: '3:17', says: /below a top-level one/},
  {situation: 'working copy is /etc', line: 3, by: '  working_copy: /etc', at: '3:17', says: /below a top-level one/},
  {situation: 'working copy is /etc/', line: 3, by: '  working_copy: /etc/', at: '3:17', says: /below a top-level one/},
  {situation: 'relative path', line: 3, by: '  working_copy: srv/shop', at: '3:17', says: /absolute path/},
  {situation: 'path with a tilde', line: 3, by: '  working_copy: ~/shop', at: '3:17', says: /absolute path/},
  {situation: 'path that climbs', line: 3, by: '  working_copy: /srv/../etc/x', at: '3:17', says: /without \.\./},
  {situation: 'path with a line break', line: 3, by: '  working_copy: "/srv/a\\nb"', at: '3:17', says: /absolute path/},
  {situation: 'unknown system', line: 3, by: source('vcs: hg'), at: '4:8', says: /"hg"; expected svn or git/},
  {situation: 'timeout without a unit', line: 3, by: source('timeout: 10'), at: '4:12', says: /is 10; expected a number with a unit/},
  {situation: 'timeout as text without a unit', line: 3, by: source('timeout: "10"'), at: '4:12', says: /is "10"; expected a number with a unit/},
  {situation: 'timeout of nothing', line: 3, by: source('timeout: 0s'), at: '4:12', says: /more than 0/},
  {situation: 'negative timeout', line: 3, by: source('timeout: -5s'), at: '4:12', says: /number with a unit/},
  {situation: 'endless timeout', line: 3, by: source('timeout: Infinity'), at: '4:12', says: /number with a unit/},
  {situation: 'timeout that setTimeout cannot take', line: 3, by: source('timeout: 25d'), at: '4:12', says: /at most 24d/},
  {situation: 'helper URL', line: 3, by: source('url: "ext::sh -c touch% /tmp/x"'), at: '4:8', says: /source\.url is/},
  {situation: 'URL like an option', line: 3, by: source('url: --upload-pack=x'), at: '4:8', says: /source\.url is/},
  {situation: 'host like an option', line: 3, by: source('url: ssh://-oProxyCommand=x/y'), at: '4:8', says: /source\.url is/},
  {situation: 'user like an option', line: 3, by: source('url: ssh://-x@host/y'), at: '4:8', says: /source\.url is/},
  {situation: 'path like an option', line: 3, by: source('url: git@host:-x'), at: '4:8', says: /source\.url is/},
  {situation: 'unknown scheme', line: 3, by: source('url: ftp://host/x'), at: '4:8', says: /source\.url is/},
  {situation: 'constructor as a scheme', line: 3, by: source('url: constructor://host/x'), at: '4:8', says: /source\.url is/},
  {situation: 'file URL with a host', line: 3, by: source('url: file://host/x'), at: '4:8', says: /source\.url is/},
  {situation: 'URL of the other system', line: 3, by: source('vcs: git\n  url: svn://host/x'), at: '5:8', says: /does not belong to source\.vcs: git/},
  {situation: 'branch with svn', line: 3, by: source('vcs: svn\n  branch: main'), at: '5:11', says: /source\.branch is a word of git/},
  ...['--upload-pack=x', '-x', 'a;touch${IFS}x', '`id`', '"@{-1}"', 'HEAD', 'refs/../x', 'main.lock', 'a//b', '/a', 'a/', '.a', 'a/.b', '0123456789abcdef0123456789abcdef01234567']
    .map((name): Case => ({situation: `branch ${name}`, line: 3, by: source(`branch: ${name.startsWith('"') ? name : JSON.stringify(name)}`), at: '4:11', says: /source\.branch is/})),
  {situation: 'paths as text', line: 3, by: source('paths: src/**'), at: '4:10', says: /source\.paths is "src\/\*\*"; expected a list of globs: \["src\/\*\*", "\*\.py"\]/},
  {situation: 'paths as a map', line: 3, by: source('paths: {src: true}'), at: '4:10', says: /source\.paths is a map of keys; expected a list of globs/},
  {situation: 'a number among the paths', line: 3, by: source('paths: [src, 7]'), at: '4:16', says: /source\.paths\[1\] is 7; expected a glob/},
  {situation: 'one path of two', line: 3, by: source('paths: ["src/**", ../x]'), at: '4:21', says: /source\.paths\[1\] is "\.\.\/x"; expected a glob/},
  ...['', '/', '/abs', '/srv/shop/copy/src', '../x', '..', '.', './src', 'src/../lib', 'src/.', 'src/..', '!x', '!(x)', 'src//x', 'src//', 'a\nb', 'a\u001b[0m', `a${'b'.repeat(512)}`]
    .map((glob): Case => ({
      situation: `path ${JSON.stringify(glob).slice(0, 20)}`, line: 3, by: source(`paths: [${JSON.stringify(glob)}]`), at: '4:11',
      says: /source\.paths\[0\] is .*; expected a glob such as src\/\*\* or \*\.py, relative to the top of the working copy, without \.\./,
    })),

  {situation: 'build as one command', line: 9, by: section('release: {build: [make, all]}'), at: '10:19', says: /release\.build\[0\] is "make"; expected a list of words/},
  {situation: 'keep 1', line: 9, by: section('release: {keep: 1}'), at: '10:17', says: /at least 2/},
  {situation: 'keep -1', line: 9, by: section('release: {keep: -1}'), at: '10:17', says: /at least 2/},
  {situation: 'shared that climbs', line: 9, by: section('release: {shared: [../x]}'), at: '10:20', says: /release\.shared\[0\] is "\.\.\/x"/},
  {situation: 'shared absolute', line: 9, by: section('release: {shared: [/data]}'), at: '10:20', says: /inside the release/},
  {situation: 'shared .git', line: 9, by: section('release: {shared: [.git]}'), at: '10:20', says: /not \.git or \.svn/},
  {situation: 'shared inside another', line: 9, by: section('release: {shared: [data, data/a]}'), at: '10:19', says: /none is inside another/},
  {situation: 'unknown tree', line: 9, by: section('release: {tree: clone}'), at: '10:17', says: /snapshot or in_place/},

  {situation: 'command as a string', line: 5, by: '  command: python3 app.py {port} && true', at: '5:12', says: /a list of words, no shell: \[python3, app\.py, \.\.\.\]/},
  {situation: 'empty command', line: 5, by: '  command: []', at: '5:12', says: /empty list; expected a list of words/},
  {situation: 'command of an empty word', line: 5, by: '  command: [""]', at: '5:12', says: /begins with an empty word/},
  {situation: 'number in the command', line: 5, by: '  command: [nice, -n, 10]', at: '5:23', says: /workers\.command\[2\] is 10; .*quotes/},
  {situation: 'NUL in the command', line: 5, by: '  command: ["a\\0b"]', at: '5:13', says: /workers\.command\[0\]/},
  {situation: 'unknown placeholder', line: 5, by: '  command: [a, "{prt}"]', at: '5:16', says: /unknown placeholder \{prt\}.*did you mean \{port\}/},
  {situation: 'unknown placeholder in env', line: 6, by: workers('env: {A: "${HOME}"}'), at: '7:12', says: /workers\.env\.A has the unknown placeholder \{HOME\}/},
  {situation: 'unknown placeholder in the log', line: 6, by: workers('log: /var/log/{name}.log'), at: '7:8', says: /workers\.log has the unknown placeholder/},
  {situation: 'command missing', line: 5, by: '  # none', at: '4:1', says: /workers\.command is missing; expected a list of words/},
  ...['0', '-1', '201', '3.5', '1e9', '"2"', '.nan'].map((count): Case =>
    ({situation: `count ${count}`, line: 6, by: workers(`count: ${count}`), at: '7:10', says: /workers\.count is .*; expected a whole number from 1 to 200/})),
  ...['8811', '"8811"', '8830-8811', '80-100', '1024-1100', '65530-65536', '8811-', '-1-5', '0x50-0x60', '8811 - 8830', '08811-08830'].map((ports): Case =>
    ({situation: `ports ${ports}`, line: 6, by: `  ports: ${ports}`, at: '6:10', says: /workers\.ports is .*; expected a range of ports such as 8811-8830/})),
  {situation: 'too few ports', line: 6, by: '  ports: 8811-8815\n  count: 3', at: '6:10', says: /range of 5 ports; expected at least 6/},
  {situation: 'host as a name', line: 6, by: workers('host: example.org'), at: '7:9', says: /IP address/},
  {situation: 'host in brackets', line: 6, by: workers('host: "[::1]"'), at: '7:9', says: /without brackets/},
  {situation: 'env name with =', line: 6, by: workers('env: {"A=B": x}'), at: '7:9', says: /expected a name of letters/},
  {situation: 'env with a line break', line: 6, by: workers('env: {A: "x\\ny"}'), at: '7:12', says: /workers\.env\.A holds a line break/},
  {situation: 'env as a list', line: 6, by: workers('env: ["A=1"]'), at: '7:3', says: /workers\.env is a list/},
  {situation: 'env with a map', line: 6, by: workers('env: {A: {b: c}}'), at: '7:12', says: /workers\.env\.A is a map of keys; expected text/},
  {situation: 'account that is not there', line: 6, by: workers('user: no-such-account'), at: '7:9', says: /workers\.user is "no-such-account", and this machine has no such account/},
  {situation: 'account by number', line: 6, by: workers('user: "0"'), at: '7:9', says: /no such account/},
  {situation: 'build account that is not there', line: 9, by: section('release: {build_user: no-such-account}'), at: '10:23', says: /no such account/},
  {situation: 'an unknown runner', line: 6, by: workers('runner: docker'), at: '7:11', says: /workers\.runner is "docker"; expected process or systemd/},
  {situation: 'limits of units for processes', line: 6, by: workers('systemd: {tasks_max: 64}'), at: '7:12', says: /workers\.systemd goes with workers\.runner: systemd/},
  ...['0', '-1', '512m', '1.5G', '512 M', '120%', '"$(id)"'].map((most): Case =>
    ({situation: `memory_max ${most}`, line: 6, by: workers(`systemd: {memory_max: ${most}}`), at: '7:25', says: /workers\.systemd\.memory_max is .*; expected the most memory of one worker, as systemd writes it: 512M/})),
  {situation: 'tasks_max of nothing', line: 6, by: workers('systemd: {tasks_max: 0}'), at: '7:24', says: /a whole number above 0/},
  {situation: 'a property like an option', line: 6, by: workers('systemd: {properties: {--user: x}}'), at: '7:26', says: /expected the name of a property of systemd such as ProtectSystem/},
  {situation: 'a property with a line break', line: 6, by: workers('systemd: {properties: {Nice: "5\\nUser=root"}}'), at: '7:32', says: /expected text of one line/},
  ...['User', 'ExecStart', 'KillMode', 'Restart', 'EnvironmentFile', 'StandardOutput', 'Delegate'].map((name): Case =>
    ({situation: `property ${name}`, line: 6, by: workers(`runner: systemd\n  systemd: {properties: {Nice: 5, ${name}: x}}`), at: '8:25', says: new RegExp(`workers\\.systemd\\.properties has ${name}, which osyw-deploy sets itself`)})),
  ...['$HOME', 'a; b', '`id`'].map((word): Case =>
    ({situation: `word ${word} for a unit`, line: 5, by: `  runner: systemd\n  command: [sh, -c, ${JSON.stringify(word)}]`, at: '6:12', says: /workers\.command has the word ".*", and systemd does not keep a \$/})),
  {situation: 'pid file with % for a unit', line: 6, by: workers('runner: systemd\n  pid_file: /run/%h'), at: '8:13', says: /workers\.pid_file is "\/run\/%h", and systemd does not keep a %/},
  {situation: 'property MemoryMax', line: 6, by: workers('runner: systemd\n  systemd: {properties: {MemoryMax: 1G}}'), at: '8:25', says: /expected it as workers\.systemd\.memory_max/},
  {situation: 'unknown signal', line: 6, by: workers('stop: {signal: TERM}'), at: '7:18', says: /workers\.stop\.signal is "TERM"; expected SIGTERM/},
  {situation: 'one pid file for two', line: 6, by: workers('count: 2\n  pid_file: /run/shop.pid'), at: '8:13', says: /expected a name with \{port\}/},
  {situation: 'env_file that is not there', line: 6, by: workers('env_file: /nonexistent/x'), at: '7:13', says: /workers\.env_file is .* not there/},
  {situation: 'password_file that is a directory', line: 3, by: source('password_file: /tmp'), at: '4:18', says: /not a regular file/},

  ...['//evil', 'http://evil', '/a b', '"/a\\r\\nX: y"', 'healthz', '"?"', '/ä'].map((path): Case =>
    ({situation: `check.http ${path}`, line: 9, by: section(`check:\n  http: ${path}`), at: '11:9', says: /check\.http is .*; expected a path that begins with one slash/})),
  {situation: 'two checks', line: 9, by: section('check:\n  http: /\n  tcp: true'), at: '12:8', says: /exactly one of http, tcp and command/},
  {situation: 'tcp: false', line: 9, by: section('check:\n  tcp: false'), at: '11:8', says: /expected true/},
  {situation: 'status beside tcp', line: 9, by: section('check:\n  tcp: true\n  status: [200]'), at: '12:11', says: /goes with check\.http/},
  {situation: 'Host header with CRLF', line: 9, by: section('check:\n  host: "a\\r\\nX: y"'), at: '11:9', says: /check\.host/},
  {situation: 'header name with a space', line: 9, by: section('check:\n  headers: {"X Y": z}'), at: '11:13', says: /the name of an HTTP header/},
  {situation: 'header with CRLF', line: 9, by: section('check:\n  headers: {X: "a\\r\\nY: z"}'), at: '11:16', says: /check\.headers\.X/},
  {situation: 'status 99', line: 9, by: section('check:\n  status: [99]'), at: '11:12', says: /from 100 to 599/},
  {situation: 'no status at all', line: 9, by: section('check:\n  status: []'), at: '11:11', says: /empty list/},
  {situation: 'broken regular expression', line: 9, by: section('check:\n  body: "("'), at: '11:9', says: /regular expression/},

  {situation: 'nginx.edit beside nginx.file', line: 9, by: nginx('edit: /etc/nginx/nginx.conf'), at: '10:9', says: /nginx\.edit stands beside nginx\.file; expected exactly one/},
  {situation: 'neither nginx.edit nor nginx.file', line: 9, by: '  conf: /etc/nginx/nginx.conf', at: '7:1', says: /nginx\.file is missing; expected .*, or in nginx\.edit/},
  {situation: 'nginx.edit as a relative path', line: 9, by: '  edit: nginx.conf', at: '9:9', says: /nginx\.edit is "nginx\.conf"; expected the absolute path/},
  {situation: 'parameters beside nginx.edit', line: 9, by: '  edit: /etc/nginx/nginx.conf\n  server: {max_fails: 0}', at: '10:11', says: /nginx\.server goes with nginx\.file; expected it in the file/},
  {situation: 'directives beside nginx.edit', line: 9, by: '  edit: /etc/nginx/nginx.conf\n  directives: [ip_hash]', at: '10:15', says: /nginx\.directives goes with nginx\.file/},
  ...['x } server {', 'a;b', '$var', 'include /etc/passwd', ''].map((name): Case =>
    ({situation: `upstream ${name}`, line: 8, by: `  upstream: ${JSON.stringify(name)}`, at: '8:13', says: /nginx\.upstream is/})),
  {situation: 'nginx.file as a directory', line: 9, by: '  file: /etc/nginx/conf.d/', at: '9:9', says: /path of a file/},
  {situation: 'nginx.file is the main file', line: 9, by: '  file: /etc/nginx/nginx.conf', at: '9:9', says: /main file/},
  {situation: 'unknown server parameter', line: 9, by: nginx('server: {slow_start: 30s}'), at: '10:12', says: /nginx\.server\.slow_start is not a key.*weight, max_conns, max_fails, fail_timeout/},
  {situation: 'server parameter with a semicolon', line: 9, by: nginx('server: {fail_timeout: "1s; }"}'), at: '10:26', says: /a time of nginx/},
  {situation: 'weight 0', line: 9, by: nginx('server: {weight: 0}'), at: '10:20', says: /above 0/},
  ...['ip_hash;', 'keepalive 1; }', 'server 1.2.3.4', 'hash "$x"', 'hash {', 'zone a # b', 'ip_hash\nserver x'].map((text): Case =>
    ({situation: `directive ${JSON.stringify(text)}`, line: 9, by: nginx(`directives: [${JSON.stringify(text)}]`), at: '10:16', says: /nginx\.directives\[0\]/})),
  {situation: 'probe with a password', line: 9, by: nginx('probe: http://u:geheim@127.0.0.1/'), at: '10:10', says: /without a user name/},
  {situation: 'probe without a scheme', line: 9, by: nginx('probe: 127.0.0.1'), at: '10:10', says: /a URL through nginx/},
  {situation: 'reload as a string', line: 9, by: nginx('reload: systemctl reload nginx'), at: '10:11', says: /a list of words, no shell/},

  {situation: 'hook as yes', line: 9, by: section('hook: true'), at: '10:7', says: /hook is true; expected a map/},
  {situation: 'typo in a key that begins like another', line: 9, by: section('hook: {wait_timout: 1s}'), at: '10:8', says: /hook\.wait_timout is not a key.*did you mean wait_timeout\?/},
  {situation: 'typo in hook', line: 9, by: section('hook: {supercede: true}'), at: '10:8', says: /hook\.supercede is not a key.*did you mean supersede\?/},
  ...['1', '"true"', 'yes', 'on', '5m', '2026-01-01'].flatMap((value): Case[] => [
    {situation: `hook.wait ${value}`, line: 9, by: section(`hook:\n  wait: ${value}`), at: '11:9', says: /hook\.wait is .*; expected true or false/},
    {situation: `hook.supersede ${value}`, line: 9, by: section(`hook:\n  supersede: ${value}`), at: '11:14', says: /hook\.supersede is .*; expected true or false/},
  ]),
  {situation: 'hook.wait as a list', line: 9, by: section('hook: {wait: [true]}'), at: '10:14', says: /hook\.wait is a list; expected true or false/},
  {situation: 'hook.wait_timeout without a unit', line: 9, by: section('hook: {wait_timeout: 300}'), at: '10:22', says: /hook\.wait_timeout is 300; expected a number with a unit/},
  {situation: 'hook.wait_timeout of nothing', line: 9, by: section('hook: {wait_timeout: 0s}'), at: '10:22', says: /more than 0/},
  {situation: 'hook.wait_timeout that setTimeout cannot take', line: 9, by: section('hook: {wait_timeout: 25d}'), at: '10:22', says: /at most 24d/},
  {situation: 'hook.wait_timeout as a switch', line: 9, by: section('hook: {wait_timeout: true}'), at: '10:22', says: /hook\.wait_timeout is true; expected a number with a unit/},

  ...['"unix:"', '0.0.0.0:8899', '192.0.2.1:8899', 'localhost:8899', '"*:8899"', '8899', '":8899"', '127.0.0.1', '127.0.0.1:0', '127.0.0.1:65536', '127.0.0.1:08899', '127.0.0.999:8899', '"::1:8899"', '"[::]:8899"', '127.0.0.1.example.org:8899',
    'unix:webhook.sock', 'unix:/webhook.sock', 'unix:/run/../etc/x', 'unix://run/shop/x', 'unix:/run/shop/', `unix:/run/${'x'.repeat(103)}`, '/run/shop/webhook.sock'].map((listen): Case =>
    ({situation: `watch.webhook.listen ${listen.slice(0, 30)}`, line: 9, by: section(`watch:\n  webhook:\n    listen: ${listen}`), at: '12:13', says: /watch\.webhook\.listen is .*; expected unix:.*, or a loopback address with a port/})),
  {situation: 'watch.webhook.listen without a secret', line: 9, by: section('watch: {webhook: {listen: "127.0.0.1:8899"}}'), at: '10:27', says: /stands without watch\.webhook\.secret_file; expected both/},
  {situation: 'watch.webhook.secret_file that is not there', line: 9, by: section('watch: {webhook: {listen: "unix:/run/shop/x", secret_file: /nonexistent/x}}'), at: '10:60', says: /secret_file is .* not there/},
  {situation: 'watch.webhook.secret_file without listen', line: 9, by: section('watch: {webhook: {secret_file: /nonexistent/x}}'), at: '10:32', says: /stands without watch\.webhook\.listen; expected both/},
  {situation: 'watch.webhook.listen on a port of the workers', line: 9, by: section('watch: {webhook: {secret_file: /etc/hostname, listen: "127.0.0.1:8811"}}'), at: '10:55', says: /names port 8811, one of workers\.ports/},
  {situation: 'watch.webhook.group beside a port', line: 9, by: section('watch: {webhook: {listen: "[::1]:8899", group: root}}'), at: '10:48', says: /goes with a unix socket/},
  {situation: 'watch.webhook.group that is not there', line: 9, by: section('watch: {webhook: {group: no-such-group}}'), at: '10:26', says: /no such group; expected one of \/etc\/group/},
  ...['0o660', '0640', '432', '0777', 'rw', '0620'].map((mode): Case =>
    ({situation: `watch.webhook.mode ${mode}`, line: 9, by: section(`watch: {webhook: {mode: ${mode}}}`), at: '10:25', says: /watch\.webhook\.mode is .*; expected 0600, 0660 or 0666/})),
  ...['hook', '/', '//hook', '/hook/', '/a/../b', '/./a', '/hook?x', '"/h k"', '/%68ook', '/ä'].map((path): Case =>
    ({situation: `watch.webhook.path ${path}`, line: 9, by: section(`watch: {webhook: {path: ${path}}}`), at: '10:25', says: /watch\.webhook\.path is .*; expected a path/})),
  ...['0', '1023', '26m', '1g', '-1k', '1.5m', '99999999999'].map((max): Case =>
    ({situation: `watch.webhook.max_body ${max}`, line: 9, by: section(`watch: {webhook: {max_body: ${max}}}`), at: '10:29', says: /watch\.webhook\.max_body is .*; expected a size from 1k to 25m/})),
  ...['60', '0/m', '60/d', '60r/m', '-1/s', '10000/s', '1/'].map((rate): Case =>
    ({situation: `watch.webhook.rate ${rate}`, line: 9, by: section(`watch: {webhook: {rate: ${rate}}}`), at: '10:25', says: /watch\.webhook\.rate is .*; expected a number a second, minute or hour/})),
  {situation: 'typo in watch.webhook', line: 9, by: section('watch: {webhook: {listens: "127.0.0.1:8899"}}'), at: '10:19', says: /watch\.webhook\.listens is not a key.*did you mean listen\?/},
  {situation: 'watch.webhook as a switch', line: 9, by: section('watch: {webhook: true}'), at: '10:18', says: /watch\.webhook is true; expected a map/},

  {situation: 'state inside the working copy', line: 9, by: section('state_dir: /srv/shop/copy/state'), at: '10:12', says: /inside source\.working_copy/},
  {situation: 'working copy inside the state', line: 9, by: section('state_dir: /srv/shop'), at: '10:12', says: /around source\.working_copy/},
  {situation: 'state in a top-level directory', line: 9, by: section('state_dir: /var'), at: '10:12', says: /below a top-level one/},
];

describe('a bad configuration is refused with its place', () => {
  for (const {situation, line, by, at, says} of CASES) {
    test(situation, () => {
      const message = refusalOf(withLine(line, by));
      const heads = message.split('\n').filter(text => text.startsWith(`${FILE}:`));
      const head = heads.find(text => text.startsWith(`${FILE}:${at}: `));
      assert.ok(head !== undefined, `nothing at ${at} in\n${message}`);
      assert.match(head, says);
      assert.match(head, /; (expected|use|did you mean)/);
    });
  }
});

test('all problems are reported at once, in the order of the file, each with its line and a caret', () => {
  const message = refusalOf([
    'app: Shop',
    'sorce: {}',
    'workers:',
    '\tcount: 0',
  ].join('\n').replace('\t', '  '));
  assert.equal(message, [
    `${FILE}:1:1: source.working_copy is missing; expected the absolute path of a directory below a top-level one, without .. or //, such as /var/bottle`,
    '  app: Shop',
    '  ^',
    `${FILE}:1:1: nginx.upstream is missing; expected the name of an upstream: letters, digits, _ . and -`,
    '  app: Shop',
    '  ^',
    `${FILE}:1:1: nginx.file is missing; expected the absolute path of a file that is written whole, such as /etc/nginx/conf.d/app.conf, or in nginx.edit that of a file of yours`,
    '  app: Shop',
    '  ^',
    `${FILE}:1:6: app is "Shop"; expected a name of lower-case letters, digits, _ and -, at most 63, such as shop`,
    '  app: Shop',
    '       ^',
    `${FILE}:2:1: sorce is not a key of osyw-deploy; did you mean source?`,
    '  sorce: {}',
    '  ^',
    `${FILE}:3:1: workers.command is missing; expected a list of words, no shell: [python3, app.py, ...]`,
    '  workers:',
    '  ^',
    `${FILE}:3:1: workers.ports is missing; expected a range of ports such as 8811-8830, all from 1025 to 65535, ascending`,
    '  workers:',
    '  ^',
    `${FILE}:4:10: workers.count is 0; expected a whole number from 1 to 200`,
    '    count: 0',
    '           ^',
  ].join('\n'));
});

test('a clash is found beside other problems', () => {
  const message = refusalOf(withLine(6, '  ports: 8811-8815\n  count: 3\n  host: nowhere'));
  assert.match(message, /at least 6/);
  assert.match(message, /workers\.host/);
});

describe('a secret is never printed', () => {
  for (const text of [
    'url: https://bob:geheim@example.org/x',
    'url: https://bob:ge/heim@example.org/x',
    'url: https://bob:ge heim@example.org/x',
    'url: svn://bob:geheim@@-x/y',
    'password: geheim',
    'api_token: geheim',
    'username: -geheim # https://bob:geheim@x',
  ]) {
    test(text, () => {
      const message = refusalOf(withLine(3, source(text)));
      assert.doesNotMatch(message.replaceAll('"-geheim', ''), /: -geheim$|bob:|geheim@|ge\/heim|ge heim|(password|token): geheim/m);
    });
  }
});

describe('what looks odd and is right', () => {
  for (const [situation, line, by] of [
    ['JSON in env is no placeholder', 6, workers(`env: {A: '{"a": {"b": 1}}', B: '{}'}`)],
    ['a format string in the command', 5, '  command: [a, "%({x-forwarded-for}i)s", ""]'],
    ['bake and quiet of nothing', 9, section('bake: {for: 0s}\ndrain: {quiet: 0s}')],
    ['empty sections', 9, section('check:\nbake:\ndrain:\nrelease:\nhook:\nwatch:')], ['an empty webhook', 9, section('watch: {webhook: }')],
    ['every kind of path', 3, source('paths: ["src/**", "*.py", src, .env, "**", "{a,b}/*.[jt]s", "-x", "a b/é", "a@b", "50%", "...", "x/..y", "a!", "#a", "[!a]*"]')],
    ['no paths', 3, source('paths: []')],
    ['hooks that do not wait', 9, section('hook: {wait: false, wait_timeout: 90s, supersede: false}')],
    ['scp-like URL', 3, source('url: git@github.com:osyw/shop.git')],
    ['svn+ssh URL', 3, source('url: svn+ssh://deploy@svn.example.org/repo/trunk')],
    ['file URL', 3, source('url: file:///srv/svn/repo/trunk')],
    ['IPv6 URL with a port', 3, source('url: http://[::1]:8080/repo')],
    ['peg revision sign in a URL', 3, source('url: svn://host/a@b/trunk')],
    ['local git repository', 3, source('vcs: git\n  url: /srv/git/shop.git\n  branch: release/2.x')],
    ['branch as bots and people name them', 3, source('vcs: git\n  branch: "dependabot/@types/node-1.2+x=#12"')],
    ['IPv6 host', 6, workers('host: "::1"')],
    ['the main file to edit, and empty lists', 9, '  edit: /etc/nginx/nginx.conf\n  server:\n  directives: []'],
    ['directives with parameters', 9, nginx('directives: [least_conn, keepalive 32, "hash $remote_addr consistent", zone shop 64k]')],
    ['anchors', 6, workers('env: &e {A: x}\ncheck:\n  headers: *e')],
    ['state beside the copy for in_place', 9, section('state_dir: /srv/shop/copy/state\nrelease: {tree: in_place}')],
  ] as const) {
    test(situation, () => {
      assert.equal(parseConfig(withLine(line, by), FILE, ENV).app, 'shop');
    });
  }
});

test('the minimal configuration itself is right', () => {
  assert.equal(parseConfig(MINIMAL, FILE, ENV).app, 'shop');
});
