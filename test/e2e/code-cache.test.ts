import assert from 'node:assert/strict';
import {chmodSync, chownSync, copyFileSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, statSync, symlinkSync, truncateSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {test, type TestContext} from 'node:test';
import {crc32} from 'node:zlib';
import {CLI, runCommand} from '../support/osyw.ts';
import {makeSite} from '../support/site.ts';
import {waitUntil} from '../support/wait-until.ts';

const {version: VERSION} = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {version: string};
const OTHER = VERSION.replaceAll(/\d/g, '6');
const CACHE = `osyw-deploy.cjs.${process.version}-${process.arch}.cache`;

/** The command in a directory of its own, as npm would install it. */
function installed(dir: string, text = readFileSync(CLI, 'latin1')): {cli: string; cache: string; dir: string} {
  mkdirSync(dir, {mode: 0o755});
  const cli = join(dir, 'osyw-deploy.cjs');
  writeFileSync(cli, text, {encoding: 'latin1', mode: 0o755});
  return {cli, cache: join(dir, CACHE), dir};
}

const version = async ({cli, dir}: {cli: string; dir: string}): Promise<string> => (await runCommand(['--version'], {cwd: dir, cli})).stdout.trim();

/** Code of another program, dressed as that of the installed one: with it, the command says another version. */
async function doctored(t: TestContext): Promise<{cli: string; cache: string; dir: string}> {
  const site = await makeSite(t);
  const genuine = readFileSync(CLI, 'latin1');
  assert.ok(genuine.includes(VERSION));
  const other = installed(join(site.dir, 'other'), genuine.replaceAll(VERSION, OTHER));
  assert.equal((await site.now([], {cli: other.cli})).exit, 0);
  const code = readFileSync(other.cache);
  code.writeUInt32LE(crc32(Buffer.from(genuine, 'latin1')), 0);
  const command = installed(join(site.dir, 'command'));
  writeFileSync(command.cache, code, {mode: 0o644});
  return command;
}

test('a deploy leaves its compiled code beside the command, and the next run begins with it', async (t) => {
  const site = await makeSite(t);
  const command = installed(join(site.dir, 'command'));
  assert.equal(await version(command), VERSION);
  assert.deepEqual(readdirSync(command.dir), ['osyw-deploy.cjs'], 'only a deploy leaves it');
  assert.equal((await site.now([], {cli: command.cli})).exit, 0);
  assert.deepEqual(readdirSync(command.dir).sort(), ['osyw-deploy.cjs', CACHE]);
  assert.equal(statSync(command.cache).mode & 0o777, 0o644);
  const {ino} = statSync(command.cache);
  await site.release('2');
  assert.equal((await site.now([], {cli: command.cli})).exit, 0);
  assert.equal(statSync(command.cache).ino, ino, 'it was good');
  await site.settled({version: '2'});

  const code = readFileSync(command.cache);
  code[code.length - 10] = (code[code.length - 10] ?? 0) ^ 0xff;
  writeFileSync(command.cache, code);
  await site.release('3');
  assert.equal((await site.now([], {cli: command.cli})).exit, 0, 'broken code is not run');
  assert.notEqual(statSync(command.cache).ino, ino);
  truncateSync(command.cache, 3);
  assert.equal(await version(command), VERSION);
  await site.settled({version: '3'});
});

test('code that others could have written is not run', async (t) => {
  const command = await doctored(t);
  const {cache, dir} = command;
  assert.equal(await version(command), OTHER, 'it would be run');
  chmodSync(cache, 0o664);
  assert.equal(await version(command), VERSION, 'writable by the group');
  chmodSync(cache, 0o644);
  chmodSync(dir, 0o777);
  assert.equal(await version(command), VERSION, 'in a directory that others write to');
  chmodSync(dir, 0o755);
  assert.equal(await version(command), OTHER);
  if (process.getuid?.() === 0) {
    chownSync(cache, 12345, 12345);
    assert.equal(await version(command), VERSION, "somebody else's");
    chownSync(cache, 0, 0);
  }
  renameSync(cache, join(dir, 'elsewhere'));
  symlinkSync(join(dir, 'elsewhere'), cache);
  assert.equal(await version(command), VERSION, 'behind a link');
});

test('of another program, the code is not run', async (t) => {
  const command = await doctored(t);
  copyFileSync(command.cache, join(command.dir, 'kept'));
  writeFileSync(command.cli, `${readFileSync(command.cli, 'latin1')}\n//`, 'latin1');
  assert.equal(await version(command), VERSION);
});

test('a command that is replaced while it runs goes on as it began', async (t) => {
  const site = await makeSite(t);
  const command = installed(join(site.dir, 'command'));
  assert.equal((await site.now([], {cli: command.cli})).exit, 0);
  await site.release('2');
  const gate = join(site.dir, 'gate');
  site.configure({release: {build: [['/bin/sh', '-c', `until [ -e ${gate} ]; do sleep 0.02; done`]]}, bake: {for: '50ms'}, nginx: {probe: `${site.nginx.url}/`}});
  const deploy = site.start(['now', '--json'], {cli: command.cli});
  await waitUntil('the build', () => deploy.stdout().includes('"phase":"build","state":"began"'), {withinMs: 20_000});
  // As an installer leaves it that got no further.
  rmSync(command.dir, {recursive: true});
  installed(join(site.dir, 'command'), 'throw new Error("another program");');
  writeFileSync(gate, '');
  const end = await deploy.ended;
  assert.equal(end.exit, 0, end.stdout + end.stderr);
  await site.settled({version: '2', outcome: 'deployed'});
});
