// The scripts that run the examples build the package first. They share one `dist`, also when they start at the same moment.
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { newDatabasePath } from "../support/engines/database-path.ts";

const root = join(import.meta.dirname, "../..");
const { scripts } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { scripts: Record<string, string> };
const startScripts = Object.keys(scripts).filter((name) => name.startsWith("start"));

/** A copy of the project that was never built. */
let copy: string;
const children: ChildProcess[] = [];

beforeAll(() => {
  copy = mkdtempSync(join(tmpdir(), "fanwire-copy-"));
  for (const path of ["src", "examples", "test/support/build.ts", "package.json", "tsconfig.json", "deno.json"]) {
    cpSync(join(root, path), join(copy, path), { recursive: true });
  }
  symlinkSync(join(root, "node_modules"), join(copy, "node_modules"));
});
afterEach(() => {
  // A negative id stands for the process and all that it started.
  for (const { pid, exitCode } of children.splice(0)) if (pid && exitCode === null) process.kill(-pid, "SIGKILL");
});
afterAll(() => rmSync(copy, { recursive: true, force: true }));

/** Starts a script of package.json in the copy. An example runs on a free port; it needs no Redis to start. */
function startScript(name: string): ChildProcess {
  const child = spawn(join(copy, "node_modules/.bin/node"), ["--run", name], {
    cwd: copy,
    env: {
      ...{ ...process.env, PORT: "0", PUBLISH_TOKEN: "t", REDIS_URL: "redis://127.0.0.1:9" },
      FANWIRE_FILE: newDatabasePath(),
    },
    stdio: ["ignore", "pipe", "pipe"],
    detached: true,
  });
  children.push(child);
  return child;
}

/** Starts a script that runs an example, and resolves with the URL that the example prints. */
async function startExample(name: string): Promise<string> {
  const child = startScript(name);
  let output = "";
  return await new Promise((resolve, reject) => {
    for (const stream of [child.stdout, child.stderr]) {
      stream?.on("data", (data) => {
        output += data;
        const [url] = /http:\S+(?=\s)/.exec(output) ?? [];
        if (url) resolve(url);
      });
    }
    child.on("exit", () => reject(new Error(`${name} ended:\n${output}`)));
  });
}

async function build(): Promise<number> {
  const [code] = await once(startScript("build"), "exit");
  return code;
}

/** Returns each file of `dist`, with what changes when the file is written or replaced. */
function listBuild(): unknown[] {
  return readdirSync(join(copy, "dist"), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => {
      const file = join(entry.parentPath, entry.name);
      const { ino, mtimeMs } = statSync(file);
      return [file, ino, mtimeMs];
    });
}

test("all start scripts, and one of them twice, can start at the same moment, with nothing built yet", async () => {
  const urls = await Promise.all([...startScripts, "start:redis"].map(startExample));
  const answers = await Promise.all(urls.map(async (url) => (await fetch(url)).status));
  expect(answers).toEqual(urls.map(() => 200));
});

test("a build touches only what is new, and a program can import the package in the meantime", async () => {
  expect(await build()).toBe(0);
  const before = listBuild();
  writeFileSync(join(copy, "dist/source-is-gone.js"), "");

  let codes: number[] | undefined;
  const builds = Promise.all([build(), build()]).then((all) => (codes = all));
  const program = 'for (const path of ["", "/hono", "/redis"]) await import("fanwire" + path)';
  while (!codes) {
    const reader = spawnSync(join(copy, "node_modules/.bin/bun"), ["-e", program], { cwd: copy, encoding: "utf8" });
    expect([reader.status, reader.stderr]).toEqual([0, ""]);
    await new Promise((resolve) => setImmediate(resolve));
  }
  expect(await builds).toEqual([0, 0]);
  expect(listBuild()).toEqual(before);

  // A build that fails touches nothing.
  writeFileSync(join(copy, "src/wrong.ts"), 'export const wrong: number = "text";');
  expect(await build()).not.toBe(0);
  expect(listBuild()).toEqual(before);
  expect(readdirSync(copy).filter((name) => name.startsWith(".dist"))).toEqual([]);
});
