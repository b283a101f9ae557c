// The packed package: its files, its metadata, and its exports when it is installed, on Node, Bun and Deno.
import { execFile } from "node:child_process";
import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { publint } from "publint";
import { formatMessage } from "publint/utils";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { installPackage } from "../support/installed-package.ts";

const run = promisify(execFile);
const root = join(import.meta.dirname, "../..");
const bin = (name: string) => join(root, "node_modules/.bin", name);

let folder: string;
let tarball: string;
let packed: readonly string[];

beforeAll(async () => {
  ({ folder, tarball, packed } = await installPackage());
  console.info(`package on node ${process.versions.node}`);
});

afterAll(() => rm(folder, { recursive: true, force: true }));

test("npm pack: the tarball has the build with types and maps, the sources with their guides, and nothing else", () => {
  const unexpected = packed.filter(
    (path) =>
      !/^(dist\/.+\.(js|d\.ts)(\.map)?|src\/(.+\.ts|(.+\/)?README\.md)|[A-Z]+(\.md)?|package\.json)$/.test(path),
  );
  expect(unexpected).toEqual([]);
  for (const path of [
    "dist/index.js",
    "dist/index.d.ts",
    "dist/index.js.map",
    "dist/client/index.js",
    "dist/client/index.d.ts",
    "dist/browser.js",
    "dist/client/share.js",
    "dist/client/share.d.ts",
    "dist/react/index.js",
    "dist/react/index.d.ts",
    "dist/hono.js",
    "dist/hono.d.ts",
    "dist/otel.js",
    "dist/otel.d.ts",
    "dist/redis/index.js",
    "dist/redis/index.d.ts",
    "dist/engine.js",
    "dist/engine.d.ts",
    "dist/testing/index.js",
    "dist/testing/index.d.ts",
    "src/index.ts",
    "src/engine/README.md",
    "LICENSE",
    "package.json",
  ]) {
    expect(packed).toContain(path);
  }
});

test("fanwire/browser: is one file, and has everything of fanwire/client", async () => {
  const installed = join(folder, "node_modules/fanwire/dist");
  expect(await readFile(join(installed, "browser.js"), "utf8")).not.toMatch(/\bimport\b/);
  const [whole, parts] = await Promise.all([import(`${installed}/browser.js`), import(`${installed}/client/index.js`)]);
  expect(Object.keys(whole).sort()).toEqual(Object.keys(parts).sort());
});

test("package-lock.json: every package has an integrity, also of other platforms, and no address of a registry", async () => {
  const lock = JSON.parse(await readFile(join(root, "package-lock.json"), "utf8")) as {
    packages: Record<string, { integrity?: string; resolved?: string }>;
  };
  const { "": _, ...packages } = lock.packages;
  const names = Object.keys(packages);
  expect(names.length).toBeGreaterThan(100);
  expect(names.filter((name) => !packages[name]?.integrity)).toEqual([]);
  expect(names.filter((name) => packages[name]?.resolved)).toEqual([]);
});

test("publint: finds nothing", async () => {
  const { messages, pkg } = await publint({
    pkgDir: join(folder, "node_modules/fanwire"),
    level: "suggestion",
    strict: true,
  });
  expect(messages.map((message) => formatMessage(message, pkg))).toEqual([]);
});

test("attw: finds nothing (ESM only)", async () => {
  // attw exits with 1 for any problem that the profile does not ignore, and `run` rejects then.
  const { stdout } = await run(bin("attw"), [tarball, "--profile", "esm-only", "--format", "ascii", "--no-emoji"]);
  expect(stdout).toContain("node16 (from ESM): OK");
});

describe("the installed package is imported by", () => {
  const code = 'import("fanwire").then((all) => console.log(Object.keys(all).length > 0 ? "has exports" : "is empty"))';
  test.each([
    ["node", ["-e", code]],
    ["bun", ["-e", code]],
    ["deno", ["eval", code]],
  ])("%s", async (name, args) => {
    const { stdout } = await run(bin(name), args, { cwd: folder });
    expect(stdout.trim()).toBe("has exports");
  });
});

