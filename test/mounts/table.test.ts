// The tables in README.md, and the types of the servers.
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { fetchMounts, nodeMounts } from "./mounts.ts";
import { rowsOf } from "./table.ts";
import { needsFrameworks } from "./test-mounts.ts";

const root = new URL("../../", import.meta.url).pathname;

test("README: the tables have the outcomes that the tests expect", () => {
  const lines = readFileSync(new URL("README.md", import.meta.url), "utf8")
    .split("\n")
    .map((line) => line.replaceAll(/ +/g, " "));
  const rows = [...rowsOf(nodeMounts), ...rowsOf(fetchMounts)].map((row) => `| ${row.join(" | ")} |`);
  expect(lines).toEqual(expect.arrayContaining(rows));
});

test("servers: their types fit those of the frameworks", needsFrameworks, () => {
  const { stdout } = spawnSync(`${root}node_modules/.bin/tsc`, ["-p", `${root}test/mounts/servers`], {
    encoding: "utf8",
  });
  expect(stdout).toBe("");
});
