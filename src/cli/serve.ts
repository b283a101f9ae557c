// Listens with the server of the runtime: `Bun.serve` on Bun, `node:http` elsewhere.
/// <reference types="node" />
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { nodeHandler } from "../node/node-handler.ts";

/** A server that listens. */
export interface Listening {
  readonly url: string;
  /** Stops it. Ends connections that are still open after a second. */
  stop(): Promise<void>;
}

type Fetch = (request: Request, context?: unknown) => Response | Promise<Response>;

interface BunGlobal {
  serve(options: { port: number; hostname: string; fetch: Fetch }): {
    readonly hostname: string;
    readonly port: number;
    stop(force?: boolean): Promise<void>;
  };
}

/** Milliseconds that clients have to read their end after the broker has closed. */
const LAST_WORDS_MS = 1_000;

/** Listens on an address. Rejects with the error of the runtime. */
export async function listen(fetch: Fetch, host: string, port: number): Promise<Listening> {
  const { Bun } = globalThis as { Bun?: BunGlobal };
  return Bun ? listenOnBun(Bun, fetch, host, port) : listenOnNode(fetch, host, port);
}

function listenOnBun(bun: BunGlobal, fetch: Fetch, hostname: string, port: number): Listening {
  const server = bun.serve({ port, hostname, fetch });
  return {
    url: urlOf(server.hostname, server.port),
    async stop() {
      setTimeout(() => void server.stop(true), LAST_WORDS_MS).unref();
      await server.stop();
    },
  };
}

async function listenOnNode(fetch: Fetch, host: string, port: number): Promise<Listening> {
  const server = createServer(nodeHandler((request, context) => fetch(request, context)));
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, host, resolve);
  });
  const { address, port: taken } = server.address() as AddressInfo;
  return {
    url: urlOf(address, taken),
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        setTimeout(() => server.closeAllConnections(), LAST_WORDS_MS).unref();
      }),
  };
}

const urlOf = (host: string, port: number): string => `http://${host.includes(":") ? `[${host}]` : host}:${port}/`;
