import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { createChannel, createSession } from "better-sse";
import { announce, usage } from "../usage.ts";

const channel = createChannel();

async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
  if (request.url === "/cpu") {
    response.setHeader("content-type", "application/json").end(JSON.stringify(usage()));
  } else if (request.url === "/broadcast") {
    let data = "";
    for await (const chunk of request.setEncoding("utf8")) data += chunk;
    channel.broadcast(data);
    response.end("ok");
  } else {
    // The data goes out as it came, as it does from the others.
    channel.register(await createSession(request, response, { serializer: String }));
  }
}

const server = createServer((request, response) => void handle(request, response));
server.listen(0, "127.0.0.1", () => announce((server.address() as AddressInfo).port));
