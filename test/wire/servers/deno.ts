// The server under test on Deno.
import { createApp } from "./app.ts";

const collect = (globalThis as { gc?: () => void }).gc as () => void;
const app = createApp({ gc: collect, heapUsed: () => Deno.memoryUsage().heapUsed });

// `deno serve` uses the default export, `deno run` the lines below.
export default { fetch: app };
if (import.meta.main && !Deno.args.includes("serve")) {
  const server = Deno.serve({ hostname: "127.0.0.1", port: Number(Deno.env.get("PORT")) }, app);
  Deno.addSignalListener("SIGTERM", () => void server.shutdown().then(() => Deno.exit()));
}
