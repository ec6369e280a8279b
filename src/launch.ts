import {chmodSync, closeSync, constants, fstatSync, lstatSync, openSync, readFileSync, renameSync, unlinkSync, writeFileSync} from 'node:fs';
import {dirname} from 'node:path';
import {Script} from 'node:vm';
import {crc32} from 'node:zlib';

/**
 * The head of the bundle. The program follows as comments, which cost Node nothing, so that it need not be compiled when
 * V8's code of an earlier run lies beside it: half of the time that the command takes to begin.
 * Whoever could put code there could as well change the bundle; nothing else is believed.
 */
const MARK = '\n// The program:\n';
const CACHE = `${__filename}.${process.version}-${process.arch}.cache`;
const HEADER_BYTES = 8;
const WRITABLE_BY_OTHERS = 0o022;

const bytes = readFileSync(__filename);
const bundle = bytes.toString('latin1');
const head = bundle.lastIndexOf(MARK) + MARK.length;
const source = bundle.slice(head + '//'.length).replaceAll('\n//', '\n');
const sourceSum = crc32(bytes);
const cachedData = readCache();
const script = new Script(source, {filename: __filename, lineOffset: bundle.slice(0, head).split('\n').length - 1, ...(cachedData === undefined ? {} : {cachedData})});

/** Takes as long to load as the configuration, and can wait until svn or git is waited for. */
const LATE = 'node:crypto';
const late: unknown = new Proxy({}, {get: (_, name) => (require(LATE) as Record<string | symbol, unknown>)[name]});

const main = {exports: {}};
(script.runInThisContext() as (...args: unknown[]) => void)((name: string) => name === LATE ? late : require(name) as unknown, main, main.exports, __filename, dirname(__filename));

// Functions that a run did not call are not in its code, so it is that of the command which has to be quick.
if ((cachedData === undefined || script.cachedDataRejected === true) && process.argv[2] === 'now') {
  process.once('exit', code => {
    if (code === 0) writeCache();
  });
}

/** V8 looks at its version, its flags and the length of the source; the sums say that it is this source, and that all of it is there. */
function readCache(): Buffer | undefined {
  try {
    if (!isOurs(lstatSync(dirname(__filename)))) return undefined;
    const fd = openSync(CACHE, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    try {
      const stat = fstatSync(fd);
      if (!stat.isFile() || !isOurs(stat)) return undefined;
      const bytes = readFileSync(fd);
      const code = bytes.subarray(HEADER_BYTES);
      return bytes.readUInt32LE(0) === sourceSum && bytes.readUInt32LE(4) === crc32(code) ? code : undefined;
    } finally {
      closeSync(fd);
    }
  } catch {
    return undefined; // There is none yet, or it is torn: the program is compiled then.
  }
}

function writeCache(): void {
  const unfinished = `${CACHE}.${process.pid}`;
  try {
    if (!isOurs(lstatSync(dirname(__filename)))) return;
    const code = script.createCachedData();
    const header = Buffer.alloc(HEADER_BYTES);
    header.writeUInt32LE(sourceSum, 0);
    header.writeUInt32LE(crc32(code), 4);
    writeFileSync(unfinished, Buffer.concat([header, code]), {flag: 'wx', mode: 0o644});
    chmodSync(unfinished, 0o644);
    renameSync(unfinished, CACHE);
  } catch {
    removeUnfinished(unfinished); // A full disk, or not ours to write: the next run is as slow as this one.
  }
}

function removeUnfinished(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    return; // It was never made.
  }
}

/** Root's or our own, and nobody else may write there. */
function isOurs({uid, mode}: {uid: number; mode: number}): boolean {
  return (uid === 0 || uid === process.geteuid?.()) && (mode & WRITABLE_BY_OTHERS) === 0;
}
