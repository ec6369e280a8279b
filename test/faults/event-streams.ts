import {connect} from 'node:net';

export interface Streams {
  /** Streams that gave what they should have given. */
  readonly whole: number;
  /** Streams that ended early because the process that answered them was among those in `killed`. */
  readonly cutByUs: number;
  readonly failures: readonly string[];
}

const EVENTS = 6;

/**
 * One client after another that follows `/events` of the fixture through nginx, and leaves after some events.
 * Shape:  `killed` the pids that the test killed; a stream that ends with one of them was no deploy's doing.
 */
export function followEvents(port: number, killed: ReadonlySet<number>): {report(): Streams; stop(): Promise<void>} {
  let going = true;
  let whole = 0;
  let cutByUs = 0;
  const failures: string[] = [];
  const following = (async () => {
    while (going) {
      const {text, cause} = await follow(port);
      const pid = Number(/^x-osyw-pid: (\d+)/im.exec(text)?.[1]);
      const ids = [...text.matchAll(/^id: (\d+)$/gm)].map(([, id]) => Number(id));
      if (cause === undefined && text.startsWith('HTTP/1.1 200 ') && ids.every((id, at) => id === at)) whole++;
      else if (killed.has(pid)) cutByUs++;
      else failures.push(`${cause ?? 'WRONG EVENTS'} after ${ids.length} events of pid ${pid}: ${text.slice(0, 20)}`);
    }
  })();
  return {
    report: () => ({whole, cutByUs, failures: [...failures]}),
    async stop() {
      going = false;
      await following;
    },
  };
}

/** The text until enough events have come, or why it ended before. */
function follow(port: number): Promise<{text: string; cause: string | undefined}> {
  const socket = connect({port, host: '127.0.0.1', noDelay: true});
  return new Promise((resolve) => {
    let text = '';
    const end = (cause: string | undefined): void => {
      socket.removeAllListeners().on('error', () => {}).destroy();
      resolve({text, cause});
    };
    socket.setEncoding('latin1');
    socket.setTimeout(10_000, () => end('TIMEOUT'));
    socket.on('data', (part) => {
      text += String(part);
      if (text.includes(`\nid: ${EVENTS}\n`)) end(undefined);
    });
    socket.on('end', () => end('FIN'));
    socket.on('error', (error: NodeJS.ErrnoException) => end(error.code ?? 'UNKNOWN'));
    socket.write('GET /events HTTP/1.1\r\nhost: www.example.org\r\nconnection: close\r\n\r\n');
  });
}
