import assert from 'node:assert/strict';
import {spawn} from 'node:child_process';
import {createHmac, randomBytes, randomUUID} from 'node:crypto';
import {once} from 'node:events';
import {chmodSync, existsSync, lstatSync, mkdirSync, readFileSync, renameSync, statSync, symlinkSync, writeFileSync} from 'node:fs';
import {request as httpRequest, type IncomingHttpHeaders} from 'node:http';
import {connect, createServer, type Socket} from 'node:net';
import {dirname, join} from 'node:path';
import {gzipSync} from 'node:zlib';
import {describe, test, type TestContext} from 'node:test';
import type {WebhookConfig} from '../../src/config/config.ts';
import {DeployError} from '../../src/errors.ts';
import {findGroup} from '../../src/support/groups.ts';
import {openWebhook, type WebhookOptions} from '../../src/trigger/webhook.ts';
import {leasePorts} from '../support/free-ports.ts';
import {NGINX, startNginx} from '../support/nginx-rig.ts';
import {endChild, run} from '../support/run.ts';
import {makeTempDir, removeTempDir} from '../support/temp-dir.ts';
import {waitUntil} from '../support/wait-until.ts';

const root = process.getuid?.() === 0;
const NOBODY = 65_534;
const webGroup = findGroup('www-data') ?? findGroup('nogroup');

const SECRET = 'correct horse battery staple';
const OLD_SECRET = 'the one of before, not yet forgotten';
const KEY = Buffer.alloc(32, 0x5e);
const SIGNING_TOKEN = `whsec_${KEY.toString('base64')}`;
const COMMIT = '6dcb09b5b57875f334f61aebed695e2e4193db5e';
const NOTHING = '0'.repeat(40);

interface Rig {
  readonly socket: string;
  readonly stateDir: string;
  readonly secretFile: string;
  readonly looks: string[];
  readonly reports: string[];
  close(): Promise<void>;
  /** Closes and opens again, as a restart does. */
  restart(): Promise<void>;
}

async function openRig(t: TestContext, options: Partial<WebhookOptions> & {secrets?: string} = {}): Promise<Rig> {
  const dir = makeTempDir();
  t.after(() => removeTempDir(dir));
  const secretFile = join(dir, 'secret');
  writeFileSync(secretFile, options.secrets ?? `${SECRET}\n`, {mode: 0o600});
  const socket = join(dir, 'run', 'webhook.sock');
  const stateDir = join(dir, 'state');
  mkdirSync(stateDir);
  const looks: string[] = [];
  const reports: string[] = [];
  const whole: WebhookOptions = {
    listen: {unix: socket, mode: 0o660, group: undefined}, path: '/hook', secretFile, maxBodyBytes: 65_536, rate: {count: 60, perMs: 60_000},
    stateDir, branch: 'main', ...options, limits: {gatherMs: 0, ...options.limits},
  };
  const open = () => openWebhook(whole, from => looks.push(from), text => reports.push(text));
  let webhook = await open();
  t.after(() => webhook.close());
  t.after(() => assert.doesNotMatch(reports.join('\n'), /correct horse|of before, not|whsec_|Xl5e|sha256=/, 'a secret in the log'));
  return {
    socket, stateDir, secretFile, looks, reports,
    close: () => webhook.close(),
    restart: async () => {
      await webhook.close();
      webhook = await open();
    },
  };
}

type Fields = Readonly<Record<string, string | readonly string[]>>;

