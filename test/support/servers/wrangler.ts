// The command that runs `wrangler dev`.
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const root = new URL("../../../", import.meta.url).pathname;

/**
 * Returns the command line that runs `wrangler dev` with an entry point, a class `Stage` of Durable Objects, and variables. It contains all
 * settings. Killing the process also ends everything that it started.
 */
export function wranglerCommand(entryPoint: string, port: number, texts: Readonly<Record<string, string>>): string[] {
  const config = join(mkdtempSync(join(tmpdir(), "fanwire-config-")), "wrangler.json");
  writeFileSync(
    config,
    JSON.stringify({
      name: "stage",
      main: entryPoint,
      compatibility_date: "2026-11-01",
      // With a compatibility date of 2026-08-04 or later, `nodejs_compat` has to be turned off explicitly.
      compatibility_flags: ["enable_request_signal", "request_signal_passthrough", "no_nodejs_compat"],
      durable_objects: { bindings: [{ name: "STAGE", class_name: "Stage" }] },
      migrations: [{ tag: "v1", new_sqlite_classes: ["Stage"] }],
      vars: texts,
    }),
  );
  const node = `${root}node_modules/.bin/node`;
  const settings = [`PORT=${port}`, "HOST=127.0.0.1", "PUBLISH_TOKEN=unused"];
  return ["env", ...settings, node, `${root}examples/workers/start.ts`, entryPoint, config];
}
