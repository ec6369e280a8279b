import assert from 'node:assert/strict';
import {describe, test} from 'node:test';
import {parseTitle, titleOf} from '../../../src/upstream/nginx-master.ts';

describe('the arguments in a master\'s title', () => {
  for (const [title, args] of [
    ['nginx', []],
    ['/usr/sbin/nginx', []],
    ['nginx -c /etc/nginx/nginx.conf', ['-c', '/etc/nginx/nginx.conf']],
    ['/usr/sbin/nginx -g daemon on; master_process on;', ['-g', 'daemon on; master_process on;']],
    ['nginx -g daemon off; -c /x/nginx.conf', ['-g', 'daemon off;', '-c', '/x/nginx.conf']],
    ['nginx -p /srv/www/ -c conf/nginx.conf -e stderr', ['-p', '/srv/www/', '-c', 'conf/nginx.conf', '-e', 'stderr']],
    ['nginx -q -c a.conf -p b', ['-c', 'a.conf', '-p', 'b']],
    ['nginx -g pid /run/x.pid; daemon on; -p /y -e /dev/null', ['-g', 'pid /run/x.pid; daemon on;', '-p', '/y', '-e', '/dev/null']],
    ['nginx -c a -c b', ['-c', 'a', '-c', 'b']],
    ['nginx -c/etc/nginx/other.conf', ['-c', '/etc/nginx/other.conf']],
    ['nginx -c', ['-c', '']],
    ['', []],
    ['  nginx -c a  ', ['-c', 'a']],
  ] as const) test(title === '' ? 'empty' : title, () => assert.deepEqual(parseTitle(title), args));
});

test('no process, or one that is not nginx, is no worker', () => {
  assert.equal(titleOf(0), undefined);
  assert.equal(titleOf(process.pid), 'other');
});
