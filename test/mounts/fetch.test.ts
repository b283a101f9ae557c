// Brokers behind the conversion of requests and responses that each framework has.
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { fetchMounts } from "./mounts.ts";
import { rowsOf } from "./table.ts";
import { needsFrameworks, testMounts } from "./test-mounts.ts";

const root = new URL("../../", import.meta.url).pathname;

testMounts(fetchMounts);

test("servers: their types fit those of the frameworks", needsFrameworks, () => {
  const { stdout } = spawnSync(`${root}node_modules/.bin/tsc`, ["-p", `${root}test/mounts/servers`], {
    encoding: "utf8",
  });
  expect(stdout).toBe("");
});

test("README: the table has the outcomes of these tests", () => {
  const lines = readFileSync(new URL("README.md", import.meta.url), "utf8")
    .split("\n")
    .map((line) => line.replaceAll(/ +/g, " "));
  expect(lines).toEqual(expect.arrayContaining(rowsOf(fetchMounts).map((row) => `| ${row.join(" | ")} |`)));
});
