// The Hono app on Bun. With the first argument `env` the server is passed on in an object, else as Bun passes it to `fetch`.
import { createHonoApp } from "./hono-app.ts";

const app = createHonoApp({ heartbeat: Number(process.env.HEARTBEAT ?? 200) });
const isWrapped = process.argv.includes("env");

export default {
  hostname: "127.0.0.1",
  port: Number(process.env.PORT),
  // The shortest idle limit of Bun, so that a test need not wait long for it.
  idleTimeout: 1,
  fetch: isWrapped ? (request: Request, server: unknown) => app.fetch(request, { server }) : app.fetch,
};
