// A call that is awaited keeps its process alive. Otherwise Node ends with code 13, and `deno test` fails. An idle broker keeps none alive.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { describe, expect, test } from "vitest";

const root = new URL("../../", import.meta.url).pathname;
const bin = (name: string): string => `${root}node_modules/.bin/${name}`;
const script = `${root}test/wire/servers/awaiting.ts`;
const commands = [
  ["node", [bin("node"), script]],
  ["bun", [bin("bun"), "run", script]],
  ["deno", [bin("deno"), "run", "-A", script]],
] as const;

/** Runs a program to its end. Returns its exit code, or the signal that ended it, and what it printed. */
async function run([program = "", ...args]: readonly string[]): Promise<{ code: unknown; output: string }> {
  const child = spawn(program, args, {
    cwd: root,
    env: { ...process.env, NO_COLOR: "1" },
    stdio: ["ignore", "pipe", "pipe"],
    timeout: 25_000,
    killSignal: "SIGKILL",
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (output += data));
  const [code, signal] = await once(child, "close");
  return { code: signal ?? code, output };
}

describe.concurrent.each(commands)("awaiting on %s", (_name, command) => {
  test.each([
    ["close", ""],
    ["close of a disconnected client", ""],
    ["close by force", ""],
    ["report", '"failed":[{"clientId":"unread"'],
    ["held publisher", ""],
    ["publisher without a store", "engine-down\n"],
    ["client without a store", "503\n"],
  ])("%s: keeps the process alive until it settles, and no longer", async (call, printed) => {
    const { code, output } = await run([...command, call]);
    expect([code, output]).toEqual([0, expect.stringMatching(/(^|\n)done\n$/)]);
    expect(output).toContain(printed);
  });

  test("idle: a broker with a stream, heartbeats and a listener does not keep the process alive", async () => {
    expect(await run([...command, "idle"])).toEqual({ code: 0, output: "done\n" });
  });
});

test("deno test: passes with responses that were never read", async () => {
  const { code, output } = await run([bin("deno"), "test", "-A", `${root}test/wire/servers/awaiting-deno.ts`]);
  expect(output).toContain("3 passed");
  expect(code).toBe(0);
});
