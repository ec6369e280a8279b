import {accessSync, constants, readdirSync} from 'node:fs';
import {join} from 'node:path';
import type {ProgramFinding} from './propose-config.ts';
import {readRegularFile, utf8Of} from './regular-file.ts';

const MAX_BYTES = 200_000;

/** What kind of application a directory holds, by its best-known files; undefined when none is there. */
export function recogniseProgram(directory: string): ProgramFinding | undefined {
  return pythonProgram(directory) ?? nodeProgram(directory) ?? rubyProgram(directory) ?? goProgram(directory);
}

function pythonProgram(directory: string): ProgramFinding | undefined {
  const needs = `${contentOf(directory, 'requirements.txt')}\n${contentOf(directory, 'pyproject.toml')}`;
  const venv = ['.venv', 'venv'].map(name => join(directory, name, 'bin/python')).find(isProgram);
  const python = venv ?? '/usr/bin/python3';
  const finding = (what: string, words: readonly string[]): ProgramFinding => ({
    what,
    command: [python, ...words],
    build: [['python3', '-m', 'compileall', '-q', '.']],
    note: venv === undefined ? 'CHECK the interpreter; a virtual environment is named by its absolute path'
      : 'the virtual environment stays where it is, and is not part of a release',
  });
  const listen = '127.0.0.1:{port}';

  if (contentOf(directory, 'manage.py') !== '') {
    const project = namesIn(directory).find(name => contentOf(join(directory, name), 'wsgi.py') !== '');
    if (project !== undefined && /^\w+$/.test(project)) {
      return finding('Django (manage.py)', ['-m', 'gunicorn', '--bind', listen, `${project}.wsgi`]);
    }
  }
  for (const module of ['app', 'main', 'server', 'wsgi', 'asgi']) {
    const source = contentOf(directory, `${module}.py`);
    if (source === '') continue;
    const object = /^(app|application)\b\s*[:=]/m.exec(source)?.[1] ?? (module === 'wsgi' ? 'application' : 'app');
    const file = `${module}.py`;
    if (/\b(fastapi|starlette)\b/i.test(source)) {
      return finding(`FastAPI or Starlette (${file})`, ['-m', 'uvicorn', '--host', '127.0.0.1', '--port', '{port}', `${module}:${object}`]);
    }
    if (/\buvicorn\b/.test(needs) && module === 'asgi') {
      return finding(`ASGI (${file})`, ['-m', 'uvicorn', '--host', '127.0.0.1', '--port', '{port}', `${module}:${object}`]);
    }
    if (/\bgunicorn\b/.test(needs) || module === 'wsgi') {
      return finding(`WSGI (${file}, gunicorn)`, ['-m', 'gunicorn', '--bind', listen, `${module}:${object}`]);
    }
    if (/\bfrom flask\b|\bimport flask\b/.test(source)) {
      return finding(`Flask (${file})`, ['-m', 'flask', '--app', module, 'run', '--port', '{port}']);
    }
    return finding(/\bbottle\b/.test(source) ? `Bottle (${file})` : `Python (${file})`, [file, '{port}']);
  }
  const bottle = namesIn(directory).find(name => name.endsWith('.py') && /\b(from|import) bottle\b/.test(contentOf(directory, name)));
  return bottle === undefined ? undefined : finding(`Bottle (${bottle})`, [bottle, '{port}']);
}

function nodeProgram(directory: string): ProgramFinding | undefined {
  const manifest = parsed(contentOf(directory, 'package.json'));
  if (manifest === undefined) return undefined;
  const scripts = 'scripts' in manifest ? manifest.scripts : undefined;
  const start = typeof scripts === 'object' && scripts !== null && 'start' in scripts && typeof scripts.start === 'string' ? scripts.start : '';
  const started = /^node ([\w./-]+)$/.exec(start.trim())?.[1];
  const main = 'main' in manifest && typeof manifest.main === 'string' && /^[\w./-]+$/.test(manifest.main) ? manifest.main : undefined;
  const file = started ?? main ?? ['server.js', 'index.js', 'app.js'].find(name => contentOf(directory, name) !== '') ?? 'server.js';
  const node = ['/usr/bin/node', '/usr/local/bin/node'].find(isProgram) ?? process.execPath;
  return {
    what: 'Node (package.json)',
    command: [node, file],
    build: contentOf(directory, 'package-lock.json') === '' ? [] : [['npm', 'ci', '--omit=dev']],
    note: 'listens on process.env.PORT; CHECK that it binds 127.0.0.1',
  };
}

function rubyProgram(directory: string): ProgramFinding | undefined {
  if (contentOf(directory, 'config.ru') === '') return undefined;
  return {
    what: 'Rack (config.ru)',
    command: ['bundle', 'exec', 'puma', '--bind', 'tcp://127.0.0.1:{port}'],
    build: [['bundle', 'install']],
    note: 'CHECK that puma is in the Gemfile',
  };
}

function goProgram(directory: string): ProgramFinding | undefined {
  if (contentOf(directory, 'go.mod') === '') return undefined;
  return {
    what: 'Go (go.mod)',
    command: ['./server'],
    build: [['go', 'build', '-o', 'server', '.']],
    note: 'listens on $PORT, or write {port} after its flag',
  };
}

function contentOf(directory: string, name: string): string {
  const file = readRegularFile(join(directory, name), MAX_BYTES);
  return file.kind === 'read' ? (utf8Of(file.bytes) ?? '') : '';
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory).toSorted().slice(0, 500);
  } catch {
    return [];
  }
}

function parsed(text: string): object | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? value : undefined;
  } catch {
    return undefined;
  }
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
