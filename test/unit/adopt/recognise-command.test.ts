import assert from 'node:assert/strict';
import {describe, test} from 'node:test';
import {sharedPidFile, recogniseCommand, type SeenCommand} from '../../../src/adopt/recognise-command.ts';

const seen = (port: number, line: string, portVariable?: string): SeenCommand => ({port, words: line.split(' ').filter(word => word !== ''), portVariable});
const both = (line: (port: number) => string) => recogniseCommand([8811, 8812].map(port => seen(port, line(port))));

describe('the port is found', () => {
  for (const [how, line] of [
    ['as a word', 'python osyw.py PORT'],
    ['behind =', 'server --port=PORT --workers=4'],
    ['behind an address', 'gunicorn -b 127.0.0.1:PORT app:app'],
    ['behind a colon', 'server --listen :PORT'],
    ['in a URL', 'puma --bind tcp://[::1]:PORT/ config.ru'],
    ['glued to its flag', 'server -pPORT'],
    ['wherever it stands', 'server --port PORT --log /var/log/osyw_PORT.log --pid run-PORT.pid'],
  ] as const) {
    test(how, () => assert.deepEqual(both(port => line.replaceAll('PORT', String(port))), {kind: 'recognised', words: line.replaceAll('PORT', '{port}').split(' ')}));
  }
  test('in the environment, for all that have it there', () => {
    assert.deepEqual(recogniseCommand([seen(8811, 'node server.js', '8811'), seen(8812, 'node server.js', '8812')]), {kind: 'recognised', words: ['node', 'server.js']});
  });
});

test('a longer number is another one', () => {
  assert.equal(recogniseCommand([seen(8811, 'server 18811')]).kind, 'without port');
  assert.deepEqual(recogniseCommand([seen(8811, 'server 8811 --limit 88110')]), {kind: 'recognised', words: ['server', '{port}', '--limit', '88110']});
});

test('nowhere', () => {
  assert.equal(recogniseCommand([seen(8811, 'node server.js')]).kind, 'without port');
  assert.equal(recogniseCommand([seen(8811, 'node server.js', '8811'), seen(8812, 'node server.js', '8811')]).kind, 'without port');
  assert.equal(recogniseCommand([seen(8811, '')]).kind, 'without port');
  assert.equal(recogniseCommand([seen(8811, '', '8811')]).kind, 'without port', 'a command line that was written over is no command');
});

test('two programs: both are shown', () => {
  assert.deepEqual(recogniseCommand([seen(8811, 'python osyw.py 8811'), seen(8812, 'python other.py 8812')]), {kind: 'different', first: ['python', 'osyw.py', '{port}'], second: ['python', 'other.py', '{port}']});
  assert.equal(recogniseCommand([seen(8811, 'server 8811 --name 1'), seen(8812, 'server 8812 --name 2')]).kind, 'different');
  assert.equal(recogniseCommand([seen(8811, 'server 8811'), seen(8812, 'server 8812 --debug')]).kind, 'different');
  assert.equal(recogniseCommand([seen(8811, 'server 8811 8812'), seen(8812, 'server 8811 8812')]).kind, 'different', 'one program for both ports');
});

for (const [words, told] of [
  [['gunicorn', '-b', '127.0.0.1:{port}', '--pid', '../guni.pid', 'app'], '--pid ../guni.pid'],
  [['server', '--pidfile=/run/server.pid'], '--pidfile=/run/server.pid'],
  [['server', '-pid-file', 'x', '{port}'], '-pid-file x'],
  [['server', '--pid', '/run/server-{port}.pid'], undefined],
  [['server', '--pids', '5', '-p', '{port}'], undefined],
] as const) {
  test(`the pid file of ${words.join(' ')}`, () => assert.equal(sharedPidFile(words), told));
}
