// A Node program that mounts a broker as users do by mistake, publishes to it, and prints what happened. The mistake is its argument.
import { once } from "node:events";
import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { Readable } from "node:stream";
import { json } from "node:stream/consumers";
import { getRequestListener } from "@hono/node-server";
import { toNodeHandler } from "srvx/node";
import { createBroker } from "../../../src/index.ts";

const broker = createBroker();
const publish = (request: Request): Promise<Response> => broker.eventHandler(request);

/** Passes a request on as many programs do by hand. */
const byHand =
  (bodyOf: (incoming: IncomingMessage) => unknown) =>
  async (incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> => {
    const init = { method: "POST", headers: incoming.headers, body: bodyOf(incoming), duplex: "half" } as RequestInit;
    const response = await publish(new Request("http://localhost/broadcast", init));
    outgoing.writeHead(response.status).end(await response.text());
  };
/** The body as h3 1 passes it on: what arrives after a cancel is an error that nobody catches. */
const pushed = (incoming: IncomingMessage): ReadableStream =>
  new ReadableStream({
    start(controller) {
      incoming.on("data", (chunk: Uint8Array) => controller.enqueue(chunk));
      incoming.on("end", () => controller.close());
    },
  });
/** A body parser that runs first, as `express.json()`. */
const parsed =
  (next: (incoming: IncomingMessage, outgoing: ServerResponse) => unknown) =>
  async (incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> => {
    await json(incoming);
    await next(incoming, outgoing);
  };

const mistakes: Readonly<Record<string, RequestListener>> = {
  "fetch as a listener": broker.fetch as unknown as RequestListener,
  "parser before hono": parsed(getRequestListener(publish)),
  "parser before srvx": parsed(toNodeHandler(publish) as RequestListener),
  "parser before Readable.toWeb": parsed(byHand((incoming) => Readable.toWeb(incoming))),
  "body that is pushed": byHand(pushed),
};
const [, , mistake = "", size = "7", declared] = process.argv;
const server = createServer(mistakes[mistake]).listen(0, "127.0.0.1");
await once(server, "listening");
const { port } = server.address() as AddressInfo;
const bytes = new TextEncoder().encode(JSON.stringify("x".repeat(Number(size) - 2)));
const parts = Array.from({ length: Math.ceil(bytes.length / 65_536) }, (_, at) =>
  bytes.subarray(at * 65_536, (at + 1) * 65_536),
);
const body =
  declared === "chunked"
    ? new ReadableStream<Uint8Array>({
        pull(controller) {
          const part = parts.shift();
          if (part) controller.enqueue(part);
          else controller.close();
        },
      })
    : bytes;
const answer = await fetch(`http://127.0.0.1:${port}/`, { method: "POST", body, duplex: "half" } as RequestInit);
console.info(answer.status, await answer.text());
server.closeAllConnections();
server.close();
