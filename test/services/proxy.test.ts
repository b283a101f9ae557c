// The documented proxy configurations, run by the proxies themselves.
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect as connectHttp2 } from "node:http2";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createParser } from "eventsource-parser";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { SocketClient } from "../support/clients/socket-client.ts";
import { freePort, type Server, startServer, untilListening } from "../support/servers/server.ts";
import { skipIf } from "../support/skip.ts";
import { findInGuides } from "./guides.ts";

/** Returns the documented configuration of a proxy that begins with `start`, with the addresses of this test. */
function block(language: string, start: string, ...replacements: readonly (readonly [string, string])[]): string {
  let text = findInGuides(new RegExp(`^\`\`\`${language}\\n(${start}[\\s\\S]*?)^\`\`\``, "m"));
  for (const [from, to] of replacements) {
    if (!text.includes(from)) throw new Error(`guides: the ${language} block has no ${from}`);
    text = text.replaceAll(from, to);
  }
  return text;
}

/** Writes a configuration of nginx with these servers. Returns the command that starts it. */
function nginxWith(folder: string, servers: string): string[] {
  writeFileSync(
    join(folder, "nginx.conf"),
    `daemon off; pid ${folder}/pid; error_log stderr; worker_processes 1;
events { worker_connections 512; }
http {
  access_log off;
  client_body_temp_path ${folder}/body; proxy_temp_path ${folder}/proxy;
  fastcgi_temp_path ${folder}/f; uwsgi_temp_path ${folder}/u; scgi_temp_path ${folder}/s;
  ${servers}
}`,
  );
  return ["nginx", "-c", join(folder, "nginx.conf")];
}

const proxies = {
  nginx: {
    version: ["-v"],
    start(folder: string, upstream: string, port: number, port2: number): string[] {
      const location = block("nginx", "location", ["127.0.0.1:3000", upstream]);
      // Without TLS a port of nginx speaks one version of HTTP only.
      const servers = [`127.0.0.1:${port}`, `127.0.0.1:${port2} http2`];
      return nginxWith(folder, servers.map((listen) => `server { listen ${listen}; ${location} }`).join("\n"));
    },
  },
  caddy: {
    version: ["version"],
    start(folder: string, upstream: string, port: number, port2: number): string[] {
      const site = block(
        "caddy",
        "events",
        ["127.0.0.1:3000", upstream],
        ["events.example", `http://:${port}, http://:${port2}`],
      );
      writeFileSync(join(folder, "Caddyfile"), `{\n  admin off\n  servers {\n    protocols h1 h2c\n  }\n}\n${site}`);
      return ["caddy", "run", "--adapter", "caddyfile", "--config", join(folder, "Caddyfile")];
    },
  },
} as const;

const isThere = (name: keyof typeof proxies): boolean => spawnSync(name, proxies[name].version).error === undefined;

