import type { Broker } from "fanwire";

/** Serves a broker and its live page. PORT and HOST come from the environment, or have defaults; without `own` the token is printed. `file` keeps the log. */
export function serve(broker: Broker, token: string, own: boolean, file?: string): void {
  const { PORT = "3000", HOST = "127.0.0.1" } = process.env;
  const server = Bun.serve({
    port: PORT,
    hostname: HOST,
    routes: {
      "/": new Response(Bun.file(new URL("page.html", import.meta.url))),
      "/client.js": new Response(Bun.file(new URL(import.meta.resolve("fanwire/browser")))),
      "/stats": () => Response.json({ ...broker.stats(), file }),
    },
    async fetch(request, server) {
      const response = await broker.fetch(request, server);
      // For fetch() Chromium reads 50 MB ahead of the page unless the answer says no-store; no stall would show before that.
      response.headers.set("cache-control", "no-store");
      return response;
    },
  });

  // The page reads the token from the fragment, which a browser never sends. One of your own is not printed: the page asks for it.
  console.log(own ? `${server.url}` : `${server.url}#token=${token}`);
  if (!own) console.log(`curl -H "Authorization: Bearer ${token}" -d "hello" ${server.url}broadcast`);

  async function shutdown(): Promise<void> {
    await broker.close({ spreadOver: 500 });
    // stop() waits for every socket, also for one that nobody reads from; stop(true) does not.
    setTimeout(() => server.stop(true), 1_000).unref();
    await server.stop();
    // What else the application has open, such as a client of Redis, would keep the process alive.
    process.exit();
  }

  // Once: a second signal ends the process at once.
  process.once("SIGTERM", () => void shutdown());
  process.once("SIGINT", () => void shutdown());
}
