import assert from 'node:assert/strict';
import {execFileSync} from 'node:child_process';
import {chmodSync, chownSync, existsSync, linkSync, lstatSync, mkdirSync, readdirSync, readFileSync, symlinkSync, truncateSync, utimesSync, writeFileSync} from 'node:fs';
import {createServer} from 'node:net';
import {join} from 'node:path';
import {describe, test, type TestContext} from 'node:test';
import {clearSpool, fileAgain, isEmpty, readSpool, unfile} from '../../../src/trigger/request-spool.ts';
import {takeWaitingPlace} from '../../../src/trigger/waiting-place.ts';
import {makeTempDir, removeTempDir} from '../../support/temp-dir.ts';

const root = process.getuid?.() === 0;
const NOBODY = 65_534;

function makeSpool(t: TestContext, mode = 0o1733): {stateDir: string; spool: string; put(name: string, text?: string): string} {
  const stateDir = makeTempDir();
  t.after(() => removeTempDir(stateDir));
  const spool = join(stateDir, 'spool');
  mkdirSync(spool);
  chmodSync(spool, mode);
  return {stateDir, spool, put: (name, text = request()) => {
    writeFileSync(join(spool, name), text);
    return join(spool, name);
  }};
}

/** The kernel's clock ticks in milliseconds, so this changes the file until it is later. Returns its change time. */
function changedAfter(time: bigint, path: string, change: () => void): bigint {
  for (;;) {
    change();
    const {ctimeNs} = lstatSync(path, {bigint: true});
    if (ctimeNs > time) return ctimeNs;
  }
}

function request(more: Record<string, unknown> = {}): string {
  return JSON.stringify({version: 1, app: 'osyw', revision: 'r41', ...more});
}

describe('a request', () => {
  test('is the owner of its file, and what it says is a hint', t => {
    const {stateDir, put} = makeSpool(t);
    const path = put('4711-r41.json');
    if (root) chownSync(path, NOBODY, NOBODY);
    const {requests: [one], junk} = readSpool(stateDir, 'osyw');
    assert.deepEqual(junk, []);
    assert.equal(one?.requestedBy, root ? 'nobody' : one?.requestedBy);
    assert.equal(one?.revision, 'r41');
    assert.match(one?.id ?? '', /^\d{8}-\d{6}-[0-9a-f]{6}$/);
    assert.equal(readSpool(stateDir, 'osyw').requests[0]?.id, one?.id, 'the same whoever reads it, and when');
  });

  test('of another account cannot say who asked, nor how often it was tried', {skip: !root && 'needs root'}, t => {
    const {stateDir, put} = makeSpool(t);
    chownSync(put('1-r1.json', request({by: 'root', killed: -100, filed: '2001-01-01T00:00:00.000Z'})), NOBODY, NOBODY);
    const [one] = readSpool(stateDir, 'osyw').requests;
    assert.deepEqual([one?.requestedBy, one?.killed], ['nobody', 0]);
    assert.notEqual(one?.filedAt.slice(0, 4), '2001');
  });

  test('comes in the order of its filing, whatever time its sender gave the file', t => {
    const {stateDir, put} = makeSpool(t);
    let last = 0n;
    for (const name of ['b', 'c', 'a']) {
      const path = put(`${name}.json`);
      last = changedAfter(last, path, () => utimesSync(path, 1_000_000_000 + name.charCodeAt(0), 1_000_000_000 - name.charCodeAt(0)));
    }
    assert.deepEqual(readSpool(stateDir, 'osyw').requests.map(({file}) => file), ['b.json', 'c.json', 'a.json']);
  });

  for (const hint of ['HEAD', '--upload-pack=x', '$(reboot)', 'r', 'R41', 'r41 ', '41', 'deadbeef', '../../etc', ['r41'], {r: 41}, 41, null]) {
    test(`with the hint ${JSON.stringify(hint)} is a request without a hint`, t => {
      const {stateDir, put} = makeSpool(t);
      put('1.json', request({revision: hint}));
      assert.equal(readSpool(stateDir, 'osyw').requests[0]?.revision, null);
    });
  }

  test('that is being written is not there yet', t => {
    const {stateDir, put} = makeSpool(t);
    put('.1.json', '{"ver');
    assert.deepEqual(readSpool(stateDir, 'osyw'), {requests: [], junk: []});
    assert.ok(isEmpty(stateDir));
    assert.deepEqual(clearSpool(stateDir, 'osyw'), []);
    assert.deepEqual(readdirSync(join(stateDir, 'spool')), ['.1.json']);
  });

  test('is taken once: a later file of its name stays', t => {
    const {stateDir, put, spool} = makeSpool(t);
    put('1.json');
    put('2.json');
    const {requests} = readSpool(stateDir, 'osyw');
    unfile(stateDir, requests.slice(0, 1));
    changedAfter(BigInt(requests[0]?.stamp.split('-')[2] ?? 0), put('1.json', request({revision: 'r42'})), () => chmodSync(join(spool, '1.json'), 0o600));
    unfile(stateDir, requests);
    unfile(stateDir, requests);
    assert.deepEqual(readdirSync(spool), ['1.json']);
    assert.equal(readSpool(stateDir, 'osyw').requests[0]?.revision, 'r42');
  });

  test('is filed again with its sender and its time, whatever lies in its way', t => {
    const {stateDir, put, spool} = makeSpool(t);
    chownSync(put('1.json'), root ? NOBODY : process.getuid?.() ?? 0, process.getgid?.() ?? 0);
    const [one] = readSpool(stateDir, 'osyw').requests;
    assert.ok(one);
    unfile(stateDir, [one]);
    execFileSync('rmdir', [spool]);
    mkdirSync(spool, {mode: 0o700});
    mkdirSync(join(spool, '.1.json.new'));
    mkdirSync(join(spool, '1.json'));
    fileAgain(stateDir, 'osyw', {...one, killed: 2}, '20261123-021100-7f3a9c');
    fileAgain(stateDir, 'osyw', {...one, killed: 2}, '20261123-021100-7f3a9c');
    const [again, second] = readSpool(stateDir, 'osyw').requests;
    assert.equal(second, undefined);
    assert.deepEqual([again?.requestedBy, again?.revision, again?.killed, again?.filedAt], [one.requestedBy, 'r41', 2, one.filedAt]);
    assert.notEqual(again?.id, one.id);
  });
});

