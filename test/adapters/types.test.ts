// The types of the adapters and of these tests fit those of the packages.
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { expect, test } from "vitest";
import { needsPackages } from "./installed.ts";

test("the adapters have the types that the packages ask for", needsPackages, () => {
  const root = join(import.meta.dirname, "../..");
  const tsc = join(root, "node_modules/typescript/bin/tsc");
  const { stdout } = spawnSync(process.execPath, [tsc, "-p", import.meta.dirname], { encoding: "utf8" });
  expect(stdout).toBe("");
});
