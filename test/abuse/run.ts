/**
 * Plays attacks against every platform beside a healthy client, and prints what the attacker spends, what the server pays, and what the healthy
 * client sees.
 *
 *     npm run abuse -- [--seconds 5] [--only bun,node-hono] [--attacks replay,silent]
 *
 * The platforms are those of test/support/servers/server.ts. The exit code is 1 if the healthy client lost an event.
 */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "5" },
    only: { type: "string", default: "" },
    attacks: { type: "string", default: "" },
  },
});
if (!(Number(values.seconds) > 0)) throw new TypeError(`abuse: --seconds must be above 0, not ${values.seconds}`);

const vitest = fileURLToPath(new URL("../../node_modules/vitest/vitest.mjs", import.meta.url));
const { status } = spawnSync(process.execPath, [vitest, "run", "--mode", "abuse"], {
  stdio: "inherit",
  env: { ...process.env, ABUSE_SECONDS: values.seconds, ABUSE_ONLY: values.only, ABUSE_ATTACKS: values.attacks },
});
process.exitCode = status ?? 1;
