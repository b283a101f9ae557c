import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import { createChannel, createSession } from "better-sse";
import { announce, asksUsage, usage } from "../usage.ts";

const channel = createChannel();

async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = request.url as string;
  if (asksUsage(url)) {
    response.setHeader("content-type", "application/json").end(JSON.stringify(usage(url)));
  } else if (url === "/broadcast") {
    channel.broadcast(await text(request));
    response.end("ok");
  } else {
    // The data goes out as it came, and a heartbeat as often, as it does from the others.
    channel.register(await createSession(request, response, { serializer: String, keepAlive: 8_000 }));
  }
}

const server = createServer((request, response) => void handle(request, response));
server.listen(0, "127.0.0.1", () => announce((server.address() as AddressInfo).port));
