import assert from 'node:assert/strict';
import {execFileSync} from 'node:child_process';
import {mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync} from 'node:fs';
import {createServer} from 'node:net';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {afterEach, beforeEach, describe, test} from 'node:test';
import fc from 'fast-check';
import {parseConfig} from '../../../src/config/load-config.ts';
import {lookAround} from '../../../src/config/look-around.ts';
import {proposeConfig} from '../../../src/config/propose-config.ts';
import type {Findings} from '../../../src/config/propose-config.ts';
import {recogniseProgram} from '../../../src/config/recognise-program.ts';
import {ENV, FILE} from './config-text.ts';

const NOTHING: Findings = {
  directory: '/srv/shop',
  source: undefined,
  program: undefined,
  nginx: {running: false, binary: undefined, conf: undefined, prefix: undefined, includedDirectory: undefined},
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
      nginx: {running: true, binary: '/opt/nginx/sbin/nginx', conf: '/opt/nginx/nginx.conf', prefix: '/opt/nginx', includedDirectory: '/etc/nginx/conf.d'},
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

  for (const [situation, files, what, command] of [
    ['Django', {'manage.py': 'x', 'shop/wsgi.py': 'x'}, /Django/, ['-m', 'gunicorn', '--bind', '127.0.0.1:{port}', 'shop.wsgi']],
    ['FastAPI', {'main.py': 'from fastapi import FastAPI\napi = 1\napp = FastAPI()\n'}, /FastAPI/, ['-m', 'uvicorn', '--host', '127.0.0.1', '--port', '{port}', 'main:app']],
    ['Flask with gunicorn', {'app.py': 'from flask import Flask\n', 'requirements.txt': 'gunicorn\n'}, /gunicorn/, ['-m', 'gunicorn', '--bind', '127.0.0.1:{port}', 'app:app']],
    ['Bottle under its own name', {'osyw.py': 'import sys\nfrom bottle import route\n'}, /Bottle/, ['osyw.py', '{port}']],
    ['Node', {'package.json': '{"scripts": {"start": "node lib/web.js"}}'}, /Node/, ['lib/web.js']],
    ['Ruby', {'config.ru': 'run App\n'}, /Rack/, ['exec', 'puma', '--bind', 'tcp://127.0.0.1:{port}']],
    ['Go', {'go.mod': 'module shop\n'}, /Go/, []],
    ['a broken package.json', {'package.json': '{'}, undefined, []],
  ] as const) {
    test(`recognises ${situation}`, () => {
      for (const [name, content] of Object.entries(files)) put(name, content);
      const program = recogniseProgram(directory);
      if (what === undefined) {
        assert.equal(program, undefined);
        return;
      }
      assert.match(program?.what ?? '', what);
      assert.deepEqual(program?.command.slice(1), command);
    });
  }
});
