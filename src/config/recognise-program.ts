import {contentOf, plainWords} from './project-files.ts';
import type {ProgramFinding} from './propose-config.ts';
import {recogniseNode, nodePath} from './recognise-node.ts';
import {recogniseExecutable, recogniseGo, recogniseJava, recognisePhp, recogniseRuby, recogniseRust} from './recognise-others.ts';
import {interpreterFor, recognisePython} from './recognise-python.ts';

const KINDS = [recognisePython, recogniseRuby, recogniseNode, recogniseGo, recogniseRust, recogniseJava, recognisePhp, recogniseExecutable];

/**
 * What kind of application a directory holds, by its best-known files; undefined when none is there. A `web:` line of a Procfile says how it
 * is started, and what it is says how it is built. Only reads; nothing of the project is run.
 */
export function recogniseProgram(directory: string): ProgramFinding | undefined {
  const found = KINDS.map(recognise => recognise(directory)).find(one => one !== undefined);
  return procfileProgram(directory, found) ?? found;
}

function procfileProgram(directory: string, found: ProgramFinding | undefined): ProgramFinding | undefined {
  const web = /^web:\s*(.+)$/m.exec(contentOf(directory, 'Procfile'))?.[1];
  const [program = '', ...words] = (web === undefined ? undefined : plainWords(web)) ?? [];
  if (program === '' || program.includes('=')) return undefined;
  const command = [...started(directory, program), ...words.map(word => word.replace(/^(.*=)?(?:0\.0\.0\.0|\[::\]|\*)?:\{port\}$/, '$1127.0.0.1:{port}').replace(/^0\.0\.0\.0$/, '127.0.0.1'))];
  // Where Heroku runs gunicorn, it reads $PORT by itself, and then binds every address.
  const bound = program === 'gunicorn' && !words.some(word => /^(?:-b|--bind)/.test(word)) ? [...command, '--bind', '127.0.0.1:{port}'] : command;
  const takes = bound.some(word => word.includes('{port}'));
  return {
    ...found,
    what: `the Procfile${found === undefined ? '' : `, and ${found.what}`}`,
    command: bound,
    build: found?.build ?? [],
    note: `its \`web:\` line${takes ? '' : ', which names no port; CHECK that it listens on $PORT'}; CHECK that it binds 127.0.0.1`,
    changes: [],
  };
}

/** Programs of a virtual environment are no programs of the system. */
function started(directory: string, program: string): string[] {
  if (['gunicorn', 'uvicorn', 'daphne', 'hypercorn', 'flask'].includes(program)) return [interpreterFor(directory).command, '-m', program];
  if (program === 'waitress-serve') return [interpreterFor(directory).command, '-m', 'waitress'];
  if (/^python3?$/.test(program)) return [interpreterFor(directory).command];
  return program === 'node' ? [nodePath()] : [program];
}
