/** A broker and its live page on Deno. PORT, HOST and PUBLISH_TOKEN come from the environment, or have defaults. */
import { createBroker } from "fanwire";
import client from "../../dist/browser.js" with { type: "text" };
import page from "../bun/page.html" with { type: "text" };

const { PORT = "3000", HOST = "127.0.0.1", PUBLISH_TOKEN } = Deno.env.toObject();
const token = PUBLISH_TOKEN || crypto.randomUUID();

const broker = createBroker({
  publishToken: token,
  // close() waits that long for a client that does not read, so it is short; one that is only slow may stay for 20 of them.
  timeout: 3_000,
  tolerance: 20,
});

const force = new AbortController();
const server = Deno.serve(
  { port: Number(PORT), hostname: HOST, signal: force.signal, onListen },
  async (request, info) => {
    const { pathname } = new URL(request.url);
    if (pathname === "/") return new Response(page, { headers: { "content-type": "text/html; charset=utf-8" } });
    if (pathname === "/client.js") return new Response(client, { headers: { "content-type": "text/javascript" } });
    if (pathname === "/stats") return Response.json(broker.stats());
    const response = await broker.fetch(request, info);
    // For fetch() Chromium reads 50 MB ahead of the page unless the answer says no-store; no stall would show before that.
    response.headers.set("cache-control", "no-store");
    return response;
  },
);

function onListen({ hostname, port }: Deno.NetAddr): void {
  const url = `http://${hostname.includes(":") ? `[${hostname}]` : hostname}:${port}/`;
  // The page reads the token from the fragment, which a browser never sends. One of your own is not printed: the page asks for it.
  console.log(PUBLISH_TOKEN ? url : `${url}#token=${token}`);
  if (!PUBLISH_TOKEN) console.log(`curl -H "Authorization: Bearer ${token}" -d "hello" ${url}broadcast`);
}

async function shutdown(): Promise<void> {
  // A second signal ends the process at once.
  for (const signal of signals) Deno.removeSignalListener(signal, onSignal);
  await broker.close({ spreadOver: 500 });
  // A moment for the last words to leave; then by force, because shutdown() waits for every socket, also for one that nobody reads from.
  await new Promise((resolve) => setTimeout(resolve, 250));
  force.abort();
  await server.finished;
}

const signals = ["SIGTERM", "SIGINT"] as const;
const onSignal = (): void => void shutdown();
for (const signal of signals) Deno.addSignalListener(signal, onSignal);
