/**
 * Runs `wrangler dev` with no account, no network and no questions, and ends it with everything that it started. PORT, HOST and PUBLISH_TOKEN
 * come from the environment, or have defaults. Arguments: the script, its configuration, and where events are published.
 */
import { spawn } from "node:child_process";
import { copyFileSync, mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { basename, join, resolve } from "node:path";

const [script = "server.ts", config = "wrangler.jsonc", path = "broadcast"] = process.argv.slice(2);
const { PATH = "", PORT = "3000", HOST = "127.0.0.1", PUBLISH_TOKEN, TICKET_LIFE } = process.env;
const token = PUBLISH_TOKEN || crypto.randomUUID();

// All that wrangler leaves is in a folder that goes with it.
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

// workerd stays when its parent is killed. The shell is in one group with all of them, and reads until this process is gone, however it goes.
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
    // With the banner goes the look for a newer version.
    WRANGLER_HIDE_BANNER: "true",
    WRANGLER_LOG_PATH: join(folder, "logs"),
    WRANGLER_REGISTRY_PATH: join(folder, "registry"),
    // The Worker's env has everything that stands here, so that the token is in no list of processes, as with `--var` it would be.
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
  // The page reads the token from the fragment, which a browser never sends. One of your own is not printed: the page asks for it.
  console.log(PUBLISH_TOKEN || script !== "server.ts" ? url : `${url}#token=${token}`);
  if (!PUBLISH_TOKEN) console.log(`curl -H "Authorization: Bearer ${token}" -d "hello" ${url}${path}`);
});

let isAsked = false;
for (const signal of ["SIGTERM", "SIGINT"] as const)
  process.on(signal, () => {
    isAsked = true;
    child.stdin?.end();
  });
// Not `exit`: what they all write to is closed only when all of them are gone.
child.on("close", () => {
  rmSync(folder, { recursive: true, force: true });
  process.exitCode = isAsked ? 0 : 1;
});
