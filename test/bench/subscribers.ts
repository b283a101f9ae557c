import { connect } from "node:net";
import { countEvents, Sampler } from "./counter.ts";
import { clock } from "./event.ts";

/** Connections whose events are read one by one. */
const SAMPLED = 16;
/** Connections that are opened at once; more would overflow the server's backlog. */
const AT_ONCE = 100;

/** Streams, each with an id of its own, whose events are counted. */
export class Subscribers {
  /** Events that came, by connection. */
  readonly counts: number[] = [];
  readonly samplers: Sampler[] = [];
  delivered = 0;
  /** When the last one came, by {@link clock}. */
  lastAt = 0;
  closed = 0;
  // Filled and read in one turn, so that all connections can share it.
  readonly #buffer = Buffer.allocUnsafe(64 * 1024);

  async open(port: number, clients: number): Promise<void> {
    const sampledEvery = Math.max(1, Math.floor(clients / SAMPLED));
    for (let first = 0; first < clients; first += AT_ONCE) {
      const last = Math.min(clients, first + AT_ONCE);
      const opening: Promise<void>[] = [];
      for (let index = first; index < last; index++) opening.push(this.#open(port, index, index % sampledEvery === 0));
      await Promise.all(opening);
    }
  }

  /** Resolves when so many events have come in all, or nothing came for so long. */
  async settled(events: number, patience: number): Promise<void> {
    let progress = { delivered: -1, at: 0 };
    while (this.delivered < events) {
      if (this.delivered !== progress.delivered) progress = { delivered: this.delivered, at: clock() };
      else if (clock() - progress.at > patience * 1_000_000) return;
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  #open(port: number, index: number, sampled: boolean): Promise<void> {
    this.counts[index] = 0;
    const sampler = sampled ? new Sampler() : undefined;
    if (sampler) this.samplers.push(sampler);
    return new Promise((resolve, reject) => {
      let head = "";
      const read = (length: number): boolean => {
        const bytes = this.#buffer;
        if (head !== "open") {
          head += bytes.toString("latin1", 0, length);
          if (!head.includes("\r\n\r\n")) return true;
          if (head.startsWith("HTTP/1.1 200")) resolve();
          else reject(new Error(`connecting: the server answered ${JSON.stringify(head.slice(0, 200))}`));
          head = "open";
        }
        const events = countEvents(bytes, length);
        if (events === 0) return true;
        this.counts[index] = (this.counts[index] as number) + events;
        this.delivered += events;
        this.lastAt = clock();
        sampler?.read(bytes, length);
        return true;
      };
      const socket = connect({ port, host: "127.0.0.1", onread: { buffer: this.#buffer, callback: read } });
      socket.on("error", reject);
      socket.on("close", () => this.closed++);
      socket.write(`GET /connect?id=c${index} HTTP/1.1\r\nhost: bench\r\naccept: text/event-stream\r\n\r\n`);
    });
  }
}
