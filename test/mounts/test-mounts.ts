// The tests of a list of mounts. A mount that does better than expected fails too, so that the table stays true.
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { skipIf } from "../support/skip.ts";
import { CHECK_NAMES } from "./checks.ts";
import { expectedOf, MountRun } from "./mount-run.ts";
import { buildApp } from "./mount-server.ts";
import type { Mount } from "./mounts.ts";

const read = (path: string): { version?: string; devDependencies?: Record<string, string> } => {
  try {
    return JSON.parse(readFileSync(new URL(path, import.meta.url), "utf8"));
  } catch {
    return {};
  }
};
const versionOf = (dependency: string): string | undefined => read(`node_modules/${dependency}/package.json`).version;

/** Packages of this folder that are not installed, or in another version. */
const missing = Object.entries(read("package.json").devDependencies ?? {})
  .filter(([name, version]) => versionOf(name) !== version.replace(/.*@/, ""))
  .map(([name]) => name);
const CURE = `install the frameworks with "npm ci --prefix test/mounts"; ${missing.length} are missing or of another version, such as ${missing[0]}`;
if (missing.length > 0 && process.env.CI === "true") throw new Error(`Testing mounts: ${CURE}`);

/** Options that skip a test without the frameworks. */
export const needsFrameworks = skipIf(missing.length > 0, CURE);

export function testMounts(mounts: readonly Mount[]): void {
  describe.each(mounts)("$name", needsFrameworks, (mount) => {
    const run = new MountRun(mount);
    beforeAll(async () => {
      await buildApp(mount);
      const version = mount.dependency
        ? `${mount.dependency} ${versionOf(mount.dependency)}`
        : `node ${process.versions.node}`;
      console.log(`${inject("part")} on ${version} (${mount.name})`);
    });
    afterAll(() => run.stop());

    test.each(CHECK_NAMES)("%s", async (name) => {
      const outcome = await run.check(name);
      expect(outcome, outcome === expectedOf(mount, name) ? undefined : run.findings).toBe(expectedOf(mount, name));
    });
  });
}
