// A TCP proxy that can cause faults.
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { isOnlyMessages } from "./feed-messages.ts";

interface Pair {
  readonly client: Socket;
  readonly server: Socket;
  isDiscarding: boolean;
}

/** Forwards connections to another port. Connections can be cut, redirected, or made to discard everything. */
export class Forwarder {
  /** The port to which new connections go. */
  target: number;
  readonly #listener: Server;
  readonly #pairs = new Set<Pair>();
  #chunksToLose = 0;

  private constructor(target: number) {
    this.target = target;
    this.#listener = createServer({ noDelay: true }, (client) => this.#accept(client));
  }

  static async to(target: number): Promise<Forwarder> {
    const forwarder = new Forwarder(target);
    forwarder.#listener.listen(0, "127.0.0.1");
    await once(forwarder.#listener, "listening");
    return forwarder;
  }

  get port(): number {
    return (this.#listener.address() as AddressInfo).port;
  }

  /** Ends every open connection. */
  cut(): void {
    for (const { client, server } of this.#pairs) {
      client.destroy();
      server.destroy();
    }
  }

  /** Discards everything on the open connections, in both directions, and even their end. New connections work. */
  discard(): void {
    for (const pair of this.#pairs) pair.isDiscarding = true;
  }

  /** Loses the next chunks that consist of nothing but messages. Everything after them passes. */
  loseMessages(chunks: number): void {
    this.#chunksToLose = chunks;
  }

  close(): void {
    this.#listener.close();
    this.cut();
  }

  #accept(client: Socket): void {
    const server = connect({ port: this.target, host: "127.0.0.1", noDelay: true });
    const pair: Pair = { client, server, isDiscarding: false };
    this.#pairs.add(pair);
    this.#forward(pair, client, server);
    this.#forward(pair, server, client);
  }

  #forward(pair: Pair, from: Socket, to: Socket): void {
    from.on("data", (chunk) => {
      if (pair.isDiscarding) return;
      if (this.#chunksToLose > 0 && from === pair.server && isOnlyMessages(chunk)) {
        this.#chunksToLose--;
        return;
      }
      if (to.write(chunk)) return;
      from.pause();
      to.once("drain", () => from.resume());
    });
    // An error is followed by "close".
    from.on("error", () => undefined);
    from.on("close", () => {
      if (pair.isDiscarding && from === pair.server) return;
      this.#pairs.delete(pair);
      to.destroy();
    });
  }
}
