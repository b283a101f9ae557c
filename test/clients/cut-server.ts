// A server between one client and its broker, which can end a response at any byte of its body.
import { once } from "node:events";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export class CutServer {
  /** Bytes of the last response. */
  sent = 0;
  /** The bytes of the first response, as text. */
  first = "";
  /** Bytes of the next response after which it ends. */
  cutAt = Infinity;
  /** Whether the server lets the client in. */
  isOpen = true;
  /** How many responses have begun. */
  responses = 0;
  readonly #answer: (request: Request) => Promise<Response>;
  readonly #server = createServer((request, response) => void this.#serve(request.headers, response));
  readonly #open = new Set<ServerResponse>();

  constructor(answer: (request: Request) => Promise<Response>) {
    this.#answer = answer;
  }

  /** Returns the URL of the stream. */
  async start(): Promise<string> {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    const { port } = this.#server.address() as AddressInfo;
    return `http://127.0.0.1:${port}/connect?id=me`;
  }

  /** Ends all open responses. */
  cut(): void {
    for (const response of this.#open) response.socket?.destroy();
  }

  close(): void {
    this.cut();
    this.#server.close();
  }

  async #serve(headers: NodeJS.Dict<string | string[]>, response: ServerResponse): Promise<void> {
    if (!this.isOpen) {
      response.socket?.destroy();
      return;
    }
    const lastEventId = headers["last-event-id"];
    const request = new Request("http://server/connect?id=me", {
      headers: {
        accept: "text/event-stream",
        ...(lastEventId === undefined ? {} : { "last-event-id": `${lastEventId}` }),
      },
    });
    const answer = await this.#answer(request);
    const reader = answer.body?.getReader();
    const isFirst = this.responses++ === 0;
    this.#open.add(response);
    response.on("close", () => {
      this.#open.delete(response);
      void reader?.cancel().catch(() => undefined);
    });
    response.writeHead(answer.status, Object.fromEntries(answer.headers));
    this.sent = 0;
    for (let next = await reader?.read(); next?.value; next = await reader?.read()) {
      const part = next.value.subarray(0, this.cutAt - this.sent);
      this.sent += part.length;
      if (isFirst) this.first += new TextDecoder().decode(part);
      await new Promise<void>((resolve) => response.write(part, () => resolve()));
      if (this.sent < this.cutAt) continue;
      this.cutAt = Infinity;
      // Without a reset, so that the client receives everything up to here.
      response.socket?.end();
      return;
    }
  }
}

/** Waits until something holds. @throws after 20 seconds, with what `state` says then */
export async function until(what: string, holds: () => boolean, state: () => string): Promise<void> {
  for (const end = Date.now() + 20_000; !holds(); await new Promise((resolve) => setTimeout(resolve, 5)))
    if (Date.now() > end) throw new Error(`Waiting until ${what}: ${state()}`);
}
