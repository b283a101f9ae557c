// Runs `wrangler dev` without an account, a network or questions, and ends it with everything that it started. PORT, HOST and PUBLISH_TOKEN
// come from the environment, or have defaults. Arguments: the script, its configuration, and the path of the publish endpoint.
import { spawn } from "node:child_process";
import { copyFileSync, mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { basename, join, resolve } from "node:path";

const [script = "server.ts", config = "wrangler.jsonc", path = "broadcast"] = process.argv.slice(2);
const { PATH = "", PORT = "3000", HOST = "127.0.0.1", PUBLISH_TOKEN, TICKET_LIFE } = process.env;
const token = PUBLISH_TOKEN || crypto.randomUUID();

// All files that wrangler writes are in one folder, which is deleted at the end.
const folder = mkdtempSync(join(tmpdir(), "fanwire-wrangler-"));
const copy = join(folder, basename(config));
copyFileSync(resolve(import.meta.dirname, config), copy);

const wrangler = createRequire(import.meta.url)
  .resolve("wrangler/package.json")
  .replace("package.json", "bin/wrangler.js");
const dev = [
  ...[process.execPath, wrangler, "dev", resolve(import.meta.dirname, script), `--config=${copy}`],
  ...[`--ip=${HOST}`, `--port=${PORT}`, "--inspector-port=0", `--persist-to=${join(folder, "state")}`],
  ...["--show-interactive-dev-session=false", "--log-level=warn"],
];

// workerd outlives a parent that is killed. So a shell shares a process group with all of them, reads until this process has ended for
// whatever reason, and then ends the group.
const child = spawn("sh", ["-c", '{ "$@"; kill -KILL 0; } & read -r _; rm -rf "$TMPDIR"; kill -KILL 0', "sh", ...dev], {
  detached: true,
  cwd: folder,
  stdio: ["pipe", "pipe", "pipe", "ipc"],
  env: {
    PATH,
    HOME: folder,
    TMPDIR: folder,
    CI: "true",
    CLOUDFLARE_CF_FETCH_ENABLED: "false",
    WRANGLER_SEND_METRICS: "false",
    WRANGLER_SEND_ERROR_REPORTS: "false",
    // Without the banner wrangler does not look for a newer version.
    WRANGLER_HIDE_BANNER: "true",
    WRANGLER_LOG_PATH: join(folder, "logs"),
    WRANGLER_REGISTRY_PATH: join(folder, "registry"),
    // Copies this environment to the Worker's env. With `--var` the token would be visible in the list of processes.
    CLOUDFLARE_INCLUDE_PROCESS_ENV: "true",
    PUBLISH_TOKEN: token,
    ...(TICKET_LIFE === undefined ? {} : { TICKET_LIFE }),
  },
});
child.stdout?.pipe(process.stdout);
child.stderr?.pipe(process.stderr);

child.on("message", (text) => {
  const { event, port } = JSON.parse(String(text)) as { event: string; port: number };
  if (event !== "DEV_SERVER_READY") return;
  const url = `http://${HOST.includes(":") ? `[${HOST}]` : HOST}:${port}/`;
  // The page reads the token from the fragment, which a browser never sends. Your own token is not printed: the page asks for it.
  console.log(PUBLISH_TOKEN || script === "hono.ts" ? url : `${url}#token=${token}`);
  if (!PUBLISH_TOKEN) console.log(`curl -H "Authorization: Bearer ${token}" -d "hello" ${url}${path}`);
});

let isStopping = false;
for (const signal of ["SIGTERM", "SIGINT"] as const)
  process.on(signal, () => {
    isStopping = true;
    child.stdin?.end();
  });
// Not `exit`: the shared output closes only when all processes have ended.
child.on("close", () => {
  rmSync(folder, { recursive: true, force: true });
  process.exitCode = isStopping ? 0 : 1;
});
