// A network between clients and a broker in the same process, which a test can break: it cuts, swallows, splits and delays.
import type { Random } from "../random.ts";

/** What answers requests. */
export type Serve = (request: Request) => Response | Promise<Response>;

interface Connection {
  cut(): void;
  swallow(): void;
}

export class Net {
  /** Requests for streams, and others. */
  requests = 0;
  /** Streams that are open. */
  readonly open: Set<Connection> = new Set();
  /** Whether every request fails. */
  isDown = false;
  readonly #serve: Serve;
  readonly #random: Random;

  constructor(serve: Serve, random: Random) {
    this.#serve = serve;
    this.#random = random;
  }

  /** Breaks all streams. What was on its way is lost. */
  cut(): void {
    for (const connection of this.open) connection.cut();
  }

  /** From now on nothing arrives on the streams that are open, without a sign. */
  swallow(): void {
    for (const connection of this.open) connection.swallow();
  }

  readonly fetch = async (url: string, init: RequestInit): Promise<Response> => {
    this.requests++;
    const abort = new AbortController();
    const { signal, ...rest } = init;
    signal?.addEventListener("abort", () => abort.abort(signal.reason));
    await this.#pause();
    signal?.throwIfAborted();
    if (this.isDown) throw new TypeError("Sending a request: the network is down.");
    const response = await this.#serve(new Request(url, { ...rest, signal: abort.signal }));
    await this.#pause();
    // The server has served it, and its answer is lost.
    if (this.isDown || this.#random.chance(0.03)) {
      void response.body?.cancel();
      abort.abort();
      throw new TypeError("Sending a request: its answer is lost.");
    }
    signal?.throwIfAborted();
    const type = response.headers.get("content-type") ?? "";
    return response.body && type.startsWith("text/event-stream")
      ? new Response(
          this.#body(response.body, () => abort.abort()),
          response,
        )
      : response;
  };

  #body(body: ReadableStream<Uint8Array>, abort: () => void): ReadableStream<Uint8Array> {
    const reader = body.getReader();
    const random = this.#random;
    let isSwallowing = false;
    let rest = new Uint8Array();
    const connection: Connection = { cut: () => undefined, swallow: () => void (isSwallowing = true) };
    const leave = (): void => {
      this.open.delete(connection);
      abort();
      void reader.cancel().catch(() => undefined);
    };
    return new ReadableStream<Uint8Array>(
      {
        start: (controller) => {
          this.open.add(connection);
          connection.cut = () => {
            leave();
            controller.error(new TypeError("Reading a stream: the connection was cut."));
          };
        },
        pull: async (controller) => {
          await this.#pause();
          if (rest.length === 0) {
            const { done, value } = await reader.read().catch(() => ({ done: true, value: undefined }));
            if (!this.open.has(connection)) return;
            if (done) {
              this.open.delete(connection);
              return controller.close();
            }
            rest = new Uint8Array(value as Uint8Array);
          }
          if (isSwallowing) return await new Promise(() => undefined);
          // Cut anywhere, also inside a character.
          const length = random.chance(0.5) ? rest.length : random.integer(1, rest.length);
          controller.enqueue(rest.slice(0, length));
          rest = rest.slice(length);
        },
        cancel: leave,
      },
      { highWaterMark: 0 },
    );
  }

  #pause(): Promise<void> {
    const ms = this.#random.chance(0.7) ? 0 : this.#random.integer(1, 200);
    return ms === 0 ? Promise.resolve() : new Promise((resolve) => setTimeout(resolve, ms));
  }
}
