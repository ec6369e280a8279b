import assert from 'node:assert/strict';
import {get} from './raw-http.ts';
import type {Site} from './site.ts';

/** What nginx needs in its server block so that these clients are several: ip_hash takes the first three octets, and every client of a test is 127.0.0.x. */
export const CLIENTS_BY_HEADER = 'set_real_ip_from 127.0.0.1; real_ip_header X-Real-IP;';

/** Deploys, then two more versions: every client stays with the worker in the same place of the upstream. The site has three. */
export async function keepsEveryClient(site: Site): Promise<void> {
  const clients = Array.from({length: 24}, (_, number) => `10.${number}.7.1`);
  const places = async (): Promise<number[]> => {
    const ports = site.nginx.upstreamPorts().map(String);
    return Promise.all(clients.map(async ip => ports.indexOf((await get(site.nginx.port, '/', {'x-real-ip': ip})).headers['x-osyw-port'] ?? '')));
  };
  await site.deployed();
  const before = await places();
  assert.ok(new Set(before).size === 3, 'the clients spread over all places');
  for (const version of ['2', '3']) {
    await site.release(version);
    await site.deployed();
    assert.deepEqual(await places(), before);
  }
  await site.settled({version: '3'});
}
