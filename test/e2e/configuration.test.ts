import assert from 'node:assert/strict';
import {chmodSync, mkdirSync, readFileSync, rmSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {test} from 'node:test';
import {runCommand} from '../support/osyw.ts';
import {makeSite, type Settings} from '../support/site.ts';
import {waitUntil} from '../support/wait-until.ts';

const WRONG: readonly (readonly [name: string, settings: Settings, says: RegExp])[] = [
  ['an unknown key', {check: {helth: '/x'}}, /helth/],
  ['port 80', {workers: {ports: '80-100'}}, /1024|ports/],
  ['a reversed range', {workers: {ports: '20000-19000'}}, /ports/],
  ['a range that is too small', {workers: {ports: '20000-20001'}}, /ports|count/],
  ['no worker', {workers: {count: 0}}, /count/],
  ['a count of text', {workers: {count: '2x'}}, /count/],
  ['a duration without a unit', {check: {deadline: '10'}}, /deadline/],
  ['an endless duration', {check: {deadline: '99999999999s'}}, /deadline/],
  ['a path out of the tree', {release: {shared: ['../../etc']}}, /shared/],
  ['an application named with a slash', {app: '../x'}, /app/],
  ['an upstream that is nginx text', {nginx: {upstream: 'x { } server {'}}, /upstream/],
  ['a directive that closes the block', {nginx: {directives: ['ip_hash; } server { listen 80']}}, /directives/],
  ['a command as a string', {workers: {command: 'python3 x.py'}}, /command/],
  ['an unknown placeholder', {workers: {command: ['x', '{prot}']}}, /prot/],
  ['a check path of another host', {check: {http: '//evil'}}, /http/],
  ['a header with a line break', {check: {headers: {'X-A': 'a\r\nX-B: b'}}}, /headers|X-A/],
  ['an unknown user', {workers: {user: 'no-such-account-here'}}, /no-such-account-here/],
  ['an env name with =', {workers: {env: {'A=B': 'c'}}}, /A=B/],
  ['a keep of nothing', {release: {keep: 0}}, /keep/],
  ['a body that is no regular expression', {check: {body: '('}}, /body/],
  ['a url with a command in it', {source: {url: 'ext::sh -c id'}}, /url/],
  ['a branch that is an option', {source: {branch: '--upload-pack=x'}}, /branch/],
];

test('a configuration that cannot be meant is 3, with its place, and nothing is touched', {timeout: 120_000}, async (t) => {
  const site = await makeSite(t);
  await site.deployed();
  const good = readFileSync(site.configFile, 'utf8');
  for (const [name, settings, says] of WRONG) {
    await t.test(name, async () => {
      site.configure(settings);
      const end = await site.run(['config', 'check']);
      assert.equal(end.exit, 3, end.stdout + end.stderr);
      assert.match(end.stdout + end.stderr, says);
      assert.match(end.stdout + end.stderr, /osyw-deploy\.yaml:\d+:\d+/, 'file, line and column');
      site.forget();
    });
  }
  const raw: readonly (readonly [string, string | Buffer])[] = [
    ['an empty file', ''],
    ['no YAML', '{{{'],
    ['a NUL byte', `${good}\0`],
    ['a key twice', `${good}app: again\n`],
    ['an anchor bomb', `a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n`],
    ['a tag that runs code', `${good}\nx: !!js/function "function(){}"\n`],
    ['a deep nest', '['.repeat(20_000)],
    ['a huge file', Buffer.alloc(20_000_000, 'a')],
    ['__proto__', `${good}__proto__: {a: 1}\n`],
  ];
  for (const [name, text] of raw) {
    await t.test(name, async () => {
      writeFileSync(site.configFile, text);
      const end = await site.now();
      assert.equal(end.exit, 3, end.stdout + end.stderr);
      assert.equal(end.result?.code, 'CONFIG_INVALID');
      assert.doesNotMatch(end.result.error ?? '', /\n\s+at .*mjs/, 'no stack trace');
    });
  }
  writeFileSync(site.configFile, good);
  await site.settled({version: '1'});
});

test('all problems are told at once', async (t) => {
  const site = await makeSite(t, {config: {helth: 1, workers: {count: 0}, check: {deadline: 'soon'}}});
  const end = await site.now();
  assert.equal(end.exit, 3);
  for (const word of ['helth', 'count', 'deadline']) assert.match(end.result?.error ?? '', new RegExp(word));
});

test('CRLF and a byte order mark are no problem', async (t) => {
  const site = await makeSite(t);
  writeFileSync(site.configFile, `\ufeff${readFileSync(site.configFile, 'utf8').replaceAll('\n', '\r\n')}`);
  await site.deployed();
  await site.settled({version: '1'});
});

test('files that others can change or read are refused: 3', async (t) => {
  const site = await makeSite(t);
  await site.deployed();
  const secret = join(site.dir, 'secret');
  writeFileSync(secret, 'A=b\n', {mode: 0o600});
  chmodSync(site.configFile, 0o666);
  const open = await site.now();
  assert.equal(open.exit, 3, open.stdout);
  assert.match(open.result?.error ?? '', /osyw-deploy\.yaml/);
  chmodSync(site.configFile, 0o600);
  for (const settings of [{source: {username: 'x', password_file: secret}}, {workers: {env_file: secret}}]) {
    chmodSync(secret, 0o644);
    site.configure(settings);
    const end = await site.now();
    assert.equal(end.exit, 3, end.stdout);
    assert.match(end.result?.error ?? '', /secret/);
    site.configure({source: {username: null, password_file: null}, workers: {env_file: null}});
  }
  await site.settled({version: '1'});
});

test('no configuration anywhere: 3, with the places that were looked at', async (t) => {
  const site = await makeSite(t);
  const cwd = join(site.dir, 'empty');
  mkdirSync(cwd);
  const end = await runCommand(['now', '--json', '--app', 'nowhere'], {cwd});
  assert.equal(end.exit, 3, end.stdout);
  assert.match(end.result?.error ?? '', /\/etc\/osyw-deploy\/nowhere\.yaml/);
  const found = await runCommand(['config', 'check'], {cwd, env: {OSYW_DEPLOY_CONFIG: site.configFile}});
  assert.equal(found.exit, 0, found.stderr);
});

test('a configuration that is edited during a deploy counts for the next one', async (t) => {
  const site = await makeSite(t);
  await site.deployed();
  const gate = join(site.dir, 'gate');
  for (const [version, spoil] of [
    ['2', () => site.configure({workers: {count: 3, command: ['/not/there', '{port}']}, nginx: {file: join(site.dir, 'elsewhere.conf')}})],
    ['3', () => writeFileSync(site.configFile, 'app: [this is not', {mode: 0o600})],
    ['4', () => rmSync(site.configFile)],
  ] as const) {
    await site.release(version);
    site.configure({release: {build: [['/bin/sh', '-c', `until [ -e ${gate} ]; do sleep 0.02; done; rm ${gate}`]]}});
    const command = site.start(['now', '--json']);
    await waitUntil('the build', () => command.stdout().includes('"phase":"build","state":"began"'), {withinMs: 20_000});
    spoil();
    writeFileSync(gate, '');
    const end = await command.ended;
    assert.equal(end.exit, 0, end.stdout + end.stderr);
    if (version !== '2') assert.equal((await site.now()).exit, 3, 'the next one is refused, and nothing is touched');
    site.forget();
    await site.settled({version, outcome: 'deployed', workers: 2});
  }
});

test('an application that is renamed in its configuration stops nobody, and takes nothing over', async (t) => {
  const site = await makeSite(t);
  await site.deployed();
  const traffic = site.traffic();
  const workers = site.processes().map(({pid}) => pid);
  site.configure({app: 'renamed'});
  await site.release('2');
  for (const command of ['now', 'restart', 'stop', 'recover']) {
    const end = await site.run([command, '--json']);
    if (command !== 'recover') assert.ok([2, 9, 12].includes(end.exit ?? 0), `${command}: ${end.exit} ${end.stdout}${end.stderr}`);
    assert.deepEqual(site.processes().map(({pid}) => pid), workers, command);
  }
  site.forget();
  await site.settled({version: '1', traffic});
  await site.deployed();
  await site.settled({version: '2'});
});
