import type {Socket} from 'node:net';
import {setTimeout as pause} from 'node:timers/promises';
import {type Answer, ask, type NoAnswer} from './raw-http.ts';

export const LANES = ['freshGet', 'freshPost', 'keepAliveGet', 'keepAlivePost', 'slow', 'upload'] as const;
export type Lane = (typeof LANES)[number];

export interface Failure {
  readonly lane: Lane;
  /** See NoAnswer; or `STATUS 502`, `BODY` for an answer that is not the one to the request. */
  readonly cause: string;
  readonly bytes: number;
  /** Milliseconds since the start of the traffic. */
  readonly at: number;
  readonly ms: number;
}

export interface LaneReport {
  readonly ok: number;
  readonly failed: number;
  readonly causes: Readonly<Record<string, number>>;
  /** Milliseconds of each good answer, with the time it began; empty with `countsOnly`. */
  readonly latencies: readonly {readonly at: number; readonly ms: number}[];
}

export interface TrafficReport {
  readonly lanes: Readonly<Record<Lane, LaneReport>>;
  /** Failures on connections made for their request: none of these may ever be. */
  readonly failures: readonly Failure[];
  /** Requests on a kept connection that nginx closed under them, its own race on a reload: RST or FIN without one byte of an answer. */
  readonly keepAliveRaces: readonly Failure[];
  /** Every answer of the fresh GET lane in the order of the requests: which version, from which port; empty with `countsOnly`. */
  readonly served: readonly {readonly at: number; readonly version: string; readonly port: number}[];
  /** The versions in the order they were first seen to follow each other: `['1', '2']`. */
  readonly versions: readonly string[];
}

export interface Traffic {
  report(): TrafficReport;
  /** Good answers so far, all lanes. */
  count(): number;
  /** Lets every request that has begun come to its end. */
  stop(): Promise<TrafficReport>;
}

/**
 * Real requests through nginx on `port`, in lanes that fail in different ways.
 * Shape:  `lanes` how many clients each lane has; `everyMs` a client's pause between its requests.
 * `countsOnly` keeps no good answer, only how many there were and their versions: a load of hours then needs no more memory than one of seconds.
 */
export function startTraffic(port: number, options: {lanes?: Partial<Record<Lane, number>>; everyMs?: number; slowMs?: number; uploadBytes?: number; countsOnly?: boolean} = {}): Traffic {
  const began = performance.now();
  const everyMs = options.everyMs ?? 20;
  const clients: Record<Lane, number> = {freshGet: 2, freshPost: 1, keepAliveGet: 1, keepAlivePost: 1, slow: 1, upload: 1, ...options.lanes};
  const latencies = perLane((): {at: number; ms: number}[] => []);
  const good = perLane(() => 0);
  const versions = new Set<string>();
  const failures: Failure[] = [];
  const races: Failure[] = [];
  const served: {at: number; version: string; port: number}[] = [];
  const upload = Buffer.alloc(options.uploadBytes ?? 300_000, 'u');
  let going = true;
  let count = 0;

  const send: Record<Lane, (number: number, socket: Socket | undefined) => Promise<Answer | NoAnswer>> = {
    freshGet: () => ask({port, path: '/'}),
    freshPost: (number) => ask({port, method: 'POST', path: '/echo', body: `fresh ${number}`}),
    keepAliveGet: (_, socket) => ask({port, path: '/', keepAlive: true, ...(socket && {socket})}),
    keepAlivePost: (number, socket) => ask({port, method: 'POST', path: '/echo', body: `kept ${number}`, keepAlive: true, ...(socket && {socket})}),
    slow: () => ask({port, path: `/slow?ms=${options.slowMs ?? 300}`}),
    upload: () => ask({port, method: 'POST', path: '/upload', body: upload, parts: {count: 5, pauseMs: 20}}),
  };
  const isRight: Record<Lane, (answer: Answer, number: number) => boolean> = {
    freshGet: (answer) => answer.body.length > 0,
    freshPost: (answer, number) => answer.body.toString() === `fresh ${number}`,
    keepAliveGet: (answer) => answer.body.length > 0,
    keepAlivePost: (answer, number) => answer.body.toString() === `kept ${number}`,
    slow: (answer) => answer.body.length > 0,
    upload: (answer) => answer.body.includes(`"bytes": ${upload.length},`),
  };

  async function client(lane: Lane): Promise<void> {
    let socket: Socket | undefined;
    for (let number = 0; going; number++) {
      const at = performance.now() - began;
      // Closed while nothing was under way: a client that has seen it makes a new connection, and no request was touched.
      if (socket && (socket.destroyed || socket.readableEnded || !socket.writable)) socket = undefined;
      const reused = socket !== undefined;
      const answer = await send[lane](number, socket);
      socket = answer.kind === 'answer' ? answer.socket : undefined;
      if (answer.kind === 'none') {
        const failure = {lane, cause: answer.cause, bytes: answer.bytes, at, ms: answer.ms};
        const isRace = reused && answer.bytes === 0 && (answer.cause === 'RST' || answer.cause === 'FIN');
        (isRace ? races : failures).push(failure);
      } else if (answer.status !== 200 || !isRight[lane](answer, number)) {
        failures.push({lane, cause: answer.status === 200 ? 'BODY' : `STATUS ${answer.status}`, bytes: answer.body.length, at, ms: answer.ms});
      } else {
        count++;
        good[lane]++;
        if (lane === 'freshGet') versions.add(answer.body.toString());
        if (!options.countsOnly) latencies[lane].push({at, ms: answer.ms});
        if (lane === 'freshGet' && !options.countsOnly) served.push({at, version: answer.body.toString(), port: Number(answer.headers['x-osyw-port'])});
      }
      await pause(everyMs);
    }
    socket?.destroy();
  }

  const running = LANES.flatMap((lane) => Array.from({length: clients[lane]}, () => client(lane)));

  function report(): TrafficReport {
    const inOrder = [...served].sort((a, b) => a.at - b.at);
    const lanes = perLane((lane): LaneReport => {
      const failed = [...failures, ...races].filter((failure) => failure.lane === lane);
      const causes: Record<string, number> = {};
      for (const failure of failed) causes[failure.cause] = (causes[failure.cause] ?? 0) + 1;
      return {ok: good[lane], failed: failed.length, causes, latencies: latencies[lane]};
    });
    return {lanes, failures: [...failures], keepAliveRaces: [...races], served: inOrder, versions: options.countsOnly ? [...versions] : firstSeen(inOrder.map((answer) => answer.version))};
  }

  return {
    report,
    count: () => count,
    async stop() {
      going = false;
      await Promise.all(running);
      return report();
    },
  };
}

function perLane<T>(make: (lane: Lane) => T): Record<Lane, T> {
  return {
    freshGet: make('freshGet'),
    freshPost: make('freshPost'),
    keepAliveGet: make('keepAliveGet'),
    keepAlivePost: make('keepAlivePost'),
    slow: make('slow'),
    upload: make('upload'),
  };
}

/** During a reload old and new nginx workers accept side by side, so only the order of first sight is a promise. */
function firstSeen(versions: readonly string[]): string[] {
  return [...new Set(versions)];
}
