// dist/osyw-deploy.cjs: the whole command in one file, and dist/osyw-deploy.schema.json: the configuration for editors.
import {chmodSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {fileURLToPath, pathToFileURL} from 'node:url';
import {build} from 'esbuild';

const root = fileURLToPath(new URL('..', import.meta.url));
const dist = join(root, 'dist');
const {version} = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));

// For the schema, which is imported: some of the packages in the bundle are CommonJS and call `require` for Node's own modules; an ES module has none.
const BANNER = [
  "import {createRequire as __createRequire} from 'node:module';",
  'const require = __createRequire(import.meta.url);',
].join('\n');

const common = {bundle: true, platform: 'node', format: 'esm', target: 'node20.19', logLevel: 'warning', absWorkingDir: root};

/** What Node puts around a CommonJS module. */
const WRAPPER = '(function (require, module, exports, __filename, __dirname) {';

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  mkdirSync(dist, {recursive: true});
  await replacing('osyw-deploy.cjs', (outfile) => bundleCommand(outfile));
  await writeSchema();
}

/** The launcher, and behind it the program in comments: see src/launch.ts. `plugins` of esbuild: a test builds a command of its own. */
export async function bundleCommand(outfile, plugins = []) {
  const [launcher, program] = await Promise.all([bundleOf('src/launch.ts'), bundleOf('src/main.ts', plugins)]);
  writeFileSync(outfile, `#!/usr/bin/env node\n${launcher}\n// The program:\n${`${WRAPPER}${program}\n})`.replaceAll(/^/gm, '//')}`);
  chmodSync(outfile, 0o755);
}

async function bundleOf(entryPoint, plugins = []) {
  const {outputFiles: [{text}]} = await build({
    ...common,
    entryPoints: [entryPoint],
    plugins,
    write: false,
    // Names stay, so that a stack trace can be read.
    minifyWhitespace: true,
    minifySyntax: true,
    legalComments: 'eof',
    // CommonJS: Node loads it a third faster than the same bundle as an ES module.
    format: 'cjs',
    // Node's own modules, too, are loaded by `require` when they are loaded late: a compiled script cannot `import`.
    supported: {'dynamic-import': false},
    define: {__OSYW_VERSION__: JSON.stringify(version), __OSYW_HOOK__: JSON.stringify(readFileSync(join(root, 'hooks/hook.sh'), 'utf8'))},
  });
  // The launcher reads it a byte a character.
  if (/[^\0-\x7f]/.test(text)) throw new Error(`the bundle of ${entryPoint} is not plain ASCII`);
  return text.trimEnd();
}

async function writeSchema() {
  const source = join(root, 'src/config/json-schema.ts');
  if (!existsSync(source)) return;
  await replacing('osyw-deploy.schema.json', async (outfile) => {
    const compiled = `${outfile}.mjs`;
    try {
      await build({...common, entryPoints: [source], outfile: compiled, banner: {js: BANNER}});
      const {jsonSchema} = await import(pathToFileURL(compiled).href);
      writeFileSync(outfile, `${JSON.stringify(jsonSchema(), null, 2)}\n`);
    } finally {
      rmSync(compiled, {force: true});
    }
  });
}

/** A test that runs at this moment has the old file or the new one, never half of one. */
async function replacing(name, write) {
  const unfinished = join(dist, `.${name}.${process.pid}`);
  try {
    await write(unfinished);
    renameSync(unfinished, join(dist, name));
  } finally {
    rmSync(unfinished, {force: true});
  }
}
