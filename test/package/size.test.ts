import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { expect, test } from "vitest";

const root = new URL("../../", import.meta.url).pathname;
/**
 * Bytes after minifying and gzip. Raise it only with a reason, in the same commit. It was 11,500 before `authorize`, CORS, keys and the
 * bounds, and 16,800 before what a log in SQLite and a face apart from its broker need.
 */
const BUDGET = 17_200;

test("createBroker with the memory engine keeps within its budget", async () => {
  const { outputFiles } = await build({
    stdin: { contents: 'export { createBroker } from "./dist/index.js";', resolveDir: root },
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2023",
    write: false,
  });
  const [bundle] = outputFiles;
  const size = gzipSync(bundle?.contents ?? "", { level: 9 }).length;
  console.info(`createBroker with the memory engine: ${size} bytes gzip, of ${BUDGET}`);
  expect(size).toBeGreaterThan(1_000);
  expect(size).toBeLessThanOrEqual(BUDGET);
});
