import assert from 'node:assert/strict';
import {execFileSync} from 'node:child_process';
import {mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, symlinkSync, writeFileSync} from 'node:fs';
import {createServer} from 'node:net';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {afterEach, beforeEach, describe, test, type TestContext} from 'node:test';
import fc from 'fast-check';
import {parseConfig} from '../../../src/config/load-config.ts';
import {readNginx} from '../../../src/config/look-at-nginx.ts';
import {freePorts, lookAround} from '../../../src/config/look-around.ts';
import {proposeConfig, remarksOn} from '../../../src/config/propose-config.ts';
import type {Findings} from '../../../src/config/propose-config.ts';
import {recogniseProgram} from '../../../src/config/recognise-program.ts';
import {ENV, FILE} from './config-text.ts';

const NOTHING: Findings = {
  directory: '/srv/shop',
  source: undefined,
  program: undefined,
  running: [],
  nginx: {running: false, pid: undefined, others: 0, binary: undefined, conf: undefined, prefix: undefined, includedDirectory: undefined, upstreams: []},
  ports: {first: 8811, last: 8830},
  root: true,
  home: '/root',
  stateDirOf: app => `/var/lib/osyw-deploy/${app}`,
  workerUser: undefined,
};

describe('a proposal', () => {
  test('for root, with everything found', () => {
    const text = proposeConfig({
      ...NOTHING,
      directory: '/var/www/shop/trunk',
      source: {vcs: 'svn', workingCopy: '/var/www/shop/trunk', url: 'svn://127.0.0.1/shop/trunk', passwordLeftOut: false, branch: undefined},
      program: {what: 'Bottle (app.py)', command: ['/usr/bin/python3', 'app.py', '{port}'], build: [], note: 'x'},
      nginx: {...NOTHING.nginx, running: true, pid: 7, binary: '/opt/nginx/sbin/nginx', conf: '/opt/nginx/nginx.conf', prefix: '/opt/nginx', includedDirectory: '/etc/nginx/conf.d'},
    });
    const config = parseConfig(text, FILE, ENV);
    assert.equal(config.app, 'shop');
    assert.equal(config.source.url, 'svn://127.0.0.1/shop/trunk');
    assert.equal(config.nginx.file, '/etc/nginx/conf.d/shop.conf');
    assert.equal(config.nginx.binary, '/opt/nginx/sbin/nginx');
    assert.deepEqual(config.workers.command, ['/usr/bin/python3', 'app.py', '{port}']);
    assert.match(text, /proxy_pass http:\/\/shop;/);
    assert.doesNotMatch(text, /# +include /);
  });

  test('for an ordinary user it stays in the home, and names both lines for nginx', () => {
    const text = proposeConfig({
      ...NOTHING, root: false, home: '/home/anna', directory: '/home/anna', stateDirOf: app => `/home/anna/.local/state/osyw-deploy/${app}`,
    });
    const config = parseConfig(text, FILE, ENV);
    assert.equal(config.stateDir, '/home/anna/.local/state/osyw-deploy/anna');
    assert.equal(config.source.workingCopy, '/home/anna/anna');
    assert.equal(config.workers.user, undefined);
    assert.match(text, /include \/home\/anna\/.*\.conf;/);
    assert.match(text, /proxy_pass http:\/\/anna;/);
  });

  test('is a valid configuration whatever was found', () => {
    const path = fc.array(fc.oneof(fc.constantFrom('srv', 'trunk', 'a b', 'Ä', '#x', '..', '"', 'x\ny', ': ', '{port}', '~', 'yes', '-rf'), fc.string({minLength: 1, maxLength: 5})
      .filter(part => part !== '.' && part !== '..')), {maxLength: 4})
      .map(parts => `/${parts.map(part => part.replaceAll(/[/\0]/g, '_')).filter(part => part !== '..').join('/')}`);
    fc.assert(fc.property(path, fc.boolean(), fc.boolean(), fc.boolean(), (directory, root, found, included) => {
      const text = proposeConfig({
        ...NOTHING,
        directory,
        root,
        home: '/home/anna',
        stateDirOf: app => (root ? `/var/lib/osyw-deploy/${app}` : `/home/anna/.local/state/osyw-deploy/${app}`),
        source: found ? {vcs: 'git', workingCopy: directory, url: 'https://example.org/x.git', passwordLeftOut: true, branch: 'feature/a'} : undefined,
        nginx: {...NOTHING.nginx, includedDirectory: included ? '/etc/nginx/conf.d' : undefined},
      });
      assert.ok(parseConfig(text, FILE, ENV).app.length > 0);
    }), {numRuns: 500});
  });
});

describe('looking around', () => {
  let directory = '';
  beforeEach(() => {
    directory = realpathSync(mkdtempSync(join(tmpdir(), 'osyw-look-')));
  });
  afterEach(() => {
    rmSync(directory, {recursive: true});
  });
  const put = (name: string, content: string) => {
    mkdirSync(join(directory, name, '..'), {recursive: true});
    writeFileSync(join(directory, name), content);
  };

  test('a git working copy, its branch and its URL without the password', async () => {
    const git = (...args: string[]) => execFileSync('/usr/bin/git', ['-C', directory, ...args], {stdio: 'ignore'});
    git('init', '-b', 'stable');
    git('remote', 'add', 'origin', 'https://bob:geheim@example.org/shop.git');
    put('sub/app.py', 'from flask import Flask\napp = Flask(__name__)\n');
    const findings = await lookAround(join(directory, 'sub'), ENV);
    assert.deepEqual(findings.source, {
      vcs: 'git', workingCopy: directory, url: 'https://example.org/shop.git', passwordLeftOut: true, branch: 'stable',
    });
    const text = proposeConfig(findings);
    assert.doesNotMatch(text, /geheim/);
    assert.equal(parseConfig(text, FILE, ENV).source.branch, 'stable');
  });

  test('a name in an http URL may be a token, and is left out as well; that of ssh stays', async () => {
    const git = (...args: string[]) => execFileSync('/usr/bin/git', ['-C', directory, ...args], {stdio: 'ignore'});
    git('init');
    git('remote', 'add', 'origin', 'https://SECRETTOKEN@example.org/a@b/shop.git');
    const findings = await lookAround(directory, ENV);
    assert.deepEqual([findings.source?.url, findings.source?.passwordLeftOut], ['https://example.org/a@b/shop.git', true]);
    assert.doesNotMatch(proposeConfig(findings), /SECRETTOKEN/);
    git('remote', 'set-url', 'origin', 'ssh://git@example.org/shop.git');
    const {source} = await lookAround(directory, ENV);
    assert.deepEqual([source?.url, source?.passwordLeftOut], ['ssh://git@example.org/shop.git', false]);
  });

  test('an svn working copy and its URL', async () => {
    execFileSync('/usr/bin/svnadmin', ['create', join(directory, 'repository')]);
    execFileSync('/usr/bin/svn', ['checkout', '-q', `file://${directory}/repository`, join(directory, 'copy')]);
    const {source} = await lookAround(join(directory, 'copy'), ENV);
    assert.deepEqual(source, {
      vcs: 'svn', workingCopy: join(directory, 'copy'), url: `file://${directory}/repository`, passwordLeftOut: false, branch: undefined,
    });
  });

  test('neither', async () => {
    const findings = await lookAround(directory, ENV);
    assert.equal(findings.source, undefined);
    assert.equal(findings.program, undefined);
    assert.ok(parseConfig(proposeConfig(findings), FILE, ENV));
  });

  test('the proposed ports are free', async () => {
    const before = (await lookAround(directory, ENV)).ports;
    const server = createServer();
    await new Promise<void>(resolve => {
      server.listen(before.first + 3, '127.0.0.1', resolve);
    });
    try {
      assert.ok((await lookAround(directory, ENV)).ports.first > before.first + 3);
    } finally {
      server.close();
    }
  });

});

type Files = Readonly<Record<string, string>>;
const FLASK = 'from flask import Flask\napp = Flask(__name__)\n';
const POM = '<project><parent><artifactId>spring-boot-starter-parent</artifactId><version>3</version></parent><artifactId>shop</artifactId><version>1.0</version><dependencies><dependency><artifactId>other</artifactId></dependency></dependencies></project>';

/** The situation, its files, what it is called, the command, and how the build begins; `CHANGE` where init says that something must be changed. A file whose name ends in `*` may be run. */
const KINDS: readonly (readonly [string, Files, RegExp, readonly string[], RegExp, 'CHANGE'?])[] = [
  ['Django with gunicorn', {'manage.py': 'x', 'shop/wsgi.py': 'x', 'requirements.txt': 'Django\ngunicorn>=20\n'}, /^Django/, ['.venv/bin/python', '-m', 'gunicorn', '--bind', '127.0.0.1:{port}', 'shop.wsgi'], /compileall.*venv.*pip/],
  ['Django with uvicorn', {'manage.py': 'x', 'shop/wsgi.py': 'x', 'shop/asgi.py': 'x', 'pyproject.toml': '[project]\ndependencies = ["uvicorn"]\n'}, /^Django/, ['.venv/bin/python', '-m', 'uvicorn', '--host', '127.0.0.1', '--port', '{port}', 'shop.asgi:application'], /pip.*install.*\./],
  ['Django with neither', {'manage.py': 'x', 'shop/wsgi.py': 'x'}, /^Django/, ['/usr/bin/python3', 'manage.py', 'runserver', '--noreload', '127.0.0.1:{port}'], /compileall/, 'CHANGE'],
  ['FastAPI', {'main.py': 'from fastapi import FastAPI\nimport x\napi = FastAPI()\n'}, /FastAPI/, ['/usr/bin/python3', '-m', 'uvicorn', '--host', '127.0.0.1', '--port', '{port}', 'main:api'], /compileall/],
  ['FastAPI in a package, with uv', {'app/main.py': 'from fastapi import FastAPI\napp = FastAPI()\n', 'pyproject.toml': 'uvicorn', 'uv.lock': 'x'}, /FastAPI/, ['.venv/bin/python', '-m', 'uvicorn', '--host', '127.0.0.1', '--port', '{port}', 'app.main:app'], /uv,sync/],
  ['Starlette', {'app.py': 'from starlette.applications import Starlette\napp = Starlette()\n'}, /Starlette/, ['/usr/bin/python3', '-m', 'uvicorn', '--host', '127.0.0.1', '--port', '{port}', 'app:app'], /compileall/],
  ['Flask with gunicorn', {'app.py': FLASK, 'requirements.txt': 'gunicorn\nno-such-package-at-all\n'}, /gunicorn/, ['.venv/bin/python', '-m', 'gunicorn', '--bind', '127.0.0.1:{port}', 'app:app'], /venv/],
  ['Flask, a factory, gunicorn.conf.py', {'app.py': 'from flask import Flask\ndef create_app():\n    pass\n', 'gunicorn.conf.py': 'workers = 2\n'}, /gunicorn/, ['/usr/bin/python3', '-m', 'gunicorn', '--bind', '127.0.0.1:{port}', 'app:create_app()'], /compileall/],
  ['Flask alone', {'app.py': FLASK}, /^Flask/, ['/usr/bin/python3', '-m', 'flask', '--app', 'app', 'run', '--port', '{port}'], /compileall/, 'CHANGE'],
  ['waitress', {'app.py': FLASK, 'Pipfile': 'waitress', 'Pipfile.lock': '{}'}, /waitress/, ['.venv/bin/python', '-m', 'waitress', '--listen=127.0.0.1:{port}', 'app:app'], /PIPENV_VENV_IN_PROJECT=1,pipenv,sync/],
  ['Bottle under its own name', {'osyw.py': 'import sys\nfrom bottle import route, run\nrun(port=int(sys.argv[1]))\n'}, /^Bottle \(osyw/, ['/usr/bin/python3', 'osyw.py', '{port}'], /compileall/],
  ['Bottle with gevent', {'server.py': "import os, bottle\nbottle.run(server='gevent', port=int(os.environ['PORT']))\n"}, /^Bottle with gevent/, ['/usr/bin/python3', 'server.py'], /compileall/],
  ['Bottle on a port of its own', {'app.py': "import bottle\nbottle.run(host='localhost', port=8080)\n"}, /^Bottle/, ['/usr/bin/python3', 'app.py'], /compileall/, 'CHANGE'],
  ['gevent with --port', {'main.py': "from gevent.pywsgi import WSGIServer\nparser.add_argument('-p', '--port')\n"}, /^gevent/, ['/usr/bin/python3', 'main.py', '--port', '{port}'], /compileall/],
  ['a Procfile with gunicorn', {'Procfile': 'release: x\nweb: gunicorn shop.wsgi --log-file -\n', 'manage.py': 'x', 'shop/wsgi.py': 'x'}, /Procfile, and Django/, ['/usr/bin/python3', '-m', 'gunicorn', 'shop.wsgi', '--log-file', '-', '--bind', '127.0.0.1:{port}'], /compileall/],
  ['a Procfile with $PORT', {Procfile: 'web: ./serve --listen 0.0.0.0:$PORT\n'}, /Procfile/, ['./serve', '--listen', '127.0.0.1:{port}'], /^$/],
  ['a Procfile for a shell', {Procfile: 'web: cd x && node server.js\n', 'package.json': '{"scripts": {"start": "node server.js"}}', 'server.js': 'listen(process.env.PORT)'}, /^Node/, ['NODE', 'server.js'], /^$/],
  ['Node by its start', {'package.json': '{"dependencies": {"x": "1"}, "scripts": {"start": "NODE_ENV=production node --enable-source-maps lib/web.js"}}', 'package-lock.json': '{}', 'lib/web.js': 'http.listen(process.env.PORT)'}, /^Node/, ['NODE', '--enable-source-maps', 'lib/web.js'], /npm,ci,--omit=dev/],
  ['Node, compiled', {'package.json': '{"dependencies": {"x": "1"}, "main": "dist/main.js", "scripts": {"build": "tsc"}}', 'pnpm-lock.yaml': 'x'}, /^Node/, ['NODE', 'dist/main.js'], /pnpm,install,--frozen-lockfile npm,run,build/],
  ['Node by a start of npm alone', {'package.json': '{"scripts": {"start": "tsx watch src/x.ts"}}'}, /^Node/, ['npm', 'run', '--silent', 'start'], /^$/],
  ['Node on a port of its own', {'server.js': "require('http').createServer(f).listen(3000)"}, /server\.js/, ['NODE', 'server.js'], /^$/, 'CHANGE'],
  ['Node without a server', {'package.json': '{"name": "x"}'}, /^Node/, ['NODE', 'server.js'], /^$/, 'CHANGE'],
  ['Next.js', {'package.json': '{"dependencies": {"next": "15"}, "scripts": {"build": "next build", "start": "next start"}}', 'yarn.lock': 'x'}, /^Next/, ['NODE', 'node_modules/next/dist/bin/next', 'start', '-H', '127.0.0.1', '-p', '{port}'], /yarn,install,--frozen-lockfile npm,run,build/],
  ['Nuxt', {'package.json': '{"devDependencies": {"nuxt": "3"}, "scripts": {"build": "nuxt build"}}', 'package-lock.json': '{}'}, /^Nuxt/, ['NODE', '.output/server/index.mjs'], /npm,ci npm,run,build/],
  ['Nest', {'package.json': '{"dependencies": {"@nestjs/core": "10"}, "scripts": {"build": "nest build"}}'}, /^Nest/, ['NODE', 'dist/main.js'], /npm,install.*npm,run,build/],
  ['Rack with puma', {'config.ru': 'run App\n', 'Gemfile.lock': 'GEM\n  specs:\n    puma (6.4.0)\n'}, /^Rack/, ['bundle', 'exec', 'puma', '--bind', 'tcp://127.0.0.1:{port}'], /deployment,true bundle,install/],
  ['Rack with unicorn', {'config.ru': 'x', Gemfile: "gem 'unicorn'\n"}, /^Rack/, ['bundle', 'exec', 'unicorn', '--listen', '127.0.0.1:{port}'], /bundle,install/],
  ['Rack with thin', {'config.ru': 'x', Gemfile: 'gem "thin"\n'}, /^Rack/, ['bundle', 'exec', 'thin', 'start', '--address', '127.0.0.1', '--port', '{port}'], /bundle,install/],
  ['Rack without a server', {'config.ru': 'x'}, /^Rack/, ['bundle', 'exec', 'puma', '--bind', 'tcp://127.0.0.1:{port}'], /bundle,install/, 'CHANGE'],
  ['Rails, with package.json', {'config.ru': 'x', 'config/application.rb': 'x', 'config/routes.rb': 'get "up" => "rails/health#show"', 'app/assets/x.css': '', Gemfile: 'gem "puma"\n', 'package.json': '{}'}, /^Rails/, ['bundle', 'exec', 'puma', '--bind', 'tcp://127.0.0.1:{port}'], /assets:precompile/],
  ['Laravel Octane', {'composer.json': '{"require": {"laravel/octane": "2"}}', 'public/index.php': 'x'}, /Octane/, ['php', 'artisan', 'octane:start', '--host=127.0.0.1', '--port={port}'], /composer,install,--no-dev/],
  ['RoadRunner', {'composer.json': '{}', '.rr.yaml': 'x', 'rr*': 'x'}, /RoadRunner/, ['./rr', 'serve', '-o', 'http.address=127.0.0.1:{port}'], /^$/],
  ['FrankenPHP', {'composer.json': '{"require": {"runtime/frankenphp-symfony": "1"}}', 'public/index.php': 'x'}, /FrankenPHP/, ['frankenphp', 'php-server', '--listen', '127.0.0.1:{port}', '--root', 'public'], /composer/],
  ['Swoole', {'composer.json': '{}', 'serve.php': "<?php $s = new Swoole\\Http\\Server('127.0.0.1', getenv('PORT'));"}, /^Swoole \(serve\.php\)/, ['php', 'serve.php'], /^$/],
  ['PHP alone', {'index.php': '<?php'}, /^PHP/, ['php', '-S', '127.0.0.1:{port}', '-t', '.'], /^$/, 'CHANGE'],
  ['Go', {'go.mod': 'module shop\n', 'main.go': 'package main\nvar port = flag.String("port", "8080", "")\n'}, /^Go/, ['./server', '-port', '{port}'], /go,build,-o,server,\.$/],
  ['Go in cmd', {'go.mod': 'module shop\n', 'shop.go': 'package shop\n', 'cmd/tool/main.go': 'package main\n', 'cmd/web/main.go': 'package main\nos.Getenv("PORT")\n'}, /cmd\/web/, ['./server'], /\.\/cmd\/web$/],
  ['Go on a port of its own', {'go.mod': 'module shop\n', 'main.go': 'package main\nhttp.ListenAndServe(":8080", nil)\n'}, /^Go/, ['./server'], /go,build/, 'CHANGE'],
  ['Rust', {'Cargo.toml': '[package]\nname = "shop"\nversion = "0.1.0"\n', 'Cargo.lock': '', 'src/main.rs': 'env::var("PORT")'}, /^Rust/, ['target/release/shop'], /cargo,build,--release,--locked/],
  ['Spring Boot', {'pom.xml': POM}, /^Java/, ['java', '-jar', 'target/shop-1.0.jar', '--server.port={port}', '--server.address=127.0.0.1'], /mvn.*package/],
  ['a jar', {'shop.jar': 'x'}, /^Java/, ['java', '-Dserver.port={port}', '-jar', 'shop.jar'], /^$/],
  ['one program', {'shopd*': '\u007fELF', 'README.md': 'x'}, /a program \(shopd\)/, ['./shopd'], /^$/],
  ['a script among tools', {'configure*': '#!/bin/sh\n', 'deploy.sh*': '#!/bin/sh\n', 'serve*': '#!/bin/sh\nexec x "$1"\n', 'other*': '#!/bin/sh\n'}, /a script \(serve\)/, ['./serve', '{port}'], /^$/],
];

describe('recognised, from files alone:', () => {
  for (const [situation, files, what, command, build, change] of KINDS) {
    test(situation, t => {
      const directory = projectOf(t, files);
      const program = recogniseProgram(directory);
      assert.match(program?.what ?? 'nothing', what);
      assert.deepEqual(program?.command.map((word, i) => i === 0 && word.endsWith('/node') ? 'NODE' : word), command);
      assert.match(program?.build.join(' ') ?? '', build);
      assert.equal((program?.changes ?? []).length > 0 ? 'CHANGE' : undefined, change);
      const text = proposeConfig({...NOTHING, directory: '/srv/shop', program});
      const config = parseConfig(text, FILE, ENV);
      assert.deepEqual([config.workers.command, config.release.build], [program?.command, program?.build]);
      assert.ok(!remarksOn({...NOTHING, program}).look.some(remark => /not recognised/.test(remark)));
    });
  }

  test('a virtual environment that is there is named where it stands', t => {
    const directory = projectOf(t, {'app.py': FLASK, 'requirements.txt': 'flask\ngunicorn\n', '.venv/bin/python*': '#!/bin/sh\n'});
    const program = recogniseProgram(directory);
    assert.equal(program?.command[0], join(directory, '.venv/bin/python'));
    assert.deepEqual(program.build, [['python3', '-m', 'compileall', '-q', '.']]);
  });

  test('nothing, in a directory of texts, of broken files and of links that lead nowhere', t => {
    const directory = projectOf(t, {'README.md': 'from flask import Flask', 'package.json': '{', 'Procfile': 'web: x | y'});
    symlinkSync('/nowhere', join(directory, 'config.ru'));
    execFileSync('mkfifo', [join(directory, 'app.py')]);
    assert.equal(recogniseProgram(directory), undefined);
    assert.equal(recogniseProgram(join(directory, 'not there')), undefined);
  });

  test('whatever lies about together: the proposal is a valid configuration', t => {
    const parts = KINDS.flatMap(([, files]) => Object.entries(files));
    const odd = fc.constantFrom('a b.py', '{x}.py', "it's.py", '-c.py', 'ü.php', 'x\ny.py', '{port}.php', '.sh', 'yes', '1.5');
    const entry = fc.oneof(fc.constantFrom(...parts), fc.tuple(odd, fc.constantFrom(...parts.map(([, text]) => text))));
    fc.assert(fc.property(fc.array(entry, {maxLength: 8}), entries => {
      const directory = projectOf(t, Object.fromEntries(entries));
      const program = recogniseProgram(directory);
      const text = proposeConfig({...NOTHING, directory: '/srv/shop', program});
      assert.ok(parseConfig(text, FILE, ENV).workers.command.length > 0);
    }), {numRuns: 100});
  });

  test('whatever a program is called, it adds no line to the proposal', () => {
    const text = fc.oneof(fc.string(), fc.constantFrom('x\napp: evil', '\u2028', '#', ': ', '{port}', '{evil}', "'", '"', '\u001b[2J')).map(one => one.replaceAll('\0', ''));
    fc.assert(fc.property(text, fc.array(text.filter(one => one !== ''), {minLength: 1, maxLength: 4}), fc.array(text), (name, command, changes) => {
      const program = {what: name, command, build: [command], note: name, env: {A: name.replaceAll(/[\r\n]/g, '')}, changes};
      const proposal = proposeConfig({...NOTHING, program, running: [{pid: 1, port: 2, command: name}]});
      assert.doesNotMatch(proposal, /\u001b|^app: evil/m);
      const config = parseConfig(proposal, FILE, ENV);
      assert.ok(config.workers.command.join() === command.join() || /\{\w+\}/.test([...command, name].join(' ')));
    }), {numRuns: 500});
  });
});

test('of nginx: the upstreams of http with their ports here, and a directory that it includes', t => {
  const directory = projectOf(t, {
    'nginx.conf': "stream { upstream dns { server 127.0.0.1:53; } }\nhttp {\n  # upstream old { server 127.0.0.1:1; }\n  include sites/*;\n  include 'conf.d/*.conf';\n  upstream \"a b\" { server [::1]:9001 backup; server unix:/run/x; }\n}\n",
    'sites/shop': 'upstream shop {\n  ip_hash; server 127.0.0.1:8080 weight=2; server localhost:8081; server 10.0.0.1:80;\n}\n',
    'conf.d/broken.conf': 'upstream x {',
    'conf.d/.hidden.conf': 'upstream hidden { server 127.0.0.1:2; }',
  });
  assert.deepEqual(readNginx(join(directory, 'nginx.conf')), {
    includedDirectory: join(directory, 'conf.d'),
    upstreams: [
      {name: 'a b', file: join(directory, 'nginx.conf'), ports: [9001]},
      {name: 'shop', file: join(directory, 'sites/shop'), ports: [8080, 8081]},
    ],
  });
  assert.deepEqual(readNginx(join(directory, 'not-there.conf')), {includedDirectory: undefined, upstreams: []});
});

describe('what others have is left to them:', () => {
  test('an upstream of this name in another file', () => {
    const upstreams = [{name: 'shop', file: '/etc/nginx/nginx.conf', ports: [9000]}];
    const config = parseConfig(proposeConfig({...NOTHING, nginx: {...NOTHING.nginx, upstreams}}), FILE, ENV);
    assert.equal(config.nginx.upstream, 'shop_deploy');
    const own = {name: 'shop', file: config.nginx.file, ports: [9000]};
    assert.equal(parseConfig(proposeConfig({...NOTHING, nginx: {...NOTHING.nginx, upstreams: [own]}}), FILE, ENV).nginx.upstream, 'shop');
  });

  test('ports that are taken, and those that the system picks for outgoing connections', () => {
    const taken = (...ports: number[]) => freePorts(new Set(ports));
    const between = (from: number, to: number) => Array.from({length: to - from + 1}, (_, i) => from + i);
    assert.deepEqual(taken(), {first: 8811, last: 8830});
    assert.deepEqual(taken(8815, 8835), {first: 8836, last: 8855});
    const [low = 0, high = 0] = readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8').trim().split(/\s+/).map(Number);
    const beside = taken(...between(8811, low - 1));
    assert.ok(beside.last < low || beside.first > high, JSON.stringify(beside));
    const below = taken(...between(8811, low - 1), ...between(high + 1, 65_535));
    assert.deepEqual(below, {first: 1025, last: 1044});
    assert.ok(taken(...between(1025, low - 1), ...between(high + 1, 65_535)).first >= low, 'where there is no other');
  });

  test('what runs out of here already is said, with the upstream that leads there', () => {
    const {adopt} = remarksOn({...NOTHING, running: [{pid: 12, port: 8080, command: 'python3 app.py'}], nginx: {...NOTHING.nginx, upstreams: [{name: 'web', file: '/etc/nginx/x.conf', ports: [8080]}]}});
    assert.equal(adopt, "it runs here already: pid 12 on port 8080 (python3 app.py), and nginx's upstream web in /etc/nginx/x.conf sends requests there. `osyw-deploy adopt` takes over what runs; a first `now` would start workers beside it.");
    assert.equal(remarksOn(NOTHING).adopt, undefined);
  });
});

/** A directory with these files, gone with the test. */
function projectOf(t: TestContext, files: Files): string {
  const directory = realpathSync(mkdtempSync(join(tmpdir(), 'osyw-project-')));
  t.after(() => rmSync(directory, {recursive: true}));
  for (const [name, content] of Object.entries(files)) {
    const path = join(directory, name.replace(/\*$/, ''));
    mkdirSync(join(path, '..'), {recursive: true});
    writeFileSync(path, content, {mode: name.endsWith('*') ? 0o755 : 0o644});
  }
  return directory;
}
