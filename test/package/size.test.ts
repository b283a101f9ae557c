// The size of what a program bundles that imports the package.
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { expect, test } from "vitest";

const root = new URL("../../", import.meta.url).pathname;
/**
 * Bytes after minifying and gzip. Raise a budget only with a reason, in the same commit.
 *
 * The budget of `createBroker` was 11,500 before `authorize`, CORS, idempotency keys and bounds; 16,800 before the parts that the hub of Workers
 * needs (logs that can be restored, connections that are not streams); 17,200 before logs in another place (subscriptions to wait for, history
 * bounds, clients of other processes, new epochs); and 19,400 before reports that hold when an engine answers late (400), `metrics` and `health`
 * (850, of which 400 are names and descriptions), and the fair expiry of names (300). The budget of the hub was 25,700 before the same, then 27,700,
 * and 29,350 before an object waited for Workers that are far away. A third of the Redis engine are scripts that Redis runs.
 *
 * 20,950, 36,550 and 29,400 were the budgets before the code was split by responsibility and took the field's names: member names are not
 * shortened by a minifier, so clear ones cost bytes (about 400), as do classes with an interface of their own (about 650), and error messages that
 * say the cure (about 170). 22,200, 38,350 and 30,650 were the budgets before mistakes were refused where they would reach everybody: parameters
 * (250), what is not a `Request` (170), media types, invalid UTF-8 and bodies that were read (400), errors that are printed (120), `POST /connect`
 * (100) and `close({ force })` (160). 23,550, 39,700 and 31,950 were the budgets before one client could no longer harm others by what it sends: types
 * of EventSource's own (50), bad channels in a grant and `checkChannel` (140), bodies that never end (150), what
 * calls `rate` (120), and replays that take
 * turns, `maxSubscriptions` and pipelined requests (750). For Redis also scripts that search and merge (430). `broker.paths`, and connections that an
 * adapter can take over from their web stream, are 80. `history()` and `GET /history` are 1,280, and owners that share the
 * log (heaps, accounts, `tenant`) 1,000, and 200 more in objects, where they outlive the instance. For
 * Redis also a bound for every script and a search for `maxReplay` (1,490), pages of history that all readers share (400), and proofs that a message
 * of the feed is genuine (400). Notices of events that a process has lost are 180 for readers, and 500 more in the Redis engine. Items between
 * the events of the log, which it does not hold, are 720, and ephemeral events 360, with 400 more in the Redis engine.
 * Starts at the newest events (`last`, `from=latest`) are 480, and a retention of single channels 310. Changes of the channels of an open stream, and
 * events for one connection, are 2,000: the endpoints 480, the methods 400, carrying it out 650, bounds and messages 470; in objects 400 more, and 880 in the
 * Redis engine, where another process may hold the stream. Owners that share Redis are scripts of 4,050 there: accounts, what leaves first, and
 * each event stored once. Snapshots are 2,000: when one is needed, running it, and ids that are held back; joined channels have theirs, too.
 * `last` and `channels` in Redis are 1,400: one look at each channel, and what each one keeps. Names that outlive a process are 80 in objects, since they are
 * shared with the SQLite engine. Typed events are 800, and 840 in objects: asking
 * schemas, which may do anything, their bounded issues, and the values of items that were read.
 * Runs in Redis are 2,500: five scripts of 1,500, the store, and watches that outlive a lost feed.
 * Batches are 1,460: lines that are read and checked, what is asked of `authorize` for them, and errors that say what was published before.
 * Without importing `fanwire/runs`, runs are 200: error codes, their names in grants, and the member that leads to the broker.
 * Runs in SQLite are 2,350: their statements, leases and pages 1,600, and their part in the commits and the clean-up of a file the rest.
 * In objects they are 2,400, with leases that are stored and an alarm that ends them.
 *
 * Of the client, changes of channels are 600: by a request, over a reconnect, and when the stream reports them late. Its parser is 560, of which 150
 * are what makes it faster than eventsource-parser. What a browser may deny, and ids behind a service worker, are 55, and 10 more with shared tabs.
 */
const budgets = [
  ["createBroker with the memory engine", 'export { createBroker } from "./dist/index.js";', 36_550],
  [
    "createBroker with the Redis engine",
    'export { createBroker } from "./dist/index.js"; export { redisEngine } from "./dist/redis/index.js";',
    65_400,
  ],
  [
    "createBroker with the SQLite engine",
    'export { createBroker } from "./dist/index.js"; export { sqliteEngine } from "./dist/sqlite/index.js";',
    48_350,
  ],
  ["connect of the client", 'export { connect } from "./dist/client/index.js";', 4_455],
  ["connect of the client, with shared tabs", 'export { connect } from "./dist/client/share.js";', 6_144],
  [
    "the React hooks, without React and the client",
    'export { useEvents, useLatest } from "./dist/react/index.js";',
    1_024,
  ],
  ["a Worker and its object", 'export { BrokerObject, worker } from "./dist/workers/index.js";', 48_900],
] as const;

test.each(budgets)("%s: is within its budget", async (name, contents, budget) => {
  const { outputFiles } = await build({
    stdin: { contents, resolveDir: root },
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2023",
    external: ["cloudflare:workers", "react", "../client/*"],
    write: false,
  });
  const [bundle] = outputFiles;
  const size = gzipSync(bundle?.contents ?? "", { level: 9 }).length;
  console.info(`${name}: ${size} bytes gzip, of ${budget}`);
  expect(size).toBeGreaterThan(500);
  expect(size).toBeLessThanOrEqual(budget);
});
