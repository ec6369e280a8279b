import assert from 'node:assert/strict';
import {mkdirSync, symlinkSync, writeFileSync} from 'node:fs';
import {dirname, join} from 'node:path';
import {after, describe, test} from 'node:test';
import type {NginxConfig} from '../../../src/config/config.ts';
import {fileWithUpstream} from '../../../src/nginx/file-with-upstream.ts';
import {makeTempDir, removeTempDir} from '../../support/temp-dir.ts';

const dirs: string[] = [];
after(() => dirs.forEach(removeTempDir));

/** Relative to a directory of the case's own, the first of these files is named. */
function found(files: Record<string, string>, {named = Object.keys(files)[0] ?? '', conf}: {named?: string; conf?: string} = {}): string {
  const dir = makeTempDir();
  dirs.push(dir);
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(dir, name)), {recursive: true});
    if (text.startsWith('-> ')) symlinkSync(text.slice(3), join(dir, name));
    else writeFileSync(join(dir, name), text.replaceAll('@', dir));
  }
  const nginx: NginxConfig = {upstream: 'app', file: join(dir, named), edit: true, server: {}, directives: [], binary: '/usr/sbin/nginx', conf: conf === undefined ? undefined : join(dir, conf), prefix: undefined, probe: undefined, reload: undefined};
  return fileWithUpstream(nginx).slice(dir.length + 1);
}

const BLOCK = 'upstream app { server 127.0.0.1:1; }';

describe('the file with the block', () => {
  for (const [situation, files, expected, options] of [
    ['the named one', {'nginx.conf': `http { ${BLOCK} include x; }`, x: ''}, 'nginx.conf'],
    ['the named one, which another includes', {'sites/app': BLOCK}, 'sites/app'],
    ['an included one', {'nginx.conf': 'http { include sites/*; }', 'sites/a': 'server { }', 'sites/app': BLOCK}, 'sites/app'],
    ['one that an included one includes, relative to the main file', {'nginx.conf': 'http { include sites/*; }', 'sites/a': 'include more/app.conf;', 'more/app.conf': BLOCK}, 'more/app.conf'],
    ['by an absolute name with patterns in the directories', {'nginx.conf': 'http { include "@/site?/*/[a-c]pp"; }', 'sites/one/app': BLOCK}, 'sites/one/app'],
    ['a link', {'nginx.conf': 'http { include enabled/*; }', 'available/app': BLOCK, 'enabled/app': '-> ../available/app'}, 'enabled/app'],
    ['an included one of one that is no main file', {'conf.d/site': 'include parts/app;', 'nginx.conf': 'http { include conf.d/*; }', 'parts/app': BLOCK}, 'parts/app', {conf: 'nginx.conf'}],
    ['not one of stream', {'nginx.conf': 'stream { include s/*; } http { include h/*; }', 's/app': BLOCK, 'h/app': BLOCK}, 'h/app'],
    ['files that include each other', {'nginx.conf': 'http { include a; }', a: 'include b;', b: `include a; ${BLOCK}`}, 'b'],
  ] as const) test(situation, () => assert.equal(found(files, options), expected));
});

describe('the named one, for the refusal to tell', () => {
  for (const [situation, files, options] of [
    ['none has it', {'nginx.conf': 'http { include *.none; include gone; }'}],
    ['two have it', {'nginx.conf': 'http { include sites/*; }', 'sites/a': BLOCK, 'sites/b': BLOCK}],
    ['it is not there', {'nginx.conf': ''}, {named: 'gone.conf'}],
    ['it is a directory', {'nginx.conf/x': ''}, {named: 'nginx.conf'}],
    ['it cannot be read', {'nginx.conf': `http { include app`, app: BLOCK}],
  ] as const) test(situation, () => assert.equal(found(files, options), options?.named ?? 'nginx.conf'));
});
