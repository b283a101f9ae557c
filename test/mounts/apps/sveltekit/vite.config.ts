// The app for SvelteKit: one endpoint, built for the Node adapter.
import adapter from "@sveltejs/adapter-node";
import { sveltekit } from "@sveltejs/kit/vite";
import { defineConfig } from "vite";

export default defineConfig({ plugins: [sveltekit({ adapter: adapter({ out: "dist/server" }), outDir: "dist/kit" })] });
