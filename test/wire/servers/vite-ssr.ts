// A development server as frameworks on Vite have it: each request goes to the newest version of the app's module. The argument is its folder.
import { serve } from "@hono/node-server";
import { createServer } from "vite";

interface App {
  readonly default: { fetch(request: Request): Promise<Response> };
}

const vite = await createServer({
  root: process.argv[2] as string,
  configFile: false,
  logLevel: "warn",
  appType: "custom",
  server: { middlewareMode: true, ws: false },
});

serve({
  hostname: "127.0.0.1",
  port: Number(process.env.PORT),
  fetch: async (request) => ((await vite.ssrLoadModule("/app.ts")) as App).default.fetch(request),
});
