// A TCP proxy between a browser and a server. A test can cut its connections.
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";

export class CuttableProxy {
  /** Chunks with the event `fanwire-ready` that have passed: so many streams have an id with which to continue. */
  readies = 0;
  readonly #sockets = new Set<Socket>();
  readonly #server: Server;

  constructor(port: number) {
    this.#server = createServer((inbound) => {
      const outbound = connect(port, "127.0.0.1");
      for (const socket of [inbound, outbound]) {
        this.#sockets.add(socket);
        socket.on("error", () => socket.destroy());
        socket.on("close", () => this.#sockets.delete(socket));
      }
      outbound.on("data", (data) => void (this.readies += Number(data.includes("event: fanwire-ready"))));
      inbound.pipe(outbound).pipe(inbound);
      inbound.on("close", () => outbound.destroy());
    }).listen(0, "127.0.0.1");
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Resets all connections. */
  cut(): void {
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  /** Resets all connections and accepts no more. */
  close(): void {
    this.cut();
    this.#server.close();
  }
}
