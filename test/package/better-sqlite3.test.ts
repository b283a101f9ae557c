// The SQLite engine over better-sqlite3, on the Node that npm runs on: that package is compiled for it.
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { needsBetterSqlite, olderPath } from "../support/older.ts";

const script = join(import.meta.dirname, "better-sqlite3/run-cases.mjs");
/** The first Node on the path that is not the project's own. */
const systemNode = (process.env.PATH ?? "")
  .split(delimiter)
  .filter((folder) => !folder.includes("node_modules"))
  .map((folder) => join(folder, "node"))
  .find((file) => existsSync(file));

test(
  "better-sqlite3: passes the contract, is found by a path, and its errors are understood",
  needsBetterSqlite,
  async () => {
    const env = { ...process.env, NODE_PATH: olderPath };
    const { stdout } = await promisify(execFile)(systemNode ?? process.execPath, [script], { env });
    const outcome = JSON.parse(stdout) as {
      passed: number;
      failed: string[];
      ids: string[];
      runs: string[];
      busy: string;
      missing: string;
    };
    expect(outcome.failed).toEqual([]);
    expect(outcome.passed).toBeGreaterThan(30);
    const [first = "", second] = outcome.ids;
    expect(second).toBe(first.replace(/-1$/, "-2"));
    const run = "ended id: one-1\ndata: é\n\nid: one-2\ndata: 2\n\n";
    expect(outcome.runs).toEqual([run, run]);
    expect(outcome.busy).toContain("another process has it open");
    expect(outcome.missing).toContain("Check that its folder exists");
  },
);
