// `npx fanwire` from the packed package, installed in an empty folder, on Node and on Bun.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, symlinkSync } from "node:fs";
import { rm } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { SignJWT } from "jose";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { SocketClient } from "../support/clients/socket-client.ts";
import { newDatabasePath } from "../support/engines/database-path.ts";
import { installPackage } from "../support/installed-package.ts";
import { needsRedis, startRedis } from "../support/servers/redis.ts";

const root = join(import.meta.dirname, "../..");
const SECRET = "a secret that is long enough for HS256";

let folder: string;
const children: ChildProcess[] = [];
beforeAll(async () => {
  ({ folder } = await installPackage());
});
afterEach(() => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** Commands that start the program: as npm links it, and on Bun. */
const commands = {
  node: () => [join(root, "node_modules/.bin/node"), join(folder, "node_modules/.bin/fanwire")],
  bun: () => [join(root, "node_modules/.bin/bun"), "--bun", join(folder, "node_modules/.bin/fanwire")],
} as const;
const runtimes = ["node", "bun"] as const;

interface Run {
  readonly child: ChildProcess;
  /** What it printed, line by line. */
  readonly lines: Record<string, unknown>[];
  readonly stderr: () => string;
}

function start(runtime: keyof typeof commands, args: readonly string[], env: Record<string, string> = {}): Run {
  const [program = "", ...before] = commands[runtime]();
  const { PATH = "", HOME = "" } = process.env;
  const isElsewhere = args.some((arg) => /^--(?:memory|redis|file)$/.test(arg)) || env.REDIS_URL !== undefined;
  // Each program has a file of its own, unless a test says otherwise.
  const file = isElsewhere ? {} : { FANWIRE_FILE: newDatabasePath() };
  const child = spawn(program, [...before, ...args], { cwd: folder, env: { PATH, HOME, ...file, ...env } });
  children.push(child);
  const lines: Record<string, unknown>[] = [];
  let [output, errors] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (data: string) => {
    output += data;
    for (let end = output.indexOf("\n"); end >= 0; end = output.indexOf("\n")) {
      const line = output.slice(0, end);
      output = output.slice(end + 1);
      lines.push(line.startsWith("{") ? (JSON.parse(line) as Record<string, unknown>) : { line });
    }
  });
  child.stderr.on("data", (data) => (errors += data));
  return { child, lines, stderr: () => errors };
}

