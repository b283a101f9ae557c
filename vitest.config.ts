import { createRequire } from "node:module";
import { join } from "node:path";
import { defineConfig, type ViteUserConfig } from "vitest/config";
import { hideColors, hideWorkerdNotices } from "./test/support/output.ts";
import { SkipReporter } from "./test/support/skip.ts";
import { SlowFirst } from "./test/support/slow-first.ts";

hideColors();

// Two files at a time, also where there are two cores, of which vitest would keep one for itself: much of a test is waiting. Those that take
// a second or two by themselves have the time to do so beside something else.
// The limit of time ends what hangs, and judges nothing: a random test of 5 s has taken 15 s on a machine that was busy with other things.
const conformance: ViteUserConfig["test"] = { dir: "test/conformance", maxWorkers: 2, testTimeout: 60_000 };

/** What has a log of its own, and what a log has no part in. */
const WITHOUT_ENGINE = [
  "**/faulty-engines.test.ts",
  "**/{base,client,event,hono,http,react,shared-log}/**",
  "**/runs/{memory-runs,simulation,store-trouble}.test.ts",
];
const IN_ONE_TURN = [
  ...WITHOUT_ENGINE,
  "**/{overrun,cost,lifetime,snapshot-ends,timeout}.test.ts",
  "**/model/owners.test.ts",
];

/**
 * One configuration for every run; `--mode` says which. The first four run the same conformance files, each on its own
 * runtime; the others run on Node and start whatever servers they need.
 */
const parts: Record<string, ViteUserConfig["test"]> = {
  node: { ...conformance, pool: "forks" },
  // Bun has no `child.channel.unref`, which the forks pool needs (Bun 1.4, vitest 5.1).
  bun: { ...conformance, pool: "threads" },
  // Deno has no `parentPort.removeAllListeners`, which the threads pool needs (Deno 2.9, vitest 5.1).
  deno: { ...conformance, pool: "forks" },
  workerd: conformance,
  // The same on workerd, with the log in SQLite, but for what has a log of its own, and what a log has no part in.
  durable: { ...conformance, exclude: WITHOUT_ENGINE },
  // The same with the log in a SQLite file, on three runtimes. Excluded is what counts the steps and timers of one turn, in which only the memory
  // engine appends; where a full memory overruns clients, because there they read the file; and owners, which have a test in test/sqlite.
  // On Bun and Deno the log, the contract and the model, because the rest does not differ from Node's.
  sqlite: { ...conformance, pool: "forks", exclude: IN_ONE_TURN },
  "sqlite-bun": { ...conformance, pool: "threads", exclude: [...IN_ONE_TURN, "**/{broker,delivery,monitoring}/**"] },
  "sqlite-deno": { ...conformance, pool: "forks", exclude: [...IN_ONE_TURN, "**/{broker,delivery,monitoring}/**"] },
  // Processes over one file: restarts, crashes, lost power, and disks that refuse.
  "sqlite-files": { dir: "test/sqlite", maxWorkers: 2, testTimeout: 60_000, hookTimeout: 60_000 },
  workers: { dir: "test/workers", maxWorkers: 2, testTimeout: 60_000, hookTimeout: 60_000 },
  wire: { dir: "test/wire", maxWorkers: 3, testTimeout: 60_000, hookTimeout: 60_000 },
  browser: { dir: "test/browser", maxWorkers: 2, testTimeout: 60_000, hookTimeout: 60_000 },
  // Several tests at once: a client that reconnects does little but wait.
  clients: { dir: "test/clients", maxWorkers: 2, maxConcurrency: 6, testTimeout: 120_000, hookTimeout: 60_000 },
  // A check that waits for what a mount never does takes seconds, and a build of a framework some more.
  mounts: { dir: "test/mounts", maxWorkers: 3, testTimeout: 240_000, hookTimeout: 600_000 },
  // The client libraries for runs, over sockets that break off.
  adapters: { dir: "test/adapters", maxWorkers: 2, testTimeout: 120_000 },
  services: { dir: "test/services", testTimeout: 60_000, hookTimeout: 60_000 },
  redis: { dir: "test/redis", maxWorkers: 2, testTimeout: 60_000, hookTimeout: 60_000 },
  // One of the two does little but wait. Tests of the other wait in a queue for each other.
  patience: { dir: "test/patience", maxWorkers: 2, maxConcurrency: 16, testTimeout: 600_000, hookTimeout: 60_000 },
  // All platforms at once: much of it is waiting. Its tests have limits of their own, by how long they are to last.
  soak: { dir: "test/soak", maxConcurrency: 16 },
  // One attack at a time, because it is measured.
  abuse: { dir: "test/abuse", maxWorkers: 1 },
  package: { dir: "test/package", maxWorkers: 2, testTimeout: 120_000, hookTimeout: 120_000 },
};

export default defineConfig(async ({ mode }): Promise<ViteUserConfig> => {
  const part = parts[mode];
  if (!part) {
    throw new Error(
      `vitest: no part is called "${mode}"; pass --mode ${Object.keys(parts).join("|")}, or use npm run test:node`,
    );
  }
  const skips = new SkipReporter();
  const { FANWIRE_REPORT_DIR: reports, SEED: seed = "", HISTORIES: histories = "" } = process.env;
  return {
    plugins: mode in mains ? [await workers(mains[mode] as Main)] : [],
    test: {
      ...part,
      include: ["**/*.test.ts"],
      sequence: { sequencer: SlowFirst },
      // Vitest gives up after a second, which a browser or another process may need on a busy machine.
      expect: { poll: { timeout: 20_000 } },
      provide: { part: mode, seed, histories },
      reporters: reports
        ? ["default", skips, ["json", { outputFile: join(reports, `${mode}-${process.pid}.json`) }]]
        : ["default", skips],
    },
  };
});

/** What runs on workerd: a Worker's main file, and its class of objects. */
interface Main {
  readonly file: string;
  readonly binding: string;
  readonly className: string;
}
const conformanceObject: Main = {
  file: "test/workers/conformance-object.ts",
  binding: "CONFORMANCE",
  className: "ConformanceObject",
};
const mains: Record<string, Main> = {
  workerd: conformanceObject,
  durable: conformanceObject,
  workers: { file: "test/workers/servers/main.ts", binding: "HUB", className: "Hub" },
};

/** workerd, without `nodejs_compat`: what passes there leans on no module of Node's. */
async function workers({ file, binding, className }: Main) {
  hideWorkerdNotices();
  const { cloudflareTest } = await import("@cloudflare/vitest-plugin");
  return cloudflareTest({
    main: file,
    miniflare: {
      compatibilityDate: "2026-11-01",
      // From the date 2026-08-04 on `nodejs_compat` has to be refused.
      compatibilityFlags: ["enable_request_signal", "request_signal_passthrough", "no_nodejs_compat"],
      durableObjects: { [binding]: { className, useSQLite: true } },
      bindings: { WORKERD_VERSION: workerdVersion() },
    },
  });
}

/** The workerd that the plugin brings along, which need not be the one this project depends on. */
function workerdVersion(): string {
  const plugin = createRequire(import.meta.resolve("@cloudflare/vitest-plugin"));
  const miniflare = createRequire(plugin.resolve("miniflare"));
  return miniflare("workerd/package.json").version;
}
