import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { expect, test } from "vitest";

const root = new URL("../../", import.meta.url).pathname;
/**
 * Bytes after minifying and gzip. Raise one only with a reason, in the same commit. The first was 11,500 before `authorize`, CORS, keys and
 * the bounds, 16,800 before what the hub of Workers is built on (a log that can be put back, and clients that are no streams), and 17,200 before
 * the core could do with a log in another place: a subscription to wait for, surveys, clients of other processes, a log that begins anew; 19,400
 * before reports that hold where the engine answers late (400), `metrics` and `health` (850, of which names and helps are 400), and names that are forgotten fairly (300). The hub was
 * 25,700 and 27,700 before the same, and 29,350 before an object waited for Workers that are far away. Of the engine for Redis a good third is scripts that Redis runs.
 */
const budgets = [
  ["createBroker with the memory engine", 'export { createBroker } from "./dist/index.js";', 20_950],
  [
    "createBroker with the Redis engine",
    'export { createBroker } from "./dist/index.js"; export { redisEngine } from "./dist/redis/index.js";',
    36_550,
  ],
  ["a Worker and its object", 'export { BrokerObject, worker } from "./dist/workers/index.js";', 29_400],
] as const;

test.each(budgets)("%s keeps within its budget", async (name, contents, budget) => {
  const { outputFiles } = await build({
    stdin: { contents, resolveDir: root },
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2023",
    external: ["cloudflare:workers"],
    write: false,
  });
  const [bundle] = outputFiles;
  const size = gzipSync(bundle?.contents ?? "", { level: 9 }).length;
  console.info(`${name}: ${size} bytes gzip, of ${budget}`);
  expect(size).toBeGreaterThan(1_000);
  expect(size).toBeLessThanOrEqual(budget);
});
