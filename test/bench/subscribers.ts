import { connect, type Socket } from "node:net";
import { Counter, Sampler } from "./counter.ts";
import { clock } from "./event.ts";

/** Connections whose events are read one by one. */
const SAMPLED = 16;
/** Connections that are opened at once; more would overflow the server's backlog. */
const AT_ONCE = 100;

/** How connections ask for their stream. */
export interface Asking {
  readonly query?: (index: number) => string;
  readonly lastEventId?: string | undefined;
  /** How many are opened at once, rather than {@link AT_ONCE}. */
  readonly atOnce?: number;
  /** Whether the ids of what comes are looked at, which costs more than all the rest. */
  readonly remembers?: boolean;
}

/** One of them. */
interface Opening {
  readonly query: string;
  readonly lastEventId: string | undefined;
  /** Whether its events are read one by one. */
  readonly sampled: boolean;
  readonly remembers: boolean;
}

/** Streams whose events are counted. */
export class Subscribers {
  /** Events that came, by connection. */
  readonly counts: number[] = [];
  readonly samplers: Sampler[] = [];
  delivered = 0;
  /** When the last one came that was waited for, by {@link clock}. */
  lastAt = 0;
  closed = 0;
  /** The last id that was told to one who connected to remember it. */
  lastEventId: string | undefined;
  /** How many are waited for. The time is not looked up at every read, of which there may be half a million in a second. */
  #goal = Infinity;
  readonly #port: number;
  readonly #counter: Counter;
  readonly #sockets: Socket[] = [];
  // Filled and read in one turn, so that all connections can share it.
  readonly #buffer = Buffer.allocUnsafe(64 * 1024);

  constructor(port: number, eventLength: number) {
    this.#port = port;
    this.#counter = new Counter(eventLength);
  }

  async open(
    clients: number,
    { query = () => "", lastEventId, atOnce = AT_ONCE, remembers = false }: Asking = {},
  ): Promise<void> {
    const sampledEvery = Math.max(1, Math.floor(clients / SAMPLED));
    const first = this.counts.length;
    await inTurns(clients, atOnce, (nth) => {
      this.counts[first + nth] = 0;
      return this.#open(first + nth, { query: query(nth), lastEventId, sampled: nth % sampledEvery === 0, remembers });
    });
  }

  /** Connections that ask for their stream and never read a byte of it. */
  async openStalled(clients: number, query: (index: number) => string): Promise<void> {
    await inTurns(
      clients,
      AT_ONCE,
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

  /** Resolves when so many events have come in all, or nothing came for so many seconds. */
  async settled(events: number, patience: number): Promise<void> {
    this.#goal = events;
    if (this.delivered >= events) this.lastAt = clock();
    let seen = -1;
    while (this.delivered < events) {
      if (this.delivered !== seen) this.lastAt = clock();
      else if (clock() - this.lastAt > patience * 1_000_000) break;
      seen = this.delivered;
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    this.#goal = Infinity;
  }

  #open(index: number, { query, lastEventId, sampled, remembers }: Opening): Promise<void> {
    const sampler = sampled ? new Sampler() : undefined;
    if (sampler) this.samplers.push(sampler);
    return new Promise((resolve, reject) => {
      let answer = "";
      const read = (length: number): boolean => {
        const bytes = this.#buffer;
        if (answer !== "open") {
          answer += bytes.toString("latin1", 0, length);
          if (!answer.includes("\r\n\r\n")) return true;
          if (answer.startsWith("HTTP/1.1 200")) resolve();
          else reject(new Error(`connecting: the server answered ${JSON.stringify(answer.slice(0, 200))}`));
          answer = "open";
        }
        if (remembers) this.#remember(bytes, length);
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

async function inTurns(count: number, atOnce: number, open: (nth: number) => Promise<void>): Promise<void> {
  for (let first = 0; first < count; first += atOnce) {
    const turn = Math.min(atOnce, count - first);
    await Promise.all(Array.from({ length: turn }, (_, nth) => open(first + nth)));
  }
}
