// The server under test on Node, with a handler as it is written for Express: the body of the response is piped, and nobody listens for errors.
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import type { ReadableStream as NodeReadableStream } from "node:stream/web";
import { createApp } from "./app.ts";

const collect = globalThis.gc as () => void;
const app = createApp({ gc: () => collect(), heapUsed: () => process.memoryUsage().heapUsed });
const port = Number(process.env.PORT);

async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { method = "GET", url = "/" } = request;
  const headers = new Headers(request.headers as Record<string, string>);
  const body = method === "POST" ? await buffer(request) : null;
  const answer = await app(new Request(new URL(url, `http://127.0.0.1:${port}`), { method, headers, body }));
  response.writeHead(answer.status, Object.fromEntries(answer.headers));
  if (answer.body) Readable.fromWeb(answer.body as unknown as NodeReadableStream).pipe(response);
  else response.end();
}

const server = createServer((request, response) => void handle(request, response));
server.setTimeout(Number(process.env.SOCKET_TIMEOUT ?? 0));
server.listen(port, "127.0.0.1");
