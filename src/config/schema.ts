import {isIP} from 'node:net';
import {normalize} from 'node:path';
import * as v from 'valibot';
import {parseDuration} from '../support/durations.ts';
import {placeholderFault} from './placeholders.ts';
import {shown} from './shown.ts';
import {sourceUrlFault} from './source-url.ts';

/** Maps whose scalars are text as written, so `1.10` and `yes` arrive as they stand in the file. */
export const AS_WRITTEN = ['workers.env', 'workers.systemd.properties', 'check.headers', 'nginx.server'] as const;

// Every message is a whole predicate, `is …; expected …`, that follows the name of the key.
const expecting = (expected: string) => (issue: {input?: unknown}) => `is ${shown(issue.input)}; expected ${expected}`;

// oxlint-disable-next-line no-control-regex
const CONTROL = /[\u0000-\u001f\u007f]/;
const DAY_MS = 86_400_000;
/** The kernel's: sun_path of 108 bytes, with the NUL at its end. */
const MOST_SOCKET_BYTES = 107;

function text(expected: string, accepts: (value: string) => boolean) {
  return v.pipe(v.string(expecting(expected)), v.check(accepts, expecting(expected)), v.description(expected));
}

/** For rules with more than one way to be wrong: `fault` says which. */
function examinedText(expected: string, fault: (value: string) => string | undefined) {
  return v.pipe(
    v.string(expecting(expected)),
    v.check(value => fault(value) === undefined, issue => fault(issue.input) ?? expecting(expected)(issue)),
    v.description(expected),
  );
}

function oneOf<const Words extends readonly string[]>(words: Words, expected = words.join(' or ')) {
  return v.pipe(v.picklist(words, expecting(expected)), v.description(expected));
}

function wholeNumber(least: number, most: number, expected = `a whole number from ${least} to ${most}`) {
  const refuse = expecting(expected);
  return v.pipe(v.number(refuse), v.integer(refuse), v.minValue(least, refuse), v.maxValue(most, refuse), v.description(expected));
}

// setTimeout fires at once beyond 2^31 ms, which is 24.8 days.
function duration({zero}: {zero: boolean} = {zero: false}) {
  const expected = `a number with a unit (ms, s, m, h, d) such as 30s, ${zero ? '' : 'more than 0, '}at most 24d`;
  const accepts = (value: string) => {
    const ms = parseDuration(value);
    return ms !== undefined && (zero ? ms >= 0 : ms > 0) && ms <= 24 * DAY_MS;
  };
  return v.pipe(text(expected, accepts), v.transform(value => parseDuration(value) ?? 0));
}

function isNormalPath(path: string): boolean {
  return path.startsWith('/') && normalize(path) === path && !CONTROL.test(path) && path.length < 4096;
}

const filePath = (example: string) => text(`the absolute path of a file, without .. or //, such as ${example}`,
  value => isNormalPath(value) && !value.endsWith('/'));

function directory(example: string) {
  const expected = `the absolute path of a directory below a top-level one, without .. or //, such as ${example}`;
  const accepts = (value: string) => isNormalPath(value) && /^\/[^/]+\/[^/]+/.test(value);
  return v.pipe(text(expected, accepts), v.transform(value => value.replace(/\/$/, '')));
}

const words = (() => {
  const expected = 'a list of words, no shell: [python3, app.py, ...]';
  const word = text('a word (a number or a yes needs quotes here: "10")', value => !value.includes('\0'));
  return v.pipe(
    v.array(word, expecting(expected)),
    v.minLength(1, () => `is an empty list; expected ${expected}`),
    v.check(list => list[0] !== '', () => `begins with an empty word; expected ${expected}`),
    v.description(expected),
  );
})();

const wordsWithPlaceholders = v.pipe(
  words,
  v.rawCheck(({dataset, addIssue}) => {
    if (!dataset.typed) return;
    for (const [key, value] of dataset.value.entries()) {
      const fault = placeholderFault(value);
      if (fault !== undefined) {
        addIssue({message: fault, path: [{type: 'array', origin: 'value', input: dataset.value, key, value}]});
      }
    }
  }),
);

