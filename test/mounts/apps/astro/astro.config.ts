// The app for Astro: one endpoint, built for the Node adapter. ADAPTER_MODE is `standalone` or `middleware`.
import node from "@astrojs/node";
import { defineConfig } from "astro/config";

const mode = process.env.ADAPTER_MODE === "middleware" ? "middleware" : "standalone";

export default defineConfig({
  output: "server",
  outDir: `./dist/${mode}`,
  adapter: node({ mode }),
});