interface Said {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

function post({socket}: Pick<Rig, 'socket'>, body: string | Buffer, headers: Fields, {path = '/hook', method = 'POST'} = {}): Promise<Said> {
  return new Promise((resolve, reject) => {
    const request = httpRequest({socketPath: socket, path, method, headers: {...headers, 'content-length': Buffer.byteLength(body)}, agent: false}, response => {
      const parts: Buffer[] = [];
      response.on('data', (part: Buffer) => parts.push(part));
      response.on('end', () => resolve({status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(parts).toString()}));
    });
    request.on('error', reject);
    // Together with a text Node would write the header in UTF-8.
    request.end(Buffer.from(body));
  });
}

const hex = (body: string | Buffer, secret = SECRET) => createHmac('sha256', secret).update(body).digest('hex');
const push = (more: object = {}) => JSON.stringify({ref: 'refs/heads/main', before: NOTHING, after: COMMIT, repository: {full_name: 'osyw/shop'}, ...more});
const github = (body: string | Buffer, more: Fields = {}): Fields =>
  ({'content-type': 'application/json', 'x-github-event': 'push', 'x-github-delivery': randomUUID(), 'x-hub-signature-256': `sha256=${hex(body)}`, ...more});

/** Everything that comes until the other side closes, with what of `parts` was taken by then. */
async function talk({socket}: Pick<Rig, 'socket'>, ...parts: readonly (string | Buffer)[]): Promise<string> {
  const client = connect(socket);
  const all = heard(client);
  for (const part of parts) client.write(part);
  return all;
}

function heard(client: Socket): Promise<string> {
  return new Promise(resolve => {
    let text = '';
    client.on('data', (part: Buffer) => {
      text += part.toString('latin1');
    });
    // What was closed on cannot be written to; what counts is what was heard before.
    client.on('error', () => undefined);
    client.on('close', () => resolve(text));
  });
}

const head = (lines: readonly string[], first = 'POST /hook HTTP/1.1') => [first, 'Host: x', ...lines, '', ''].join('\r\n');
const signed = (body: string, id: string = randomUUID()) => [`X-Hub-Signature-256: sha256=${hex(body)}`, 'X-GitHub-Event: push', `X-GitHub-Delivery: ${id}`];
const statuses = (text: string) => [...text.matchAll(/^HTTP\/1\.1 (\d{3}) /gm)].map(([, status]) => Number(status));

/** Signed by a program that shares nothing with what is tested. */
async function openssl(message: string, key: readonly string[], binary = false): Promise<string> {
  if (!binary) return (await run('openssl', ['dgst', '-sha256', ...key, '-hex'], {input: message})).trim().replace(/^.*= /, '');
  return (await run('sh', ['-c', 'openssl dgst -sha256 "$@" -binary | openssl base64 -A', 'sh', ...key], {input: message})).trim();
}

describe('what a forge sends is a look', () => {
  const body = push({head_commit: {message: 'Größer & <b>', timestamp: '2026-11-23T02:11:00+01:00'}});

  test('GitHub', async t => {
    const rig = await openRig(t);
    const {status, headers, body: said} = await post(rig, body, {
      'user-agent': 'GitHub-Hookshot/044aadd', 'content-type': 'application/json', 'x-github-event': 'push', 'x-github-hook-id': '292430182',
      'x-github-delivery': '72d3162e-cc78-11e3-81ab-4c9367dc0958', 'x-github-hook-installation-target-type': 'repository', 'x-hub-signature': 'sha1=7d38cdd689735b008b3c702edd92eea23791c5f6',
      'x-hub-signature-256': `sha256=${await openssl(body, ['-hmac', SECRET])}`,
    });
    assert.deepEqual([status, said, headers['connection']], [202, 'Accepted\n', 'close']);
    assert.deepEqual(rig.looks, ['github']);
    assert.match(rig.reports.join('\n'), /a delivery of github \(72d3162e-cc78-11e3-81ab-4c9367dc0958\)/);
  });

  test('GitHub, as a form', async t => {
    const rig = await openRig(t);
    const form = new URLSearchParams({payload: body}).toString();
    assert.equal((await post(rig, form, {...github(form), 'content-type': 'application/x-www-form-urlencoded', 'x-hub-signature-256': `sha256=${await openssl(form, ['-hmac', SECRET])}`})).status, 202);
    assert.deepEqual(rig.looks, ['github']);
  });

  for (const forge of ['Gitea', 'Forgejo'] as const) {
    test(forge, async t => {
      const rig = await openRig(t);
      const [signature, id] = [await openssl(body, ['-hmac', SECRET]), randomUUID()];
      const own = (name: string) => ({[`X-${name}-Delivery`]: id, [`X-${name}-Event`]: 'push', [`X-${name}-Event-Type`]: 'push'});
      assert.equal((await post(rig, body, {
        'content-type': 'application/json', ...(forge === 'Forgejo' ? {...own('Forgejo'), 'X-Forgejo-Signature': signature} : {}), ...own('Gitea'), ...own('Gogs'), ...own('GitHub'),
        'X-Gitea-Signature': signature, 'X-Gogs-Signature': signature, 'X-Hub-Signature': 'sha1=57920710b7619b11df90c4ae237f0f53d77a8f54', 'X-Hub-Signature-256': `sha256=${signature}`,
      })).status, 202);
      assert.deepEqual(rig.looks, [forge.toLowerCase()]);
    });
    test(`${forge}, with nothing but its own signature`, async t => {
      const rig = await openRig(t);
      assert.equal((await post(rig, body, {[`X-${forge}-Signature`]: await openssl(body, ['-hmac', SECRET])})).status, 202);
    });
  }

  const gitlab = {'user-agent': 'GitLab/17.5.1', 'content-type': 'application/json', 'x-gitlab-event': 'Push Hook', 'x-gitlab-instance': 'https://gitlab.example.org', 'x-gitlab-webhook-uuid': randomUUID()};

  test('GitLab, with a secret token', async t => {
    const rig = await openRig(t, {secrets: 'größer als ASCII ist es\n'});
    const token = Buffer.from('größer als ASCII ist es').toString('latin1');
    const now = {'webhook-id': randomUUID(), 'webhook-timestamp': '1'};
    assert.equal((await post(rig, body, {...gitlab, ...now, 'x-gitlab-event-uuid': randomUUID(), 'x-gitlab-token': token})).status, 202, 'what is not signed has no time');
    assert.equal((await post(rig, body, {...gitlab, 'x-gitlab-token': `${token}x`})).status, 401);
    assert.equal((await post(rig, body, {...gitlab, 'x-gitlab-token': token.slice(0, -1)})).status, 401);
    assert.equal((await post(rig, body, {...gitlab, 'x-gitlab-token': ''})).status, 401);
    assert.equal((await post(rig, body, {...gitlab, 'x-gitlab-token': [token, token]})).status, 401);
    assert.deepEqual(rig.looks, ['gitlab']);
  });

  test('GitLab, with a signing token', async t => {
    const rig = await openRig(t, {secrets: `${SIGNING_TOKEN}\n`});
    const [id, now] = [randomUUID(), Math.floor(Date.now() / 1000)];
    const sign = async (of: {id?: string; timestamp?: string; body?: string} = {}) =>
      `v1,${await openssl(`${of.id ?? id}.${of.timestamp ?? now}.${of.body ?? body}`, ['-mac', 'HMAC', '-macopt', `hexkey:${KEY.toString('hex')}`], true)}`;
    const send = (more: Fields, of = body) => post(rig, of, {...gitlab, 'idempotency-key': id, 'webhook-id': id, 'webhook-timestamp': String(now), ...more});
    const signature = await sign();
    for (const [what, headers, of] of [
      ['another body', {'webhook-signature': signature}, push({x: 1})],
      ['another id', {'webhook-signature': signature, 'webhook-id': randomUUID()}],
      ['another time', {'webhook-signature': signature, 'webhook-timestamp': String(now + 1)}],
      ['an old time', {'webhook-signature': await sign({timestamp: String(now - 400)}), 'webhook-timestamp': String(now - 400)}],
      ['a time to come', {'webhook-signature': await sign({timestamp: String(now + 400)}), 'webhook-timestamp': String(now + 400)}],
      ['no time', {'webhook-signature': await sign({timestamp: 'now'}), 'webhook-timestamp': 'now'}],
      ['two times', {'webhook-signature': signature, 'webhook-timestamp': [String(now), String(now)]}],
      ['a dot in the id', {'webhook-signature': await sign({id: 'a.b'}), 'webhook-id': 'a.b'}],
      ['a later version', {'webhook-signature': signature.replace('v1,', 'v1a,')}],
      ['no padding', {'webhook-signature': signature.replace('=', '')}],
      ['two headers', {'webhook-signature': [signature, signature]}],
      ['the right one as the ninth', {'webhook-signature': `${'v1,x '.repeat(8)}${signature}`}],
      ['nothing', {'webhook-signature': ''}],
      ['a bad signature beside the right token', {'webhook-signature': 'v1,x', 'x-gitlab-token': SIGNING_TOKEN}],
    ] as const) assert.equal((await send(headers, of)).status, 401, what);
    assert.deepEqual(rig.looks, []);
    assert.equal((await send({'webhook-signature': `v1a,${'A'.repeat(43)}= v1,${'A'.repeat(43)}= ${signature}`, 'x-gitlab-token': 'the token of before'})).status, 202);
    assert.deepEqual(rig.looks, ['gitlab']);
  });
});

describe('what is not signed', () => {
  const body = push();
  const right = `sha256=${hex(body)}`;
  const cases: readonly (readonly [string, Fields, (string | Buffer)?])[] = [
    ['no signature', {}],
    ['the wrong secret', {'x-hub-signature-256': `sha256=${hex(body, OLD_SECRET)}`}],
    ['SHA-1', {'x-hub-signature': `sha1=${createHmac('sha1', SECRET).update(body).digest('hex')}`}],
    ['SHA-1 in the place of SHA-256', {'x-hub-signature-256': `sha1=${createHmac('sha1', SECRET).update(body).digest('hex')}`}],
    ['an empty signature', {'x-hub-signature-256': ''}],
    ['nothing behind sha256=', {'x-hub-signature-256': 'sha256='}],
    ['a short one', {'x-hub-signature-256': right.slice(0, -2)}],
    ['a long one', {'x-hub-signature-256': `${right}00`}],
    ['one of 8000 characters', {'x-hub-signature-256': `sha256=${'a'.repeat(7000)}`}],
    ['upper case', {'x-hub-signature-256': `sha256=${hex(body).toUpperCase()}`}],
    ['no hex', {'x-hub-signature-256': `sha256=${'g'.repeat(64)}`}],
    ['two headers, both right', {'x-hub-signature-256': [right, right]}],
    ['two headers, one right', {'x-hub-signature-256': [right, `sha256=${'0'.repeat(64)}`]}],
    ['two in one header', {'x-hub-signature-256': `${right}, ${right}`}],
    ['GitHub\'s form at Gitea\'s place', {'x-gitea-signature': right}],
    ['a wrong one beside a right one', {'x-hub-signature-256': right, 'x-gitea-signature': '0'.repeat(64)}],
    ['an empty one beside a right one', {'x-hub-signature-256': right, 'x-forgejo-signature': ''}],
    ['a wrong one beside the right token', {'x-hub-signature-256': `sha256=${'0'.repeat(64)}`, 'x-gitlab-token': SECRET}],
    ['a token that is a part of the secret', {'x-gitlab-token': SECRET.slice(0, -1)}],
    ['the signature as a token', {'x-gitlab-token': hex(body)}],
    ['the body written anew', {'x-hub-signature-256': right}, JSON.stringify(JSON.parse(body), null, 1)],
    ['the body with a newline', {'x-hub-signature-256': right}, `${body}\n`],
    ['no body', {'x-hub-signature-256': right}, ''],
    ['__proto__', {'__proto__-x': right, constructor: right}],
  ];

  test('gets one and the same answer, and no look', async t => {
    const rig = await openRig(t);
    const answers = [];
    for (const [what, headers, of] of cases) {
      const {headers: {date: _date, ...own}, ...said} = await post(rig, of ?? body, {...github(body, {'x-hub-signature-256': []}), ...headers});
      answers.push({...said, own});
      assert.equal(said.status, 401, what);
    }
    for (const answer of answers) assert.deepEqual(answer, answers[0]);
    assert.deepEqual(answers[0], {status: 401, body: 'Unauthorized\n', own: {'content-type': 'text/plain', 'content-length': '13', connection: 'close'}});
    assert.deepEqual(rig.looks, []);
    assert.equal(existsSync(join(rig.stateDir, 'deliveries')), false, 'nothing of them is remembered');
  });

  test('is told apart from no more than so often, and does not keep what is signed away', async t => {
    const rig = await openRig(t);
    const said: Said[] = [];
    for (let i = 0; i < 40; i++) said.push(await post(rig, body, github(body, {'x-hub-signature-256': `sha256=${'0'.repeat(64)}`})));
    assert.deepEqual(said.map(({status}) => status), [...Array<number>(30).fill(401), ...Array<number>(10).fill(429)]);
    assert.match(said.at(-1)?.headers['retry-after'] ?? '', /^[12]$/);
    assert.equal(rig.reports.length, 30);
    assert.equal((await post(rig, body, github(body))).status, 202);
    assert.deepEqual(rig.looks, ['github']);
  });
});

describe('two secrets', () => {
  const body = push();
  const under = (secret: string) => github(body, {'x-hub-signature-256': `sha256=${hex(body, secret)}`});

  test('are both taken, and a third one is not', async t => {
    const rig = await openRig(t, {secrets: `${SECRET}\n${OLD_SECRET}\n`});
    assert.deepEqual([(await post(rig, body, under(SECRET))).status, (await post(rig, body, under(OLD_SECRET))).status, (await post(rig, body, under(`${SECRET}\n${OLD_SECRET}`))).status], [202, 202, 401]);
  });

  test('are changed in the file, without a restart', async t => {
    const rig = await openRig(t, {secrets: `${OLD_SECRET}\n`});
    assert.equal((await post(rig, body, under(SECRET))).status, 401);
    writeFileSync(rig.secretFile, `${SECRET}\n${OLD_SECRET}\n`);
    assert.deepEqual([(await post(rig, body, under(SECRET))).status, (await post(rig, body, under(OLD_SECRET))).status], [202, 202]);
    writeFileSync(`${rig.secretFile}.new`, `${SECRET}\n`, {mode: 0o600});
    renameSync(`${rig.secretFile}.new`, rig.secretFile);
    assert.deepEqual([(await post(rig, body, under(SECRET))).status, (await post(rig, body, under(OLD_SECRET))).status], [202, 401]);
    assert.equal(rig.reports.filter(text => text === 'the secrets of the webhook were read again').length, 2);
  });

  test('are those of before while the file cannot be used', async t => {
    const rig = await openRig(t);
    chmodSync(rig.secretFile, 0o644);
    assert.equal((await post(rig, body, under(SECRET))).status, 202);
    writeFileSync(rig.secretFile, 'short');
    chmodSync(rig.secretFile, 0o600);
    assert.equal((await post(rig, body, under(SECRET))).status, 202);
    assert.equal(rig.reports.filter(text => /secret_file .*(?:others can use|5 characters).*; those of before are used on$/.test(text)).length, 2);
  });

  for (const [what, spoil] of [
    ['others can read', (path: string) => chmodSync(path, 0o640)],
    ['is not there', (path: string) => renameSync(path, `${path}.gone`)],
    ['is empty', (path: string) => writeFileSync(path, '')],
  ] as const) {
    test(`a file that ${what} is refused at the start`, async t => {
      const rig = await openRig(t);
      spoil(rig.secretFile);
      await assert.rejects(rig.restart(), (error: unknown) => error instanceof DeployError && error.code === 'CONFIG_INVALID' && !error.message.includes(SECRET));
      assert.equal(existsSync(rig.socket), false, 'nothing listens');
    });
  }
});

describe('a delivery says no more than "look"', () => {
  for (const [what, event, payload, status] of [
    ['a push to our branch', 'push', {}, 202],
    ['a push of a foreign repository', 'push', {repository: {full_name: 'evil/fork', clone_url: 'ext::sh -c id'}}, 202],
    ['a push without a ref', 'push', {ref: undefined}, 202],
    ['a push with a ref that is none', 'push', {ref: {x: 1}}, 202],
    ['a push with a bare name', 'push', {ref: 'other'}, 202],
    ['a push to another branch', 'push', {ref: 'refs/heads/other'}, 204],
    ['a push to a branch of a longer name', 'push', {ref: 'refs/heads/main/x'}, 204],
    ['a push of our branch in capitals', 'push', {ref: 'refs/heads/MAIN'}, 204],
    ['a tag', 'push', {ref: 'refs/tags/main'}, 204],
    ['a pull request as a ref', 'push', {ref: 'refs/pull/7/head'}, 204],
    ['a deleted branch', 'push', {after: NOTHING, deleted: true}, 204],
    ['a deleted branch, by its commit', 'push', {after: NOTHING}, 204],
    ['a ping', 'ping', {zen: 'Design for failure.'}, 204],
    ['a pull request', 'pull_request', {action: 'opened'}, 204],
    ['an event that nobody knows', 'constructor', {}, 204],
    ['GitLab\'s tag', 'Tag Push Hook', {ref: 'refs/heads/main'}, 204],
    ['GitLab\'s hook for all, of a push', 'System Hook', {object_kind: 'push'}, 202],
    ['GitLab\'s hook for all, of a tag', 'System Hook', {event_name: 'tag_push'}, 204],
    ['GitLab\'s hook for all, of what it does not say', 'System Hook', {}, 202],
  ] as const) {
    test(`${what}: ${status}`, async t => {
      const rig = await openRig(t);
      const body = push(payload);
      const said = await post(rig, body, github(body, {'x-github-event': event}));
      assert.deepEqual([said.status, said.body], [status, status === 204 ? '' : 'Accepted\n']);
      assert.deepEqual(rig.looks, status === 204 ? [] : ['github']);
    });
  }

  test('without an event or an id it is a look each time', async t => {
    const rig = await openRig(t);
    for (let i = 0; i < 2; i++) assert.equal((await post(rig, '{}', {'x-gitlab-token': SECRET})).status, 202);
    assert.deepEqual(rig.looks, ['webhook', 'webhook']);
  });

  test('where the branch is not known every branch counts, and no tag', async t => {
    const rig = await openRig(t, {branch: undefined});
    const send = async (ref: string) => (await post(rig, push({ref}), github(push({ref})))).status;
    assert.deepEqual([await send('refs/heads/any'), await send('refs/tags/any')], [202, 204]);
  });

  for (const [what, body, headers] of [
    ['no body', '', {}], ['half JSON', push().slice(0, -1), {}], ['null', 'null', {}], ['an array', '[]', {}], ['a number', '1', {}], ['two JSONs', '{}{}', {}],
    ['a form without a payload', 'payload=', {}], ['bytes', Buffer.from([0xff, 0xfe, 0x7b]), {}], ['NUL', '{}\0', {}], ['gzip', gzipSync('{}'), {}], ['deep nesting', '['.repeat(60_000), {}],
    ['an id with a space', '{}', {'x-github-delivery': 'a b'}], ['an id of 101 characters', '{}', {'x-github-delivery': 'a'.repeat(101)}], ['an id that climbs', '{}', {'x-github-delivery': '../../etc'}],
    ['an empty id', '{}', {'x-github-delivery': ''}], ['two ids', '{}', {'x-github-delivery': ['a', 'b']}], ['two events', '{}', {'x-github-event': ['push', 'ping']}],
  ] as const) {
    test(`signed and malformed: ${what}`, async t => {
      const rig = await openRig(t);
      assert.deepEqual({...await post(rig, body, github(body, headers)), headers: {}}, {status: 400, body: 'Bad Request\n', headers: {}});
      assert.deepEqual(rig.looks, []);
    });
  }
});

describe('a replay', () => {
  test('is accepted and is no second look, after a restart neither', async t => {
    const rig = await openRig(t);
    const body = push();
    const headers = github(body);
    assert.deepEqual([(await post(rig, body, headers)).status, (await post(rig, body, headers)).status], [202, 202]);
    await rig.restart();
    assert.equal((await post(rig, body, headers)).status, 202);
    assert.deepEqual(rig.looks, ['github']);
    assert.equal((await post(rig, body, github(body))).status, 202);
    assert.deepEqual(rig.looks, ['github', 'github'], 'the next one is');
  });

  test('is known by the id of each forge', async t => {
    const rig = await openRig(t);
    for (const name of ['webhook-id', 'x-github-delivery', 'x-gitea-delivery', 'x-forgejo-delivery', 'idempotency-key', 'x-gitlab-event-uuid']) {
      const headers = {'x-gitlab-token': SECRET, [name]: randomUUID()};
      for (let i = 0; i < 2; i++) await post(rig, '{}', headers);
    }
    assert.equal(rig.looks.length, 6);
    // What a hook sets off at GitLab has the event's id, and a key of its own.
    for (let i = 0; i < 2; i++) await post(rig, '{}', {'x-gitlab-token': SECRET, 'x-gitlab-event-uuid': 'one', 'idempotency-key': `key-${i}`});
    assert.equal(rig.looks.length, 8);
  });

  test('is remembered within a bound', async t => {
    const rig = await openRig(t, {rate: {count: 9999, perMs: 1000}});
    writeFileSync(join(rig.stateDir, 'deliveries'), Array.from({length: 5000}, (_, i) => `old-${i}\n`).join(''));
    await rig.restart();
    const send = async (id: string) => (await post(rig, '{}', {'x-gitlab-token': SECRET, 'idempotency-key': id})).status;
    assert.equal(await send('old-4999'), 202);
    assert.equal(rig.looks.length, 0);
    assert.equal(await send('old-0'), 202);
    assert.equal(rig.looks.length, 1);
    const kept = readFileSync(join(rig.stateDir, 'deliveries'), 'utf8').trimEnd().split('\n');
    assert.deepEqual([kept.length, kept.at(-1), statSync(join(rig.stateDir, 'deliveries')).mode & 0o777], [1000, 'old-0', 0o600]);
  });

  for (const [what, spoil] of [
    ['is damaged', (path: string) => writeFileSync(path, randomBytes(3000))],
    ['is a link', (path: string) => symlinkSync('/etc/passwd', path)],
    ['is a directory', (path: string) => mkdirSync(path)],
  ] as const) {
    test(`costs a look where the file ${what}`, async t => {
      const rig = await openRig(t);
      spoil(join(rig.stateDir, 'deliveries'));
      await rig.restart();
      const body = push();
      assert.equal((await post(rig, body, github(body))).status, 202);
      assert.deepEqual(rig.looks, ['github']);
    });
  }

  test('that was not looked at before is looked at', async t => {
    const dir = makeTempDir();
    t.after(() => removeTempDir(dir));
    const rig = await openRig(t, {stateDir: join(dir, 'gone')});
    const body = push();
    const headers = github(body);
    assert.equal((await post(rig, body, headers)).status, 202);
    assert.match(rig.reports.join('\n'), /ids of the webhook's deliveries cannot be written: ENOENT/);
    await post(rig, body, headers);
    assert.equal(rig.looks.length, 1, 'as long as this process lives');
    await rig.restart();
    await post(rig, body, headers);
    assert.equal(rig.looks.length, 2);
  });
});

describe('how often', () => {
  test('a thousand deliveries are a few looks, the last of them after all', async t => {
    const rig = await openRig(t, {rate: {count: 20, perMs: 60_000}, limits: {gatherMs: 300}});
    const began = performance.now();
    const answers: Said[] = [];
    let left = 1000;
    await Promise.all(Array.from({length: 25}, async () => {
      while (left-- > 0) {
        const body = push({n: left});
        answers.push(await post(rig, body, github(body)));
      }
    }));
    const took = performance.now() - began;
    const count = (status: number) => answers.filter(answer => answer.status === status).length;
    const refilled = Math.ceil(took / 3000) + 1;
    assert.equal(answers.length, 1000);
    assert.equal(count(202) + count(429), 1000);
    assert.ok(count(202) >= 20 && count(202) <= 20 + refilled, `${count(202)} accepted in ${took} ms`);
    assert.ok(answers.filter(({status}) => status === 429).every(({headers}) => /^[1-4]$/.test(headers['retry-after'] ?? '')));
    assert.ok(rig.looks.length <= 2 + took / 300, `${rig.looks.length} looks in ${took} ms`);
    assert.ok(rig.reports.length <= 2 * count(202) + 2, 'the log is bounded as well');
    assert.ok(readFileSync(join(rig.stateDir, 'deliveries'), 'utf8').split('\n').length - 1 <= count(202), 'what was refused may come again');
    const before = rig.looks.length;
    await waitUntil('the look that is owed', () => rig.looks.length === before + 1, {withinMs: 8000});
  });

  test('the first look is at once, those meanwhile are one, and one that is owed at the end is made', async t => {
    const rig = await openRig(t, {limits: {gatherMs: 60_000}});
    for (let i = 0; i < 5; i++) assert.equal((await post(rig, push(), github(push()))).status, 202);
    assert.deepEqual(rig.looks, ['github']);
    assert.equal(readFileSync(join(rig.stateDir, 'deliveries'), 'utf8').split('\n').length - 1, 1, 'one that was not looked at may come again after a crash');
    await rig.close();
    assert.deepEqual(rig.looks, ['github', 'github']);
    assert.equal(readFileSync(join(rig.stateDir, 'deliveries'), 'utf8').split('\n').length - 1, 5);
  });

  test('those meanwhile are looked at when the time is over', async t => {
    const rig = await openRig(t, {limits: {gatherMs: 200}});
    for (let i = 0; i < 3; i++) await post(rig, push(), github(push()));
    await waitUntil('the second look', () => rig.looks.length === 2);
  });

  test('what says nothing to look at, and a replay, takes nothing of the rate', async t => {
    const rig = await openRig(t, {rate: {count: 2, perMs: 3_600_000}});
    const ping = push();
    for (let i = 0; i < 5; i++) assert.equal((await post(rig, ping, github(ping, {'x-github-event': 'ping'}))).status, 204);
    const headers = github(ping);
    for (let i = 0; i < 5; i++) assert.equal((await post(rig, ping, headers)).status, 202);
    assert.deepEqual([(await post(rig, ping, github(ping))).status, (await post(rig, ping, github(ping))).status], [202, 429]);
  });
});

describe('what is no delivery', () => {
  const body = push();

  test('has the exact status', async t => {
    const rig = await openRig(t);
    for (const method of ['GET', 'HEAD', 'PUT', 'DELETE', 'OPTIONS', 'TRACE', 'PATCH', 'PROPFIND']) {
      const {status, headers} = await post(rig, '', github(''), {method});
      assert.deepEqual([status, headers['allow']], [405, 'POST'], method);
    }
    for (const path of ['/', '/hook/', '//hook', '/hook?x=1', '/hook?', '/hook/../hook', '/./hook', '/%2e%2e/hook', '/x/%2e%2e/hook', '/%68ook', '/hook%00', '/HOOK', '/hook;a', `/${'a'.repeat(7000)}`]) {
      assert.equal((await post(rig, body, github(body), {path})).status, 404, path);
    }
    assert.deepEqual((await post(rig, gzipSync(body), {...github(gzipSync(body)), 'content-encoding': 'gzip'})).status, 415);
    assert.deepEqual(rig.looks, []);
  });

  test('has the exact status, however it is written', async t => {
    const rig = await openRig(t, {limits: {lingerMs: 100}});
    const length = `Content-Length: ${body.length}`;
    for (const [what, text, status] of [
      ['the absolute form', `${head([...signed(body), length], 'POST http://x/hook HTTP/1.1')}${body}`, 404],
      ['a star', head([], 'OPTIONS * HTTP/1.1'), 404],
      ['a fragment', `${head([...signed(body), length], 'POST /hook#x HTTP/1.1')}${body}`, 404],
      ['a NUL in the path', head([], 'POST /hook\0 HTTP/1.1'), 400],
      ['a space in the path', head([], 'POST /hook x HTTP/1.1'), 400],
      ['garbage', Buffer.from([0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x0d, 0x0a, 0x0d, 0x0a]), 400],
      ['HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 400],
      ['no Host', 'POST /hook HTTP/1.1\r\nContent-Length: 0\r\n\r\n', 400],
      ['both framings', `${head([...signed(body), length, 'Transfer-Encoding: chunked'])}${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`, 400],
      ['two lengths', `${head([...signed(body), length, 'Content-Length: 1'])}${body}`, 400],
      ['a negative length', head(['Content-Length: -1']), 400],
      ['a length with a sign', `${head([...signed(body), `Content-Length: +${body.length}`])}${body}`, 400],
      ['an unknown coding', `${head([...signed(body), 'Transfer-Encoding: gzip'])}`, 400],
      ['a folded header', head(['X-A: b', ' c', 'Content-Length: 0']), 400],
      ['bad chunks', `${head([...signed(body), 'Transfer-Encoding: chunked'])}zz\r\n`, 400],
      ['64 KB of path', head([], `POST /${'a'.repeat(65_536)} HTTP/1.1`), 431],
      ['64 KB of header', head([`X-A: ${'a'.repeat(65_536)}`]), 431],
      ['an expectation of something else', head(['Expect: a-miracle', 'Content-Length: 0']), 417],
      ['no body where none is announced', head(signed(body)), 401],
    ] as const) assert.deepEqual(statuses(await talk(rig, text)), [status], what);
    assert.equal(await talk(rig, head([], 'CONNECT example.org:443 HTTP/1.1')), '', 'nobody is connected further');
    assert.deepEqual(rig.looks, []);
    assert.equal((await post(rig, body, github(body))).status, 202, 'it is still there');
  });

  test('the body may come in chunks, byte by byte, or by HTTP/1.0', async t => {
    const rig = await openRig(t, {limits: {lingerMs: 100}});
    const chunks = body.split('').map(letter => `1\r\n${letter}\r\n`);
    assert.deepEqual(statuses(await talk(rig, head([...signed(body), 'Transfer-Encoding: chunked']), ...chunks, '0\r\n\r\n')), [202]);
    assert.deepEqual(statuses(await talk(rig, ...(head([...signed(body), `Content-Length: ${body.length}`]) + body).split(''))), [202]);
    assert.deepEqual(statuses(await talk(rig, head([...signed(body), `Content-Length: ${body.length}`], 'POST /hook HTTP/1.0'), body)), [202]);
    assert.equal(rig.looks.length, 3);
  });

  test('a second request on the same connection is not looked at', async t => {
    const rig = await openRig(t, {limits: {lingerMs: 100}});
    const one = () => `${head([...signed(body), `Content-Length: ${body.length}`])}${body}`;
    const text = await talk(rig, one() + one() + one());
    assert.deepEqual(statuses(text), [202, 503, 503]);
    assert.match(text, /^Connection: close$/im);
    assert.equal(rig.looks.length, 1);
    assert.deepEqual(statuses(await talk(rig, `${one()}GET /admin HTTP/1.1\r\n`))[0], 202);
  });

  test('Expect: 100-continue is answered before the body is asked for', async t => {
    const rig = await openRig(t, {limits: {lingerMs: 100}});
    const expect = (length: number) => [...signed(body), `Content-Length: ${length}`, 'Expect: 100-continue'];
    const client = connect(rig.socket);
    const all = heard(client);
    client.write(head(expect(body.length)));
    const [first] = await once(client, 'data') as [Buffer];
    assert.deepEqual(statuses(first.toString()), [100]);
    client.write(body);
    assert.deepEqual(statuses(await all), [100, 202]);
    assert.deepEqual(statuses(await talk(rig, head(expect(body.length), 'POST /other HTTP/1.1'))), [404]);
    assert.deepEqual(statuses(await talk(rig, head(expect(2 ** 30)))), [413]);
    assert.equal(rig.looks.length, 1);
  });
});

describe('what is too much', () => {
  test('a body of the largest size is taken, and of one byte more not', async t => {
    const rig = await openRig(t);
    const largest = `{}${' '.repeat(65_534)}`;
    assert.equal((await post(rig, largest, github(largest))).status, 202);
    assert.equal((await post(rig, `${largest} `, github(`${largest} `))).status, 413);
    assert.deepEqual(statuses(await talk(rig, head([...signed(`${largest} `), 'Transfer-Encoding: chunked']), `10001\r\n${largest} \r\n0\r\n\r\n`)), [413], 'by the bytes that came');
    assert.equal(rig.looks.length, 1);
  });

  test('a length of 1 GB is refused before any of it', async t => {
    const rig = await openRig(t, {limits: {lingerMs: 100}});
    const text = await talk(rig, head([...signed(''), `Content-Length: ${2 ** 30}`]));
    assert.deepEqual(statuses(text), [413]);
    assert.match(text, /^Connection: close$/im);
    assert.deepEqual(statuses(await talk(rig, head([...signed(''), `Content-Length: ${'9'.repeat(30)}`]))), [400]);
  });

  for (const [what, fields, piece] of [
    ['chunks without end', ['Transfer-Encoding: chunked'], `4000\r\n${'a'.repeat(0x4000)}\r\n`],
    ['1 GB that is really sent', [`Content-Length: ${2 ** 30}`], 'a'.repeat(0x4000)],
    ['a header without end', ['Content-Length: 0'], undefined],
  ] as const) {
    test(`${what}: answered, and cut off`, async t => {
      const rig = await openRig(t, {limits: {lingerBytes: 1 << 18}});
      const client = connect(rig.socket);
      const all = heard(client);
      client.write(piece === undefined ? 'POST /hook HTTP/1.1\r\nX-A: ' : head(fields));
      let sent = 0;
      const more = (): void => {
        while (!client.destroyed && client.writable) {
          sent += 0x4000;
          if (!client.write(piece ?? 'a'.repeat(0x4000))) return;
        }
      };
      client.on('drain', more);
      more();
      assert.deepEqual(statuses(await all), [piece === undefined ? 431 : 413]);
      assert.ok(sent < 8 << 20, `${sent} bytes`);
      assert.equal((await post(rig, '{}', github('{}'))).status, 202);
    });
  }

  test('a thousand connections that say nothing keep nobody away for long', async t => {
    const rig = await openRig(t, {limits: {headersMs: 300, lookForLateMs: 50, connections: 20}});
    const idle = Array.from({length: 1000}, () => connect(rig.socket));
    const closed = idle.map(client => heard(client));
    t.after(() => idle.forEach(client => client.destroy()));
    await waitUntil('an answer', async () => (await post(rig, '{}', github('{}')).catch(() => ({status: 0}))).status === 202);
    const waited = (await Promise.all(closed)).filter(text => statuses(text)[0] === 408).length;
    assert.ok(waited > 0 && waited < 200, `${waited} of 1000 were waited for`);
    assert.equal(rig.looks.length, 1);
  });
});

describe('who is slow', () => {
  const limits = {headersMs: 300, requestMs: 600, lookForLateMs: 50, lingerMs: 200};

  for (const [what, first, drip] of [
    ['says nothing', '', ''],
    ['has half a request line', 'POST /ho', ''],
    ['sends a header line at a time', 'POST /hook HTTP/1.1\r\nHost: x\r\n', 'X-A: b\r\n'],
    ['sends a byte of the body at a time', head(['Content-Length: 1000']), 'a'],
    ['sends a chunk at a time', head(['Transfer-Encoding: chunked']), '1\r\na\r\n'],
  ] as const) {
    test(`${what}: closed, with 408 where it can still be heard`, async t => {
      const rig = await openRig(t, {limits});
      const began = performance.now();
      const client = connect(rig.socket);
      const all = heard(client);
      client.write(first);
      const dripping = setInterval(() => {
        if (drip !== '' && client.writable) client.write(drip);
      }, 20);
      t.after(() => clearInterval(dripping));
      const said = statuses(await all);
      // What is still sent when the connection ends takes the answer away.
      assert.deepEqual(said, drip !== '' && said.length === 0 ? [] : [408]);
      assert.ok(performance.now() - began < 3000);
      assert.equal((await post(rig, '{}', github('{}'))).status, 202);
    });
  }

  test('does not go away after the answer: closed', async t => {
    const rig = await openRig(t, {limits});
    assert.deepEqual(statuses(await talk(rig, head([...signed('{}'), 'Content-Length: 2']), '{}')), [202]);
  });

  test('vanishes: nothing happens', async t => {
    const rig = await openRig(t);
    for (const text of ['', 'POST /hook', head([...signed('{}'), 'Content-Length: 2']), `${head([...signed('{}'), 'Content-Length: 2'])}{`, head(['Content-Length: 1000000000'])]) {
      const client = connect(rig.socket);
      await once(client, 'connect');
      await new Promise(resolve => client.write(text === '' ? 'P' : text, resolve));
      client.destroy();
    }
    assert.equal((await post(rig, '{}', github('{}'))).status, 202);
    assert.deepEqual(rig.looks, ['github']);
  });

  test('vanishes during the answer: it was a look', async t => {
    const rig = await openRig(t);
    const client = connect(rig.socket);
    await new Promise(resolve => client.write(`${head([...signed('{}'), 'Content-Length: 2'])}{}`, resolve));
    client.destroy();
    await waitUntil('the look', () => rig.looks.length === 1);
    assert.equal((await post(rig, '{}', github('{}'))).status, 202);
  });

  test('is there at the end: it ends all the same', async t => {
    const rig = await openRig(t);
    const client = connect(rig.socket);
    const all = heard(client);
    await new Promise(resolve => client.write(head([...signed('{}'), 'Content-Length: 2']), resolve));
    await rig.close();
    await all;
    assert.equal(existsSync(rig.socket), false);
    await assert.rejects(post(rig, '{}', github('{}')), /ENOENT/);
  });
});

describe('a look that fails', () => {
  test('is told of, and the delivery may come again', async t => {
    const dir = makeTempDir();
    t.after(() => removeTempDir(dir));
    writeFileSync(join(dir, 'secret'), SECRET, {mode: 0o600});
    const reports: string[] = [];
    const socket = join(dir, 'run/webhook.sock');
    const webhook = await openWebhook({
      listen: {unix: socket, mode: 0o600, group: undefined}, path: '/hook', secretFile: join(dir, 'secret'), maxBodyBytes: 1024, rate: {count: 9, perMs: 1000}, stateDir: dir, branch: undefined,
    }, () => {
      throw new Error('no room');
    }, text => reports.push(text));
    t.after(() => webhook.close());
    assert.equal((await post({socket}, '{}', github('{}'))).status, 202);
    assert.ok(reports.includes('the look that github asked for failed: no room'));
    assert.equal(existsSync(join(dir, 'deliveries')), false);
  });
});

describe('the socket', () => {
  const modeOf = (path: string) => (statSync(path).mode & 0o777).toString(8);

  for (const [mode, directory] of [[0o600, '700'], [0o660, '710'], [0o666, '711']] as const) {
    test(`of mode ${mode.toString(8)} lies in a directory of mode ${directory}, whatever the umask`, async t => {
      const dir = makeTempDir();
      t.after(() => removeTempDir(dir));
      const unix = join(dir, 'a/b/webhook.sock');
      const before = process.umask(0o027);
      try {
        const rig = await openRig(t, {listen: {unix, mode, group: undefined}});
        assert.deepEqual([modeOf(unix), modeOf(dirname(unix)), modeOf(join(dir, 'a'))], [mode.toString(8), directory, '755']);
        assert.equal(process.umask(), 0o027);
        assert.equal((await post({socket: unix}, '{}', github('{}'))).status, 202);
        assert.deepEqual(rig.reports.length, 1);
      } finally {
        process.umask(before);
      }
    });
  }

  test('takes the group\'s accounts and no others', {skip: !root || webGroup === undefined ? 'needs root and a group' : false}, async t => {
    const socket = join(makeDir(t), 'run/webhook.sock');
    await openRig(t, {listen: {unix: socket, mode: 0o660, group: webGroup?.name}});
    const knock = (gid: number) => run('setpriv', ['--reuid', String(NOBODY), '--regid', String(gid), '--clear-groups', '--', 'curl', '-sS', '--unix-socket', socket, '-o', '/dev/null', '-w', '%{http_code}', 'http://x/hook']);
    assert.equal(await knock(webGroup?.gid ?? 0), '405');
    await assert.rejects(knock(12_345), /Couldn't connect|Failed to connect|Could not connect/i);
    // And where the directory lets everybody pass.
    chmodSync(dirname(socket), 0o755);
    await assert.rejects(knock(12_345), /Couldn't connect|Failed to connect|Could not connect/i);
    assert.equal(lstatSync(socket).gid, webGroup?.gid);
  });

  test('that nobody on the way can reach is told of', {skip: !root || webGroup === undefined ? 'needs root and a group' : false}, async t => {
    const dir = makeDir(t);
    mkdirSync(join(dir, 'closed'), {mode: 0o750});
    const rig = await openRig(t, {listen: {unix: join(dir, 'closed/run/webhook.sock'), mode: 0o660, group: webGroup?.name}});
    assert.deepEqual(rig.reports, [`${join(dir, 'closed')} has mode 0750 and the group 0, so nobody of the group ${webGroup?.name} can connect to ${join(dir, 'closed/run/webhook.sock')}`]);
  });

  test('of a killed process is replaced', async t => {
    const unix = join(makeDir(t), 'webhook.sock');
    const child = spawn(process.execPath, ['-e', `require('net').createServer().listen(${JSON.stringify(unix)}, () => console.log('there'))`], {stdio: ['ignore', 'pipe', 'inherit']});
    await once(child.stdout, 'data');
    await endChild(child, 'SIGKILL');
    assert.ok(lstatSync(unix).isSocket());
    await openRig(t, {listen: {unix, mode: 0o600, group: undefined}});
    assert.equal((await post({socket: unix}, '{}', github('{}'))).status, 202);
  });

  test('of somebody who listens is left alone', async t => {
    const unix = join(makeDir(t), 'webhook.sock');
    const other = createServer(client => client.on('error', () => undefined).end('other'));
    await new Promise<void>(resolve => other.listen(unix, resolve));
    t.after(() => new Promise(resolve => other.close(resolve)));
    await assert.rejects(openRig(t, {listen: {unix, mode: 0o600, group: undefined}}), refusedWith(/somebody else listens there/));
    assert.equal(await talk({socket: unix}), 'other');
  });

  for (const [what, spoil, says] of [
    ['a file', (path: string) => writeFileSync(path, 'mine'), /is there and no socket/],
    ['a directory', (path: string) => mkdirSync(path), /is there and no socket/],
    ['a link', (path: string) => symlinkSync('/nonexistent', path), /is there and no socket/],
    ['in a directory of everybody', (path: string) => chmodSync(dirname(path), 0o1777), /can be written by others/],
  ] as const) {
    test(`where ${what} stands is refused, and that stays`, async t => {
      const unix = join(makeDir(t), 'webhook.sock');
      spoil(unix);
      await assert.rejects(openRig(t, {listen: {unix, mode: 0o600, group: undefined}}), refusedWith(says));
      if (what !== 'in a directory of everybody') assert.ok(lstatSync(unix));
    });
  }

  test('may be a loopback port, which is refused when it is taken', async t => {
    const ports = await leasePorts(1);
    t.after(() => ports.release());
    const listen: WebhookConfig['listen'] = {host: '127.0.0.1', port: ports.first};
    const rig = await openRig(t, {listen});
    const status = await run('curl', ['-sS', '-o', '/dev/null', '-w', '%{http_code} %{local_ip}', '--data-binary', '{}', '-H', `X-Gitlab-Token: ${SECRET}`, '-H', 'X-Forwarded-For: 127.0.0.1', `http://127.0.0.1:${ports.first}/hook`]);
    assert.equal(status, '202 127.0.0.1');
    assert.deepEqual(rig.looks, ['webhook']);
    await assert.rejects(openRig(t, {listen}), refusedWith(/127\.0\.0\.1 port \d+: somebody else listens there/));
  });

  test('is reached through nginx, whose workers run as another account', {skip: !root || webGroup === undefined || !existsSync(NGINX) ? 'needs root and nginx' : false}, async t => {
    const dir = makeDir(t);
    const unix = join(dir, 'run/webhook.sock');
    const rig = await openRig(t, {listen: {unix, mode: 0o660, group: webGroup?.name}, maxBodyBytes: 1 << 20});
    const nginx = await startNginx(join(dir, 'nginx'), {
      main: `user nobody ${webGroup?.name};`,
      server: `location = /hook { limit_except POST { deny all; } client_max_body_size 1m; proxy_pass http://unix:${unix}:/hook; }`,
    });
    t.after(() => nginx.stop());
    const body = push({commits: 'x'.repeat(900_000)});
    const send = (of: string, headers: Fields) => fetch(`${nginx.url}/hook`, {method: 'POST', body: of, headers: headers as Record<string, string>});
    assert.deepEqual([(await send(body, github(body))).status, (await send(`${body} `, github(body))).status], [202, 401]);
    assert.equal((await send('x'.repeat(1_100_000), github(''))).status, 413);
    assert.equal((await fetch(`${nginx.url}/hook`)).status, 403);
    assert.deepEqual(rig.looks, ['github']);
  });
});

function refusedWith(says: RegExp): (error: unknown) => boolean {
  return error => error instanceof DeployError && error.code === 'CONFIG_INVALID' && says.test(error.message);
}

function makeDir(t: TestContext): string {
  const dir = makeTempDir();
  t.after(() => removeTempDir(dir));
  return dir;
}
