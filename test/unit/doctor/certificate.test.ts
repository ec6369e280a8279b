import assert from 'node:assert/strict';
import {readFileSync} from 'node:fs';
import type {AddressInfo} from 'node:net';
import {join} from 'node:path';
import {test} from 'node:test';
import {createServer} from 'node:tls';
import {certificate} from '../../../src/doctor/certificate.ts';
import {run} from '../../support/run.ts';
import {makeTempDir, removeTempDir} from '../../support/temp-dir.ts';

const DAY_MS = 86_400_000;
const signal = new AbortController().signal;

test("the end of the repository's certificate", async t => {
  const dir = makeTempDir();
  const [key, cert] = [join(dir, 'key'), join(dir, 'cert')];
  await run('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '90', '-subj', '/CN=localhost', '-keyout', key, '-out', cert], {env: {PATH: '/usr/bin'}});
  const server = createServer({key: readFileSync(key), cert: readFileSync(cert)});
  t.after(() => {
    server.close();
    removeTempDir(dir);
  });
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}/x.git`;
  const levels = async (days: number) => (await certificate(url, signal, Date.now() + days * DAY_MS)).map(({level, says}) => [level, says.replace(/\d{4}-\d\d-\d\d/, 'DATE')]);
  assert.deepEqual(await levels(0), [['ok', 'the certificate of 127.0.0.1 is valid until DATE']]);
  assert.deepEqual((await levels(80)).map(([level]) => level), ['warning']);
  assert.deepEqual((await certificate(url, signal, Date.now() + 80 * DAY_MS)).map(({mend}) => mend), ['certbot renew    # on 127.0.0.1'], 'it is not this machine that renews it');
  assert.deepEqual(await levels(91), [['problem', 'the certificate of 127.0.0.1 expired on DATE']]);
  for (const other of ['svn://127.0.0.1/x', 'file:///x', undefined, 'https://127.0.0.1:1/x']) assert.deepEqual(await certificate(other, signal), [], other);
});
