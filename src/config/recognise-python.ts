import {existsSync} from 'node:fs';
import {join} from 'node:path';
import {contentOf, isProgram, isThere, namesIn, noteOfPort, type PortWay} from './project-files.ts';
import type {ProgramFinding} from './propose-config.ts';

const PACKAGES = '/usr/lib/python3/dist-packages';
const LISTEN = '127.0.0.1:{port}';
const UVICORN = ['-m', 'uvicorn', '--host', '127.0.0.1', '--port', '{port}'];

interface Python {
  readonly command: string;
  readonly build: readonly (readonly string[])[];
  readonly note: string;
}

/** Django, Flask, Bottle, gevent, FastAPI, Starlette and plain programs; behind gunicorn, uvicorn, waitress or daphne where the project names one. */
export function recognisePython(directory: string): ProgramFinding | undefined {
  const needs = requirementsOf(directory);
  const found = djangoProgram(directory, needs) ?? moduleProgram(directory, needs) ?? scriptProgram(directory);
  if (found === undefined) return undefined;
  const python = interpreterFor(directory);
  return {
    ...found,
    command: [python.command, ...found.command],
    build: [['python3', '-m', 'compileall', '-q', '.'], ...python.build],
    note: `${found.note}; ${python.note}`,
  };
}

/** All that says which packages it needs, as one text. */
function requirementsOf(directory: string): string {
  const files = ['requirements.txt', 'requirements/base.txt', 'requirements/prod.txt', 'requirements/production.txt', 'pyproject.toml', 'Pipfile', 'setup.py', 'setup.cfg'];
  return [...files.map(name => contentOf(directory, name)), isThere(directory, 'gunicorn.conf.py') ? 'gunicorn' : ''].join('\n').toLowerCase();
}

