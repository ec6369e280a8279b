import assert from 'node:assert/strict';
import {parseConfig} from '../../../src/config/load-config.ts';
import {DeployError} from '../../../src/errors.ts';

export const FILE = '/etc/osyw-deploy/shop.yaml';
export const ENV = {HOME: '/home/deploy'};

/** The shortest valid configuration; the tests count on its line numbers. */
export const MINIMAL_LINES = [
  'app: shop',
  'source:',
  '  working_copy: /srv/shop/copy',
  'workers:',
  '  command: [python3, app.py, "{port}"]',
  '  ports: 8811-8830',
  'nginx:',
  '  upstream: shop',
  '  file: /etc/nginx/conf.d/shop.conf',
] as const;

export const MINIMAL = `${MINIMAL_LINES.join('\n')}\n`;

/** The minimal configuration with other text in place of one of its lines, counted from 1. */
export function withLine(number: number, text: string): string {
  return `${MINIMAL_LINES.map((line, index) => (index === number - 1 ? text : line)).join('\n')}\n`;
}

/** The message of CONFIG_INVALID; anything else that is thrown, or nothing, fails the test. */
export function refusalOf(text: string): string {
  try {
    parseConfig(text, FILE, ENV);
  } catch (error) {
    assert.ok(error instanceof DeployError, `threw ${String(error)}`);
    assert.equal(error.code, 'CONFIG_INVALID');
    return error.message;
  }
  assert.fail('was accepted');
}
