// The program `npx fanwire` from its source: configurations, grants of tokens, and how it serves and ends. The packed program, also on Bun, is
// tested in test/package/cli.test.ts.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { SignJWT } from "jose";
import { describe, expect, onTestFinished, test } from "vitest";
import { brokerOf } from "../../src/cli/broker.ts";
import { type Configuration, readConfiguration } from "../../src/cli/options.ts";
import type { Broker } from "../../src/index.ts";
import { SocketClient } from "../support/clients/socket-client.ts";

const root = new URL("../../", import.meta.url).pathname;
const SECRET = "a secret that is long enough for HS256";
/** The options for tokens that say how they are checked. Each is nothing without a key. */
const CHECKS = ["jwt-algorithms", "jwt-issuer", "jwt-audience", "jwt-cookie"] as const;
const variableOf = (flag: string): string => flag.toUpperCase().replaceAll("-", "_");

function configure(args: readonly string[], env: Readonly<Record<string, string>> = {}): Configuration {
  const configuration = readConfiguration(args, env);
  if (typeof configuration === "string") throw new Error(`Reading a configuration: it is "${configuration}".`);
  return configuration;
}

describe("configuration", () => {
  test("without options: this machine only, port 3000, the default file, and nobody may publish", () => {
    expect(configure([])).toEqual({
      host: "127.0.0.1",
      port: 3_000,
      publishToken: undefined,
      jwt: undefined,
      corsOrigins: [],
      retention: {},
      logBytes: undefined,
      file: { path: "fanwire.db", isDefault: true },
      redis: undefined,
      open: false,
      drain: 5_000,
    });
  });

  test.each([
    ["5ms", 5],
    ["90s", 90_000],
    ["5m", 300_000],
    ["2h", 7_200_000],
    ["7d", 604_800_000],
  ])("times: %s are %i milliseconds", (text, ms) => {
    const { retention, drain } = configure(["--retention", text, "--drain", text]);
    expect([retention, drain]).toEqual([{ age: ms }, ms]);
  });

  test("a flag wins over its variable, and a variable over the default", () => {
    const env = { HOST: "192.0.2.1", PORT: "1", PUBLISH_TOKEN: "variable", CORS_ORIGINS: "https://a.example" };
    expect(configure([], env)).toMatchObject({
      host: "192.0.2.1",
      port: 1,
      publishToken: "variable",
      corsOrigins: ["https://a.example"],
    });
    const flags = ["--host", "192.0.2.2", "--port", "2", "--publish-token", "flag", "--cors", "https://b.example"];
    expect(configure(flags, env)).toMatchObject({
      host: "192.0.2.2",
      port: 2,
      publishToken: "flag",
      corsOrigins: ["https://b.example"],
    });
  });

  test("lists: spaces and empty items do not count", () => {
    const args = ["--cors", " https://a.example , ,https://b.example", "--jwks", "https://c.example/keys"];
    const { corsOrigins, jwt } = configure([...args, "--jwt-algorithms", "ES256, RS256,"]);
    expect([corsOrigins, jwt?.algorithms]).toEqual([
      ["https://a.example", "https://b.example"],
      ["ES256", "RS256"],
    ]);
  });

  test.each(["PUBLISH_TOKEN", "JWT_SECRET", "JWKS_URL", ...CHECKS.map(variableOf)])(
    "%s: an empty one is refused, because it would leave everything open",
    (name) => {
      expect(() => configure([], { [name]: "" })).toThrow(`${name} is empty`);
    },
  );

  test("any other variable that is empty counts as not set", () => {
    const names = ["HOST", "PORT", "CORS_ORIGINS", "RETENTION", "FANWIRE_FILE", "REDIS_URL", "MEMORY", "OPEN", "DRAIN"];
    expect(configure([], Object.fromEntries(names.map((name) => [name, ""])))).toEqual(configure([]));
  });

  test.each(CHECKS)("--%s without a key is refused, because everybody could read", (flag) => {
    expect(() => configure([`--${flag}`, "x"])).toThrow("without a key");
  });

  test("events have one place", () => {
    for (const other of [["--memory"], ["--redis", "redis://127.0.0.1"]])
      expect(() => configure(["--file", "a.db", ...other])).toThrow("one place");
    expect(configure(["--memory"])).toMatchObject({ file: undefined, redis: undefined });
    const redis = { url: "redis://127.0.0.1", prefix: "fanwire" };
    expect(configure(["--redis", redis.url])).toMatchObject({ file: undefined, redis });
    expect(configure(["--redis", redis.url, "--redis-prefix", "shop"]).redis?.prefix).toBe("shop");
  });
});

