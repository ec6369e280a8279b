import assert from 'node:assert/strict';
import {execFileSync, spawnSync} from 'node:child_process';
import {copyFileSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {after, before, describe, test} from 'node:test';
import {fileURLToPath} from 'node:url';
import fc from 'fast-check';
import {parseConfig as loadSettings} from '../../../src/config/load-config.ts';
import {ConfigSyntaxError, parseConfig} from '../../../src/nginx/parse-config.ts';
import {editedInPlace} from '../../../src/upstream/edited-in-place.ts';
import {NGINX} from '../../support/nginx-rig.ts';
import {makeTempDir, removeTempDir} from '../../support/temp-dir.ts';

// Files in the shapes that people have them, each with `upstream app`. The addresses of its slots, and nothing else, are 127.0.0.1:4800x;
// 127.0.0.1:470xx stands where no edit may touch it. So what must come out is known without reading nginx's language at all.
// `*.nginx.conf` is a main file, the others stand in `http`. nginx here has not the modules of those in other-modules:
// it must then refuse the edited file with the same words.
const CORPUS = fileURLToPath(new URL('corpus/', import.meta.url));
const SLOT = /127\.0\.0\.1:4800\d/g;

const text = editedInPlace(loadSettings(
  'app: site\nsource:\n  working_copy: /srv/site/copy\nworkers:\n  command: [x]\n  ports: 50001-50030\nnginx:\n  upstream: app\n  edit: /nowhere/nginx.conf\n', '/etc/osyw-deploy.yaml', {HOME: '/root'}));

interface Case {
  readonly name: string;
  readonly bytes: Buffer;
  /** nginx takes it. */
  readonly good: boolean;
}

const fromDisk = (dir: string, good: boolean): Case[] => readdirSync(join(CORPUS, dir)).filter(name => statSync(join(CORPUS, dir, name)).isFile())
  .map(name => ({name: join(dir, name), bytes: readFileSync(join(CORPUS, dir, name)), good}));
const lines = (count: number, line: (i: number) => string) => Array.from({length: count}, (_, i) => line(i)).join('\n');
const huge = (name: string, content: string): Case => ({name, bytes: Buffer.from(content), good: true});

const CASES: readonly Case[] = [
  ...fromDisk('', true),
  ...fromDisk('other-modules', false),
  huge('a map of bots', `map_hash_max_size 16384;\nmap_hash_bucket_size 128;\nmap $http_user_agent $bot {\n    default 0;\n${lines(3000, i => `    "~*^bot-${i}\\b.{2,${i % 9 + 3}}$" ${i}; # 127.0.0.1:${47_000 + i % 900}`)}\n}\nupstream app {\n    server 127.0.0.1:48001;\n    server 127.0.0.1:48002;\n}\nserver { listen 127.0.0.1:8080; location / { if ($bot) { return 429; } proxy_pass http://app; } }\n`),
  huge('redirects.nginx.conf', `pid run/nginx.pid;error_log logs/error.log;events{}http{upstream app{server 127.0.0.1:48001;}map_hash_max_size 65536;map $uri $to{\n${lines(20_000, i => `/old/${i} /new/${i};`)}\n}}`),
];

const dir = makeTempDir();
before(() => {
  for (const name of ['logs', 'run', 'conf.d', 'sites-enabled', 'modules-enabled', 'html', 'cache']) mkdirSync(join(dir, name));
  for (const name of ['mime.types', 'fastcgi_params', 'uwsgi_params']) copyFileSync(join('/etc/nginx', name), join(dir, name));
  writeFileSync(join(dir, 'htpasswd'), '');
  execFileSync('openssl', ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-subj', '/CN=example.org', '-keyout', join(dir, 'key.pem'), '-out', join(dir, 'cert.pem')], {stdio: 'ignore'});
});
after(() => removeTempDir(dir));

/** What nginx says of these bytes: its exit code and its words, without the time and the process. */
function judged(name: string, bytes: Buffer): {status: number | null; words: string} {
  const main = join(dir, 'nginx.conf');
  if (name.endsWith('.nginx.conf')) {
    writeFileSync(main, bytes);
  } else {
    writeFileSync(join(dir, 'fragment'), bytes);
    writeFileSync(main, 'pid run/nginx.pid;\nerror_log logs/error.log;\nevents {}\nhttp {\naccess_log logs/access.log;\ninclude fragment;\n}\n');
  }
  const {status, stderr} = spawnSync(NGINX, ['-t', '-p', dir, '-c', main], {encoding: 'utf8', env: {PATH: '/usr/sbin:/usr/bin:/sbin:/bin'}});
  return {status, words: stderr.replace(/^\S+ \S+ (?=\[)|\d+#\d+: /gm, '')};
}

/** By the text alone: the nth slot of the file gets the nth port. */
function expected(bytes: Buffer, ports: readonly number[]): Buffer {
  let slot = 0;
  return Buffer.from(bytes.toString('latin1').replace(SLOT, () => `127.0.0.1:${ports[slot++]}`), 'latin1');
}

test('there are enough of them', () => assert.ok(CASES.length >= 50 && CASES.filter(({good}) => good).length >= 40));

describe('after an edit exactly the address bytes differ, and nginx -t says the same as before', () => {
  for (const {name, bytes, good} of CASES) {
    test(name, () => {
      const slots = [...bytes.toString('latin1').matchAll(SLOT)].map(([address]) => Number(address.split(':')[1]));
      assert.ok(slots.length > 0);
      assert.deepEqual(text.ports(bytes), slots);
      const ports = slots.map((_, i) => 50_001 + i);
      const edited = text.render(bytes, ports);
      assert.deepEqual(edited, expected(bytes, ports));
      assert.deepEqual(text.render(edited, slots), bytes, 'and back');
      assert.deepEqual(text.render(text.render(bytes, []), slots), bytes, 'and over a stop');

      const first = judged(name, bytes);
      // A main file that names no log of its own is beyond an ordinary account, but not its text.
      const isDenied = process.getuid?.() !== 0 && /syntax is ok\n.*open\(\) "\/var\/log\/nginx\/access\.log" failed \(13:/.test(first.words);
      assert.equal(first.status === 0 || isDenied, good, first.words);
      assert.deepEqual(judged(name, edited), first);
      const more = text.render(bytes, [...ports, 50_020, 50_021]);
      assert.deepEqual(text.ports(more), [...ports, 50_020, 50_021]);
      for (const other of [text.render(bytes, []), more, text.render(bytes, ports.slice(0, 1))]) {
        const said = judged(name, other);
        assert.equal(said.status, first.status, said.words);
      }
      assert.deepEqual(text.render(more, ports), edited, 'what was added goes again');
    });
  }
});

test('what nginx refuses as no configuration is refused here, and what it takes is read', () => {
  // Pieces that make a difference to the reader, put together at random.
  const word = fc.constantFrom('a', '"', "'", '\\', ';', '{', '}', '#', '$', '${', ' ', '\n', ')', '"b c"', '\t', '~^x{2}', "'d'", ';\n', '\r\n');
  let [taken, refused] = [0, 0];
  fc.assert(fc.property(fc.array(word, {maxLength: 9}), words => {
    // In `types` nginx takes any words, but no block; and behind a `}` any directive would have to be one of its own.
    const inside = words.join('');
    const bytes = Buffer.from(`types { ${inside}\n }`);
    const {words: said} = judged('x', bytes);
    if (/unexpected "\{"|unknown directive/.test(said)) return;
    const byGrammar = /unexpected |too long parameter|probably missing terminating|not terminated by ";"/.test(said);
    let fault: string | undefined;
    try {
      parseConfig(bytes);
    } catch (error) {
      if (!(error instanceof ConfigSyntaxError)) throw error;
      fault = error.message;
    }
    if (byGrammar) refused++;
    else taken++;
    assert.equal(fault !== undefined, byGrammar, `${JSON.stringify(inside)}: nginx says ${said}, we ${fault ?? 'read it'}`);
  }), {numRuns: 300});
  assert.ok(taken > 30 && refused > 30, `${taken} taken, ${refused} refused`);
});
