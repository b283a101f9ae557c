import { createHonoApp } from "./hono-app.ts";

// With the first argument `env` the server is sent on in an object, else as Bun hands it to `fetch` itself.
const app = createHonoApp({ heartbeat: Number(process.env.HEARTBEAT ?? 200) });
const wrapped = process.argv.includes("env");

export default {
  hostname: "127.0.0.1",
  port: Number(process.env.PORT),
  // The shortest that there is, so that a test need not wait long for what it would cut.
  idleTimeout: 1,
  fetch: wrapped ? (request: Request, server: unknown) => app.fetch(request, { server }) : app.fetch,
};
