import { once } from "node:events";
import { connect, type Socket } from "node:net";

/** An answer as it came over the wire. */
export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/** A request as it goes over the wire. */
export interface Asked {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** With its length, unless the headers say how long it is. */
  readonly body?: string;
}

/**
 * One connection on which requests are written by hand, and their answers read in order. It sends what no HTTP library would:
 * lengths that lie, bodies that never end, requests before the answer to the last one.
 */
export class PlainClient {
  readonly socket: Socket;
  /** The other side has closed, or the connection broke. */
  closed = false;
  readonly #host: string;
  /** Methods whose answers are still to come; those of HEAD have no body. */
  readonly #asked: string[] = [];
  #buffer = Buffer.alloc(0);
  #wake: (() => void) | undefined;

  constructor(url: string) {
    const { host, hostname, port } = new URL(url);
    this.#host = host;
    this.socket = connect({ host: hostname, port: Number(port), noDelay: true });
    this.socket.on("data", (data) => {
      this.#buffer = Buffer.concat([this.#buffer, data]);
      this.#wake?.();
    });
    const close = (): void => {
      this.closed = true;
      this.#wake?.();
    };
    // A server that does not wait for the rest of a body may reset; what it said before was read.
    this.socket.on("error", close).on("close", close).on("end", close);
  }

  /** Bytes that came and belong to no answer that was taken. */
  get unread(): number {
    return this.#buffer.length;
  }

  /** Writes what a request begins with. */
  ask(path: string, { method = "GET", headers = {}, body = "" }: Asked = {}): this {
    this.#asked.push(method);
    const given = Object.keys(headers).map((name) => name.toLowerCase());
    const sized = given.includes("content-length") || given.includes("transfer-encoding");
    const length = sized || method === "GET" || method === "HEAD" ? {} : { "content-length": Buffer.byteLength(body) };
    const fields = Object.entries({ host: this.#host, ...length, ...headers });
    return this.write(
      `${method} ${path} HTTP/1.1\r\n${fields.map(([name, value]) => `${name}: ${value}\r\n`).join("")}\r\n${body}`,
    );
  }

  /** Writes a part of a body that tells no length; without one, its end. */
  chunk(part = ""): this {
    return this.write(`${Buffer.byteLength(part).toString(16)}\r\n${part}\r\n`);
  }

  write(text: string): this {
    if (!this.socket.destroyed) this.socket.write(text);
    return this;
  }

  /** The next answer; of a stream its head alone. Rejects if the connection ends before it has come. */
  async answer(): Promise<Answer> {
    for (;;) {
      const head = (await this.#until("\r\n\r\n")).split("\r\n");
      const status = Number(head[0]?.split(" ")[1]);
      const headers: Record<string, string> = {};
      for (const line of head.slice(1)) {
        const colon = line.indexOf(":");
        const name = line.slice(0, colon).toLowerCase();
        const value = line.slice(colon + 1).trim();
        headers[name] = name in headers ? `${headers[name]}, ${value}` : value;
      }
      if (status === 100) continue;
      const endless = headers["content-type"]?.startsWith("text/event-stream");
      const bare = this.#asked.shift() === "HEAD" || status === 204 || status === 304 || endless;
      return { status, headers, body: bare ? "" : await this.#body(headers) };
    }
  }

  /** Waits until the other side has closed. */
  async end(): Promise<void> {
    while (!this.closed) await this.#more();
  }

  /**
   * Leaves with FIN, or with RST; resolves when the socket is gone. One that the
   * other side has ended is on its way out already, and cannot be reset (EINVAL).
   */
  async leave(how: "FIN" | "RST" = "FIN"): Promise<void> {
    const gone = this.socket.closed ? undefined : once(this.socket, "close");
    if (how === "RST" && !this.socket.writableEnded) this.socket.resetAndDestroy();
    else this.socket.destroy();
    await gone;
  }

  async #body(headers: Readonly<Record<string, string>>): Promise<string> {
    const { "content-length": length, "transfer-encoding": encoding } = headers;
    if (encoding !== "chunked") {
      if (length === undefined) await this.end();
      return (await this.#take(length === undefined ? this.unread : Number(length))).toString();
    }
    const parts: Buffer[] = [];
    for (;;) {
      const size = Number.parseInt(await this.#until("\r\n"), 16);
      const part = await this.#take(size + 2);
      if (size === 0) return Buffer.concat(parts).toString();
      parts.push(part.subarray(0, size));
    }
  }

  async #until(mark: string): Promise<string> {
    for (;;) {
      const at = this.#buffer.indexOf(mark);
      if (at >= 0) return (await this.#take(at + mark.length)).toString("latin1", 0, at);
      await this.#more();
    }
  }

  async #take(length: number): Promise<Buffer> {
    while (this.#buffer.length < length) await this.#more();
    const taken = this.#buffer.subarray(0, length);
    this.#buffer = this.#buffer.subarray(length);
    return taken;
  }

  async #more(): Promise<void> {
    if (this.closed) throw new Error(`the connection ended; unread is ${JSON.stringify(this.#buffer.toString())}`);
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
  }
}

/** One request on a connection of its own. */
export async function exchange(url: string, path: string, asked: Asked = {}): Promise<Answer> {
  const client = new PlainClient(url);
  try {
    return await client.ask(path, asked).answer();
  } finally {
    await client.leave();
  }
}
