// A client that uses no HTTP library: one socket, and full control of when it reads.
import { connect, type Socket } from "node:net";
import { createParser, type EventSourceMessage } from "eventsource-parser";

/** Sends one request and parses the response and its events. Reads all the time, unless a method says otherwise. */
export class SocketClient {
  readonly socket: Socket;
  readonly events: EventSourceMessage[] = [];
  /** Bytes of the body that were read. */
  receivedBytes = 0;
  status = 0;
  headers: Record<string, string> = {};
  comments = 0;
  retry: number | undefined;
  /** The `Last-Event-ID` that an EventSource would send. */
  lastEventId: string | undefined;
  /** Whether events with numbers as data are counted and not kept. A series of numbers begins at 0. */
  countsOnly = false;
  /** The number of events that were counted. */
  count = 0;
  /** The number of events whose number did not follow the one before. */
  outOfOrder = 0;
  /** How the stream ended: with its last chunk, by a closed socket, or by an error of the socket. */
  ended: "complete" | "closed" | "error" | undefined;

  #lastNumber = -1;
  #slowReads: NodeJS.Timeout | undefined;
  #head = "";
  /** Bytes of the current HTTP chunk that are not read yet. */
  #chunkBytesLeft = 0;
  #buffer: Buffer = Buffer.alloc(0);
  #isChunked = false;
  #taken = 0;
  #wake: (() => void)[] = [];
  readonly #decoder = new TextDecoder();
  readonly #parser = createParser({
    onEvent: (event) => {
      if (event.id !== undefined) this.lastEventId = event.id;
      if (this.countsOnly && !event.event?.startsWith("fanwire-")) this.#count(Number.parseInt(event.data, 10));
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

  /** The data of all kept events, without control events. */
  get data(): string[] {
    return this.events.filter(({ event }) => !event?.startsWith("fanwire-")).map(({ data }) => data);
  }

  /** Returns the control events of a name that were read. `name` is without `fanwire-`. */
  control(name: string): EventSourceMessage[] {
    return this.events.filter(({ event }) => event === `fanwire-${name}`);
  }

  /** Waits until `condition` is true. Checks it whenever something was read. */
  async until(condition: (client: this) => boolean): Promise<this> {
    while (!condition(this)) {
      if (this.ended)
        throw new Error(
          `Reading a stream: it ended (${this.ended}) after ${this.events.length} events, with status ${this.status}.`,
        );
      await new Promise<void>((resolve) => this.#wake.push(resolve));
    }
    return this;
  }

  /** Waits for `fanwire-ready`. */
  untilReady(): Promise<this> {
    return this.until(() => this.control("ready").length > 0);
  }

  /** Waits until the stream has ended. */
  async untilEnded(): Promise<this> {
    while (!this.ended) await new Promise<void>((resolve) => this.#wake.push(resolve));
    return this;
  }

  /** Takes the next event, which may be a control event. */
  async next(): Promise<EventSourceMessage> {
    await this.until(() => this.events.length > this.#taken);
    return this.events[this.#taken++] as EventSourceMessage;
  }

  #count(number: number): void {
    this.count++;
    if (number !== 0 && number !== this.#lastNumber + 1) this.outOfOrder++;
    this.#lastNumber = number;
  }

  /** Reads a limited number of bytes a second from now on. */
  readSlowly(bytesPerSecond: number): void {
    this.socket.pause();
    this.socket.removeAllListeners("data");
    this.#slowReads = setInterval(() => {
      const data: Buffer | null = this.socket.read(Math.min(bytesPerSecond / 10, this.socket.readableLength));
      if (data) this.#read(data);
    }, 100);
  }

  /** Stops reading. */
  pause(): void {
    this.socket.pause();
  }

  /** Reads at full speed again. */
  resume(): void {
    clearInterval(this.#slowReads);
    if (this.#slowReads) this.socket.on("data", (data) => this.#read(data));
    this.#slowReads = undefined;
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
      this.#isChunked = this.headers["transfer-encoding"] === "chunked";
      data = Buffer.from(this.#head.slice(end + 4), "latin1");
      if (this.status === 204) this.#end("complete");
    }
    if (this.#isChunked) this.#dechunk(data);
    else this.#body(data);
    this.#notify();
  }

  #dechunk(data: Buffer): void {
    this.#buffer = this.#buffer.length > 0 ? Buffer.concat([this.#buffer, data]) : data;
    for (;;) {
      if (this.#chunkBytesLeft > 0) {
        const part = this.#buffer.subarray(0, this.#chunkBytesLeft);
        if (part.length === 0) return;
        this.#buffer = this.#buffer.subarray(part.length);
        this.#chunkBytesLeft -= part.length;
        this.#body(part);
        continue;
      }
      // A CRLF follows each HTTP chunk, and its size comes before the next one.
      const start = this.#buffer.indexOf("\r\n") === 0 ? 2 : 0;
      const line = this.#buffer.indexOf("\r\n", start);
      if (line < 0) return;
      this.#chunkBytesLeft = Number.parseInt(this.#buffer.toString("latin1", start, line), 16);
      this.#buffer = this.#buffer.subarray(line + 2);
      if (this.#chunkBytesLeft > 0) continue;
      this.#end("complete");
      return;
    }
  }

  #body(part: Buffer): void {
    this.receivedBytes += part.length;
    this.#parser.feed(this.#decoder.decode(part, { stream: true }));
    if (this.receivedBytes === Number(this.headers["content-length"])) this.#end("complete");
  }
}