describe.each(["nginx", "caddy"] as const)("behind %s", (name) => {
  // In CI a missing proxy fails the test.
  const options = skipIf(process.env.CI !== "true" && !isThere(name), `there is no ${name} on the PATH`);
  const run = (title: string, body: () => Promise<void>): void => test(title, options, body);
  let server: Server;
  let proxy: ChildProcess | undefined;
  let folder: string;
  let base: string;
  let base2: string;

  beforeAll(async () => {
    if (!isThere(name)) return;
    server = await startServer("bun");
    folder = mkdtempSync(join(tmpdir(), `fanwire-${name}-`));
    const [port, port2] = [await freePort(), await freePort()];
    const [program = "", ...args] = proxies[name].start(folder, `127.0.0.1:${server.port}`, port, port2);
    proxy = spawn(program, args, { stdio: "ignore", env: { ...process.env, XDG_DATA_HOME: folder, HOME: folder } });
    base = `http://127.0.0.1:${port}`;
    base2 = `http://127.0.0.1:${port2}`;
    await Promise.all([port, port2].map(untilListening));
    const { stdout, stderr } = spawnSync(name, proxies[name].version, { encoding: "utf8" });
    console.log(`services on ${server.agent} behind ${`${name} ${stdout}${stderr}`.trim().split("\n")[0]}`);
  });
  afterAll(() => {
    // SIGTERM ends a proxy at once. A killed nginx would leave its workers behind.
    proxy?.kill("SIGTERM");
    server?.stop();
    if (folder) rmSync(folder, { recursive: true });
  });

  run("connect: the head of a stream arrives at once, and each event before the next one is published", async () => {
    const broker = await server.createBroker();
    const client = await new SocketClient(base + broker.path("connect"), {
      "accept-encoding": "gzip, br",
    }).untilReady();
    expect(client.headers["content-encoding"]).toBeUndefined();
    for (let n = 0; n < 10; n++) {
      await broker.publish(`event ${n}`);
      await client.until(({ data }) => data.length === n + 1);
    }
    expect(client.data).toEqual(Array.from({ length: 10 }, (_, n) => `event ${n}`));
    client.leave();
  });

  run("connect: a client that leaves is noticed, and resumes without a gap", async () => {
    const broker = await server.createBroker({ heartbeat: 200 });
    const first = await new SocketClient(base + broker.path("connect")).untilReady();
    first.leave();
    await broker.untilState(({ stats }) => stats.clients === 0);
    await broker.publish("missed");
    const second = new SocketClient(base + broker.path("connect"), { "last-event-id": first.lastEventId ?? "" });
    await second.until(({ data }) => data.length === 1);
    expect([second.data, second.control("gap")]).toEqual([["missed"], []]);
    second.leave();
  });

  run("broadcast: events and errors pass through the proxy", async () => {
    const broker = await server.createBroker();
    const client = await new SocketClient(base + broker.path("connect")).untilReady();
    const publish = (token: string): Promise<Response> =>
      fetch(base + broker.path("broadcast"), {
        method: "POST",
        body: "hello",
        headers: { authorization: `Bearer ${token}` },
      });
    expect([(await publish("secret")).status, (await publish("other")).status]).toEqual([200, 401]);
    await client.until(({ data }) => data.length === 1);
    client.leave();
  });

  run("close(): each stream ends with its reason", async () => {
    const broker = await server.createBroker();
    const clients = await Promise.all(
      Array.from({ length: 20 }, () => new SocketClient(base + broker.path("connect")).untilReady()),
    );
    await broker.control("close", { spreadOver: 100 });
    for (const client of clients) {
      await client.untilEnded();
      expect(JSON.parse(client.control("end")[0]?.data ?? "{}")).toEqual({ reason: "closing", reconnect: true });
    }
  });

  run("HTTP/2: one connection carries many more than six streams", async () => {
    const broker = await server.createBroker();
    const session = connectHttp2(base2);
    const seen: string[] = [];
    let ready = 0;
    let wake = (): void => undefined;
    const streams = Array.from({ length: 50 }, () => {
      const stream = session.request({ ":path": broker.path("connect"), accept: "text/event-stream" });
      const parser = createParser({
        onEvent: ({ event, data }) => {
          if (event === "fanwire-ready") ready++;
          else seen.push(data);
          wake();
        },
      });
      stream.setEncoding("utf8").on("data", (text: string) => parser.feed(text));
      return stream;
    });
    const until = async (holds: () => boolean): Promise<void> => {
      while (!holds()) await new Promise<void>((resolve) => (wake = resolve));
    };
    await until(() => ready === 50);
    await broker.publish("hello");
    await until(() => seen.length === 50);
    expect(new Set(seen)).toEqual(new Set(["hello"]));
    for (const stream of streams) stream.close();
    session.destroy();
    await broker.untilState(({ stats }) => stats.clients === 0);
  });
});

test(
  "the documented limits of nginx: streams and requests of one address; an EventSource is told to come back",
  skipIf(process.env.CI !== "true" && !isThere("nginx"), "there is no nginx on the PATH"),
  async () => {
    const server = await startServer("bun");
    const folder = mkdtempSync(join(tmpdir(), "fanwire-limits-"));
    const broker = await server.createBroker();
    const port = await freePort();
    const [connect, broadcast] = [broker.path("connect"), broker.path("broadcast")];
    const servers = block(
      "nginx",
      "limit_",
      ["127.0.0.1:3000", `127.0.0.1:${server.port}`],
      ["listen 80", `listen 127.0.0.1:${port}`],
      ["= /connect", `= ${connect}`],
      ["= /broadcast", `= ${broadcast}`],
    );
    const [program = "", ...args] = nginxWith(folder, servers);
    const nginx = spawn(program, args, { stdio: "ignore" });
    try {
      await untilListening(port);
      const base = `http://127.0.0.1:${port}`;
      const clients = await Promise.all(
        Array.from({ length: 30 }, () => new SocketClient(base + connect).untilReady()),
      );
      const tooMany = await fetch(base + connect, { headers: { accept: "text/event-stream" } });
      expect([tooMany.status, tooMany.headers.get("content-type"), await tooMany.text()]).toEqual([
        200,
        "text/event-stream",
        "retry: 10000\n",
      ]);
      const publish = async (): Promise<number> => {
        const headers = { authorization: "Bearer secret" };
        return (await fetch(base + broadcast, { method: "POST", body: "hello", headers })).status;
      };
      // 50 at once, of which the clients have taken 31, and ten more in each second.
      const statuses: number[] = [];
      while (!statuses.includes(429) && statuses.length < 1_000) statuses.push(await publish());
      expect([statuses[0], statuses.at(-1)]).toEqual([200, 429]);
      const published = statuses.length - 1;
      for (const client of clients) await client.until(({ data }) => data.length === published);
      for (const client of clients) client.leave();
    } finally {
      nginx.kill("SIGTERM");
      server.stop();
      rmSync(folder, { recursive: true });
    }
  },
);
