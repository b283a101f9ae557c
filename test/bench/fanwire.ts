// fanwire with the memory engine, or with the SQLite engine where the program's argument is `sqlite`.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { createBroker, type Engine, memoryEngine } from "../../src/index.ts";
import { sqliteEngine } from "../../src/sqlite/index.ts";
import { isUsageRequest, usage } from "./usage.ts";

function engine(): Engine {
  if (!process.argv.includes("sqlite")) return memoryEngine();
  const folder = mkdtempSync(join(tmpdir(), "fanwire-bench-"));
  process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
  return sqliteEngine({ path: join(folder, "log.db") });
}
const broker = createBroker({ publishToken: "bench", engine: engine() });

/** The same on every runtime: `/connect`, `/broadcast` and `/cpu`. */
export function fetch(request: Request, context?: unknown): Response | Promise<Response> {
  return isUsageRequest(request.url) ? Response.json(usage(request.url)) : broker.fetch(request, context);
}
