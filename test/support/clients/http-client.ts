// A client for HTTP requests that no library would send.
import { once } from "node:events";
import { connect, type Socket } from "node:net";

/** A response as it came over the wire. */
export interface HttpResponse {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/** Options of a request as it goes over the wire. */
export interface HttpRequestOptions {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Sent with `Content-Length`, unless `headers` has that or `Transfer-Encoding`. */
  readonly body?: string;
}

/**
 * One connection on which a test writes requests and reads their responses in order. It can send wrong lengths, bodies that never end, and
 * requests before the response to the last one.
 */
export class RawHttpClient {
  readonly socket: Socket;
  /** Whether the server has closed the connection, or it broke. */
  closed = false;
  readonly #host: string;
  /** Methods of the requests that have no response yet. A response to HEAD has no body. */
  readonly #methods: string[] = [];
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
    // A server that does not wait for the rest of a body may reset the connection. Its response was read before.
    this.socket.on("error", close).on("close", close).on("end", close);
  }

  /** The number of received bytes that belong to no response that was taken. */
  get unread(): number {
    return this.#buffer.length;
  }

  /** Writes the head of a request, and `body`. */
  send(path: string, { method = "GET", headers = {}, body = "" }: HttpRequestOptions = {}): this {
    this.#methods.push(method);
    const names = Object.keys(headers).map((name) => name.toLowerCase());
    const hasLength = names.includes("content-length") || names.includes("transfer-encoding");
    const length =
      hasLength || method === "GET" || method === "HEAD" ? {} : { "content-length": Buffer.byteLength(body) };
    const fields = Object.entries({ host: this.#host, ...length, ...headers });
    return this.write(
      `${method} ${path} HTTP/1.1\r\n${fields.map(([name, value]) => `${name}: ${value}\r\n`).join("")}\r\n${body}`,
    );
  }

  /** Writes a chunk of a chunked body. An empty chunk ends the body. */
  chunk(part = ""): this {
    return this.write(`${Buffer.byteLength(part).toString(16)}\r\n${part}\r\n`);
  }

  write(text: string): this {
    if (!this.socket.destroyed) this.socket.write(text);
    return this;
  }

  /** Takes the next response. A stream is returned without its body. Rejects if the connection ends first. */
  async response(): Promise<HttpResponse> {
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
      const isStream = headers["content-type"]?.startsWith("text/event-stream");
      const hasNoBody = this.#methods.shift() === "HEAD" || status === 204 || status === 304 || isStream;
      return { status, headers, body: hasNoBody ? "" : await this.#body(headers) };
    }
  }

  /** Waits until the server has closed the connection. */
  async untilClosed(): Promise<void> {
    while (!this.closed) await this.#receive();
  }

  /**
   * Closes the connection with FIN or with RST. Resolves when the socket is closed. A socket that the server has ended is already closing, and
   * cannot be reset (EINVAL).
   */
  async close(how: "FIN" | "RST" = "FIN"): Promise<void> {
    const closed = this.socket.closed ? undefined : once(this.socket, "close");
    if (how === "RST" && !this.socket.writableEnded) this.socket.resetAndDestroy();
    else this.socket.destroy();
    await closed;
  }

  async #body(headers: Readonly<Record<string, string>>): Promise<string> {
    const { "content-length": length, "transfer-encoding": encoding } = headers;
    if (encoding !== "chunked") {
      if (length === undefined) await this.untilClosed();
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

  /** Takes the bytes before a delimiter, and the delimiter. Returns the bytes before it. */
  async #until(delimiter: string): Promise<string> {
    for (;;) {
      const index = this.#buffer.indexOf(delimiter);
      if (index >= 0) return (await this.#take(index + delimiter.length)).toString("latin1", 0, index);
      await this.#receive();
    }
  }

  async #take(length: number): Promise<Buffer> {
    while (this.#buffer.length < length) await this.#receive();
    const taken = this.#buffer.subarray(0, length);
    this.#buffer = this.#buffer.subarray(length);
    return taken;
  }

  /** Waits for more bytes or the end of the connection. */
  async #receive(): Promise<void> {
    if (this.closed)
      throw new Error(
        `Reading a response: the connection ended with ${JSON.stringify(this.#buffer.toString())} unread.`,
      );
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
  }
}

/** Sends one request on a new connection, and returns its response. */
export async function exchange(url: string, path: string, options: HttpRequestOptions = {}): Promise<HttpResponse> {
  const client = new RawHttpClient(url);
  try {
    return await client.send(path, options).response();
  } finally {
    await client.close();
  }
}
