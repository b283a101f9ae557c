// Mistakes of the first hour on Node, each in a process of its own: it says what is wrong, and no body ends the process.
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { expect, test } from "vitest";

const root = new URL("../../", import.meta.url).pathname;

/** Runs the program. Returns its exit code and what it printed. */
async function run(...args: readonly string[]): Promise<{ code: number; output: string }> {
  const program = `${root}test/wire/servers/node-mistakes.ts`;
  try {
    const { stdout, stderr } = await promisify(execFile)(`${root}node_modules/.bin/node`, [program, ...args], {
      cwd: root,
      timeout: 20_000,
    });
    return { code: 0, output: stdout + stderr };
  } catch (error) {
    const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string };
    return { code, output: stdout + stderr };
  }
}

test("http.createServer(broker.fetch) says what to write, and does not hang", async () => {
  const { code, output } = await run("fetch as a listener");
  expect(code).toBe(1);
  expect(output).toContain(
    "TypeError: fetch() refused: its argument is not a Request; pass a Request; on Node wrap it",
  );
  expect(output).toContain("getRequestListener");
});

for (const adapter of ["hono", "srvx", "Readable.toWeb"])
  test(`a parser that runs before ${adapter}: 500 body-already-read, and the broker without onError prints it`, async () => {
    const { code, output } = await run(`parser before ${adapter}`);
    expect(output).toMatch(/^500 .*"code":"body-already-read"/m);
    expect(output).toContain('fanwire: error in stage "request"; set onError');
    expect(code).toBe(0);
  });

for (const [size, status] of [
  ["1000", 200],
  ["65536", 200],
  ["65537", 413],
  ["5000000", 413],
] as const)
  for (const how of ["sized", "chunked"])
    test(`a body of ${size} bytes, ${how}, that is pushed into a stream (h3 1): ${status}, and the process goes on`, async () => {
      const { code, output } = await run("body that is pushed", size, how);
      expect(output).toMatch(new RegExp(`^${status} `));
      expect(output.trim().split("\n")).toHaveLength(1);
      expect(code).toBe(0);
    });