/** The interpreter that has what the project needs: an environment that is there, the system's, or one that each release makes. */
export function interpreterFor(directory: string): Python {
  const there = ['.venv', 'venv', 'env'].map(name => join(directory, name, 'bin/python')).find(isProgram);
  if (there !== undefined) return {command: there, build: [], note: 'the virtual environment stays where it is, and is not part of a release'};
  if (isThere(directory, 'uv.lock')) return {command: '.venv/bin/python', build: [['uv', 'sync', '--frozen', '--no-dev']], note: 'each release has a virtual environment of its own, made by uv'};
  if (isThere(directory, 'Pipfile.lock')) return {command: '.venv/bin/python', build: [['env', 'PIPENV_VENV_IN_PROJECT=1', 'pipenv', 'sync']], note: 'each release has a virtual environment of its own, made by pipenv'};
  const named = contentOf(directory, 'requirements.txt').split('\n').flatMap(line => /^\s*([A-Za-z0-9][\w.-]*)/.exec(line)?.[1] ?? []);
  if (named.length > 0 && !named.every(isPackaged)) return withOwn(['-r', 'requirements.txt']);
  const project = contentOf(directory, 'pyproject.toml');
  if (named.length === 0 && (/^\s*dependencies\s*=\s*\[\s*["'\n]/m.test(project) || /^\[tool\.poetry\.dependencies\]/m.test(project))) return withOwn(['.']);
  return {command: '/usr/bin/python3', build: [], note: named.length > 0 ? "the system's packages have all that requirements.txt names" : 'a virtual environment is named by its absolute path'};
}

function withOwn(what: readonly string[]): Python {
  return {
    command: '.venv/bin/python',
    build: [['python3', '-m', 'venv', '.venv'], ['.venv/bin/python', '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', ...what]],
    note: 'each release has a virtual environment of its own; one that is named by its absolute path is quicker',
  };
}

function isPackaged(name: string): boolean {
  const module = name.toLowerCase().replaceAll(/[-.]/g, '_');
  return [module, `${module}.py`, name].some(entry => existsSync(join(PACKAGES, entry)));
}

type Found = Omit<ProgramFinding, 'build'>;

function djangoProgram(directory: string, needs: string): Found | undefined {
  if (contentOf(directory, 'manage.py') === '') return undefined;
  const project = namesIn(directory).find(name => /^\w+$/.test(name) && (isThere(join(directory, name), 'wsgi.py') || isThere(join(directory, name), 'asgi.py')));
  if (project === undefined) return undefined;
  const what = 'Django (manage.py)';
  const check = 'Django answers 400 to a name that is not in ALLOWED_HOSTS: see check.host';
  const [wsgi, asgi] = [isThere(join(directory, project), 'wsgi.py'), isThere(join(directory, project), 'asgi.py')];
  if (wsgi && /\bgunicorn\b/.test(needs)) return {what, command: ['-m', 'gunicorn', '--bind', LISTEN, `${project}.wsgi`], note: `by gunicorn. ${check}`};
  if (asgi && /\buvicorn\b/.test(needs)) return {what, command: [...UVICORN, `${project}.asgi:application`], note: `by uvicorn. ${check}`};
  if (asgi && /\bdaphne\b/.test(needs)) return {what, command: ['-m', 'daphne', '-b', '127.0.0.1', '-p', '{port}', `${project}.asgi:application`], note: `by daphne. ${check}`};
  if (wsgi && /\bwaitress\b/.test(needs)) return {what, command: ['-m', 'waitress', `--listen=${LISTEN}`, `${project}.wsgi:application`], note: `by waitress. ${check}`};
  return {
    what, command: ['manage.py', 'runserver', '--noreload', LISTEN], note: `CHANGE this: runserver is not for production; add gunicorn to the requirements, then [-m, gunicorn, --bind, "${LISTEN}", ${project}.wsgi]. ${check}`,
    changes: ['workers.command is Django\'s runserver, for no gunicorn, uvicorn, daphne or waitress is among the requirements: it is not for production'],
  };
}

/** A module that holds an application, under one of the names that people give it. */
function moduleProgram(directory: string, needs: string): Found | undefined {
  for (const module of ['app', 'main', 'server', 'wsgi', 'asgi', 'app.main', 'src.main', 'src.app']) {
    const file = `${module.replaceAll('.', '/')}.py`;
    const source = contentOf(directory, file);
    if (source === '') continue;
    const made = /^(\w+)\s*(?::[^=\n]+)?=\s*(?:\w+\.)?(?:Flask|FastAPI|Starlette|Quart|Litestar|Sanic|Bottle|default_app|create_app|get_wsgi_application|get_asgi_application)\(/m.exec(source)?.[1];
    const factory = made === undefined && /^def create_app\(/m.test(source);
    const object = made ?? /^(app|application)\b\s*[:=]/m.exec(source)?.[1] ?? (module === 'wsgi' ? 'application' : 'app');
    const isAsgi = /\b(?:fastapi|starlette|quart|litestar)\b/i.test(source) || (module === 'asgi' && /\buvicorn\b/.test(needs));
    if (isAsgi) {
      const missing = /\buvicorn\b/.test(needs) ? '' : '; CHECK that uvicorn is installed';
      return {what: `${/\b(?:fastapi|starlette)\b/i.test(source) ? 'FastAPI or Starlette' : 'ASGI'} (${file})`, command: factory ? [...UVICORN, '--factory', `${module}:create_app`] : [...UVICORN, `${module}:${object}`], note: `by uvicorn${missing}`};
    }
    const place = factory ? `${module}:create_app()` : `${module}:${object}`;
    const isFlask = /^\s*(?:from|import) .*\bflask\b/m.test(source);
    if (/\bgunicorn\b/.test(needs)) return {what: `${isFlask ? 'Flask' : 'WSGI'} (${file}, gunicorn)`, command: ['-m', 'gunicorn', '--bind', LISTEN, place], note: `by gunicorn${isThere(directory, 'gunicorn.conf.py') ? ', which reads gunicorn.conf.py, too; `bind` there gives way to this one' : ''}`};
    if (/\bwaitress\b/.test(needs)) return {what: `${isFlask ? 'Flask' : 'WSGI'} (${file}, waitress)`, command: ['-m', 'waitress', `--listen=${LISTEN}`, ...(factory ? ['--call', `${module}:create_app`] : [place])], note: 'by waitress'};
    if (module === 'wsgi') return {what: `WSGI (${file})`, command: ['-m', 'gunicorn', '--bind', LISTEN, place], note: 'CHECK that gunicorn is installed, which no requirement names'};
    if (isFlask) {
      return {what: `Flask (${file})`, command: ['-m', 'flask', '--app', module, 'run', '--port', '{port}'], note: 'CHANGE this: it is Flask\'s server for development; add gunicorn or waitress to the requirements',
        changes: ['workers.command is Flask\'s server for development, for neither gunicorn nor waitress is among the requirements']};
    }
    return ofScript(file, source);
  }
  return undefined;
}

/** Another file that starts a server itself. */
function scriptProgram(directory: string): Found | undefined {
  for (const name of namesIn(directory).filter(one => /^\w[\w.-]*\.py$/.test(one))) {
    const source = contentOf(directory, name);
    if (/^\s*(?:from|import) (?:.*, *)?(?:bottle|gevent\.pywsgi)\b|\bfrom gevent import (?:.*, *)?pywsgi\b|\b(?:HTTPServer|run_simple|make_server|run_app)\(/m.test(source) && !/^def test_/m.test(source)) return ofScript(name, source);
  }
  return undefined;
}

function ofScript(file: string, source: string): Found {
  const way = portWayOf(source);
  const {note, changes} = noteOfPort(way, file);
  const bottle = /^\s*(?:from|import) .*\bbottle\b/m.test(source);
  const gevent = /\bserver\s*=\s*['"]gevent['"]|\bgevent\b/.test(source);
  const words = way.kind === 'words' ? way.words : way.kind === 'unknown' ? ['{port}'] : [];
  return {what: `${bottle ? gevent ? 'Bottle with gevent' : 'Bottle' : gevent ? 'gevent' : 'Python'} (${file})`, command: [file, ...words], note, changes};
}

function portWayOf(source: string): PortWay {
  const option = /add_argument\([^)]*['"](--port)['"]|click\.option\([^)]*['"](--port)['"]|add_option\([^)]*['"](--port)['"]/.exec(source);
  if (option !== null) return {kind: 'words', words: ['--port', '{port}']};
  if (/\bsys\.argv\b|\bfrom sys import .*\bargv\b|add_argument\(\s*['"]port['"]/.test(source)) return {kind: 'words', words: ['{port}']};
  if (/(?:environ(?:\.get)?\s*[[(]|getenv\(|env(?:iron)?\()\s*['"]PORT['"]/.test(source)) return {kind: 'environment'};
  const fixed = /\bport\s*=\s*(\d{2,5})\b/.exec(source)?.[1] ?? /\(\s*\(?['"][\d.:]*['"]\s*,\s*(\d{2,5})\s*\)/.exec(source)?.[1];
  return fixed === undefined ? {kind: 'unknown'} : {kind: 'fixed', port: fixed};
}
