// A TCP proxy that causes the faults of a network.
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";

export class FlakyProxy {
  readonly port: number;
  /** Connections are refused. */
  isAway = false;
  readonly #close: () => void;
  /** Connections from clients, each with whether data from the server vanishes. */
  readonly #connections: Map<Socket, { swallows: boolean }>;

  private constructor(port: number, connections: Map<Socket, { swallows: boolean }>, close: () => void) {
    this.port = port;
    this.#connections = connections;
    this.#close = close;
  }

  static async start(targetPort: number): Promise<FlakyProxy> {
    const connections = new Map<Socket, { swallows: boolean }>();
    const server = createServer((client) => {
      if (proxy.isAway) return void client.destroy();
      const state = { swallows: false };
      const target = connect(targetPort, "127.0.0.1");
      connections.set(client, state);
      client.on("data", (data) => target.write(data));
      target.on("data", (data) => state.swallows || client.write(data));
      client.on("error", () => undefined);
      target.on("error", () => undefined);
      client.on("close", () => {
        connections.delete(client);
        target.end();
      });
      target.on("close", () => client.destroy());
    });
    await once(server.listen(0, "127.0.0.1"), "listening");
    const { port } = server.address() as { port: number };
    const proxy = new FlakyProxy(port, connections, () => server.close());
    return proxy;
  }

  /** Ends all connections. */
  cut(): void {
    for (const client of this.#connections.keys()) client.destroy();
  }

  /** Makes everything vanish that the server sends through the present connections. Returns a function that ends this. */
  swallow(): () => void {
    const states = [...this.#connections.values()];
    for (const state of states) state.swallows = true;
    return () => {
      for (const state of states) state.swallows = false;
    };
  }

  close(): void {
    this.cut();
    this.#close();
  }
}