describe('no request, and set aside with its bytes, is', () => {
  const cases: Record<string, {fault: RegExp; make(spool: string, put: (name: string, text?: string) => string): void}> = {
    'a symbolic link': {fault: /symbolic link/, make: spool => symlinkSync('/etc/passwd', join(spool, 'x.json'))},
    'a link to a request': {fault: /hard links/, make: (spool, put) => linkSync(put('.hidden'), join(spool, 'x.json'))},
    'a directory': {fault: /directory/, make: spool => mkdirSync(join(spool, 'x.json'))},
    'a named pipe': {fault: /no regular file/, make: spool => void execFileSync('mkfifo', [join(spool, 'x.json')])},
    'a file of 1 GB': {fault: /too large \(1073741824/, make: (_, put) => truncateSync(put('x.json'), 1_073_741_824)},
    'an empty file': {fault: /not JSON/, make: (_, put) => void put('x.json', '')},
    'half a request': {fault: /not JSON/, make: (_, put) => void put('x.json', '{"version":1,"ap')},
    'bytes': {fault: /not JSON/, make: (_, put) => void put('x.json', '\0\xff\x1b[2J')},
    'JSON that is no request': {fault: /not a request/, make: (_, put) => void put('x.json', '[1]')},
    'null': {fault: /not a request/, make: (_, put) => void put('x.json', 'null')},
    'a request of another version': {fault: /version 1/, make: (_, put) => void put('x.json', request({version: 2}))},
    'a request for another application': {fault: /another application/, make: (_, put) => void put('x.json', request({app: 'other'}))},
    'a file without the name of one': {fault: /name of a request/, make: (_, put) => void put('x.txt')},
    'a name with control characters': {fault: /name of a request/, make: (_, put) => void put('\x1b[31m\n.json')},
  };
  for (const [name, {fault, make}] of Object.entries(cases)) {
    test(name, t => {
      const {stateDir, spool, put} = makeSpool(t);
      make(spool, put);
      put('good.json');
      const {requests, junk} = readSpool(stateDir, 'osyw');
      assert.deepEqual(requests.map(({file}) => file), ['good.json']);
      assert.equal(junk.length, 1);
      assert.match(junk[0]?.fault ?? '', fault);
      const told = clearSpool(stateDir, 'osyw');
      assert.equal(told.length, 1);
      assert.match(told[0] ?? '', /set aside in/);
      assert.doesNotMatch(told[0] ?? '', /[\x00-\x1f]/);
      assert.deepEqual(readdirSync(spool).filter(one => !one.startsWith('.')), ['good.json']);
      assert.equal(readdirSync(join(stateDir, 'set-aside')).length, 1);
      assert.deepEqual(clearSpool(stateDir, 'osyw'), []);
    });
  }

  test('a socket', async t => {
    const {stateDir, spool} = makeSpool(t);
    const server = createServer().listen(join(spool, 'x.json'));
    await new Promise(resolve => server.once('listening', resolve));
    t.after(() => server.close());
    assert.match(readSpool(stateDir, 'osyw').junk[0]?.fault ?? '', /cannot be opened|no regular file/);
    assert.equal(clearSpool(stateDir, 'osyw').length, 1);
    assert.ok(isEmpty(stateDir));
  });

  test('a file of an account that may not write there', {skip: !root && 'needs root'}, t => {
    const {stateDir, put} = makeSpool(t, 0o700);
    chownSync(put('1.json'), NOBODY, NOBODY);
    assert.match(readSpool(stateDir, 'osyw').junk[0]?.fault ?? '', /another account \(uid 65534\)/);
  });
});

describe('the spool', () => {
  test('that is not there is an empty one', t => {
    const stateDir = makeTempDir();
    t.after(() => removeTempDir(stateDir));
    assert.deepEqual(readSpool(stateDir, 'osyw'), {requests: [], junk: []});
    assert.ok(isEmpty(stateDir));
    assert.deepEqual(clearSpool(stateDir, 'osyw'), []);
  });

  test('may hold any number: the oldest thousand are taken at once, and the rest the next time', t => {
    const {stateDir, put} = makeSpool(t);
    for (let n = 0; n < 1200; n++) put(`${n}.json`);
    const {requests} = readSpool(stateDir, 'osyw');
    assert.equal(requests.length, 1000);
    unfile(stateDir, requests);
    assert.equal(readSpool(stateDir, 'osyw').requests.length, 200);
  });

  test('is not hidden behind what is unfinished', t => {
    const {stateDir, put} = makeSpool(t);
    for (let n = 0; n < 10_050; n++) put(`.${n}`, '');
    put('last.json');
    assert.ok(!isEmpty(stateDir));
    assert.deepEqual(readSpool(stateDir, 'osyw').requests.map(({file}) => file), ['last.json']);
  });

  test('is cleared of names that are no text, or too long for a longer one, and of directories when there is no more room', t => {
    const {stateDir, spool, put} = makeSpool(t);
    writeFileSync(Buffer.concat([Buffer.from(`${spool}/`), Buffer.from([0xff, 0xfe, 0x78])]), '');
    put('ü'.repeat(125));
    assert.equal(clearSpool(stateDir, 'osyw').filter(text => /set aside in/.test(text)).length, 2);
    assert.ok(isEmpty(stateDir));
    for (let n = 0; n < 110; n++) mkdirSync(join(spool, `d${n}`));
    clearSpool(stateDir, 'osyw');
    assert.ok(isEmpty(stateDir));
  });

  test('what is set aside does not fill the disk', t => {
    const {stateDir, put} = makeSpool(t);
    for (let n = 0; n < 120; n++) put(`${n}.txt`);
    const told = clearSpool(stateDir, 'osyw');
    assert.equal(told.filter(text => /was removed/.test(text)).length, 20);
    assert.equal(readdirSync(join(stateDir, 'set-aside')).length, 100);
    assert.ok(isEmpty(stateDir));
  });

  test('keeps what is unfinished for an hour', t => {
    const {stateDir, put} = makeSpool(t);
    put('.young');
    clearSpool(stateDir, 'osyw');
    assert.ok(existsSync(join(stateDir, 'spool', '.young')));
    t.mock.timers.enable({apis: ['Date'], now: Date.now() + 3_700_000});
    clearSpool(stateDir, 'osyw');
    assert.ok(!existsSync(join(stateDir, 'spool', '.young')));
  });
});

describe('the place of who waits', () => {
  test('is one', t => {
    const {stateDir} = makeSpool(t);
    const place = takeWaitingPlace(stateDir);
    assert.ok(place);
    place.leave();
    const next = takeWaitingPlace(stateDir);
    assert.ok(next);
    next.leave();
    assert.equal(lstatSync(join(stateDir, 'waiting')).mode & 0o777, 0o600);
    assert.equal(readFileSync(join(stateDir, 'waiting'), 'utf8'), '');
  });

  test('of another process is taken', t => {
    const {stateDir} = makeSpool(t);
    // flock(1) holds it as long as the command below runs, and that is as long as we look.
    const seen = execFileSync('flock', ['--nonblock', '--no-fork', join(stateDir, 'waiting'), process.execPath, '--import', 'tsx', '--input-type=module', '-e',
      `import {takeWaitingPlace} from ${JSON.stringify(join(import.meta.dirname, '../../../src/trigger/waiting-place.ts'))};
       import {spawnSync} from 'node:child_process';
       const other = () => spawnSync('flock', ['--nonblock', ${JSON.stringify(join(stateDir, 'waiting'))}, 'true']).status;
       const before = other(); const place = takeWaitingPlace(${JSON.stringify(stateDir)}); const held = other(); place?.leave(); console.log(before, held, other());`], {encoding: 'utf8'});
    assert.equal(seen.trim(), '1 1 0', 'inherited, held, and free when we leave it');
  });
});
