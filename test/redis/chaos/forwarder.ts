import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { isMessages } from "./messages.ts";

interface Pair {
  readonly near: Socket;
  readonly far: Socket;
  swallowed: boolean;
}

/** A port that stands for another one, and can be pointed elsewhere, cut, or made a hole that swallows everything. */
export class Forwarder {
  /** Where new connections go. */
  target: number;
  readonly #server: Server;
  readonly #pairs = new Set<Pair>();
  #losing = 0;

  private constructor(target: number) {
    this.target = target;
    this.#server = createServer({ noDelay: true }, (near) => this.#join(near));
  }

  static async to(target: number): Promise<Forwarder> {
    const forwarder = new Forwarder(target);
    forwarder.#server.listen(0, "127.0.0.1");
    await once(forwarder.#server, "listening");
    return forwarder;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Ends every connection there is. */
  cut(): void {
    for (const { near, far } of this.#pairs) {
      near.destroy();
      far.destroy();
    }
  }

  /** Nothing passes any more over the connections there are, in either direction, not even their end. New ones pass. */
  swallow(): void {
    for (const pair of this.#pairs) pair.swallowed = true;
  }

  /** So many of the next pieces that are nothing but messages do not come, and everything after them does. */
  lose(pieces: number): void {
    this.#losing = pieces;
  }

  close(): void {
    this.#server.close();
    this.cut();
  }

  #join(near: Socket): void {
    const far = connect({ port: this.target, host: "127.0.0.1", noDelay: true });
    const pair: Pair = { near, far, swallowed: false };
    this.#pairs.add(pair);
    this.#pass(pair, near, far);
    this.#pass(pair, far, near);
  }

  #pass(pair: Pair, from: Socket, to: Socket): void {
    from.on("data", (data) => {
      if (pair.swallowed) return;
      if (this.#losing > 0 && from === pair.far && isMessages(data)) {
        this.#losing--;
        return;
      }
      if (to.write(data)) return;
      from.pause();
      to.once("drain", () => from.resume());
    });
    // What follows an error is a close.
    from.on("error", () => undefined);
    from.on("close", () => {
      if (pair.swallowed && from === pair.far) return;
      this.#pairs.delete(pair);
      to.destroy();
    });
  }
}
