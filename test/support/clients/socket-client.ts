import { connect, type Socket } from "node:net";
import { createParser, type EventSourceMessage } from "eventsource-parser";

/** A client that is no library: one socket, what was read from it, and when to read. */
export class SocketClient {
  readonly socket: Socket;
  readonly events: EventSourceMessage[] = [];
  /** Bytes of the body. */
  received = 0;
  status = 0;
  headers: Record<string, string> = {};
  comments = 0;
  retry: number | undefined;
  /** The last id seen, as an EventSource would send it. */
  lastEventId: string | undefined;
  /** Count numbered events instead of keeping them; each flood begins at 0. */
  forget = false;
  count = 0;
  outOfOrder = 0;
  /** How the stream ended: with its last chunk, by a closed socket, or by an error. */
  ended: "complete" | "closed" | "error" | undefined;

  #number = -1;
  #drip: NodeJS.Timeout | undefined;
  #head = "";
  #frame: { left: number } = { left: 0 };
  #buffer: Buffer = Buffer.alloc(0);
  #chunked = false;
  #taken = 0;
  #wake: (() => void)[] = [];
  readonly #decoder = new TextDecoder();
  readonly #parser = createParser({
    onEvent: (event) => {
      if (event.id !== undefined) this.lastEventId = event.id;
      if (this.forget && !event.event?.startsWith("fanwire-")) this.#count(Number.parseInt(event.data, 10));
      else this.events.push(event);
    },
    onComment: () => this.comments++,
    onRetry: (ms) => {
      this.retry = ms;
    },
  });

  constructor(url: string, headers: Record<string, string> = {}, method = "GET") {
    const { hostname, port, pathname, search } = new URL(url);
    this.socket = connect({ host: hostname, port: Number(port) });
    this.socket.on("data", (data) => this.#read(data));
    this.socket.on("error", () => this.#end("error"));
    this.socket.on("close", () => this.#end("closed"));
    const lines = Object.entries({ host: `${hostname}:${port}`, accept: "text/event-stream", ...headers });
    this.socket.write(
      `${method} ${pathname}${search} HTTP/1.1\r\n${lines.map(([k, v]) => `${k}: ${v}\r\n`).join("")}\r\n`,
    );
  }

  /** Data events, without fanwire's own. */
  get data(): string[] {
    return this.events.filter(({ event }) => !event?.startsWith("fanwire-")).map(({ data }) => data);
  }

  control(name: string): EventSourceMessage[] {
    return this.events.filter(({ event }) => event === `fanwire-${name}`);
  }

  /** Waits until this is so, looking again whenever something was read. */
  async until(holds: (client: this) => boolean): Promise<this> {
    while (!holds(this)) {
      if (this.ended)
        throw new Error(`the stream ended (${this.ended}) with ${this.events.length} events, status ${this.status}`);
      await new Promise<void>((resolve) => this.#wake.push(resolve));
    }
    return this;
  }

  ready(): Promise<this> {
    return this.until(() => this.control("ready").length > 0);
  }

  async end(): Promise<this> {
    while (!this.ended) await new Promise<void>((resolve) => this.#wake.push(resolve));
    return this;
  }

  /** The next event that was not taken yet. */
  async next(): Promise<EventSourceMessage> {
    await this.until(() => this.events.length > this.#taken);
    return this.events[this.#taken++] as EventSourceMessage;
  }

  #count(number: number): void {
    this.count++;
    if (number !== 0 && number !== this.#number + 1) this.outOfOrder++;
    this.#number = number;
  }

  /** Reads no more than so many bytes a second. */
  drip(bytes: number): void {
    this.socket.pause();
    this.socket.removeAllListeners("data");
    this.#drip = setInterval(() => {
      const data: Buffer | null = this.socket.read(Math.min(bytes / 10, this.socket.readableLength));
      if (data) this.#read(data);
    }, 100);
  }

  stall(): void {
    this.socket.pause();
  }

  resume(): void {
    clearInterval(this.#drip);
    if (this.#drip) this.socket.on("data", (data) => this.#read(data));
    this.#drip = undefined;
    this.socket.resume();
  }

  /** Leaves with FIN. */
  leave(): void {
    this.socket.destroy();
  }

  /** Leaves with RST. */
  reset(): void {
    this.socket.resetAndDestroy();
  }

  #end(how: NonNullable<SocketClient["ended"]>): void {
    this.ended ??= how;
    this.#notify();
  }

  #notify(): void {
    for (const wake of this.#wake.splice(0)) wake();
  }

  #read(data: Buffer): void {
    if (this.status === 0) {
      this.#head += data.toString("latin1");
      const end = this.#head.indexOf("\r\n\r\n");
      if (end < 0) return;
      const [first = "", ...lines] = this.#head.slice(0, end).split("\r\n");
      this.status = Number(first.split(" ")[1]);
      for (const line of lines) {
        const colon = line.indexOf(":");
        this.headers[line.slice(0, colon).toLowerCase()] = line.slice(colon + 1).trim();
      }
      this.#chunked = this.headers["transfer-encoding"] === "chunked";
      data = Buffer.from(this.#head.slice(end + 4), "latin1");
      if (this.status === 204) this.#end("complete");
    }
    if (this.#chunked) this.#dechunk(data);
    else this.#body(data);
    this.#notify();
  }

  #dechunk(data: Buffer): void {
    this.#buffer = this.#buffer.length > 0 ? Buffer.concat([this.#buffer, data]) : data;
    for (;;) {
      if (this.#frame.left > 0) {
        const part = this.#buffer.subarray(0, this.#frame.left);
        if (part.length === 0) return;
        this.#buffer = this.#buffer.subarray(part.length);
        this.#frame.left -= part.length;
        this.#body(part);
        continue;
      }
      // After a frame comes its CRLF, before the next one its size.
      const start = this.#buffer.indexOf("\r\n") === 0 ? 2 : 0;
      const line = this.#buffer.indexOf("\r\n", start);
      if (line < 0) return;
      this.#frame.left = Number.parseInt(this.#buffer.toString("latin1", start, line), 16);
      this.#buffer = this.#buffer.subarray(line + 2);
      if (this.#frame.left > 0) continue;
      this.#end("complete");
      return;
    }
  }

  #body(part: Buffer): void {
    this.received += part.length;
    this.#parser.feed(this.#decoder.decode(part, { stream: true }));
    if (this.received === Number(this.headers["content-length"])) this.#end("complete");
  }
}
