/**
 * Runs clients that come and go on every platform at once, and checks that everything they used is released.
 *
 *     npm run soak -- [--minutes 3] [--only bun,workerd] [--seed 1]
 *
 * The platforms are those of test/support/servers/server.ts. The exit code is 1 if anything leaked, was lost, or failed.
 */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "3" },
    only: { type: "string", default: "" },
    seed: { type: "string", default: "1" },
  },
});
if (!(Number(values.minutes) > 0))
  throw new TypeError(`soak: --minutes must be a number above 0, not ${values.minutes}`);

const vitest = fileURLToPath(new URL("../../node_modules/vitest/vitest.mjs", import.meta.url));
const { status } = spawnSync(process.execPath, [vitest, "run", "--mode", "soak"], {
  stdio: "inherit",
  env: { ...process.env, SOAK_MINUTES: values.minutes, SOAK_ONLY: values.only, SOAK_SEED: values.seed },
});
process.exitCode = status ?? 1;
