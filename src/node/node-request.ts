// A `Request` over Node's request. Its parts are created when they are asked for, because a real `Request` costs more than the rest of a publish.
import { concat } from "../event/sse-format.ts";
import type { NodeIncoming } from "./types.ts";

/** Members of `Request` that only a real one knows. */
const RARE: readonly string[] =
  "cache credentials destination duplex integrity keepalive mode redirect referrer referrerPolicy".split(" ");

/**
 * The request of an HTTP client, with every member of `Request`. `new Request(request)` does not take it, and `request.clone()` returns a real
 * one.
 */
export class NodeRequest {
  readonly url: string;
  readonly #incoming: NodeIncoming;
  /** The body as a body parser left it, turned into bytes again. */
  readonly #parsed: Uint8Array<ArrayBuffer> | undefined;
  #headers: Headers | undefined;
  #body: ReadableStream<Uint8Array> | null | undefined;
  #abort: AbortController | undefined;
  #bodyUsed = false;
  #hasLeft = false;

  constructor(incoming: NodeIncoming, path: string) {
    const { headers, socket } = incoming;
    const host = headers[":authority"] ?? headers.host ?? "localhost";
    const scheme = (socket as { encrypted?: boolean } | null)?.encrypted ? "https" : "http";
    // A target in absolute form (RFC 9112, section 3.2.2) is a URL already.
    this.url = /^https?:\/\//i.test(path) ? path : `${scheme}://${String(host)}${path}`;
    this.#incoming = incoming;
    this.#parsed = parsedBody(incoming);
  }

  get method(): string {
    return this.#incoming.method ?? "GET";
  }