/** Starts the program, and waits until it listens. Returns its URL with a slash at the end. */
async function listening(
  runtime: keyof typeof commands,
  args: readonly string[],
  env: Record<string, string> = {},
): Promise<Run & { readonly url: string }> {
  const run = start(runtime, ["--port", "0", ...args], env);
  for (;;) {
    const line = run.lines.find(({ event }) => event === "listening");
    if (line) return { ...run, url: String(line.url) };
    if (run.child.exitCode !== null) throw new Error(`Starting fanwire: it ended. It printed:\n${run.stderr()}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Runs the program to its end. */
async function ended(args: readonly string[], env: Record<string, string> = {}): Promise<[code: number, Run]> {
  const run = start("node", args, env);
  const [code] = (await once(run.child, "close")) as [number];
  return [code, run];
}

const publish = (url: string, token: string, query = "", body = "hello"): Promise<Response> =>
  fetch(`${url}broadcast${query}`, { method: "POST", body, headers: { authorization: `Bearer ${token}` } });

const token = (claims: Record<string, unknown>): Promise<string> =>
  new SignJWT(claims)
    .setProtectedHeader({ alg: "HS256" })
    .setExpirationTime("5m")
    .sign(new TextEncoder().encode(SECRET));

describe.each(runtimes)("on %s", (runtime) => {
  test("serves clients, takes events with the token, answers monitors, and sends its clients away at SIGTERM", async () => {
    const { child, lines, url, stderr } = await listening(runtime, ["--publish-token", "secret", "--drain", "100ms"]);
    expect(url).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/$/);
    const client = await new SocketClient(`${url}connect?channel=news`).untilReady();
    expect(await (await publish(url, "secret", "?channel=news")).json()).toMatchObject({ clients: 1 });
    expect((await publish(url, "another", "?channel=news")).status).toBe(401);
    await client.until(({ data }) => data.includes("hello"));
    expect((await fetch(`${url}health`)).status).toBe(200);
    expect(await (await fetch(`${url}metrics`)).text()).toContain("fanwire_clients 1");
    expect((await fetch(url)).status).toBe(404);
    child.kill("SIGTERM");
    // With "exit" its last lines may not have been read yet.
    const [code] = await once(child, "close");
    await client.untilEnded();
    expect(JSON.parse(client.control("end")[0]?.data ?? "{}")).toMatchObject({ reason: "closing", reconnect: true });
    expect([code, lines.map(({ event }) => event), stderr()]).toEqual([
      0,
      ["listening", "reading-is-open", "draining", "stopped"],
      "",
    ]);
    for (const line of lines) expect(line).toMatchObject({ time: expect.any(String), level: expect.any(String) });
  });

  test("--open serves a page; environment variables are read, and flags win over them", async () => {
    const env = {
      HOST: "127.0.0.1",
      PUBLISH_TOKEN: "by variable",
      OPEN: "1",
      RETENTION_EVENTS: "2",
      CORS_ORIGINS: "https://a.example",
    };
    const { url } = await listening(runtime, ["--cors", "https://b.example,https://c.example"], env);
    const page = await fetch(url);
    expect([page.headers.get("content-type"), await page.text()]).toEqual([
      "text/html; charset=utf-8",
      expect.stringContaining("EventSource"),
    ]);
    for (const data of ["1", "2", "3"]) expect((await publish(url, "by variable", "", data)).status).toBe(200);
    const client = await new SocketClient(`${url}connect?from=earliest`, { origin: "https://c.example" }).until(
      ({ data }) => data.length > 1,
    );
    expect(client.data).toEqual(["2", "3"]);
    expect(client.headers["access-control-allow-origin"]).toBe("https://c.example");
    client.leave();
    const other = await new SocketClient(`${url}connect`, { origin: "https://a.example" }).untilReady();
    expect(other.headers["access-control-allow-origin"]).toBeUndefined();
    other.leave();
  });

  test("a program that is killed goes on with its file; with --memory it begins again", async () => {
    const idOf = async (answer: Response): Promise<string> => ((await answer.json()) as { id: string }).id;
    const epochOf = (id: string): string => id.replace(/-\d+$/, "");
    const lives = async (...args: string[]): Promise<[first: string, second: string, lines: Run["lines"]]> => {
      const first = await listening(runtime, ["--publish-token", "t", ...args]);
      const before = await idOf(await publish(first.url, "t"));
      first.child.kill("SIGKILL");
      await once(first.child, "exit");
      const second = await listening(runtime, ["--publish-token", "t", ...args]);
      return [before, await idOf(await publish(second.url, "t")), second.lines];
    };
    const path = newDatabasePath();
    const [one, two, lines] = await lives("--file", path);
    expect([epochOf(two), two.endsWith("-2")]).toEqual([epochOf(one), true]);
    expect(lines[0]).toMatchObject({ event: "listening", engine: "sqlite", file: path });
    const [three, four, others] = await lives("--memory");
    expect(epochOf(four)).not.toBe(epochOf(three));
    expect(others[0]).toMatchObject({ event: "listening", engine: "memory" });
  });

  test("the default file is fanwire.db in the current folder; a file that cannot be used is one line, and 503", async () => {
    const { url } = await listening(runtime, ["--publish-token", "t"], { FANWIRE_FILE: "" });
    expect((await publish(url, "t")).status).toBe(200);
    expect(existsSync(join(folder, "fanwire.db"))).toBe(true);
    const bad = await listening(runtime, ["--publish-token", "t", "--file", join(folder, "missing", "a.db")]);
    while (!bad.lines.some(({ event }) => event === "error")) await new Promise((resolve) => setTimeout(resolve, 20));
    expect(bad.lines.find(({ event }) => event === "error")?.message).toContain("Check that its folder exists");
    expect((await publish(bad.url, "t")).status).toBe(503);
    expect((await fetch(`${bad.url}health`)).status).toBe(503);
  });

  test("--jwt-secret: a token decides what its owner may read and publish", async () => {
    const library = join(folder, "node_modules/jose");
    if (!existsSync(library)) symlinkSync(join(root, "node_modules/jose"), library);
    const { lines, url } = await listening(runtime, ["--jwt-cookie", "session", "--jwt-audience", "events"], {
      JWT_SECRET: SECRET,
    });
    expect(lines.map(({ event }) => event)).toEqual(["listening"]);
    expect((await fetch(`${url}connect`)).status).toBe(401);
    const reader = await token({ sub: "ada", aud: "events", channels: ["news", "ada"] });
    expect(
      (await fetch(`${url}connect`, { headers: { authorization: `Bearer ${await token({ aud: "other" })}` } })).status,
    ).toBe(401);
    expect(
      (await fetch(`${url}connect?channel=secret`, { headers: { authorization: `Bearer ${reader}` } })).status,
    ).toBe(403);
    const client = await new SocketClient(`${url}connect`, { cookie: `session=${reader}` }).untilReady();
    expect(client.headers["fanwire-client-id"]).toBe("ada");

    const writer = await token({ aud: "events", publish: ["news"] });
    const admin = await token({ aud: "events", publish: "*" });
    const statuses = async (bearer: string): Promise<number[]> => [
      (await publish(url, bearer, "?channel=news", "news")).status,
      (await publish(url, bearer, "?channel=secret", "secret")).status,
      (await publish(url, bearer, "?id=ada", "for ada")).status,
      (await publish(url, bearer, "", "for all")).status,
    ];
    expect(await statuses(reader)).toEqual([403, 403, 403, 403]);
    expect(await statuses(writer)).toEqual([200, 403, 403, 403]);
    expect(await statuses(admin)).toEqual([200, 200, 200, 200]);
    await client.until(({ data }) => data.length === 4);
    expect(client.data).toEqual(["news", "news", "for ada", "for all"]);
    client.leave();
  });

  test("--redis: two processes are one broker", needsRedis, async () => {
    mkdirSync(join(folder, "node_modules"), { recursive: true });
    // ioredis loads its own dependencies from beside its real place.
    const library = join(folder, "node_modules/ioredis");
    if (!existsSync(library)) symlinkSync(join(root, "node_modules/ioredis"), library);
    const redis = await startRedis();
    try {
      const args = ["--redis", redis.url, "--publish-token", "secret"];
      const [one, two] = await Promise.all([listening(runtime, args), listening(runtime, args)]);
      const client = await new SocketClient(`${one.url}connect`).untilReady();
      expect((await publish(two.url, "secret")).status).toBe(200);
      await client.until(({ data }) => data.includes("hello"));
      client.leave();
    } finally {
      await redis.stop();
    }
  });
});

describe("mistakes: one line, and exit code 2", () => {
  test.each<[args: string[], env: Record<string, string>, line: RegExp]>([
    [["--prot", "3000"], {}, /Unknown option '--prot'/],
    [["3000"], {}, /Unexpected argument '3000'/],
    [["--port"], {}, /--port/],
    [["--port", "0x10"], {}, /--port is "0x10"; it must be a whole number from 0 to 65535/],
    [[], { PORT: "70000" }, /PORT is "70000"/],
    [["--retention", "5"], {}, /--retention is "5"; it must be a time such as/],
    [["--retention", "0s"], {}, /--retention is "0s"/],
    [["--retention-events", "0"], {}, /--retention-events is "0"; it must be a whole number, 1 or more/],
    [["--log-bytes", "32MiB"], {}, /--log-bytes is "32MiB"/],
    [["--publish-token", ""], {}, /--publish-token is empty/],
    [[], { PUBLISH_TOKEN: "" }, /PUBLISH_TOKEN is empty/],
    [[], { JWT_SECRET: "" }, /JWT_SECRET is empty/],
    [["--jwt-audience", "x"], {}, /without a key/],
    [["--jwt-secret", SECRET, "--jwks", "https://a.example"], {}, /both set/],
    [["--cors", "a.example"], {}, /"a.example" in cors.origins is not an origin/],
    [["--redis", "localhost:6379"], {}, /must begin with redis:\/\//],
    [[], { OPEN: "maybe" }, /OPEN is "maybe"/],
    [["--host", "192.0.2.1"], {}, /cannot listen on 192.0.2.1, port 3000: this machine has no such address/],
  ])("%j %j", async (args, env, line) => {
    const [code, { lines, stderr }] = await ended(args, env);
    expect(stderr()).toMatch(line);
    expect(stderr()).toMatch(/^fanwire: [^\n]+ See npx fanwire --help\.\n$/);
    expect([code, lines]).toEqual([2, []]);
  });

  test.each(runtimes)("a port that is taken, on %s", async (runtime) => {
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as { port: number };
    const { child, lines, stderr } = start(runtime, ["--port", String(port)]);
    const [code] = await once(child, "close");
    server.close();
    expect(stderr()).toBe(
      `fanwire: cannot listen on 127.0.0.1, port ${port}: another program uses it; choose another --port. See npx fanwire --help.\n`,
    );
    expect([code, lines]).toEqual([2, []]);
  });
});

test("--help fits on a screen and names every variable; --version is that of the package", async () => {
  const [code, { lines }] = await ended(["--help"]);
  expect([code, lines.length <= 30]).toEqual([0, true]);
  for (const { line } of lines) expect(String(line).length).toBeLessThanOrEqual(100);
  for (const name of ["PORT", "PUBLISH_TOKEN", "JWKS_URL", "CORS_ORIGINS", "REDIS_URL", "DRAIN"])
    expect(lines.some(({ line }) => String(line).includes(` ${name} `))).toBe(true);
  const [, version] = await ended(["--version"]);
  expect(version.lines).toEqual([{ line: "0.1.0" }]);
});
