// Connections that read streams and count their events.
import { connect, type Socket } from "node:net";
import { Counter, Sampler } from "./counter.ts";
import { clock } from "./event.ts";

/** Connections whose events are read one by one. */
const SAMPLED = 16;
/** Connections opened at a time. More would overflow the server's backlog. */
const CONCURRENCY = 100;

/** How connections request their stream. */
export interface OpenOptions {
  readonly query?: (index: number) => string;
  readonly lastEventId?: string | undefined;
  /** Connections opened at a time. @default CONCURRENCY */
  readonly concurrency?: number;
  /** Whether to remember the last id, which costs more than everything else. */
  readonly remembersId?: boolean;
}

/** The request of one connection. */
interface StreamRequest {
  readonly query: string;
  readonly lastEventId: string | undefined;
  /** Whether its events are read one by one. */
  readonly isSampled: boolean;
  readonly remembersId: boolean;
}

/** Open streams. */
export class Subscribers {
  /** Events received, by connection. */
  readonly counts: number[] = [];
  readonly samplers: Sampler[] = [];
  delivered = 0;
  /** Time of the last expected event, by {@link clock}. */
  lastAt = 0;
  closed = 0;
  /** The last id received by a connection that remembers it. */
  lastEventId: string | undefined;
  /** Number of events to wait for. The clock is not read at every chunk, because there may be half a million per second. */
  #goal = Infinity;
  readonly #port: number;
  readonly #counter: Counter;
  readonly #sockets: Socket[] = [];
  // Filled and read in the same turn, so all connections can share it.
  readonly #buffer = Buffer.allocUnsafe(64 * 1024);

  constructor(port: number, eventLength: number) {
    this.#port = port;
    this.#counter = new Counter(eventLength);
  }

  async open(
    clients: number,
    { query = () => "", lastEventId, concurrency = CONCURRENCY, remembersId = false }: OpenOptions = {},
  ): Promise<void> {
    const sampledEvery = Math.max(1, Math.floor(clients / SAMPLED));
    const first = this.counts.length;
    await inBatches(clients, concurrency, (nth) => {
      this.counts[first + nth] = 0;
      return this.#open(first + nth, {
        query: query(nth),
        lastEventId,
        isSampled: nth % sampledEvery === 0,
        remembersId,
      });
    });
  }

  /** Opens connections that request their stream and never read a byte of it. */
  async openStalled(clients: number, query: (index: number) => string): Promise<void> {
    await inBatches(
      clients,
      CONCURRENCY,
      (nth) =>
        new Promise((resolve, reject) => {
          const socket = connect({ port: this.#port, host: "127.0.0.1" }, resolve);
          socket.pause();
          socket.on("error", reject);
          socket.on("close", () => this.closed++);
          socket.write(head(query(nth), undefined));
          this.#sockets.push(socket);
        }),
    );
  }

  /** Resolves when `events` have arrived in all, or when none arrived for `maxSilence` seconds. */
  async waitFor(events: number, maxSilence: number): Promise<void> {
    this.#goal = events;
    if (this.delivered >= events) this.lastAt = clock();
    let seen = -1;
    while (this.delivered < events) {
      if (this.delivered !== seen) this.lastAt = clock();
      else if (clock() - this.lastAt > maxSilence * 1_000_000) break;
      seen = this.delivered;
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    this.#goal = Infinity;
  }

  #open(index: number, { query, lastEventId, isSampled, remembersId }: StreamRequest): Promise<void> {
    const sampler = isSampled ? new Sampler() : undefined;
    if (sampler) this.samplers.push(sampler);
    return new Promise((resolve, reject) => {
      let received = "";
      const read = (length: number): boolean => {
        const bytes = this.#buffer;
        if (received !== "open") {
          received += bytes.toString("latin1", 0, length);
          if (!received.includes("\r\n\r\n")) return true;
          if (received.startsWith("HTTP/1.1 200")) resolve();
          else reject(new Error(`connecting: the server answered ${JSON.stringify(received.slice(0, 200))}`));
          received = "open";
        }
        if (remembersId) this.#remember(bytes, length);
        sampler?.read(bytes, length);
        const events = this.#counter.count(bytes, length);
        if (events === 0) return true;
        this.counts[index] = (this.counts[index] as number) + events;
        this.delivered += events;
        if (this.delivered >= this.#goal) this.lastAt = clock();
        return true;
      };
      const socket = connect({ port: this.#port, host: "127.0.0.1", onread: { buffer: this.#buffer, callback: read } });
      socket.on("error", reject);
      socket.on("close", () => this.closed++);
      socket.write(head(query, lastEventId));
      this.#sockets.push(socket);
    });
  }

  #remember(bytes: Buffer, length: number): void {
    const ids = [...bytes.toString("latin1", 0, length).matchAll(/^id: ?(.*)\r?\n/gm)];
    this.lastEventId = ids.at(-1)?.[1] ?? this.lastEventId;
  }
}

const head = (query: string, lastEventId: string | undefined): string =>
  `GET /connect${query} HTTP/1.1\r\nhost: bench\r\naccept: text/event-stream\r\n` +
  `${lastEventId === undefined ? "" : `last-event-id: ${lastEventId}\r\n`}\r\n`;

async function inBatches(count: number, atOnce: number, open: (nth: number) => Promise<void>): Promise<void> {
  for (let first = 0; first < count; first += atOnce) {
    const batch = Math.min(atOnce, count - first);
    await Promise.all(Array.from({ length: batch }, (_, nth) => open(first + nth)));
  }
}
