// workerd with one of the programs in `workers/`, behind the interface of the other servers.
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { freePort, serveUsage } from "../process-usage.ts";
import { announcePort } from "../usage.ts";

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));
const directory = mkdtempSync(join(tmpdir(), "fanwire-bench-"));
const port = await freePort();
await build({
  entryPoints: [here(`../workers/${process.argv[2]}.ts`)],
  bundle: true,
  format: "esm",
  target: "es2023",
  external: ["node:*", "cloudflare:workers"],
  outfile: join(directory, "worker.js"),
});
const config = join(directory, "config.capnp");
let pid = 0;
writeFileSync(
  config,
  `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "disk", disk = (path = "${directory}", writable = true)),
    (name = "usage", external = (address = "127.0.0.1:${await serveUsage(() => pid)}", http = ())),
    (name = "main", worker = (
      modules = [(name = "worker", esModule = embed "worker.js")],
      compatibilityDate = "2026-11-01",
      compatibilityFlags = ["enable_request_signal", "request_signal_passthrough"],
      durableObjectNamespaces = [(className = "Hub", uniqueKey = "hub", enableSql = true)],
      durableObjectStorage = (localDisk = "disk"),
      bindings = [(name = "HUB", durableObjectNamespace = "Hub"), (name = "USAGE", service = "usage")],
    )),
  ],
  sockets = [(name = "http", address = "127.0.0.1:${port}", http = (), service = "main")],
);
`,
);
const workerd = spawn(here("../../../node_modules/.bin/workerd"), ["serve", config], {
  stdio: ["ignore", "inherit", "inherit"],
});
workerd.on("exit", (status) => {
  rmSync(directory, { recursive: true, force: true });
  process.exit(status ?? 0);
});
// workerd does not end on SIGTERM while a stream is open.
const end = (): void => void workerd.kill("SIGKILL");
process.on("SIGTERM", end);
pid = workerd.pid ?? 0;
while (
  !(await fetch(`http://127.0.0.1:${port}/cpu`).then(
    ({ ok }) => ok,
    () => false,
  ))
)
  await sleep(20);
announcePort(port, end);
