// The attacks: cheap requests that cost the server a lot.
import { connect, type Socket } from "node:net";
import type { Server, TestBroker } from "../support/servers/server.ts";
import type { TestBrokerOptions } from "../wire/servers/app.ts";

/** A target: one broker in a server, and what the attacker has sent to it. */
export interface Target {
  readonly server: Server;
  readonly broker: TestBroker;
  /** Bytes that the attacker has sent. */
  sent: number;
  /** Requests that the attacker has sent. */
  requests: number;
  readonly sockets: Socket[];
}

/** One attack. */
export interface Attack {
  readonly what: string;
  readonly options?: TestBrokerOptions;
  /** Events that the log holds: their number, their bytes, and the number of channels over which they are spread. */
  readonly history?: { readonly count: number; readonly bytes: number; readonly channels: number };
  /** Begins the attack. Requests are sent evenly over each second. */
  readonly perSecond: number;
  request(target: Target, index: number): void;
}

/** The most work for the fewest bytes: as many small events as the log holds, in as many channels as a client may have. */
const SMALL = { count: 110_000, bytes: 8, channels: 100 };
const CHANNELS = Array.from({ length: 100 }, (_, index) => `channel=c${index}`).join("&");

/** Sends a request whose answer is never read. */
function send({ server, sockets }: Target, text: string): number {
  const socket = connect({ host: "127.0.0.1", port: server.port });
  socket.on("error", () => undefined);
  socket.pause();
  socket.write(text);
  sockets.push(socket);
  return text.length;
}

function get(target: Target, query: string): void {
  target.sent += send(
    target,
    `GET ${target.broker.path("connect")}?${query} HTTP/1.1\r\nhost: a\r\naccept: text/event-stream\r\n\r\n`,
  );
  target.requests++;
}

/** Publishes one byte to 100 channels that nobody has used before. */
function publishToNewChannels(target: Target, index: number): void {
  const channels = Array.from({ length: 100 }, (_, n) => `channel=new-${index}-${n}`).join("&");
  const head = `POST ${target.broker.path("broadcast")}?${channels} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer secret\r\n`;
  target.sent += send(target, `${head}connection: close\r\ncontent-length: 1\r\n\r\nx`);
  target.requests++;
}

/** Sends a hundred requests for a stream on one socket, without waiting for an answer (RFC 9112, section 9.3.2). */
function pipeline(target: Target): void {
  const request = `GET ${target.broker.path("connect")} HTTP/1.1\r\nhost: a\r\naccept: text/event-stream\r\n\r\n`;
  target.sent += send(target, request.repeat(100));
  target.requests += 100;
}

/** Begins a body of 60 kB, and never ends it. */
function beginBody(target: Target): void {
  const head = `POST ${target.broker.path("connect")} HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-www-form-urlencoded\r\n`;
  target.sent += send(target, `${head}content-length: 60000\r\n\r\n${"x".repeat(50_000)}`);
  target.requests++;
}

export const attacks: Readonly<Record<string, Attack>> = {
  none: { what: "nothing, for comparison", history: SMALL, perSecond: 0, request: () => undefined },
  replay: {
    what: "replays of the whole log through 100 channels, never read",
    history: SMALL,
    perSecond: 50,
    request: (target) => get(target, `from=earliest&${CHANNELS}`),
  },
  bounded: {
    what: "the same, with maxReplay of 1 MiB",
    options: { maxReplay: { bytes: 1024 * 1024 } },
    history: SMALL,
    perSecond: 50,
    request: (target) => get(target, `from=earliest&${CHANNELS}`),
  },
  silent: {
    what: "clients of one ordinary channel that never read",
    history: { count: 2_800, bytes: 10_000, channels: 1 },
    perSecond: 30,
    request: (target) => get(target, "channel=c0&from=earliest"),
  },
  channels: {
    what: "one byte to 100 new channels in each publish",
    history: SMALL,
    perSecond: 200,
    request: publishToNewChannels,
  },
  pipelining: { what: "a hundred requests for a stream on each socket", perSecond: 20, request: pipeline },
  bodies: {
    what: "bodies that begin and never end, with a bodyTimeout of 2 s",
    options: { bodyTimeout: 2_000 },
    perSecond: 100,
    request: beginBody,
  },
};