function filePathWithPlaceholders(example: string) {
  return v.pipe(
    filePath(example),
    v.check(value => placeholderFault(value) === undefined, issue => placeholderFault(issue.input) ?? ''),
  );
}

const ports = (() => {
  const expected = 'a range of ports such as 8811-8830, all from 1025 to 65535, ascending';
  const parse = (value: string) => {
    const match = /^([1-9]\d{0,4})-([1-9]\d{0,4})$/.exec(value);
    return match === null ? undefined : {first: Number(match[1]), last: Number(match[2])};
  };
  const accepts = (value: string) => {
    const range = parse(value);
    return range !== undefined && range.first > 1024 && range.last <= 65_535 && range.first < range.last;
  };
  return v.pipe(text(expected, accepts), v.transform(value => parse(value) ?? {first: 0, last: 0}));
})();

/** Text or a number; what stands in the file reaches us as text (see AS_WRITTEN). */
function scalar(expected: string, fault: (value: string) => string | undefined) {
  return v.pipe(
    v.union([v.string(), v.number(), v.boolean()], expecting(expected)),
    v.transform(String),
    v.check(value => fault(value) === undefined, issue => fault(issue.input) ?? ''),
  );
}

const env = v.record(
  text('a name of letters, digits and _, not beginning with a digit', name => /^[A-Za-z_][A-Za-z0-9_]*$/.test(name)),
  scalar('text', value => {
    if (/[\0\r\n]/.test(value)) return 'holds a line break or a NUL; expected text of one line';
    return placeholderFault(value);
  }),
  expecting('a map of names to texts'),
);

const headers = v.record(
  text('the name of an HTTP header', name => /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(name)),
  scalar('text', value => (/^[\t\x20-\x7e]*$/.test(value) ? undefined : `is ${shown(value)}; expected visible ASCII in one line`)),
  expecting('a map of header names to texts'),
);

