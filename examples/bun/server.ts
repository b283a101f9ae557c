/** A broker and its live page on Bun. PORT, HOST and PUBLISH_TOKEN come from the environment, or have defaults. */
import { createBroker } from "fanwire";

const { PORT = "3000", HOST = "127.0.0.1", PUBLISH_TOKEN } = process.env;
const token = PUBLISH_TOKEN || crypto.randomUUID();

const broker = createBroker({
  publishToken: token,
  // close() waits that long for a client that does not read, so it is short; one that is only slow may stay for 20 of them.
  timeout: 3_000,
  tolerance: 20,
});

const server = Bun.serve({
  port: PORT,
  hostname: HOST,
  routes: {
    "/": new Response(Bun.file(new URL("page.html", import.meta.url))),
    "/stats": () => Response.json(broker.stats()),
  },
  async fetch(request, server) {
    const response = await broker.fetch(request, server);
    // For fetch() Chromium reads 50 MB ahead of the page unless the answer says no-store; no stall would show before that.
    response.headers.set("cache-control", "no-store");
    return response;
  },
});

// The page reads the token from the fragment, which a browser never sends. One of your own is not printed: the page asks for it.
console.log(PUBLISH_TOKEN ? `${server.url}` : `${server.url}#token=${token}`);
if (!PUBLISH_TOKEN) console.log(`curl -H "Authorization: Bearer ${token}" -d "hello" ${server.url}broadcast`);

async function shutdown(): Promise<void> {
  await broker.close({ over: 500 });
  // stop() waits for every socket, also for one that nobody reads from; stop(true) does not.
  setTimeout(() => server.stop(true), 1_000).unref();
  await server.stop();
}

// Once: a second signal ends the process at once.
process.once("SIGTERM", () => void shutdown());
process.once("SIGINT", () => void shutdown());
