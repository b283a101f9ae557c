// Servers of `node:http` in the process of a test.
import { once } from "node:events";
import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { onTestFinished } from "vitest";
import { type Broker, type BrokerOptions, createBroker } from "../../../src/index.ts";

/** Creates a broker that takes events with the token `secret`. */
export const newBroker = (options: BrokerOptions = {}): Broker => createBroker({ publishToken: "secret", ...options });

/** Serves a listener until the test ends. */
export async function listen(listener: RequestListener): Promise<{ server: Server; url: string }> {
  const server = createServer(listener).listen(0, "127.0.0.1");
  onTestFinished(() => {
    server.close();
    server.closeAllConnections();
  });
  await once(server, "listening");
  return { server, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` };
}

/** Publishes with the token of {@link newBroker}. */
export const publish = (url: string, body: string, headers: Record<string, string> = {}): Promise<Response> =>
  fetch(url, { method: "POST", body, headers: { authorization: "Bearer secret", ...headers } });

/** Waits until a condition holds. Otherwise the time limit of the test ends it. */
export async function until(condition: () => unknown): Promise<void> {
  while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, 10));
}
