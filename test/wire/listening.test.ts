// listen() and the life of a process.
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { expect, test } from "vitest";

const run = promisify(execFile);
const root = new URL("../../", import.meta.url).pathname;

test.each([
  ["node", []],
  ["bun", ["run"]],
  ["deno", ["run", "-A"]],
])("listen(): does not keep a process alive on %s", async (name, args) => {
  const program = `${root}test/wire/servers/listening.ts`;
  const { stdout } = await run(`${root}node_modules/.bin/${name}`, [...args, program], { timeout: 20_000 });
  expect(stdout).toBe("event\n");
});
