// A proxy between one client and its server. Counts what passes, holds it, cuts the connection, swallows, and refuses new requests.
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { setTimeout as wait } from "node:timers/promises";

const HEARTBEAT = /\n:\n/g;
const NO_CONTENT = /^HTTP\/1\.1 204 /;

export class Tap {
  /** Called whenever bytes have passed. */
  onPassed: () => void = () => undefined;
  /** Heartbeats that the client received. */
  heartbeats = 0;
  /** Answers 204 that the client received. */
  noContents = 0;
  /** Returns the milliseconds for which the next chunk of the server is held. A chunk never overtakes the one before it. */
  hold: (() => number) | undefined;
  /** Chunks that were held. */
  held = 0;

  readonly #sockets = new Set<Socket>();
  readonly #swallowed = new WeakSet<Socket>();
  readonly #server: Server;
  #isRefusing = false;
  /** Bytes of the server that may still pass before the connection is cut. */
  #bytesLeft = Infinity;

  private constructor(port: number) {
    this.#server = createServer((inbound) => this.#join(inbound, connect(port, "127.0.0.1"))).listen(0, "127.0.0.1");
  }

  static async start(port: number): Promise<Tap> {
    const tap = new Tap(port);
    await once(tap.#server, "listening");
    return tap;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Every new request is answered with a closed connection, until `accept` is called. */
  refuse(): void {
    this.#isRefusing = true;
  }

  accept(): void {
    this.#isRefusing = false;
  }

  /** Nothing passes any more on the connections that are open, without a sign to either side. */
  swallow(): void {
    for (const socket of this.#sockets) this.#swallowed.add(socket);
  }

  cut(): void {
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  /** Ends the connection once `bytes` more bytes have passed to the client. The client receives all of them, because there is no reset. */
  cutAfter(bytes: number): void {
    this.#bytesLeft = bytes;
  }

  close(): void {
    this.cut();
    this.#server.close();
  }

  #join(inbound: Socket, outbound: Socket): void {
    const destroy = (): void => {
      inbound.destroy();
      outbound.destroy();
    };
    for (const socket of [inbound, outbound]) {
      this.#sockets.add(socket);
      socket.on("error", destroy);
      socket.on("close", () => {
        this.#sockets.delete(socket);
        destroy();
      });
    }
    inbound.on("data", (data) => {
      if (this.#isRefusing) destroy();
      else outbound.write(data);
    });
    let tail: Promise<unknown> = Promise.resolve();
    const later = (pass: () => void): void => {
      if (!this.hold) {
        pass();
        return;
      }
      const due = performance.now() + this.hold();
      this.held++;
      tail = tail.then(() => wait(Math.max(0, due - performance.now()))).then(pass);
    };
    outbound.on("end", () => later(() => inbound.end()));
    const pass = (data: Buffer): void => {
      if (this.#swallowed.has(outbound)) return;
      const passed = data.subarray(0, this.#bytesLeft);
      this.#bytesLeft -= passed.length;
      this.#count(passed.toString("latin1"));
      inbound.write(passed);
      if (this.#bytesLeft === 0) {
        this.#bytesLeft = Infinity;
        outbound.removeAllListeners("data");
        inbound.end(() => outbound.destroy());
      }
      this.onPassed();
    };
    outbound.on("data", (data) => later(() => pass(data)));
  }

  #count(text: string): void {
    this.heartbeats += text.match(HEARTBEAT)?.length ?? 0;
    if (NO_CONTENT.test(text)) this.noContents++;
  }
}
