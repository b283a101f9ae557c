import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect as connectHttp2 } from "node:http2";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createParser } from "eventsource-parser";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { SocketClient } from "../support/clients/socket-client.ts";
import { freePort, listens, type Server, startServer } from "../support/servers/server.ts";
import { skipIf } from "../support/skip.ts";

// The README's configurations, run by the proxies themselves.

const readme = readFileSync(new URL("../../README.md", import.meta.url), "utf8");

/** The README's block for a proxy, with our addresses. */
function block(language: string, ...replacements: readonly (readonly [string, string])[]): string {
  let text = new RegExp(`^\`\`\`${language}\\n([\\s\\S]*?)^\`\`\``, "m").exec(readme)?.[1];
  for (const [from, to] of replacements) {
    if (!text?.includes(from)) throw new Error(`README: the ${language} block has no ${from}`);
    text = text.replace(from, to);
  }
  return text ?? "";
}

const proxies = {
  nginx: {
    version: ["-v"],
    start(folder: string, upstream: string, port: number, port2: number): string[] {
      const location = block("nginx", ["127.0.0.1:3000", upstream]);
      // Without TLS a port of nginx speaks either version.
      writeFileSync(
        join(folder, "nginx.conf"),
        `daemon off; pid ${folder}/pid; error_log stderr; worker_processes 1;
events { worker_connections 512; }
http {
  access_log off;
  client_body_temp_path ${folder}/body; proxy_temp_path ${folder}/proxy;
  fastcgi_temp_path ${folder}/f; uwsgi_temp_path ${folder}/u; scgi_temp_path ${folder}/s;
  server { listen 127.0.0.1:${port}; ${location} }
  server { listen 127.0.0.1:${port2} http2; ${location} }
}`,
      );
      return ["nginx", "-c", join(folder, "nginx.conf")];
    },
  },
  caddy: {
    version: ["version"],
    start(folder: string, upstream: string, port: number, port2: number): string[] {
      const site = block(
        "caddy",
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
  // In CI a missing proxy is a failure.
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
    await Promise.all([port, port2].map(listens));
    const { stdout, stderr } = spawnSync(name, proxies[name].version, { encoding: "utf8" });
    console.log(`services on ${server.agent} behind ${`${name} ${stdout}${stderr}`.trim().split("\n")[0]}`);
  });
  afterAll(() => {
    // Its own way to end at once: killed, nginx would leave its workers behind.
    proxy?.kill("SIGTERM");
    server?.stop();
    if (folder) rmSync(folder, { recursive: true });
  });

  run("a stream's head comes at once, and each event before the next one is published", async () => {
    const stage = await server.stage();
    const client = await new SocketClient(base + stage.path("connect"), { "accept-encoding": "gzip, br" }).ready();
    expect(client.headers["content-encoding"]).toBeUndefined();
    for (let n = 0; n < 10; n++) {
      await stage.publish(`event ${n}`);
      await client.until(({ data }) => data.length === n + 1);
    }
    expect(client.data).toEqual(Array.from({ length: 10 }, (_, n) => `event ${n}`));
    client.leave();
  });

  run("a client that leaves is noticed, and resumes without a gap", async () => {
    const stage = await server.stage({ heartbeat: 200 });
    const first = await new SocketClient(base + stage.path("connect")).ready();
    first.leave();
    await stage.until(({ stats }) => stats.clients === 0);
    await stage.publish("missed");
    const second = new SocketClient(base + stage.path("connect"), { "last-event-id": first.lastEventId ?? "" });
    await second.until(({ data }) => data.length === 1);
    expect([second.data, second.control("gap")]).toEqual([["missed"], []]);
    second.leave();
  });

  run("events come in, and errors go out, through it", async () => {
    const stage = await server.stage();
    const client = await new SocketClient(base + stage.path("connect")).ready();
    const publish = (token: string): Promise<Response> =>
      fetch(base + stage.path("broadcast"), {
        method: "POST",
        body: "hello",
        headers: { authorization: `Bearer ${token}` },
      });
    expect([(await publish("secret")).status, (await publish("other")).status]).toEqual([200, 401]);
    await client.until(({ data }) => data.length === 1);
    client.leave();
  });

  run("close: each stream ends with its reason", async () => {
    const stage = await server.stage();
    const clients = await Promise.all(
      Array.from({ length: 20 }, () => new SocketClient(base + stage.path("connect")).ready()),
    );
    await stage.tell("close", { spreadOver: 100 });
    for (const client of clients) {
      await client.end();
      expect(JSON.parse(client.control("end")[0]?.data ?? "{}")).toEqual({ reason: "closing", reconnect: true });
    }
  });

  run("HTTP/2: many more than six streams on one connection", async () => {
    const stage = await server.stage();
    const session = connectHttp2(base2);
    const seen: string[] = [];
    let ready = 0;
    let wake = (): void => undefined;
    const streams = Array.from({ length: 50 }, () => {
      const stream = session.request({ ":path": stage.path("connect"), accept: "text/event-stream" });
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
    await stage.publish("hello");
    await until(() => seen.length === 50);
    expect(new Set(seen)).toEqual(new Set(["hello"]));
    for (const stream of streams) stream.close();
    session.destroy();
    await stage.until(({ stats }) => stats.clients === 0);
  });
});
