// Development servers that load changed modules again in the same process. The broker of the guide stays, and so do its streams.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { SocketClient } from "../support/clients/socket-client.ts";
import { freePort } from "../support/servers/server.ts";

const root = new URL("../../", import.meta.url).pathname;
const bin = (name: string): string => `${root}node_modules/.bin/${name}`;

/** The snippet of the guide, as a user would copy it. */
const [snippet = ""] =
  readFileSync(`${root}examples/README.md`, "utf8")
    .split("```")
    .filter((part) => part.startsWith("ts\n") && part.includes("export const broker = (globalThis.")) ?? [];
const keptBroker = snippet.slice("ts\n".length);
/** The same without `globalThis`. */
const newBroker = keptBroker.replace(/globalThis\.\w+ \?\?= /, "");

/** The app that uses the broker. */
const appOf = (version: number): string => `
import { broker } from "./broker.ts";

export default {
  hostname: "127.0.0.1",
  port: Number(process.env.PORT),
  async fetch(request: Request, server: unknown): Promise<Response> {
    const { pathname } = new URL(request.url);
    if (pathname === "/version") return new Response("${version}");
    if (pathname === "/publish") return Response.json(await broker.broadcast("from version ${version}"));
    return broker.fetch(request, server);
  },
};
`;

let folder = "";
let url = "";
let child: ChildProcess | undefined;
let output = "";
const write = (file: string, text: string): void => writeFileSync(join(folder, file), text);
const textOf = async (path: string): Promise<string> => (await fetch(url + path)).text();

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "fanwire-reload-"));
  mkdirSync(join(folder, "node_modules"));
  symlinkSync(root, join(folder, "node_modules/fanwire"));
  write("package.json", '{ "type": "module" }');
});
afterEach(() => {
  child?.kill("SIGKILL");
  rmSync(folder, { recursive: true });
});

/** Starts a program in the folder. */
async function start([program = "", ...args]: readonly string[], env: Record<string, string>): Promise<void> {
  const port = await freePort();
  url = `http://127.0.0.1:${port}/`;
  output = "";
  child = spawn(program, args, {
    cwd: folder,
    env: { ...process.env, NO_COLOR: "1", PORT: String(port), ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  for (const stream of [child.stdout, child.stderr]) stream?.on("data", (data) => (output += data));
}

/** Waits until a condition holds. Otherwise the time limit of the test ends it. */
async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) {
    if (child?.exitCode !== null) throw new Error(`Waiting for a reload: the server ended. Its output:\n${output}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
const untilVersion = (version: number): Promise<void> =>
  until(async () => (await textOf("version").catch(() => "")) === String(version));

describe.each([
  ["bun --hot", () => [bin("bun"), "--hot", join(folder, "app.ts")]],
  ["Vite", () => [bin("node"), `${root}test/wire/servers/vite-ssr.ts`, folder]],
] as const)("reload by %s", (_name, commandOf) => {
  /** Starts the app with a broker module, changes both, and waits until the new version answers. Returns a client of the first version. */
  async function reload(before: string, after: string): Promise<SocketClient> {
    write("broker.ts", before);
    write("app.ts", appOf(1));
    await start(commandOf(), { PUBLISH_TOKEN: "first" });
    await untilVersion(1);
    const client = await new SocketClient(`${url}connect`).untilReady();
    expect(JSON.parse(await textOf("publish"))).toMatchObject({ clients: 1 });
    await client.until(() => client.data.length === 1);
    write("broker.ts", after);
    write("app.ts", appOf(2));
    await untilVersion(2);
    return client;
  }

  test("globalThis: a client from before receives an event that the new module publishes, exactly once", async () => {
    expect(keptBroker).toContain("createBroker(");
    const client = await reload(keptBroker, `${keptBroker}\nexport const changed = true;\n`);
    for (const _ of [1, 2]) expect(JSON.parse(await textOf("publish"))).toMatchObject({ clients: 1 });
    await client.until(() => client.data.length >= 3);
    expect(client.data).toEqual(["from version 1", "from version 2", "from version 2"]);
    const next = await new SocketClient(`${url}connect`, { "last-event-id": client.lastEventId ?? "" }).untilReady();
    expect(JSON.parse(next.control("ready")[0]?.data ?? "")).toMatchObject({ resumed: true });
    for (const each of [client, next]) each.reset();
  });

  test("globalThis: an option that changed needs a restart", async () => {
    const changed = keptBroker.replace("process.env.PUBLISH_TOKEN", '"changed"');
    expect(changed).not.toBe(keptBroker);
    const client = await reload(keptBroker, changed);
    const statuses = [];
    for (const token of ["first", "changed"]) {
      const headers = { authorization: `Bearer ${token}` };
      statuses.push((await fetch(`${url}broadcast`, { method: "POST", headers, body: "x" })).status);
    }
    expect(statuses).toEqual([200, 401]);
    client.reset();
  });

  test("a broker that is not kept: the new module publishes to nobody, which is what globalThis is for", async () => {
    expect(newBroker).not.toBe(keptBroker);
    const client = await reload(newBroker, `${newBroker}\nexport const changed = true;\n`);
    expect(JSON.parse(await textOf("publish"))).toMatchObject({ clients: 0 });
    expect([client.data, client.ended]).toEqual([["from version 1"], undefined]);
    client.reset();
  });
});

test("examples/bun/server.ts with bun --hot: the streams and the printed token stay valid, and SIGTERM ends the process", async () => {
  for (const file of ["server.ts", "serve.ts", "page.html"])
    copyFileSync(`${root}examples/bun/${file}`, join(folder, file));
  await start([bin("bun"), "--hot", join(folder, "server.ts")], { PUBLISH_TOKEN: "" });
  await until(() => output.includes("curl"));
  const [, token = ""] = /Bearer ([^"]+)"/.exec(output) ?? [];
  const client = await new SocketClient(`${url}connect`).untilReady();
  const printed = output.length;
  write("server.ts", `${readFileSync(join(folder, "server.ts"), "utf8")}console.log("loaded again");\n`);
  await until(() => output.slice(printed).includes("loaded again"));

  const headers = { authorization: `Bearer ${token}` };
  const answer = await fetch(`${url}broadcast`, { method: "POST", headers, body: "after the reload" });

  expect(await answer.json()).toMatchObject({ clients: 1 });
  await client.until(() => client.data.length === 1);
  expect(client.data).toEqual(["after the reload"]);
  const exited = once(child as ChildProcess, "exit");
  child?.kill("SIGTERM");
  await client.untilEnded();
  expect(client.control("end").map(({ data }) => JSON.parse(data).reason)).toEqual(["closing"]);
  expect(await exited).toEqual([0, null]);
});