describe("tokens", () => {
  async function open(...args: readonly string[]): Promise<Broker> {
    const broker = await brokerOf(configure(["--memory", "--jwt-secret", SECRET, ...args]), undefined);
    onTestFinished(() => broker.close({ force: true }));
    return broker;
  }
  const tokenOf = (claims: Readonly<Record<string, unknown>>): Promise<string> =>
    new SignJWT({ ...claims })
      .setProtectedHeader({ alg: "HS256" })
      .setExpirationTime("5m")
      .sign(new TextEncoder().encode(SECRET));

  /** Returns the status of an answer, and ends the answer. */
  async function statusOf(answer: Promise<Response>): Promise<number> {
    const { status, body } = await answer;
    await body?.cancel();
    return status;
  }
  async function connect(broker: Broker, claims: Readonly<Record<string, unknown>>, query = ""): Promise<number> {
    const headers = { authorization: `Bearer ${await tokenOf(claims)}` };
    return statusOf(broker.fetch(new Request(`http://fanwire.test/connect${query}`, { headers })));
  }
  async function publish(broker: Broker, claims: Readonly<Record<string, unknown>>, query = ""): Promise<number> {
    const headers = { authorization: `Bearer ${await tokenOf(claims)}` };
    const init = { method: "POST", body: "x", headers };
    return statusOf(broker.fetch(new Request(`http://fanwire.test/broadcast${query}`, init)));
  }

  test.each([
    [{ channels: ["news"] }, [200, 403, 200]],
    [{ channels: "news" }, [200, 403, 200]],
    [{ channels: "*" }, [200, 200, 200]],
    [{}, [403, 403, 200]],
    [{ publish: "*" }, [403, 403, 200]],
  ])("channels: with %j a client may read what it lists", async (claims, statuses) => {
    const broker = await open();
    const queries = ["?channel=news", "?channel=other", ""];
    expect(await Promise.all(queries.map((query) => connect(broker, claims, query)))).toEqual(statuses);
  });

  test.each([
    [{ publish: ["news"] }, [200, 403, 403, 403]],
    [{ publish: "news" }, [200, 403, 403, 403]],
    // Nobody has the id, so that what is allowed is 404.
    [{ publish: "*" }, [200, 200, 404, 200]],
    [{}, [403, 403, 403, 403]],
    [{ channels: ["news"] }, [403, 403, 403, 403]],
    [{ channels: "*" }, [403, 403, 403, 403]],
  ])("publish: with %j a program may publish to what it lists", async (claims, statuses) => {
    const broker = await open();
    const queries = ["?channel=news", "?channel=other", "?id=ada", ""];
    expect(await Promise.all(queries.map((query) => publish(broker, claims, query)))).toEqual(statuses);
  });

  test.each([
    ["--jwt-issuer", "iss"],
    ["--jwt-audience", "aud"],
  ])("%s alone: a token with another one, or without, is refused", async (flag, claim) => {
    const broker = await open(flag, "mine");
    expect([
      await connect(broker, { [claim]: "mine" }),
      await connect(broker, { [claim]: "other" }),
      await connect(broker, {}),
    ]).toEqual([200, 401, 401]);
  });

  test.each([
    [["--jwt-cookie", "session"], "true"],
    [[], null],
  ])("--cors with %j: credentials are allowed if tokens come in a cookie", async (args, allowed) => {
    const broker = await open("--cors", "https://a.example", ...args);
    const headers = { authorization: `Bearer ${await tokenOf({})}`, origin: "https://a.example" };
    const answer = await broker.fetch(new Request("http://fanwire.test/connect", { headers }));
    await answer.body?.cancel();
    expect(answer.headers.get("access-control-allow-origin")).toBe("https://a.example");
    expect(answer.headers.get("access-control-allow-credentials")).toBe(allowed);
  });
});

describe("the program", () => {
  interface Program {
    readonly child: ChildProcess;
    readonly url: string;
    /** The lines that it has printed. */
    readonly lines: readonly Readonly<Record<string, unknown>>[];
  }

  /** Starts the program, and waits until it listens. */
  async function start(...args: readonly string[]): Promise<Program> {
    const child = spawn(process.execPath, ["src/cli/main.ts", "--memory", "--port", "0", ...args], {
      cwd: root,
      env: { PATH: process.env.PATH },
      stdio: ["ignore", "pipe", "inherit"],
    });
    onTestFinished(() => void child.kill("SIGKILL"));
    const lines: Record<string, unknown>[] = [];
    const url = await new Promise<string>((resolve, reject) => {
      createInterface(child.stdout).on("line", (text) => {
        const line = JSON.parse(text) as Record<string, unknown>;
        lines.push(line);
        if (line.event === "listening") resolve(String(line.url));
      });
      child.once("exit", () => reject(new Error(`The program has ended: ${JSON.stringify(lines)}`)));
    });
    return { child, url, lines };
  }

  test("listens on this machine's own address, and has no page unless --open is set", async () => {
    const [closed, open] = await Promise.all([start(), start("--open")]);
    expect(closed.url).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/$/);
    const statuses = async ({ url }: Program): Promise<number[]> =>
      Promise.all(["GET", "POST"].map(async (method) => (await fetch(url, { method })).status));
    expect([await statuses(closed), await statuses(open)]).toEqual([
      [404, 404],
      [200, 404],
    ]);
    expect((await fetch(open.url)).headers.get("content-type")).toBe("text/html; charset=utf-8");
  });

  test("SIGTERM: clients are sent away over --drain, and a second signal ends the process at once", async () => {
    const { child, url, lines } = await start("--drain", "1h");
    const clients = [
      await new SocketClient(`${url}connect`).untilReady(),
      await new SocketClient(`${url}connect`).untilReady(),
    ] as const;
    child.kill("SIGTERM");
    // The first one at once, and the second in half an hour.
    await Promise.race(clients.map((client) => client.untilEnded()));
    const late = await new SocketClient(`${url}connect`).untilEnded();
    expect(late.control("end").map(({ data }) => JSON.parse(data).reason)).toEqual(["closing"]);
    expect(clients.filter(({ ended }) => ended === undefined)).toHaveLength(1);
    expect(lines.at(-1)).toMatchObject({ event: "draining", clients: 2, ms: 3_600_000 });
    const exited = once(child, "exit");
    child.kill("SIGTERM");
    expect(await exited).toEqual([null, "SIGTERM"]);
  });
});
