// better-sse on Node, with node:http.
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import { createChannel, createSession } from "better-sse";
import { announcePort, isUsageRequest, usage } from "../usage.ts";

const channel = createChannel();

async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = request.url as string;
  if (isUsageRequest(url)) {
    response.setHeader("content-type", "application/json").end(JSON.stringify(usage(url)));
  } else if (url === "/broadcast") {
    channel.broadcast(await text(request));
    response.end("ok");
  } else {
    // As with the other servers, data is sent unchanged, and a heartbeat every 8 s.
    channel.register(await createSession(request, response, { serializer: String, keepAlive: 8_000 }));
  }
}

const server = createServer((request, response) => void handle(request, response));
server.listen(0, "127.0.0.1", () => announcePort((server.address() as AddressInfo).port));
