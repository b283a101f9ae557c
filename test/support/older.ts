// The folder test/older: versions of libraries that users have besides the project's own.
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { TestOptions } from "vitest";
import { skipIf } from "./skip.ts";

/** The folder of the packages. */
export const olderPath: string = join(import.meta.dirname, "../older/node_modules");

if (!existsSync(olderPath) && process.env.CI)
  throw new Error("test/older is not installed; run npm ci --prefix test/older.");

/** Options that skip a test where better-sqlite3 could not be compiled: that needs a C++ compiler, and the headers of the Node that npm runs on. */
export const needsBetterSqlite: TestOptions = skipIf(
  !existsSync(join(olderPath, "better-sqlite3/build/Release/better_sqlite3.node")),
  "better-sqlite3 could not be compiled in test/older",
);
