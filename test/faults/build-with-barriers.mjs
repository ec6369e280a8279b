// node test/faults/build-with-barriers.mjs OUTFILE: the command, but its tools stop at points that a test names.
import {dirname, join} from 'node:path';
import {fileURLToPath} from 'node:url';
import {bundleCommand} from '../build.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const src = join(here, '../../src');

await bundleCommand(process.argv[2], [{
  name: 'barriers',
  setup: (build) => build.onResolve({filter: /\/wire\.ts$/}, ({importer}) => (importer.startsWith(src) ? {path: join(here, 'wire-with-barriers.ts')} : undefined)),
}]);
