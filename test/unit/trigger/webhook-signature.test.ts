import assert from 'node:assert/strict';
import {describe, test} from 'node:test';
import fc from 'fast-check';
import {readDelivery} from '../../../src/trigger/webhook-delivery.ts';
import {isSigned, type Headers} from '../../../src/trigger/webhook-signature.ts';

/** The values with which GitHub's documents ("Validating webhook deliveries") let one try one's own code. */
const GITHUB = {
  secret: 'It\'s a Secret to Everybody',
  body: Buffer.from('Hello, World!'),
  hex: '757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17',
};

describe('a signature', () => {
  const signed = (headers: Headers, secrets = [GITHUB.secret]) => isSigned(headers, GITHUB.body, secrets, 0);

  test('is right for GitHub\'s own example', () => {
    assert.equal(signed({'x-hub-signature-256': [`sha256=${GITHUB.hex}`]}), true);
    assert.equal(signed({'x-gitea-signature': [GITHUB.hex], 'x-forgejo-signature': [GITHUB.hex], 'x-hub-signature': ['sha1=0']}), true);
    assert.equal(signed({'x-hub-signature-256': [`sha256=${GITHUB.hex}`]}, []), false, 'without a secret nothing is');
    assert.equal(signed({}), false);
  });

  test('is wrong with one bit changed, wherever', () => {
    for (let bit = 0; bit < 256; bit++) {
      const other = Buffer.from(GITHUB.hex, 'hex');
      other.writeUInt8(other.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
      assert.equal(signed({'x-hub-signature-256': [`sha256=${other.toString('hex')}`]}), false);
    }
  });

  test('of any other text is wrong, and nothing is thrown', () => {
    const text = fc.oneof(fc.string(), fc.string({unit: 'binary'}), fc.stringMatching(/^(sha256=|v1,)?[0-9a-f]{60,68}$/), fc.constant(GITHUB.hex.toUpperCase()), fc.base64String().map(base64 => `v1,${base64}`));
    const values = fc.option(fc.array(text, {maxLength: 3}), {nil: undefined});
    const names = ['x-hub-signature-256', 'x-gitea-signature', 'x-forgejo-signature', 'webhook-signature', 'webhook-id', 'webhook-timestamp', 'x-gitlab-token'] as const;
    fc.assert(fc.property(fc.record(Object.fromEntries(names.map(name => [name, values]))), headers => {
      assert.equal(signed(headers as Headers, [GITHUB.secret, `whsec_${'A'.repeat(44)}`]), false);
    }), {numRuns: 2000});
  });
});

describe('a delivery', () => {
  test('of any bytes is read or refused, and nothing is thrown', () => {
    const json = fc.json().map(text => Buffer.from(text));
    fc.assert(fc.property(fc.oneof(json, fc.uint8Array().map(bytes => Buffer.from(bytes))), fc.option(fc.string(), {nil: undefined}), (body, event) => {
      const delivery = readDelivery(event === undefined ? {} : {'x-github-event': [event]}, body, 'main');
      if (delivery !== undefined) assert.equal(typeof delivery.counts, 'boolean');
    }), {numRuns: 2000});
  });

  test('is none of what it inherits', () => {
    const read = (text: string) => readDelivery({}, Buffer.from(text), 'main');
    assert.deepEqual(read('{"__proto__": {"ref": "refs/tags/x", "deleted": true}}'), {from: 'webhook', id: undefined, counts: true});
    assert.deepEqual(read('{"ref": "refs/heads/__proto__"}')?.counts, false);
  });
});