describe("fanwire/redis, fanwire/engine and fanwire/engine/testing of the installed package, which need nothing else,", () => {
  // An engine of one's own passes a case and skips another. The Redis engine accepts any object with the methods of a client.
  const code = `
    import { createEpoch, createLog } from "fanwire/engine";
    import { engineCases, missingNeeds } from "fanwire/engine/testing";
    import { redisEngine } from "fanwire/redis";
    const log = createLog(createEpoch());
    const engine = {
      open(listener) {
        log.listeners.add(listener);
        const append = (keys, text) => ({ epoch: log.epoch, seq: log.append(keys, text).seq, repeated: false });
        return { log, append, close: () => void log.listeners.delete(listener) };
      },
    };
    const harness = { open: () => ({ engine: () => engine, close: () => undefined }) };
    const skipped = engineCases.filter((each) => missingNeeds(each, harness).length > 0);
    await engineCases.find((each) => !skipped.includes(each)).run(harness);
    let refused;
    try { redisEngine({ client: {}, prefix: "shop" }); } catch (error) { refused = error.name; }
    const nothing = () => undefined;
    const client = { status: "wait", call: nothing, disconnect: nothing, on: nothing, duplicate: nothing };
    console.log(skipped.length > 0, refused, typeof redisEngine({ client, prefix: "shop" }).open);
  `;
  beforeAll(() => writeFile(join(folder, "engines.mjs"), code));
  test.each([
    ["node", ["engines.mjs"]],
    ["bun", ["engines.mjs"]],
    ["deno", ["run", "engines.mjs"]],
  ])("work on %s", async (name, args) => {
    const { stdout } = await run(bin(name), args, { cwd: folder });
    expect(stdout.trim()).toBe("true TypeError function");
  });
});

describe("fanwire/otel of the installed package, with the app's own API and no SDK,", () => {
  const code = `
    import { createBroker } from "fanwire";
    import { instrument } from "fanwire/otel";
    const broker = instrument(createBroker());
    const { clients } = await broker.broadcast("x");
    await broker.close();
    console.log(clients, broker.stats().published);
  `;
  beforeAll(async () => {
    // From the folder of the dependency, to which npm links, so that no registry is asked.
    const api = join(root, "node_modules/@opentelemetry/api");
    await run("npm", ["install", "--no-audit", "--no-fund", "--offline", api], { cwd: folder });
    await writeFile(join(folder, "traced.mjs"), code);
  });
  test.each([
    ["node", ["traced.mjs"]],
    ["bun", ["traced.mjs"]],
    ["deno", ["run", "-A", "traced.mjs"]],
  ])("publishes on %s", async (name, args) => {
    const { stdout } = await run(bin(name), args, { cwd: folder });
    expect(stdout.trim()).toBe("0 1");
  });
});

describe("fanwire/hono of the installed package, with the app's own hono", () => {
  // A stream and an error, which the adapter creates with parts of hono.
  const code = `
    import { createBroker } from "fanwire";
    import { sse } from "fanwire/hono";
    import { Hono } from "hono";
    const app = new Hono().route("/events", sse(createBroker()));
    const stream = await app.request("/events/connect");
    await stream.body.cancel();
    const refused = await app.request("/events/broadcast", { method: "POST", body: "x" });
    console.log(stream.status, refused.status, (await refused.json()).code);
  `;
  beforeAll(async () => {
    // From the folder of the dependency, to which npm links, so that no registry is asked.
    await run("npm", ["install", "--no-audit", "--no-fund", "--offline", join(root, "node_modules/hono")], {
      cwd: folder,
    });
    await writeFile(join(folder, "app.mjs"), code);
  });
  test.each([
    ["node", ["app.mjs"]],
    ["bun", ["app.mjs"]],
    ["deno", ["run", "-A", "app.mjs"]],
  ])("serves on %s", async (name, args) => {
    const { stdout } = await run(bin(name), args, { cwd: folder });
    expect(stdout.trim()).toBe("200 403 publishing-closed");
  });
});
