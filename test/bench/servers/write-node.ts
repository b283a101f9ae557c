// The least that can be done without a library: a loop over open responses. It has no channels, no replay and no bounds.
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import { announcePort, isUsageRequest, usage } from "../usage.ts";

const responses = new Set<ServerResponse>();
let id = 0;

async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = request.url as string;
  if (isUsageRequest(url)) {
    response.setHeader("content-type", "application/json").end(JSON.stringify(usage(url)));
  } else if (url === "/broadcast") {
    const event = Buffer.from(`id: ${++id}\ndata: ${await text(request)}\n\n`);
    for (const each of responses) each.write(event);
    response.end("ok");
  } else {
    // Node turns Nagle's algorithm off on every connection.
    response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" }).flushHeaders();
    responses.add(response);
    response.once("close", () => responses.delete(response));
  }
}

const server = createServer((request, response) => void handle(request, response));
server.listen(0, "127.0.0.1", () => announcePort((server.address() as AddressInfo).port));
