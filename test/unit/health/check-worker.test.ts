import assert from 'node:assert/strict';
import {once} from 'node:events';
import {createServer, type Socket} from 'node:net';
import {describe, test, type TestContext} from 'node:test';
import type {Config} from '../../../src/config/config.ts';
import {parseConfig} from '../../../src/config/load-config.ts';
import type {Release} from '../../../src/deploy/deployment.ts';
import {checkWorker, repeatCheck, type CheckResult} from '../../../src/health/check-worker.ts';
import {ENV, FILE, MINIMAL} from '../config/config-text.ts';

const RELEASE: Release = {id: '000001', revision: 'r1', dir: '/'};
const TIMEOUT_MS = 400;
/** A check that takes longer has a bound of its own. */
const AT_MOST_MS = 5000;

function configured(check: string): Config {
  return parseConfig(`${MINIMAL}check:\n  timeout: ${TIMEOUT_MS}ms\n  interval: 10ms\n${check}`, FILE, ENV);
}

/** What a check says of a server that does `answer` with every connection that has sent its request; how long it took. */
async function checked(t: TestContext, answer: (socket: Socket) => void, check = '  http: /healthz\n'): Promise<{result: CheckResult; ms: number}> {
  const server = createServer(socket => {
    socket.on('error', () => {}).once('data', () => answer(socket));
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  t.after(() => server.close());
  const address = server.address();
  assert.ok(typeof address === 'object' && address !== null);
  const began = performance.now();
  const result = await checkWorker(configured(check), RELEASE, address.port, new AbortController().signal);
  const ms = performance.now() - began;
  assert.ok(ms < AT_MOST_MS, `it took ${ms} ms`);
  return {result, ms};
}

function head(status: string, ...more: readonly string[]): string {
  return `HTTP/1.1 ${status}\r\n${more.map(line => `${line}\r\n`).join('')}\r\n`;
}

/** Writes as fast as it is read, and never ends by itself. */
function flood(socket: Socket): void {
  const chunk = Buffer.alloc(65_536, 'x');
  const more = (): void => {
    while (!socket.destroyed && socket.write(chunk));
  };
  socket.on('drain', more);
  more();
}

describe('no worker is taken for healthy that answers', () => {
  const answers: readonly (readonly [string, (socket: Socket) => void, RegExp])[] = [
    ['a redirect, wherever it leads', socket => socket.end(head('302 Found', 'Location: /elsewhere', 'Content-Length: 0')), /status 302, expected 200/],
    ['success of another kind', socket => socket.end(head('204 No Content')), /status 204, expected 200/],
    ['what is no HTTP', socket => socket.end('SSH-2.0-OpenSSH_9.2\r\n'), /./],
    ['nothing, and closes', socket => socket.end(), /./],
    ['half an answer, and closes', socket => socket.end(`${head('200 OK', 'Content-Length: 100')}half`), /./],
    ['a reset', socket => socket.resetAndDestroy(), /./],
    ['a length that is none', socket => socket.end(`${head('200 OK', 'Content-Length: -7')}ok`), /./],
    ['interim answers without an end', socket => {
      const timer = setInterval(() => socket.write(head('102 Processing')), 5);
      socket.once('close', () => clearInterval(timer));
    }, /no complete answer within/],
    ['one byte at a time', socket => {
      socket.write(head('200 OK', 'Content-Length: 1000'));
      const timer = setInterval(() => socket.write('x'), 20);
      socket.once('close', () => clearInterval(timer));
    }, /no complete answer within/],
    ['headers without an end', socket => {
      socket.write('HTTP/1.1 200 OK\r\n');
      flood(socket);
    }, /./],
  ];
  for (const [what, answer, says] of answers) {
    test(what, async t => {
      const {result} = await checked(t, answer);
      assert.ok(!result.good);
      assert.match(result.saw, says);
      assert.ok(result.listens, 'somebody listens there');
    });
  }
});

test('a body without an end is judged by its beginning, and not waited for', async t => {
  let sent = 0;
  const answer = (socket: Socket): void => {
    socket.write(`${head('200 OK')}all is well\n`);
    flood(socket);
    socket.once('close', () => (sent = socket.bytesWritten));
  };
  const {result, ms} = await checked(t, answer, '  http: /healthz\n  body: "^all is well"\n');
  assert.deepEqual(result, {good: true, answer: {status: 200, location: undefined}});
  assert.ok(ms < TIMEOUT_MS, `it took ${ms} ms`);
  const {result: other} = await checked(t, answer, '  http: /healthz\n  body: "^all is lost"\n');
  assert.ok(!other.good && other.saw.length < 1000, 'what is told of it is short');
  assert.ok(sent < 32 << 20, `${sent} bytes were read`);
});

test('the statuses that count are those of the configuration', async t => {
  const {result} = await checked(t, socket => socket.end(head('204 No Content')), '  http: /healthz\n  status: [200, 204]\n');
  assert.deepEqual(result, {good: true, answer: {status: 204, location: undefined}});
});

test('the line that repeats a check shows no value of a header that may be a secret', () => {
  const {check} = configured('  http: /healthz\n  host: www.example.org\n  headers: {Authorization: Bearer SECRET1, Cookie: sid=SECRET2, X-Tenant: SECRET3, X-Forwarded-Access-Token: SECRET4, X-Forwarded-Proto: https, Accept-Language: de}\n');
  assert.equal(repeatCheck(check, '127.0.0.1', 8811), "curl -i -H 'Host: www.example.org' -H 'Authorization: …' -H 'Cookie: …' -H 'X-Tenant: …' -H 'X-Forwarded-Access-Token: …' -H 'X-Forwarded-Proto: https' -H 'Accept-Language: de' http://127.0.0.1:8811/healthz");
});
