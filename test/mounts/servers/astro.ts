// Astro 7, built for its Node adapter in mode standalone.
import { serving } from "../serving.ts";

process.env.ASTRO_NODE_AUTOSTART = "disabled";
const built = new URL("../apps/astro/dist/standalone/server/entry.mjs", import.meta.url).href;
const { startServer } = await import(built);
const { server } = startServer();
await new Promise((resolve) => server.server.once("listening", resolve));
serving(() => server.stop());
