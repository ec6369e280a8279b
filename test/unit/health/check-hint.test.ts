import assert from 'node:assert/strict';
import {test} from 'node:test';
import type {CheckConfig} from '../../../src/config/config.ts';
import {checkHint} from '../../../src/health/check-hint.ts';
import type {CheckResult} from '../../../src/health/check-worker.ts';

const TIMING = {intervalMs: 100, timeoutMs: 2000, consecutive: 1, deadlineMs: 30_000};
const HTTP: CheckConfig = {kind: 'http', path: '/healthz', host: undefined, headers: {}, status: [200], body: undefined, ...TIMING};
const answered = (status: number, location?: string): CheckResult => ({good: false, saw: '', listens: true, answer: {status, location}});

for (const [situation, check, result, elsewhere, expected] of [
  ['all is good', HTTP, {good: true}, [], undefined],
  ['sent to https', HTTP, answered(301, 'https://www.example.org/healthz'), [], /X-Forwarded-Proto: https/],
  ['sent to https although it is told', {...HTTP, headers: {'x-forwarded-proto': 'https'}}, answered(301, 'https://www.example.org/'), [], /check\.http, or its own name in check\.host, or .*\[301\]/],
  ['sent elsewhere', {...HTTP, host: 'x'}, answered(302, '/login'), [], /^it sends the check to \/login: name that path in check\.http, or/],
  ['another name', HTTP, answered(400), [], /check\.host/],
  ['another name, or no such path', HTTP, answered(404), [], /check\.host.*check\.http/],
  ['no such path under its name', {...HTTP, host: 'x'}, answered(404), [], /^there is no \/healthz/],
  ['a login', HTTP, answered(401), [], /no login/],
  ['a failure', HTTP, answered(503), [], /osyw-deploy logs/],
  ['a success that is not expected', HTTP, answered(204), [], undefined],
  ['too late', HTTP, {good: false, saw: '', listens: true, late: true}, [], /longer than 2\.0 s, name a quicker path/],
  ['a command that is too late', {kind: 'command', command: ['x'], ...TIMING}, {good: false, saw: '', listens: true, late: true}, [], /longer than 2\.0 s, set check\.timeout/],
  ['a connection that breaks', HTTP, {good: false, saw: 'socket hang up', listens: true}, [], undefined],
  ['nobody', {kind: 'tcp', ...TIMING}, {good: false, saw: '', listens: false}, [], /osyw-deploy logs/],
  ['another port', HTTP, {good: false, saw: '', listens: false}, ['127.0.0.1:8080'], /listen on 127\.0\.0\.1:8080: give \{port\}/],
] as const satisfies readonly (readonly [string, CheckConfig, CheckResult, readonly string[], RegExp | undefined])[]) {
  test(`what helps: ${situation}`, () => {
    const hint = checkHint(check, result, elsewhere);
    if (expected === undefined) assert.equal(hint, undefined);
    else assert.match(hint ?? '', expected);
  });
}
