// The folder test/older: versions of libraries that users have besides the project's own.
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { TestOptions } from "vitest";
import { skipIf } from "./skip.ts";

/** The folder of the packages. */
export const olderPath: string = join(import.meta.dirname, "../older/node_modules");

const isInstalled = existsSync(olderPath);
if (!isInstalled && process.env.CI) throw new Error("test/older is not installed; run npm ci --prefix test/older.");

/** Options that skip a test where the folder is not installed. */
export const needsOlder: TestOptions = skipIf(!isInstalled, "test/older is not installed: npm ci --prefix test/older");