  get headers(): Headers {
    return (this.#headers ??= this.#readHeaders());
  }

  get signal(): AbortSignal {
    if (!this.#abort) {
      this.#abort = new AbortController();
      if (this.#hasLeft) this.#abort.abort();
    }
    return this.#abort.signal;
  }

  get bodyUsed(): boolean {
    return this.#bodyUsed || this.#isTaken;
  }

  /** The body. `null` for a method that has none. @throws `TypeError` if somebody else has read it and left nothing */
  get body(): ReadableStream<Uint8Array> | null {
    if (this.#body !== undefined) return this.#body;
    if (/^(?:GET|HEAD)$/.test(this.method)) return (this.#body = null);
    if (this.#isTaken) throw new TypeError("Body is unusable: a middleware has read it");
    const parsed = this.#parsed;
    this.#body = parsed ? (new Response(parsed).body as ReadableStream<Uint8Array>) : streamOf(this.#incoming);
    return this.#body;
  }

  /** Reads the body without a stream. The broker asks for it only if `Content-Length` is within its bounds. */
  async arrayBuffer(): Promise<ArrayBuffer> {
    if (this.bodyUsed || this.#body?.locked) throw new TypeError("Body is unusable: it has been read");
    this.#bodyUsed = true;
    if (this.#body) return new Response(this.#body).arrayBuffer();
    // A copy: Node's own bytes lie in a buffer that they share with others. `slice()` of a Buffer would copy nothing.
    return new Uint8Array(this.#parsed ?? (await readAll(this.#incoming))).buffer;
  }

  async bytes(): Promise<Uint8Array<ArrayBuffer>> {
    return new Uint8Array(await this.arrayBuffer());
  }

  async text(): Promise<string> {
    return new TextDecoder().decode(await this.arrayBuffer());
  }

  async json(): Promise<unknown> {
    return JSON.parse(await this.text());
  }

  async blob(): Promise<Blob> {
    return new Blob([await this.arrayBuffer()], { type: this.headers.get("content-type") ?? "" });
  }

  async formData(): Promise<FormData> {
    const type = this.headers.get("content-type") ?? "";
    return new Response(await this.arrayBuffer(), { headers: { "content-type": type } }).formData();
  }

  clone(): Request {
    const { body } = this;
    if (!body) return this.#create();
    const [mine, copy] = body.tee();
    this.#body = mine;
    return this.#create(copy);
  }

  /** Returns a member that only a real `Request` has. */
  rare(name: string): unknown {
    return (this.#create() as unknown as Record<string, unknown>)[name];
  }

  /** The client has left. */
  left(): void {
    this.#hasLeft = true;
    this.#abort?.abort();
  }

  /** Whether a middleware has read the body and left nothing of it. */
  get #isTaken(): boolean {
    return this.#incoming.readableDidRead === true && !this.#parsed && !this.#body && !this.#bodyUsed;
  }

  #create(body?: ReadableStream<Uint8Array>): Request {
    const { url, method, headers, signal } = this;
    return new Request(url, { method, headers, signal, ...(body ? { body, duplex: "half" } : {}) } as RequestInit);
  }

  #readHeaders(): Headers {
    const headers = new Headers();
    const { rawHeaders } = this.#incoming;
    for (let index = 0; index < rawHeaders.length; index += 2) {
      const name = rawHeaders[index] as string;
      // HTTP/2 has its pseudo-headers in the same list.
      if (!name.startsWith(":")) headers.append(name, rawHeaders[index + 1] as string);
    }
    if (this.#parsed) {
      // The parser leaves plain UTF-8.
      headers.delete("content-encoding");
      headers.delete("transfer-encoding");
      headers.set("content-length", String(this.#parsed.length));
      const [type = ""] = (headers.get("content-type") ?? "").split(";");
      if (type) headers.set("content-type", type);
    }
    return headers;
  }
}

// So that `instanceof Request` holds in the application's hooks.
Object.setPrototypeOf(NodeRequest.prototype, Request.prototype);
for (const name of RARE) {
  Object.defineProperty(NodeRequest.prototype, name, {
    get(this: NodeRequest) {
      return this.rare(name);
    },
  });
}

/** Returns the bytes of a body that a body parser has read: of text and bytes as they are, of a form as a form, of anything else as JSON. */
function parsedBody({ body, readableDidRead, headers }: NodeIncoming): Uint8Array<ArrayBuffer> | undefined {
  if (!readableDidRead || body === undefined || body === null) return undefined;
  if (body instanceof Uint8Array) return new Uint8Array(body);
  const isForm = /^application\/x-www-form-urlencoded\b/i.test(String(headers["content-type"] ?? ""));
  const text = typeof body === "string" ? body : isForm ? formOf(body) : JSON.stringify(body);
  return new TextEncoder().encode(text);
}

/** Turns the fields of a form into its text again. A field that was sent several times is a list. */
function formOf(fields: object): string {
  const form = new URLSearchParams();
  for (const [name, value] of Object.entries(fields))
    for (const one of Array.isArray(value) ? value : [value]) form.append(name, String(one));
  return form.toString();
}

/** Reads a body to its end. Rejects if the client leaves before. */
function readAll(incoming: NodeIncoming): Promise<Uint8Array<ArrayBuffer>> {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  return new Promise((resolve, reject) => {
    readParts(incoming, {
      onPart: (part) => void parts.push(part),
      onEnd: () => resolve(concat(parts)),
      onError: reject,
    });
  });
}

/** Returns a body as a stream that is read part by part, as it is pulled. A cancelled one is read to its end and dropped. */
function streamOf(incoming: NodeIncoming): ReadableStream<Uint8Array> {
  let isOpen = true;
  return new ReadableStream<Uint8Array>(
    {
      start(controller) {
        readParts(incoming, {
          onPart(part) {
            if (!isOpen) return;
            incoming.pause();
            controller.enqueue(part);
          },
          onEnd() {
            if (isOpen) controller.close();
            isOpen = false;
          },
          onError(error) {
            if (isOpen) controller.error(error);
            isOpen = false;
          },
        });
        incoming.pause();
      },
      pull: () => void incoming.resume(),
      cancel() {
        isOpen = false;
        incoming.resume();
      },
    },
    { highWaterMark: 0 },
  );
}

interface PartReader {
  onPart(part: Uint8Array<ArrayBuffer>): void;
  onEnd(): void;
  onError(error: Error): void;
}

function readParts(incoming: NodeIncoming, { onPart, onEnd, onError }: PartReader): void {
  let isComplete = false;
  incoming.on("data", (part) => onPart(part as Uint8Array<ArrayBuffer>));
  incoming.on("end", () => {
    isComplete = true;
    onEnd();
  });
  incoming.on("error", (error) => onError(error as Error));
  // Node reports a body that broke off as an error on HTTP/1, and not on HTTP/2.
  incoming.on("close", () => {
    if (!isComplete) onError(new Error("The client left before its body was complete"));
  });
}
