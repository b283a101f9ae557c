/** A broker and its live page on Node. PORT, HOST and PUBLISH_TOKEN come from the environment, or have defaults. */
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { createBroker } from "fanwire";
import { nodeHandler } from "fanwire/node";

const { PORT = "3000", HOST = "127.0.0.1", PUBLISH_TOKEN } = process.env;
const token = PUBLISH_TOKEN || crypto.randomUUID();
const page = readFileSync(new URL("../bun/page.html", import.meta.url));
const client = readFileSync(new URL(import.meta.resolve("fanwire/browser")));

const broker = createBroker({
  publishToken: token,
  // close() waits that long for a client that does not read, so it is short; one that is only slow may stay for 20 of them.
  timeout: 3_000,
  tolerance: 20,
});
const handle = nodeHandler(async (request, context) => {
  const response = await broker.fetch(request, context);
  // For fetch() Chromium reads 50 MB ahead of the page unless the answer says no-store; no stall would show before that.
  response.headers.set("cache-control", "no-store");
  return response;
});

const server = createServer((request, response) => {
  if (request.url === "/") response.setHeader("content-type", "text/html; charset=utf-8").end(page);
  else if (request.url === "/client.js") response.setHeader("content-type", "text/javascript").end(client);
  else if (request.url === "/stats")
    response.setHeader("content-type", "application/json").end(JSON.stringify(broker.stats()));
  else handle(request, response);
}).listen(Number(PORT), HOST, () => {
  const { address, port } = server.address() as AddressInfo;
  const url = `http://${address.includes(":") ? `[${address}]` : address}:${port}/`;
  // The page reads the token from the fragment, which a browser never sends. One of your own is not printed: the page asks for it.
  console.log(PUBLISH_TOKEN ? url : `${url}#token=${token}`);
  if (!PUBLISH_TOKEN) console.log(`curl -H "Authorization: Bearer ${token}" -d "hello" ${url}broadcast`);
});

async function shutdown(): Promise<void> {
  await broker.close({ spreadOver: 500 });
  server.close();
  // A moment for the last words to leave; then by force, because close() waits for every socket, also for one that nobody reads from.
  setTimeout(() => server.closeAllConnections(), 1_000).unref();
}

// Once: a second signal ends the process at once.
process.once("SIGTERM", () => void shutdown());
process.once("SIGINT", () => void shutdown());