const branch = text('the name of a branch such as main, of letters, digits and . _ / @ + = # -', name =>
  /^(?![-/.])[A-Za-z0-9._/@+=#-]{1,200}$/.test(name) && name !== '@' && !/\.\.|\/\/|\/\.|\.lock(\/|$)|[/.]$/.test(name)
  // A name of 40 hex digits would be taken for a commit.
  && name !== 'HEAD' && !/^[0-9a-f]{40}$/i.test(name));

const shared = v.pipe(
  text('a path inside the release such as data, without .., not .git or .svn', path =>
    /^(?!\/).+/s.test(path) && !CONTROL.test(path) && !path.includes('//')
    && path.replace(/\/$/, '').split('/').every(part => !['', '.', '..', '.git', '.svn'].includes(part))),
  v.transform(path => path.replace(/\/$/, '')),
);

const glob = v.pipe(
  text('a glob such as src/** or *.py, relative to the top of the working copy, without ..', pattern =>
    /^[^/!].{0,511}$/s.test(pattern) && !CONTROL.test(pattern)
    && pattern.replace(/\/$/, '').split('/').every(part => !['', '.', '..'].includes(part))),
  v.transform(pattern => pattern.replace(/\/$/, '')),
);

const yesOrNo = v.pipe(v.boolean(expecting('true or false')), v.description('true or false'));

const SIGNALS = ['SIGTERM', 'SIGINT', 'SIGQUIT', 'SIGHUP', 'SIGUSR1', 'SIGUSR2', 'SIGWINCH', 'SIGABRT', 'SIGKILL'] as const;

const account = text('the name of an account of this machine', name => /^[^\s:/]{1,64}$/.test(name));

const listen = (() => {
  const expected = 'unix:/run/osyw-deploy/app/webhook.sock, or a loopback address with a port such as 127.0.0.1:8899 or [::1]:8899';
  const parse = (value: string): {unix: string} | {host: string; port: number} | undefined => {
    if (value.startsWith('unix:')) {
      const unix = value.slice('unix:'.length);
      return isNormalPath(unix) && /^\/[^/]+\/[^/]+/.test(unix) && !unix.endsWith('/') && Buffer.byteLength(unix) <= MOST_SOCKET_BYTES ? {unix} : undefined;
    }
    const [, v4, v6, digits] = /^(?:(127(?:\.\d{1,3}){3})|\[(::1)\]):([1-9]\d{0,4})$/.exec(value) ?? [];
    const host = v4 ?? v6 ?? '';
    return isIP(host) !== 0 && Number(digits) <= 65_535 ? {host, port: Number(digits)} : undefined;
  };
  return v.pipe(text(expected, value => parse(value) !== undefined), v.transform(value => parse(value) ?? {unix: ''}));
})();

// YAML reads 0660 as the number 660, and 0o660 as 432: only what can be nothing else is taken.
const socketMode = v.pipe(
  scalar('0660', value => (/^0?(?:600|660|666)$/.test(value) ? undefined : `is ${shown(value)}; expected 0600, 0660 or 0666`)),
  v.transform(value => Number.parseInt(value, 8)),
  v.description('0600, 0660 or 0666'),
);

const size = (() => {
  const bytesOf = (value: string) => {
    const [, amount, unit] = /^([1-9]\d{0,8})([km]?)$/i.exec(value) ?? [];
    return Number(amount) * (unit === undefined || unit === '' ? 1 : unit.toLowerCase() === 'k' ? 1024 : 1024 * 1024);
  };
  // More than 25 MB no forge sends.
  const accepts = (value: string) => bytesOf(value) >= 1024 && bytesOf(value) <= 25 * 1024 * 1024;
  const expected = 'a size from 1k to 25m, such as 512k or 1m';
  return v.pipe(scalar(expected, value => (accepts(value) ? undefined : `is ${shown(value)}; expected ${expected}`)), v.transform(bytesOf), v.description(expected));
})();

const rate = (() => {
  const parse = (value: string) => {
    const [, count, unit] = /^([1-9]\d{0,3})\/([smh])$/.exec(value) ?? [];
    return count === undefined ? undefined : {count: Number(count), perMs: parseDuration(`1${unit}`) ?? 0};
  };
  return v.pipe(text('a number a second, minute or hour, at most 9999, such as 60/m', value => parse(value) !== undefined), v.transform(value => parse(value) ?? {count: 0, perMs: 0}));
})();

const memoryMax = (() => {
  const expected = 'the most memory of one worker, as systemd writes it: 512M, 2G, 20% or infinity';
  return v.pipe(
    scalar(expected, value => (/^([1-9]\d{0,15}[KMGT]?|[1-9]\d?%|100%|infinity)$/.test(value) ? undefined : `is ${shown(value)}; expected ${expected}`)),
    v.description(expected),
  );
})();

const unitProperties = v.record(
  text('the name of a property of systemd such as ProtectSystem', name => /^[A-Z][A-Za-z0-9]{1,63}$/.test(name)),
  scalar('text', value => (CONTROL.test(value) ? `is ${shown(value)}; expected text of one line` : undefined)),
  expecting('a map of properties of systemd to texts: {ProtectSystem: strict}'),
);

const server = section({
  weight: v.optional(serverParameter('a whole number above 0', /^[1-9]\d{0,5}$/)),
  max_conns: v.optional(serverParameter('a whole number', /^\d{1,9}$/)),
  max_fails: v.optional(serverParameter('a whole number', /^\d{1,9}$/)),
  fail_timeout: v.optional(serverParameter('a time of nginx such as 30s', /^(\d{1,9}(ms|s|m|h|d|w|M|y)?)+$/)),
});

function serverParameter(expected: string, pattern: RegExp) {
  return v.pipe(
    scalar(expected, value => (pattern.test(value) ? undefined : `is ${shown(value)}; expected ${expected}`)),
    v.description(expected),
  );
}

const directive = text(
  'one of ip_hash, least_conn, random, hash, keepalive, keepalive_requests, keepalive_time, keepalive_timeout, zone with its plain parameters, without a semicolon',
  line => /^(?:ip_hash|least_conn|random|hash|keepalive|keepalive_requests|keepalive_time|keepalive_timeout|zone)(?: +[A-Za-z0-9_$.:/=-]+)*$/.test(line));

const probe = text('a URL through nginx such as http://127.0.0.1/, without a user name', value => {
  if (!/^https?:\/\/[\x21-\x7e]+$/i.test(value) || !URL.canParse(value)) return false;
  const url = new URL(value);
  return url.username === '' && url.password === '' && !value.includes('@');
});

/** A section. For a key that is missing, the key's own rule says what was expected. */
function section<const Entries extends v.ObjectEntries>(entries: Entries) {
  return v.strictObject(entries, issue => {
    const key = issue.input === undefined ? issue.path?.at(-1)?.key : undefined;
    const entry = typeof key === 'string' ? entries[key] : undefined;
    const ofKey = entry === undefined ? undefined : v.safeParse(entry, undefined).issues?.[0].message;
    return ofKey ?? expecting('a map of keys')(issue);
  });
}

/** osyw-deploy.yaml: each key alone. What two keys may not say together is in clashes.ts. */
export const settingsSchema = section({
  app: text('a name of lower-case letters, digits, _ and -, at most 63, such as shop', name => /^[a-z0-9][a-z0-9_-]{0,62}$/.test(name)),

  source: section({
    vcs: v.optional(oneOf(['svn', 'git'])),
    working_copy: directory('/var/bottle'),
    timeout: v.optional(duration(), '2m'),
    url: v.optional(examinedText('the URL of a repository', sourceUrlFault)),
    branch: v.optional(branch),
    username: v.optional(text('a user name', name => /^[^-]/.test(name) && !CONTROL.test(name) && name.length < 256)),
    password_file: v.optional(filePath('/etc/osyw-deploy/app.password')),
    paths: v.optional(v.array(glob, expecting('a list of globs: ["src/**", "*.py"]')), []),
  }),

  release: v.optional(section({
    tree: v.optional(oneOf(['snapshot', 'in_place']), 'snapshot'),
    build: v.optional(v.array(words, expecting('a list of commands, each a list of words: [[make, all]]')), []),
    build_timeout: v.optional(duration(), '10m'),
    build_user: v.optional(account),
    shared: v.optional(v.array(shared, expecting('a list of paths inside the release: [data]')), []),
    keep: v.optional(wholeNumber(2, 10_000, 'a whole number, at least 2 (the serving release and the one before)'), 5),
  }), {}),

  workers: section({
    command: wordsWithPlaceholders,
    count: v.optional(wholeNumber(1, 200), 1),
    ports,
    host: v.optional(text('127.0.0.1, ::1 or another IP address without brackets, or localhost',
      host => host === 'localhost' || (isIP(host) !== 0 && !host.includes('%'))), '127.0.0.1'),
    env: v.optional(env, {}),
    env_file: v.optional(filePath('/etc/osyw-deploy/app.env')),
    user: v.optional(account),
    pid_file: v.optional(filePathWithPlaceholders('/run/app_{port}.pid')),
    log: v.optional(filePathWithPlaceholders('/var/log/app/worker-{port}.log')),
    runner: v.optional(oneOf(['process', 'systemd'], 'process or systemd (a transient unit each)'), 'process'),
    systemd: v.optional(section({
      memory_max: v.optional(memoryMax),
      tasks_max: v.optional(wholeNumber(1, 4_194_304, 'a whole number above 0')),
      properties: v.optional(unitProperties),
    }), {}),
    stop: v.optional(section({
      signal: v.optional(oneOf(SIGNALS, SIGNALS.join(', ')), 'SIGTERM'),
      timeout: v.optional(duration(), '10s'),
    }), {}),
  }),

  check: v.optional(section({
    http: v.optional(text('a path that begins with one slash, visible ASCII only, such as /healthz', path => /^\/(?!\/)[\x21-\x7e]*$/.test(path))),
    tcp: v.optional(v.pipe(v.literal(true, expecting('true')), v.description('true'))),
    command: v.optional(wordsWithPlaceholders),
    host: v.optional(text('the Host header, visible ASCII without spaces, such as www.example.org', host => /^[\x21-\x7e]{1,255}$/.test(host))),
    headers: v.optional(headers),
    status: v.optional(v.pipe(
      v.array(wholeNumber(100, 599), expecting('a list of HTTP statuses: [200]')),
      v.minLength(1, () => 'is an empty list; expected a list of HTTP statuses: [200]'),
      v.description('a list of HTTP statuses that are good: [200]'),
    )),
    body: v.optional(text('a regular expression that the body must match', isRegularExpression)),
    interval: v.optional(duration(), '100ms'),
    timeout: v.optional(duration(), '2s'),
    consecutive: v.optional(wholeNumber(1, 1000), 2),
    deadline: v.optional(duration(), '30s'),
  }), {}),

  bake: v.optional(section({for: v.optional(duration({zero: true}), '0s')}), {}),

  nginx: section({
    upstream: text('the name of an upstream: letters, digits, _ . and -', name => /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/.test(name)),
    file: v.optional(filePath('/etc/nginx/conf.d/app.conf')),
    edit: v.optional(filePath('/etc/nginx/nginx.conf')),
    server: v.optional(server, {}),
    directives: v.optional(v.array(directive, expecting('a list of lines for the upstream block: [ip_hash]'))),
    binary: v.optional(filePath('/usr/sbin/nginx'), '/usr/sbin/nginx'),
    conf: v.optional(filePath('/etc/nginx/nginx.conf')),
    prefix: v.optional(text('an absolute path such as /etc/nginx', isNormalPath)),
    probe: v.optional(probe),
    reload: v.optional(words),
  }),

  drain: v.optional(section({
    quiet: v.optional(duration({zero: true}), '60s'),
    deadline: v.optional(duration(), '5m'),
  }), {}),

  hook: v.optional(section({
    wait: v.optional(yesOrNo, false),
    wait_timeout: v.optional(duration(), '5m'),
    supersede: v.optional(yesOrNo, false),
  }), {}),

  watch: v.optional(section({
    poll: v.optional(duration({zero: true}), '1m'),
    settle: v.optional(duration(), '500ms'),
    edits: v.optional(yesOrNo, false),
    check: v.optional(duration(), '30s'),
    webhook: v.optional(section({
      listen: v.optional(listen),
      path: v.optional(text('a path of letters, digits and . _ ~ -, such as /hook', path => /^(?:\/[A-Za-z0-9._~-]+)+$/.test(path) && path.length < 256 && !/\/\.{1,2}(?:\/|$)/.test(path)), '/hook'),
      secret_file: v.optional(filePath('/etc/osyw-deploy/app.webhook')),
      mode: v.optional(socketMode),
      group: v.optional(text('the name of a group of this machine', name => /^[^\s:/]{1,64}$/.test(name))),
      max_body: v.optional(size, '1m'),
      rate: v.optional(rate, '60/m'),
    }), {}),
  }), {}),

  state_dir: v.optional(directory('/var/lib/osyw-deploy/app')),
  run_dir: v.optional(directory('/run/osyw-deploy/app')),
});

export type Settings = v.InferOutput<typeof settingsSchema>;

function isRegularExpression(source: string): boolean {
  try {
    return source.length < 4096 && new RegExp(source) instanceof RegExp;
  } catch {
    return false;
  }
}
